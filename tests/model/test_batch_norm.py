"""Statistics of groups against PyTorch, one group at a time; modes, dtypes and devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from mtl_face.model.batch_norm import MODES, BatchNorm, make_batch_norm

MOMENTUM, EPSILON = 0.8, 1e-3
BATCH, SIDE, CHANNELS = 8, 3, 5


@pytest.fixture(scope="module")
def map_bhwc():
    rng = np.random.default_rng(0)
    # Examples differ in scale and place, so that groups differ in their statistics.
    scale = rng.uniform(0.2, 2, (BATCH, 1, 1, 1))
    place = rng.normal(0, 1, (BATCH, 1, 1, CHANNELS))
    values = scale * rng.normal(0, 1, (BATCH, SIDE, SIDE, CHANNELS)) + place
    return jnp.asarray(values, jnp.float32)


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(1)

    def draw(low, high):
        return jnp.asarray(rng.uniform(low, high, CHANNELS), jnp.float32)

    return {
        "params": {"scale": draw(0.5, 1.5), "bias": draw(-1, 1)},
        "batch_stats": {"mean": draw(-1, 1), "var": draw(0.5, 1.5)},
    }


def apply(module, variables, map_BHWC):
    """(map, statistics, gradients of the sum of cubes by parameters and map)."""

    def objective(params, map_BHWC):
        out, updated = module.apply(
            variables | {"params": params}, map_BHWC, mutable=["batch_stats"]
        )
        return jnp.sum(out**3), (out, updated["batch_stats"])

    gradients, (out, updated) = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))(
        variables["params"], map_BHWC
    )
    return out, updated, gradients


def by_torch(variables, map_BHWC, groups):
    """The same in float64, group after group."""

    def tensor(values):
        return torch.tensor(np.asarray(values, np.float64))

    scale_C, bias_C = (tensor(variables["params"][n]).requires_grad_() for n in ("scale", "bias"))
    map_BCHW = tensor(map_BHWC).permute(0, 3, 1, 2).requires_grad_()
    outs, means, variances = [], [], []
    for group in map_BCHW.chunk(groups):
        outs.append(functional.batch_norm(group, None, None, scale_C, bias_C, True, 0.0, EPSILON))
        means.append(group.mean((0, 2, 3)))
        variances.append(group.var((0, 2, 3), correction=0))
    out_BCHW = torch.cat(outs)
    (out_BCHW**3).sum().backward()
    statistics = {
        name: MOMENTUM * tensor(variables["batch_stats"][name])
        + (1 - MOMENTUM) * torch.stack(values).mean(0).detach()
        for name, values in (("mean", means), ("var", variances))
    }
    gradients = ({"scale": scale_C.grad, "bias": bias_C.grad}, map_BCHW.grad.permute(0, 2, 3, 1))
    return out_BCHW.detach().permute(0, 2, 3, 1), statistics, gradients


def grouped(groups, dtype=jnp.float32):
    return BatchNorm(groups, momentum=MOMENTUM, epsilon=EPSILON, dtype=dtype)


@pytest.mark.parametrize("groups", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_groups_equal_torch_on_each_group(groups, variables, map_bhwc):
    found = apply(grouped(groups), variables, map_bhwc)
    expected = by_torch(variables, map_bhwc, groups)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        largest = np.abs(other.numpy()).max()
        np.testing.assert_allclose(leaf, other.numpy(), rtol=1e-4, atol=1e-5 * largest)


def test_one_group_is_the_whole_batch_of_flax(variables, map_bhwc):
    plain = nn.BatchNorm(use_running_average=False, momentum=MOMENTUM, epsilon=EPSILON)
    found, expected = (apply(m, variables, map_bhwc) for m in (grouped(1), plain))
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-5)


def test_eight_devices_compute_what_one_does(variables, map_bhwc):
    devices = jax.devices()[:8]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    forward = jax.jit(lambda v, x: grouped(8).apply(v, x, mutable=["batch_stats"]))
    on_one = forward(variables, map_bhwc)
    on_eight = forward(variables, jax.device_put(map_bhwc, split))
    assert len(on_eight[0].addressable_shards) == 8
    for leaf, other in zip(jax.tree.leaves(on_eight), jax.tree.leaves(on_one), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)


def test_half_precision_keeps_float32_statistics(variables, map_bhwc):
    half_BHWC = map_bhwc.astype(jnp.bfloat16)
    out, updated = grouped(2, jnp.bfloat16).apply(variables, half_BHWC, mutable=["batch_stats"])
    exact, statistics = grouped(2).apply(
        variables, half_BHWC.astype(jnp.float32), mutable=["batch_stats"]
    )
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=0.01, atol=0.01)
    for name, leaf in updated["batch_stats"].items():
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, statistics["batch_stats"][name], rtol=1e-5, atol=1e-6)


def make(mode, *, train, groups=4):
    return make_batch_norm(
        mode, train=train, groups=groups, momentum=MOMENTUM, epsilon=EPSILON, dtype=jnp.float32
    )()


@pytest.mark.parametrize("train", [False, True])
def test_variables_are_the_same_in_every_mode(train, map_bhwc):
    made = [make(mode, train=train).init(jax.random.key(0), map_bhwc) for mode in MODES]
    for other in made[1:]:
        assert jax.tree.structure(other) == jax.tree.structure(made[0])
        for leaf, expected in zip(jax.tree.leaves(other), jax.tree.leaves(made[0]), strict=True):
            assert leaf.dtype == expected.dtype
            np.testing.assert_array_equal(leaf, expected)


def test_evaluation_is_the_same_in_every_mode(variables, map_bhwc):
    outs = [make(mode, train=False).apply(variables, map_bhwc) for mode in MODES]
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


def test_frozen_trains_as_it_evaluates(variables, map_bhwc):
    out, updated, (gradients, _) = apply(make("frozen", train=True), variables, map_bhwc)
    evaluated = make("frozen", train=False).apply(variables, map_bhwc)
    np.testing.assert_allclose(out, evaluated, rtol=1e-5, atol=1e-6)
    for name, leaf in updated.items():
        np.testing.assert_array_equal(leaf, variables["batch_stats"][name])
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(gradients))


def test_what_does_not_fit_is_named(variables, map_bhwc):
    with pytest.raises(ValueError, match="batch of 8 is not a multiple of 3 groups"):
        grouped(3).apply(variables, map_bhwc, mutable=["batch_stats"])
    with pytest.raises(ValueError, match="'synced' is not one of batch, local, frozen"):
        make("synced", train=True)
