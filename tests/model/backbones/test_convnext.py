"""ConvNeXt: shapes, blocks and frozen ones; `tests/weights` compares with PyTorch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import changed

from mtl_face.config import ModelConfig
from mtl_face.config.schema import ConvNextConfig
from mtl_face.model import backbones
from mtl_face.weights.exported import specification
from mtl_face.weights.families import convnext_in_file

SMALL = ConvNextConfig(depths=(1, 2), widths=(4, 6))
IMAGE = np.random.default_rng(1).normal(size=(2, 16, 8, 3)).astype(np.float32)


def settings_of(convnext=SMALL, **changes):
    changes = {"convolution": "xla", **changes}
    return changed(ModelConfig(), kind="convnext", convnext=convnext, **changes)


def make(convnext=SMALL, **changes):
    return backbones.make(settings_of(convnext, **changes), 1, name=None)


@pytest.mark.parametrize("changes", [{}, {"global_response_norm": True, "final_norm": True}])
def test_arrays_and_blocks(abstract_variables, changes):
    """The importer expects the network's names and shapes; each array has its block."""
    own = dataclasses.replace(SMALL, **changes)
    tree = specification(abstract_variables(make(own), IMAGE, train=False)["params"])
    assert {name: shape for name, (shape, _) in tree.items()} == convnext_in_file.shapes(own)
    settings = settings_of(own).backbone
    numbers = {
        name.split("/")[0]: backbones.block_number(settings, tuple(name.split("/")))
        for name in tree
    }
    expected = {"stem": 0, "stem_norm": 0, "stage1_block1": 1, "stage2_block1": 2}
    expected |= {"stage2_downsample": 2, "stage2_downsample_norm": 2, "stage2_block2": 3}
    assert numbers == expected | ({"norm": 3} if own.final_norm else {})
    for part in ("stage1_downsample_x", "stage3_block1", "head"):
        with pytest.raises(ValueError, match="is not a part of this backbone"):
            backbones.block_number(settings, (part,))


def test_the_published_size():
    """ConvNeXt-T has 28.6 million parameters; behind the map are a norm and a classifier."""
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    network = make(ConvNextConfig())
    out, variables = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=False), image
    )
    assert out.shape == (1, 7, 7, 768)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables)) + 768 * 1000 + 1000 + 2 * 768
    assert count == 28_589_128


def test_forms_and_frozen_blocks(random_variables):
    """On a CPU depthwise convolutions are sums: the same; frozen blocks have no gradient."""
    params = random_variables(make(), IMAGE, train=False)["params"]
    whole = make().apply({"params": params}, IMAGE, train=False)
    apply = jax.jit(make(convolution="matmul").apply, static_argnames="train")
    sums = apply({"params": params}, IMAGE, train=False)
    np.testing.assert_allclose(sums, whole, atol=1e-5)
    network = make(frozen_stages=1)
    loss = lambda p: jnp.sum(network.apply({"params": p}, IMAGE, train=True) ** 2)  # noqa: E731
    found = jax.tree.map(lambda leaf: bool(jnp.any(leaf)), jax.jit(jax.grad(loss))(params))
    for part, leaves in found.items():
        number = backbones.block_number(settings_of().backbone, (part,))
        assert any(jax.tree.leaves(leaves)) == (number > 1), part


def test_widths_and_depths_that_do_not_fit():
    with pytest.raises(ValueError, match="zip"):
        jax.eval_shape(
            lambda: make(ConvNextConfig(widths=(4, 6))).init(jax.random.key(0), IMAGE, train=False)
        )
