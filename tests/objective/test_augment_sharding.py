"""Augmentation and MixUp over eight devices: the same numbers, and no traffic between devices."""

import functools
import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mtl_face.config import AugmentationConfig
from mtl_face.objective import augment, mixup, resample

BATCH, STORED, SIZE = 32, 16, 24
COLLECTIVE = re.compile(r"(all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)")


def make_inputs():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (BATCH, STORED, STORED, 3), dtype=np.uint8)
    targets = {
        "va": rng.uniform(-1, 1, (BATCH, 2)).astype(np.float32),
        "au": rng.integers(0, 2, (BATCH, 12)).astype(np.float32),
        "expr": np.eye(8, dtype=np.float32)[rng.integers(0, 8, BATCH)],
    }
    weights = {
        "va": rng.integers(0, 2, BATCH).astype(np.float32),
        "au": rng.integers(0, 2, (BATCH, 12)).astype(np.float32),
        "expr": rng.integers(0, 2, BATCH).astype(np.float32),
    }
    return image, targets, weights


def augment_and_mix(key, image, targets, weights, *, method):
    geometry_key, mixup_key = jax.random.split(key)
    transform = augment.draw_transforms(
        geometry_key, image.shape[0], AugmentationConfig(), stored_size=STORED, input_size=SIZE
    )
    image = resample.resample(image, transform, input_size=SIZE, method=method)
    return mixup.mixup(mixup_key, image, targets, weights, alpha=0.4)


@pytest.mark.parametrize("method", ["gather", "separable"])
def test_one_and_eight_devices(method):
    step = functools.partial(augment_and_mix, method=method)
    key, inputs = jax.random.key(11), make_inputs()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())
    sharded = jax.jit(
        step, in_shardings=(replicated, by_example, by_example, by_example),
        out_shardings=by_example,
    )  # fmt: skip
    compiled = sharded.lower(key, *inputs).compile()
    assert COLLECTIVE.findall(compiled.as_text()) == []

    on_eight = sharded(key, *inputs)
    on_one = jax.jit(step)(key, *inputs)
    assert len(on_eight[0].sharding.device_set) == 8
    assert len(on_one[0].sharding.device_set) == 1
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-3), on_eight[0], on_one[0]
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), on_eight[1:], on_one[1:]
    )


def test_collectives_would_be_found():
    # An odd number of examples per device parts pairs, so that this traffic must show.
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    inputs = jax.tree.map(lambda value: value[:24], make_inputs())
    step = jax.jit(
        functools.partial(augment_and_mix, method="gather"),
        in_shardings=(NamedSharding(mesh, PartitionSpec()), by_example, by_example, by_example),
        out_shardings=by_example,
    )
    assert COLLECTIVE.search(step.lower(jax.random.key(0), *inputs).compile().as_text())
