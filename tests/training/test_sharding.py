"""Where arrays lie on the mesh, by default and by rule, and the messages where they cannot."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_network
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from test_step import assert_same, place

from mtl_face.config import BackboneConfig, OptimizerConfig
from mtl_face.errors import ConfigError
from mtl_face.training import sharding, state, step
from mtl_face.training.optimizer import inverse_sqrt, make_optimizer


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


HIDDEN = "network/hidden/kernel"

SGD = optax.sgd(0.05, momentum=0.9)

ADAMW = make_optimizer(
    OptimizerConfig(weight_decay=0.1, beta1=0.9, beta2=0.99, epsilon=1e-2, gradient_clip=1.0),
    dict.fromkeys(("backbone", "rest"), inverse_sqrt(1e-2, warmup_steps=3)),
    backbone=BackboneConfig(),
)


@functools.cache
def abstract(optimizer=ADAMW):
    return jax.eval_shape(
        tiny_network.initial(tiny_network.TinyNetwork(), optimizer, {"va": jnp.zeros(())}),
        jnp.uint32(0),
    )


def split(texts, parts=2, optimizer=ADAMW):
    """Axis by name, of what is split."""
    mesh = sharding.make_mesh(fsdp=parts, devices=jax.devices()[:parts])
    placements = jax.tree.leaves(sharding.state_shardings(mesh, abstract(optimizer), texts))
    names = sharding.array_names(abstract(optimizer))
    return sorted(
        {
            (name, list(placement.spec).index("fsdp"))
            for name, placement in zip(names, placements, strict=True)
            if name is not None and "fsdp" in placement.spec
        }
    )


def test_names():
    names = [name for name in sharding.array_names(abstract()) if name is not None]
    assert f"params/{HIDDEN}" in names
    # The first and the second moment have one name: they lie alike.
    assert names.count(f"moments/{HIDDEN}") == 2
    assert "batch_stats/norm/mean" in names
    assert not any(name.startswith("opt_state") for name in names)
    assert None in sharding.array_names(abstract())  # the step, the key, counts, the temperature


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (sharding.DEFAULT_RULES, [(f"moments/{HIDDEN}", 0), (f"params/{HIDDEN}", 0)]),
        (["moments/=large"], [(f"moments/{HIDDEN}", 0)]),
        (["params/=whole", ".=large"], [(f"moments/{HIDDEN}", 0)]),
        ([".=whole"], []),
        (["hidden/kernel=1"], [(f"moments/{HIDDEN}", 1), (f"params/{HIDDEN}", 1)]),
        (["^params/.*hidden/(kernel|bias)$=-1"], [("params/network/hidden/bias", 0),
                                                   (f"params/{HIDDEN}", 1)]),
        (["backbone/kernel=large"], []),  # not large
    ],
)  # fmt: skip
def test_first_rule_that_fits_decides(texts, expected):
    assert split(texts) == expected
    assert split(texts, parts=1) == []


@pytest.mark.parametrize(
    ("texts", "problem", "remedy"),
    [
        (["hiden/kernel=large"], "fits no array", f"params/{HIDDEN}, moments/{HIDDEN}"),
        (["params/network/head_au/kernal=0"], "fits no array", "params/network/head_au/kernel"),
        (["kernel"], "no rule", "PATTERN=large"),
        (["kernel=big"], "no rule", "PATTERN=whole"),
        (["ker(nel=large"], "no regular expression", None),
        (["head_va=1"], "without that axis", "bias=whole"),
        (["backbone/kernel=2"], "do not divide the axis 2 of .*backbone/kernel", "another axis"),
    ],
)
def test_mistakes(texts, problem, remedy):
    with pytest.raises(ConfigError, match=problem) as raised:
        split([".=large", *texts] if "axis" not in problem else texts)
    assert "mesh.rules" in str(raised.value)
    assert remedy is None or remedy in raised.value.remedy


def test_a_rule_is_checked_without_fsdp_too():
    with pytest.raises(ConfigError, match="fits no array"):
        split(["decoder=large"], parts=1)


@functools.cache
def three_steps(data, fsdp, texts):
    network = tiny_network.TinyNetwork()
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, devices=jax.devices()[: data * fsdp])
    like = state.abstract_state(tiny_network.initial(network, SGD), mesh, texts)
    made = made_once()
    current = jax.tree.map(
        lambda leaf, wanted: jax.device_put(jnp.copy(leaf), wanted.sharding), made, like
    )
    train_step = step.make_train_step(
        network,
        SGD,
        mesh,
        jax.tree.map(lambda leaf: leaf.sharding, like),
        augment=tiny_network.augment_and_mix,
        objective=tiny_network.objective,
    )
    losses = []
    for index in range(3):
        current, numbers = train_step(current, place(tiny_network.batch(index), mesh))
        losses.append(float(numbers["loss"]))
    return losses, current


@functools.cache
def made_once():
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    return tiny_network.make_state(tiny_network.TinyNetwork(), SGD, mesh)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "of_params", "of_moments"),
    [
        (("params/=whole", "moments/=large"), 1, 4),
        (("hidden/kernel=1", ".=large"), 4, 4),
    ],
)
def test_rules_move_arrays_and_change_no_value(texts, of_params, of_moments):
    losses, last = three_steps(2, 4, texts)
    expected_losses, expected = three_steps(1, 1, sharding.DEFAULT_RULES)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert_same(jax.device_get(last.params), jax.device_get(expected.params), rtol=1e-4, atol=1e-5)
    kernel = last.params["network"]["hidden"]["kernel"]
    moment = last.opt_state[0].trace["network"]["hidden"]["kernel"]
    assert kernel.size // kernel.addressable_shards[0].data.size == of_params
    assert moment.size // moment.addressable_shards[0].data.size == of_moments
