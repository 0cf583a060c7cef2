"""Stochastic depth: which branches it leaves out, how often, and how they are scaled."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import changed

from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.config.schema import ConvNextConfig, VitConfig
from mtl_face.model import backbones
from mtl_face.model.stochastic_depth import keep_or_drop, rate_at
from mtl_face.model.transformer import PatchEncoder, TokenDecoder


class Branch(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, branch):
        return keep_or_drop(branch, self.rate)


def test_whole_branches_of_single_examples():
    """Either 0 or the branch over 1 - p; left out as often as the rate says."""
    branch = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 3, 2)), jnp.float32)
    rate = 0.3
    found = Branch(rate).apply({}, branch, rngs={"dropout": jax.random.key(0)})
    kept = np.asarray(jnp.any(found != 0, axis=(1, 2)))
    np.testing.assert_allclose(found[kept], branch[kept] / (1 - rate), rtol=1e-6)
    assert not found[~kept].any()
    error = np.sqrt(rate * (1 - rate) / len(branch))
    assert abs(1 - kept.mean() - rate) < 4 * error
    # So the mean over the draws is the branch.
    np.testing.assert_allclose(kept.mean() / (1 - rate), 1, atol=4 * error / (1 - rate))


def test_rate_0_needs_no_draws():
    branch = jnp.ones((2, 3))
    assert Branch(0.0).apply({}, branch) is branch


def test_the_rate_rises_with_the_depth():
    assert [rate_at(block, 4, 0.2) for block in range(1, 5)] == pytest.approx(
        [0.05, 0.1, 0.15, 0.2]
    )


BACKBONES = (
    BackboneConfig(stage_sizes=(2,), width=4, expansion=2, variant="torchvision"),
    BackboneConfig(kind="vit", vit=VitConfig(patch=4, width=8, depth=2, num_heads=2, mlp_width=8)),
    BackboneConfig(kind="convnext", convnext=ConvNextConfig(depths=(1, 1), widths=(4, 8))),
)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone.kind)
def test_backbones(backbone, abstract_variables):
    """Branches are left out in training; not in prediction, nor of frozen blocks."""
    backbone = dataclasses.replace(backbone, batch_norm="frozen", convolution="xla")
    image_BHWC = jax.random.normal(jax.random.key(0), (32, 8, 8, 3))

    def network(**changes):
        changed = dataclasses.replace(backbone, **changes)
        return backbones.make(dataclasses.replace(ModelConfig(), backbone=changed), 1, name=None)

    # Of random sizes: layer scales begin near 0, where no branch is seen.
    variables = jax.tree.map(
        lambda leaf: np.random.default_rng(leaf.size).uniform(0.1, 1, leaf.shape).astype("f4"),
        abstract_variables(network(), image_BHWC, train=False),
    )

    def outputs(train=True, **changes):
        rngs = {"dropout": jax.random.key(2)} if train and "drop_path" in changes else {}
        apply = jax.jit(functools.partial(network(**changes).apply, train=train))
        return np.asarray(apply(variables, image_BHWC, rngs=rngs))

    whole = outputs()
    np.testing.assert_array_equal(outputs(train=False, drop_path=0.9), whole)
    np.testing.assert_array_equal(outputs(drop_path=0.9, frozen_blocks=2), whole)
    dropped = outputs(drop_path=0.9)
    same = np.isclose(dropped, whole, rtol=1e-4).all(axis=(1, 2, 3))
    assert same.mean() < 0.2
    # Not all examples lose the same branches.
    assert len(np.unique(np.abs(dropped - whole).sum(axis=(1, 2, 3)).round(3))) > 4


def test_encoder_and_decoder(random_variables):
    """Off, nothing changes, whatever the key; on, the layers differ by example in training."""
    settings = changed(
        ModelConfig(), embed_dim=8, num_heads=2, encoder_layers=1, decoder_modules=1, dropout=0.0
    )
    patch_BND = jax.random.normal(jax.random.key(0), (32, 4, 8))
    for module, how in ((PatchEncoder, {"grid": (2, 2)}), (TokenDecoder, {})):
        variables = random_variables(module(settings), patch_BND, train=False, **how)

        def run(drop_path, train, module=module, how=how, variables=variables):
            network = module(dataclasses.replace(settings, drop_path=drop_path))
            rngs = {"dropout": jax.random.key(3)} if drop_path and train else {}
            apply = jax.jit(functools.partial(network.apply, train=train, **how))
            result = apply(variables, patch_BND, rngs=rngs)
            return np.asarray(result[0] if isinstance(result, tuple) else result)

        whole = run(0.0, False)
        np.testing.assert_array_equal(run(0.0, True), whole)
        np.testing.assert_array_equal(run(0.5, False), whole)
        changes = ~np.isclose(run(0.5, True), whole, atol=1e-6).all(axis=(1, 2))
        assert changes.mean() > 0.3
