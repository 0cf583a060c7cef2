"""Position codes, encoder and decoder against PyTorch's attention."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from model_settings import PAPER, changed
from torch.nn import functional

from mtl_face.model.transformer import PatchEncoder, TokenDecoder, positional_encoding

BATCH, PATCHES, WIDTH, HEADS, LAYERS, MODULES = 2, 6, 8, 2, 2, 2
GRID = (2, 3)
SETTINGS = changed(
    PAPER,
    embed_dim=WIDTH,
    num_heads=HEADS,
    encoder_layers=LAYERS,
    decoder_modules=MODULES,
    mlp_ratio=3,
)


def encoder(**changes) -> Any:
    return PatchEncoder(changed(SETTINGS, **changes))


def decoder(**changes) -> Any:
    return TokenDecoder(changed(SETTINGS, **changes))


@pytest.fixture(scope="module")
def patch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(BATCH, PATCHES, WIDTH)), jnp.float32)


def without_code(patch):
    """Patches from which the encoder's code is taken beforehand."""
    return patch - positional_encoding(*GRID, WIDTH, position="2d")[None]


def test_2d_codes_equal_a_loop():
    code_ND = positional_encoding(3, 5, 16, position="2d")
    assert code_ND.shape == (15, 16)
    assert code_ND.dtype == np.float32
    for row in range(3):
        for column in range(5):
            for place, start in ((row, 0), (column, 8)):
                for i in range(4):
                    angle = place / 10_000 ** (2 * i / 8)
                    code = code_ND[row * 5 + column, start + 2 * i : start + 2 * i + 2]
                    assert code == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)


def test_1d_codes_equal_a_loop():
    code_ND = positional_encoding(3, 5, 6, position="1d")
    for place in range(15):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            code = code_ND[place, 2 * i : 2 * i + 2]
            assert code == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)


@pytest.mark.parametrize("position", ["1d", "2d"])
def test_every_patch_has_its_own_code(position):
    code_ND = positional_encoding(7, 7, 96, position=position)
    distance = np.linalg.norm(code_ND[:, None] - code_ND[None], axis=-1)
    assert distance[~np.eye(49, dtype=bool)].min() > 0.5


def test_codes_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="multiple of 4 channels, not 6"):
        positional_encoding(2, 2, 6, position="2d")
    with pytest.raises(ValueError, match="multiple of 2 channels, not 5"):
        positional_encoding(2, 2, 5, position="1d")
    with pytest.raises(ValueError, match="'3d' is not one of"):
        positional_encoding(2, 2, 8, position="3d")


