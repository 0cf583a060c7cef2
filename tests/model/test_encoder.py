"""Position codes, and the patch encoder against PyTorch's encoder layer."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mtl_face.model.encoder import PatchEncoder, positional_encoding

BATCH, PATCHES, WIDTH, HEADS = 2, 6, 8, 2


def encoder(**changes) -> Any:
    return PatchEncoder(**({"num_layers": 2, "num_heads": HEADS, "mlp_ratio": 3} | changes))


@pytest.fixture(scope="module")
def patch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(BATCH, PATCHES, WIDTH)), jnp.float32)


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
    np.testing.assert_array_equal(positional_encoding(2, 2, 5, position="none"), 0)
    with pytest.raises(ValueError, match="multiple of 4 channels, not 6"):
        positional_encoding(2, 2, 6, position="2d")
    with pytest.raises(ValueError, match="multiple of 2 channels, not 5"):
        positional_encoding(2, 2, 5, position="1d")
    with pytest.raises(ValueError, match="'3d' is none of"):
        positional_encoding(2, 2, 8, position="3d")


def test_codes_are_added_to_the_patches(patch, random_variables):
    module = encoder(position="2d")
    variables = random_variables(module, patch, train=False, grid=(2, 3))
    code_ND = positional_encoding(2, 3, WIDTH)
    got = module.apply(variables, patch, train=False, grid=(2, 3))
    expected = encoder(position="none").apply(
        variables, patch + code_ND[None], train=False, grid=(2, 3)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_without_codes_the_patches_have_no_order(patch, norm, random_variables):
    module = encoder(position="none", norm=norm)
    order = np.asarray([3, 0, 5, 1, 4, 2])
    variables = random_variables(module, patch, train=False, grid=(2, 3))
    straight = module.apply(variables, patch, train=False, grid=(2, 3))
    shuffled = module.apply(variables, patch[:, order], train=False, grid=(2, 3))
    np.testing.assert_allclose(shuffled, np.asarray(straight)[:, order], rtol=1e-5, atol=1e-5)
    coded = encoder(norm=norm)
    straight = coded.apply(variables, patch, train=False, grid=(2, 3))
    shuffled = coded.apply(variables, patch[:, order], train=False, grid=(2, 3))
    assert np.abs(shuffled - np.asarray(straight)[:, order]).max() > 0.01


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_equals_pytorch(patch, norm, random_variables):
    module = encoder(position="none", norm=norm)
    variables = random_variables(module, patch, train=False, grid=(2, 3))
    x = torch.tensor(np.asarray(patch))
    for layer in range(2):
        values = variables["params"][f"layer{layer + 1}"]
        reference = torch.nn.TransformerEncoderLayer(
            WIDTH,
            HEADS,
            3 * WIDTH,
            activation="gelu",
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=norm == "pre",
        ).eval()
        reference.load_state_dict(torch_state(values))
        x = reference(x)
    if norm == "pre":
        values = variables["params"]["final_norm"]
        x = torch.nn.functional.layer_norm(
            x, (WIDTH,), tensor(values["scale"]), tensor(values["bias"]), eps=1e-6
        )
    got = module.apply(variables, patch, train=False, grid=(2, 3))
    np.testing.assert_allclose(got, x.detach().numpy(), rtol=1e-4, atol=1e-5)


def tensor(values) -> torch.Tensor:
    return torch.tensor(np.asarray(values))


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
    with pytest.raises(ValueError, match="6 patches are no grid of 2 x 2"):
        abstract_variables(encoder(), patch, train=False)
    with pytest.raises(ValueError, match="6 patches are no grid of 2 x 4"):
        abstract_variables(encoder(), patch, train=False, grid=(2, 4))
