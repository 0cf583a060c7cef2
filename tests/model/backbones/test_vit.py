"""Vision transformers: shapes, frozen blocks and codes; `tests/weights` compares with PyTorch."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import changed

from mtl_face.config import ModelConfig
from mtl_face.config.schema import VitConfig
from mtl_face.model import backbones
from mtl_face.model.backbones import vit as vit_module
from mtl_face.weights.exported import specification
from mtl_face.weights.families import vit_in_file

SMALL = VitConfig(patch=4, width=8, depth=3, num_heads=2, mlp_width=12)
IMAGE = np.random.default_rng(1).normal(size=(2, 8, 12, 3)).astype(np.float32)


def settings_of(vit=SMALL, **changes):
    return changed(ModelConfig(), kind="vit", vit=vit, **changes)


def make(vit=SMALL, **changes):
    return backbones.make(settings_of(vit, **changes), 1, name=None)


FORMS = (
    {},
    {"class_token": False, "positions": "sincos", "final_norm": False, "pre_norm": True},
    {"registers": 2, "positions": "rotary", "layer_scale": True, "qkv_bias": "no_key"},
    {"gated_mlp": True, "qkv_bias": "none"},
)


@pytest.mark.parametrize("changes", FORMS)
def test_arrays_and_blocks(abstract_variables, changes):
    """The importer expects the network's names and shapes; each array has its block."""
    vit = dataclasses.replace(SMALL, **changes)
    tree = specification(abstract_variables(make(vit), IMAGE, train=False)["params"])
    assert {name: shape for name, (shape, _) in tree.items()} == vit_in_file.shapes(vit, 6)
    settings = settings_of(vit).backbone
    for name in tree:
        first = name.split("/")[0]
        number = backbones.block_number(settings, tuple(name.split("/")))
        expected = {"norm": 3}.get(first, int(first[5:]) if first.startswith("block") else 0)
        assert number == expected, name
    assert settings.num_blocks == 3
    for part in ("block4", "head"):
        with pytest.raises(ValueError, match="is not a part of this backbone"):
            backbones.block_number(settings, (part,))


def test_the_published_size(abstract_variables):
    """ViT-B/16 without its classifier: 85,798,656 parameters (Dosovitskiy et al. 2021, 86M)."""
    network = make(VitConfig())
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    out, variables = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=False), image
    )
    assert out.shape == (1, 14, 14, 768)
    # The position of the class token is part of the class token: 768 fewer than in print.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 85_798_656 - 768


@pytest.fixture(scope="module")
def params(random_variables):
    return random_variables(make(), IMAGE, train=False)["params"]


def test_frozen_blocks_have_no_gradient(params):
    for frozen in (1, 3):
        network = make(frozen_blocks=frozen)
        loss = lambda p, n=network: jnp.sum(n.apply({"params": p}, IMAGE, train=True) ** 2)  # noqa: E731
        found = jax.tree.map(lambda leaf: bool(jnp.any(leaf)), jax.jit(jax.grad(loss))(params))
        for part, leaves in found.items():
            number = backbones.block_number(settings_of().backbone, (part,))
            assert any(jax.tree.leaves(leaves)) == (number > frozen), (part, frozen)


def test_the_forms_of_all_platforms_are_equal(params):
    """That of a CPU, with transposed heads and flat products, and XLA's: values and gradients."""

    def found(convolution):
        network = make(convolution=convolution)
        loss = lambda p: jnp.sum(network.apply({"params": p}, IMAGE, train=True) ** 2)  # noqa: E731
        traced = jax.jit(jax.value_and_grad(loss)).trace(params)
        return str(traced.jaxpr), traced.lower().compile()(params)

    (of_cpu, got), (of_others, expected) = found("matmul"), found("xla")
    assert of_cpu != of_others
    jax.tree.map(
        lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-4), got, expected
    )


def test_memory_and_precision(params):
    """Rematerialised, the same; in bfloat16, nearly, with a float32 residual stream."""
    whole = make().apply({"params": params}, IMAGE, train=False)
    again = make(remat="blocks").apply({"params": params}, IMAGE, train=False)
    np.testing.assert_allclose(again, whole, atol=1e-6)
    half = make(compute_dtype="bfloat16").apply({"params": params}, IMAGE, train=False)
    assert half.dtype == jnp.bfloat16
    assert np.abs(np.asarray(half, np.float32) - whole).max() < 0.05 * np.abs(whole).max()


def test_fixed_positions():
    """Channel by channel: columns, then rows; of each, sines, then cosines."""
    rows, columns, width = 2, 3, 8
    found = vit_module.fixed_positions(rows, columns, width)
    for patch, channel in np.ndindex(rows * columns, width):
        place = patch % columns if channel < 4 else patch // columns
        angle = place / 10_000 ** ((channel % 2) / 2)
        expected = math.sin(angle) if channel % 4 < 2 else math.cos(angle)
        assert found[patch, channel] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="multiple of 4"):
        vit_module.fixed_positions(2, 2, 6)


def test_rotations():
    """Channel by channel: waves of the row, then of the column; tokens before are not turned."""
    rows, columns, prefix, base = 2, 3, 2, 10.0
    settings = dataclasses.replace(SMALL, width=16, rotary_base=base)
    cosine, sine = vit_module.rotations(rows, columns, settings, prefix=prefix)
    assert cosine.shape == sine.shape == (prefix + rows * columns, 8)
    for token, channel in np.ndindex(cosine.shape):
        patch, pair = token - prefix, channel % 4
        row, column = (patch // columns - 0.5) * 1.0, (patch % columns - 1) * 2 / 3
        angle = 2 * math.pi * (row if pair < 2 else column) / base ** (pair % 2 / 2)
        angle = 0.0 if token < prefix else angle
        assert cosine[token, channel] == pytest.approx(math.cos(angle), abs=1e-6)
        sign = -1 if channel < 4 else 1
        assert sine[token, channel] == pytest.approx(sign * math.sin(angle), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch": 5}, "do not fill"),
        ({"num_heads": 3}, "3 heads do not divide the width 8"),
        ({"num_heads": 4, "positions": "rotary"}, "heads of a multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit(changes, words):
    network = make(dataclasses.replace(SMALL, **changes))
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: network.init(jax.random.key(0), IMAGE, train=False))
