"""The token decoder against PyTorch's attention, and the heads against matrix products."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from mtl_face.model.decoder import TokenDecoder
from mtl_face.model.heads import TaskHead

BATCH, PATCHES, WIDTH, HEADS, MODULES = 2, 6, 8, 2, 2


def decoder(**changes) -> Any:
    return TokenDecoder(**({"num_modules": MODULES, "num_heads": HEADS, "mlp_ratio": 3} | changes))


@pytest.fixture(scope="module")
def patch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(BATCH, PATCHES, WIDTH)), jnp.float32)


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
def test_equals_pytorch(patch, norm_place, mlp_place, random_variables):
    module = decoder(norm=norm_place, mlp_place=mlp_place)
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
    tokens = decoder(num_tokens=100, token_init_std=0.05, num_modules=1).init(
        jax.random.key(0), jnp.zeros((1, 1, 64)), train=False
    )["params"]["tokens"]
    assert tokens.shape == (100, 64)
    assert np.std(tokens) == pytest.approx(0.05, rel=0.05)
    assert np.mean(tokens) == pytest.approx(0, abs=0.003)


def test_dropout_acts_in_training_only(patch, random_variables):
    module = decoder(dropout=0.5, num_modules=1)
    variables = random_variables(module, patch, train=False)
    base, _ = module.apply(variables, patch, train=False)
    dropped = [
        module.apply(variables, patch, train=True, rngs={"dropout": jax.random.key(seed)})[0]
        for seed in (0, 1)
    ]
    assert np.abs(dropped[0] - dropped[1]).max() > 0.01
    assert np.abs(dropped[0] - base).max() > 0.01
    none, _ = decoder(dropout=0.0, num_modules=1).apply(variables, patch, train=True)
    np.testing.assert_allclose(none, base, rtol=1e-6)


def test_a_head_is_dense_layers_with_relu_but_for_the_last(random_variables):
    rng = np.random.default_rng(0)
    token_BD = jnp.asarray(rng.normal(size=(5, WIDTH)), jnp.float32)
    head: Any = TaskHead(num_layers=4, width=7, out=2)
    variables = random_variables(head, token_BD)
    layers = [variables["params"][f"dense{layer}"] for layer in (1, 2, 3, 4)]
    assert [layer["kernel"].shape for layer in layers] == [(WIDTH, 7), (7, 7), (7, 7), (7, 2)]
    x = np.asarray(token_BD, float)
    for index, layer in enumerate(layers):
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        if index < 3:
            x = np.maximum(x, 0)
    np.testing.assert_allclose(head.apply(variables, token_BD), x, rtol=1e-4, atol=1e-5)
