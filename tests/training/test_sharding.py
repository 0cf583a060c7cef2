"""Where arrays lie on the mesh, and the messages on meshes and batches that do not fit."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mtl_face.errors import ConfigError
from mtl_face.training import sharding


@pytest.mark.parametrize(
    ("data", "fsdp", "shape"), [(-1, 1, (8, 1)), (-1, 4, (2, 4)), (4, 2, (4, 2)), (1, 8, (1, 8))]
)
def test_mesh(data, fsdp, shape):
    mesh = sharding.make_mesh(data=data, fsdp=fsdp)
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.devices.shape == shape
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)


def test_mesh_of_some_devices():
    mesh = sharding.make_mesh(devices=jax.devices()[2:4])
    assert [device.id for device in mesh.devices.flat] == [2, 3]


@pytest.mark.parametrize(("data", "fsdp"), [(-1, 3), (3, 1), (8, 2), (-1, 16), (16, 1)])
def test_mesh_that_does_not_fit(data, fsdp):
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        sharding.make_mesh(data=data, fsdp=fsdp)


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((), P()),
        ((2**13,), P()),  # too small
        ((2**14,), P("fsdp")),
        ((64, 256), P(None, "fsdp")),
        ((256, 64), P("fsdp")),
        ((3, 3, 64, 65), P(None, None, "fsdp")),  # 65 is larger, but does not divide
        ((129, 255), P()),
        ((7, 7, 3, 128), P(None, None, None, "fsdp")),
    ],
)
def test_large_arrays_are_split_along_fsdp(shape, spec):
    mesh = sharding.make_mesh(data=4, fsdp=2)
    placed = sharding.state_shardings(mesh, {"x": leaf(*shape)})["x"]
    assert placed.spec == spec
    assert placed.mesh == mesh
    whole = sharding.state_shardings(sharding.make_mesh(), {"x": leaf(*shape)})["x"]
    assert whole.is_fully_replicated


def test_batch_is_split_over_all_devices():
    for data, fsdp in ((8, 1), (4, 2)):
        mesh = sharding.make_mesh(data=data, fsdp=fsdp)
        array = jax.device_put(jnp.arange(16), sharding.by_example(mesh))
        assert [shard.data.tolist() for shard in array.addressable_shards] == [
            [2 * index, 2 * index + 1] for index in range(8)
        ]


@pytest.mark.parametrize(
    ("batch_size", "even", "remedy"),
    [
        (8, False, None),
        (64, True, None),
        (24, False, None),
        (24, True, "use 16 or 32"),
        (8, True, "use 16"),
        (12, False, "use 8 or 16"),
        (3, False, "use 8"),
    ],
)
def test_batches_that_split(batch_size, even, remedy):
    mesh = sharding.make_mesh(data=4, fsdp=2)
    if remedy is None:
        sharding.check_batch(batch_size, mesh, name="some.field", even=even)
        return
    with pytest.raises(ConfigError) as raised:
        sharding.check_batch(batch_size, mesh, name="some.field", even=even)
    assert raised.value.problem.startswith(f"some.field {batch_size} does not split over 8 devices")
    assert raised.value.remedy == remedy
