"""Gradients in float32 of a network in bfloat16: what they are, and that nothing else changes."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mtl_face.training import sharding, wide_gradients


class Network(nn.Module):
    """Every kind of convolution and product that the networks have."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image_BHWC):
        value = nn.Conv(8, (7, 7), (2, 2), ((3, 3), (3, 3)), use_bias=False, dtype=self.dtype)(
            image_BHWC
        )
        value = nn.Conv(8, (3, 3), (2, 2), ((1, 1), (1, 1)), dtype=self.dtype)(nn.relu(value))
        value = nn.Conv(16, (1, 1), 2, "VALID", dtype=self.dtype)(nn.relu(value))
        value = nn.Conv(16, (3, 3), dtype=self.dtype)(nn.relu(value))
        value = nn.Conv(16, (5, 5), 2, feature_group_count=16, dtype=self.dtype)(value)
        value = nn.Conv(32, (2, 2), feature_group_count=4, dtype=self.dtype)(value)
        value = nn.relu(value).reshape(len(value), -1, 32)
        value = nn.Dense(12, dtype=self.dtype)(value)
        return nn.Dense(3, dtype=jnp.promote_types(self.dtype, jnp.float32))(value)


IMAGE = np.random.default_rng(0).standard_normal((16, 21, 21, 3)).astype(np.float32)


def loss_and_params(dtype, *, wide):
    network = Network(dtype)
    random = np.random.default_rng(1)
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), IMAGE))
    params = jax.tree.map(
        lambda leaf: (0.2 * random.standard_normal(leaf.shape)).astype(np.float32), like
    )

    def loss(params):
        context = nn.intercept_methods(wide_gradients.intercept)
        with context if wide else contextlib.nullcontext():
            outputs = network.apply(params, IMAGE)
        return jnp.mean(jnp.square(outputs.astype(jnp.float32)))

    return loss, params


def traced(dtype, *, wide):
    loss, params = loss_and_params(dtype, wide=wide)
    return jax.make_jaxpr(jax.grad(loss))(params)


def gradient(dtype, *, wide):
    loss, params = loss_and_params(dtype, wide=wide)
    return jax.device_get(jax.jit(jax.grad(loss))(params))


def relative(found, expected):
    return [
        float(np.linalg.norm(a - b) / np.linalg.norm(b))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    ]


def test_a_float32_network_is_left_alone():
    plain, wide = (str(traced(jnp.float32, wide=wide)) for wide in (False, True))
    assert plain == wide


def test_float16_agrees_with_float32():
    """Of the narrow types the finer one: a wrong kernel gradient would be off by its own size."""
    found, expected = gradient(jnp.float16, wide=True), gradient(jnp.float32, wide=False)
    assert max(relative(found, expected)) < 5e-3
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("wide", [True, False])
def test_sums_over_examples_come_out_in_float32(wide):
    """Of each kernel and bias, in the traced gradient: there the devices' shares are summed.

    The values would not tell on a CPU, whose compiler computes bfloat16 in float32 anyway.
    """
    _, params = loss_and_params(jnp.bfloat16, wide=wide)
    shapes = {leaf.shape for leaf in jax.tree.leaves(params)}
    kinds = {"dot_general", "conv_general_dilated", "reduce_sum"}
    types = {
        (equation.primitive.name, out.aval.dtype.name)
        for equation in traced(jnp.bfloat16, wide=wide).jaxpr.eqns
        for out in equation.outvars
        if equation.primitive.name in kinds and out.aval.shape in shapes - {(3,), (12, 3)}
    }
    expected = {"float32"} if wide else {"bfloat16"}
    kernels = {(kind, name) for kind, name in types if kind != "reduce_sum"}
    assert {name for _, name in kernels} == expected
    assert ("reduce_sum", expected.copy().pop()) in types


@pytest.mark.parametrize("fsdp", [1, 2])
def test_on_gpus_the_sums_of_devices_are_added_up_in_float32(fsdp):
    """What the kernels' gradients are there, computed by this machine's devices."""
    mesh = sharding.make_mesh(fsdp=fsdp)
    _, params = loss_and_params(jnp.float16, wide=True)

    def loss(params, image_BHWC):
        with nn.intercept_methods(functools.partial(wide_gradients.intercept, gpus=mesh)):
            outputs = Network(jnp.float16).apply(params, image_BHWC)
        return jnp.mean(jnp.square(outputs.astype(jnp.float32)))

    image_BHWC = jax.device_put(IMAGE, sharding.by_example(mesh))
    step = jax.jit(jax.grad(loss)).lower(params, image_BHWC).compile()
    found = jax.device_get(step(params, image_BHWC))
    assert max(relative(found, gradient(jnp.float32, wide=False))) < 5e-3
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    reduced = [line for line in step.as_text().splitlines() if " all-reduce(" in line]
    assert reduced
    assert not any("f16[" in line for line in reduced)

    # Where each device sums its own gradients, as with microbatches, nothing is added up here.
    def of_devices(params, image_BHWC):
        return jax.lax.pmean(jax.grad(loss)(params, image_BHWC), mesh.axis_names)

    places = {"mesh": mesh, "in_specs": (P(), P(mesh.axis_names)), "out_specs": P()}
    apart = jax.jit(jax.shard_map(of_devices, check_vma=False, **places))(params, image_BHWC)
    assert max(relative(jax.device_get(apart), found)) < 5e-3


def test_what_has_no_wide_gradient_is_refused():
    network = nn.Conv(4, (3, 3), kernel_dilation=2, dtype=jnp.bfloat16)
    image = jnp.zeros((1, 8, 8, 2))
    params = network.init(jax.random.key(0), image)
    with (
        nn.intercept_methods(wide_gradients.intercept),
        pytest.raises(ValueError, match="only convolutions of images without dilation"),
    ):
        network.apply(params, image)
