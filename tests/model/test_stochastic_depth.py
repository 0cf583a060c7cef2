"""Stochastic depth: which branches it leaves out, how often, and how they are scaled."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import changed, resnet

from mtl_face.config import ModelConfig
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


def test_residual_blocks():
    """With nearly all branches left out, a block is its shortcut; frozen ones keep theirs."""
    image_BHWC = jax.random.normal(jax.random.key(0), (64, 8, 8, 3))
    plain = resnet((2,), 4, 2, "torchvision", batch_norm="frozen")
    variables = plain.init(jax.random.key(1), image_BHWC, train=False)

    def outputs(train=True, **changes):
        network = resnet((2,), 4, 2, "torchvision", batch_norm="frozen", **changes)
        how = {"rngs": {"dropout": jax.random.key(2)}} if train and "drop_path" in changes else {}
        return np.asarray(network.apply(variables, image_BHWC, train=train, **how))

    whole = outputs()
    dropped = outputs(drop_path=0.9)
    np.testing.assert_array_equal(outputs(train=False, drop_path=0.9), outputs(train=False))
    same = np.isclose(dropped, whole, atol=1e-6).all(axis=(1, 2, 3))
    assert same.mean() < 0.2
    np.testing.assert_array_equal(outputs(drop_path=0.9, frozen_blocks=2), whole)


def test_encoder_and_decoder():
    """Off, nothing changes, whatever the key; on, the layers differ by example in training."""
    settings = changed(
        ModelConfig(), embed_dim=8, num_heads=2, encoder_layers=1, decoder_modules=1, dropout=0.0
    )
    patch_BND = jax.random.normal(jax.random.key(0), (32, 4, 8))
    for module, how in ((PatchEncoder, {"grid": (2, 2)}), (TokenDecoder, {})):
        variables = module(settings).init(jax.random.key(1), patch_BND, train=False, **how)

        def run(drop_path, train, module=module, how=how, variables=variables):
            network = module(dataclasses.replace(settings, drop_path=drop_path))
            rngs = {"dropout": jax.random.key(3)} if drop_path and train else {}
            result = network.apply(variables, patch_BND, train=train, rngs=rngs, **how)
            return np.asarray(result[0] if isinstance(result, tuple) else result)

        np.testing.assert_array_equal(run(0.0, True), run(0.0, False))
        np.testing.assert_array_equal(run(0.5, False), run(0.0, False))
        changes = ~np.isclose(run(0.5, True), run(0.0, True), atol=1e-6).all(axis=(1, 2))
        assert changes.mean() > 0.3