@pytest.mark.parametrize("position", ["1d", "2d"])
def test_without_layers_the_encoder_adds_the_codes(patch, position, random_variables):
    code_ND = positional_encoding(*GRID, WIDTH, position=position)
    module = encoder(encoder_layers=0, position=position)
    got = module.apply({}, patch, train=False, grid=GRID)
    np.testing.assert_allclose(got, patch + code_ND[None], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_without_codes_the_patches_have_no_order(patch, norm, random_variables):
    module = encoder(norm=norm)
    order = np.asarray([3, 0, 5, 1, 4, 2])
    variables = random_variables(module, patch, train=False, grid=GRID)

    def encoded(patch):
        return np.asarray(module.apply(variables, patch, train=False, grid=GRID))

    straight = encoded(without_code(patch))
    shuffled = encoded(without_code(patch[:, order]))
    np.testing.assert_allclose(shuffled, straight[:, order], rtol=1e-5, atol=1e-5)
    assert np.abs(encoded(patch[:, order]) - encoded(patch)[:, order]).max() > 0.01


@pytest.mark.parametrize("norm_place", ["post", "pre"])
def test_encoder_equals_pytorch(patch, norm_place, random_variables):
    module = encoder(norm=norm_place)
    variables = random_variables(module, patch, train=False, grid=GRID)
    x = torch.tensor(np.asarray(patch))
    for layer in range(LAYERS):
        values = variables["params"][f"layer{layer + 1}"]
        reference = torch.nn.TransformerEncoderLayer(
            WIDTH,
            HEADS,
            3 * WIDTH,
            activation="gelu",
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=norm_place == "pre",
        ).eval()
        reference.load_state_dict(torch_state(values))
        x = reference(x)
    if norm_place == "pre":
        x = norm(x, variables["params"]["final_norm"])
    got = module.apply(variables, without_code(patch), train=False, grid=GRID)
    np.testing.assert_allclose(got, x.detach().numpy(), rtol=1e-4, atol=1e-5)


def torch_state(layer) -> dict[str, torch.Tensor]:
    """Weights of an encoder layer under PyTorch's names."""
    attention = layer["attention"]
    parts = [attention[name] for name in ("query", "key", "value")]
    state = {
        "self_attn.in_proj_weight": torch.cat([tensor(part["kernel"]).T for part in parts]),
        "self_attn.in_proj_bias": torch.cat([tensor(part["bias"]) for part in parts]),
    }
    for theirs, ours in (
        ("self_attn.out_proj", attention["out"]),
        ("linear1", layer["mlp_hidden"]),
        ("linear2", layer["mlp_out"]),
    ):
        state[f"{theirs}.weight"] = tensor(ours["kernel"]).T
        state[f"{theirs}.bias"] = tensor(ours["bias"])
    for theirs, ours in (("norm1", layer["attention_norm"]), ("norm2", layer["mlp_norm"])):
        state[f"{theirs}.weight"] = tensor(ours["scale"])
        state[f"{theirs}.bias"] = tensor(ours["bias"])
    return state


def test_a_grid_must_hold_the_patches(patch, abstract_variables):
    with pytest.raises(ValueError, match="6 patches are not a grid of 2 x 4"):
        abstract_variables(encoder(), patch, train=False, grid=(2, 4))


def tensor(values) -> torch.Tensor:
    return torch.tensor(np.asarray(values))


def dense(x, layer):
    return x @ tensor(layer["kernel"]) + tensor(layer["bias"])


def norm(x, layer):
    return functional.layer_norm(
        x, (WIDTH,), tensor(layer["scale"]), tensor(layer["bias"]), eps=1e-6
    )


def attention(query, memory, layer):
    """PyTorch's multi-head attention: answers, and weights of every head."""
    parts = [layer[name] for name in ("query", "key", "value")]
    return functional.multi_head_attention_forward(
        query.transpose(0, 1),
        memory.transpose(0, 1),
        memory.transpose(0, 1),
        WIDTH,
        HEADS,
        torch.cat([tensor(part["kernel"]).T for part in parts]),
        torch.cat([tensor(part["bias"]) for part in parts]),
        None,
        None,
        False,
        0.0,
        tensor(layer["out"]["kernel"]).T,
        tensor(layer["out"]["bias"]),
        training=False,
        average_attn_weights=False,
    )


def reference(params, patch, norm_place, mlp_place):
    x = tensor(params["tokens"])[None].repeat(BATCH, 1, 1)
    memory = tensor(patch)
    all_weights = []
    for module in range(1, MODULES + 1):
        for kind in ("self", "cross"):
            layer = params[f"module{module}_{kind}"]
            if norm_place == "pre":
                query = norm(x, layer["attention_norm"])
                source = query if kind == "self" else memory
                answer, weights = attention(query, source, layer["attention"])
                x = x + answer.transpose(0, 1)
            else:
                answer, weights = attention(x, x if kind == "self" else memory, layer["attention"])
                x = norm(x + answer.transpose(0, 1), layer["attention_norm"])
            if kind == "cross":
                all_weights.append(weights)
            if kind == "cross" or mlp_place == "each":
                y = norm(x, layer["mlp_norm"]) if norm_place == "pre" else x
                y = dense(functional.gelu(dense(y, layer["mlp_hidden"])), layer["mlp_out"])
                x = x + y if norm_place == "pre" else norm(x + y, layer["mlp_norm"])
    if norm_place == "pre":
        x = norm(x, params["final_norm"])
    return x.numpy(), torch.stack(all_weights, 1).numpy()


@pytest.mark.parametrize("norm_place", ["post", "pre"])
@pytest.mark.parametrize("mlp_place", ["last", "each"])
def test_decoder_equals_pytorch(patch, norm_place, mlp_place, random_variables):
    module = decoder(norm=norm_place, decoder_mlp=mlp_place)
    variables = random_variables(module, patch, train=False)
    token_BTD, weight_BMHTN = module.apply(variables, patch, train=False, return_attention=True)
    expected, weights = reference(variables["params"], patch, norm_place, mlp_place)
    assert np.shape(token_BTD) == (BATCH, 3, WIDTH)
    assert np.shape(weight_BMHTN) == (BATCH, MODULES, HEADS, 3, PATCHES)
    np.testing.assert_allclose(token_BTD, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weight_BMHTN, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.sum(weight_BMHTN, -1), 1, atol=1e-6)
    assert np.std(weight_BMHTN) > 0.01


def test_attention_is_returned_only_when_asked(patch, random_variables):
    module = decoder()
    variables = random_variables(module, patch, train=False)
    assert module.apply(variables, patch, train=False)[1] is None


def test_the_order_of_the_patches_does_not_matter(patch, random_variables):
    module = decoder()
    variables = random_variables(module, patch, train=False)
    one, _ = module.apply(variables, patch, train=False)
    other, _ = module.apply(variables, patch[:, ::-1], train=False)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_tokens_start_as_small_normal_numbers():
    tokens = decoder(token_init_std=0.05, decoder_modules=1).init(
        jax.random.key(0), jnp.zeros((1, 1, 256)), train=False
    )["params"]["tokens"]
    assert tokens.shape == (3, 256)
    assert np.std(tokens) == pytest.approx(0.05, rel=0.05)
    assert np.mean(tokens) == pytest.approx(0, abs=0.003)


def test_dropout_acts_in_training_only(patch, random_variables):
    module = decoder(dropout=0.5, decoder_modules=1)
    variables = random_variables(module, patch, train=False)
    base, _ = module.apply(variables, patch, train=False)
    dropped = [
        module.apply(variables, patch, train=True, rngs={"dropout": jax.random.key(seed)})[0]
        for seed in (0, 1)
    ]
    assert np.abs(dropped[0] - dropped[1]).max() > 0.01
    assert np.abs(dropped[0] - base).max() > 0.01
    none, _ = decoder(dropout=0.0, decoder_modules=1).apply(variables, patch, train=True)
    np.testing.assert_allclose(none, base, rtol=1e-6)
