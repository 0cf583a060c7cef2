"""The head of valence and arousal with and without variances, in the whole network."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import PAPER, changed

from mtl_face.model.heads import MAX_LOG_RATIO, TaskHead, VarianceHead
from mtl_face.model.network import MtlFace
from mtl_face.tasks import OUTPUT_SIZES, VA_LOG_VARIANCE

MICRO = changed(
    PAPER,
    input_size=16,
    stage_sizes=(1,),
    width=4,
    expansion=1,
    embed_dim=8,
    encoder_layers=1,
    decoder_modules=1,
    num_heads=2,
    head_layers=2,
    head_width=8,
    dropout=0.5,
)
PER_EXAMPLE = MtlFace(changed(MICRO, va_variance="per_example"))


@pytest.fixture(scope="module")
def image():
    return jnp.asarray(np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)), jnp.float32)


@pytest.fixture(scope="module")
def variables(image):
    return jax.jit(functools.partial(PER_EXAMPLE.init, train=False))(jax.random.key(0), image)


def test_shared_variance_has_the_outputs_and_size_that_it_had(image, variables):
    shared, made = jax.eval_shape(
        lambda x: MtlFace(MICRO).init_with_output(jax.random.key(0), x, train=False), image
    )
    assert shared.keys() == OUTPUT_SIZES.keys()
    more = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    less = sum(leaf.size for leaf in jax.tree.leaves(made["params"]))
    assert more - less == 2 * (MICRO.head_width + 1)


def test_variances_are_the_last_outputs_of_the_head_bounded(image, variables):
    apply = jax.jit(functools.partial(PER_EXAMPLE.apply, train=False))
    outputs = apply(variables, image)
    assert outputs.keys() == {*OUTPUT_SIZES, VA_LOG_VARIANCE}
    assert {name: outputs[name].shape for name in ("va", VA_LOG_VARIANCE)} == {
        "va": (3, 2),
        VA_LOG_VARIANCE: (3, 2),
    }
    assert np.abs(outputs[VA_LOG_VARIANCE]).max() < 0.5  # starts near the task's own
    params = jax.tree.map(jnp.copy, variables["params"])
    params["head_va"]["dense2"]["bias"] = jnp.array([0.25, -0.5, 1e6, -1e6])
    found = apply(variables | {"params": params}, image)
    np.testing.assert_allclose(found["va"] - outputs["va"], [[0.25, -0.5]] * 3, atol=1e-6)
    np.testing.assert_allclose(found[VA_LOG_VARIANCE], [[MAX_LOG_RATIO, -MAX_LOG_RATIO]] * 3)
    for task in ("au", "expr"):
        np.testing.assert_array_equal(found[task], outputs[task])


def test_a_variance_from_features_is_linear_in_them_and_teaches_them_nothing(random_variables):
    rng = np.random.default_rng(0)
    features = [jnp.asarray(rng.normal(2, 3, size), jnp.float32) for size in ((3, 4, 5), (3, 2, 6))]
    head: Any = VarianceHead(2)
    assert not head.init_with_output(jax.random.key(0), features)[0].any()  # starts at the task's
    variables = random_variables(head, features)
    normed = []
    for feature in features:
        x = np.asarray(feature, float)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        normed.append(x.reshape(3, -1))
    dense = jax.tree.map(np.asarray, variables["params"]["dense1"])
    expected = np.concatenate(normed, axis=1) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(head.apply(variables, features), expected, rtol=1e-4, atol=1e-5)
    slopes = jax.grad(lambda read: head.apply(variables, read).sum())(features)
    assert not any(np.asarray(slope).any() for slope in slopes)


def test_the_mean_learns_as_without_a_variance_from_features(image):
    """The rest of the network has the same parameters and the same gradient."""
    kinds = ("from_features", "shared")
    with_it, without = (MtlFace(changed(MICRO, va_variance=kind)) for kind in kinds)
    variables = jax.jit(functools.partial(with_it.init, train=False))(jax.random.key(0), image)
    variables["params"]["head_va_variance"]["dense1"]["kernel"] += 0.1
    rest = {name: part for name, part in variables["params"].items() if name != "head_va_variance"}

    def loss(params, network, weight):
        outputs = network.apply(variables | {"params": params}, image, train=False)
        variance = outputs.get(VA_LOG_VARIANCE, jnp.zeros((3, 2)))
        return (outputs["va"] ** 2).sum() + weight * (variance**2).sum(), outputs["va"]

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    found, va = gradient(variables["params"], with_it, 1.0)
    expected, same = gradient(rest, without, 0.0)
    np.testing.assert_allclose(va, same, atol=1e-6)
    assert np.asarray(found.pop("head_va_variance")["dense1"]["kernel"]).any()
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)


def test_a_variance_from_features_is_of_the_backbones_map_and_bounded(image):
    network = MtlFace(changed(MICRO, va_variance="from_features"))
    variables = jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), image)
    dense = variables["params"]["head_va_variance"]["dense1"]
    dense["kernel"] = np.random.default_rng(0).normal(0, 2, dense["kernel"].shape)
    outputs, seen = jax.jit(
        lambda variables: network.apply(
            variables,
            image,
            train=False,
            capture_intermediates=lambda module, _: module.name == "backbone",
            mutable=["intermediates"],
        )
    )(variables)
    x = np.asarray(seen["intermediates"]["backbone"]["__call__"][0], float)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    raw = x.reshape(len(x), -1) @ dense["kernel"]
    assert np.abs(raw).max() > MAX_LOG_RATIO
    expected = MAX_LOG_RATIO * np.tanh(raw / MAX_LOG_RATIO)
    np.testing.assert_allclose(outputs[VA_LOG_VARIANCE], expected, rtol=1e-3, atol=1e-3)


def test_sampled_dropout_changes_no_statistics(image, variables):
    """Dropout acts, and batch norms stay with the running statistics."""

    @jax.jit
    def sample(key):
        return PER_EXAMPLE.apply(
            variables,
            image,
            train=False,
            sample_dropout=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )

    (first, statistics), (second, _) = sample(jax.random.key(1)), sample(jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, statistics["batch_stats"], variables["batch_stats"])
    for name in first:
        assert (np.asarray(first[name]) != np.asarray(second[name])).all()


def test_a_head_is_dense_layers_with_relu_but_for_the_last(random_variables):
    rng = np.random.default_rng(0)
    token_BD = jnp.asarray(rng.normal(size=(5, 8)), jnp.float32)
    head: Any = TaskHead(num_layers=4, width=7, out=2)
    variables = random_variables(head, token_BD)
    layers = [variables["params"][f"dense{layer}"] for layer in (1, 2, 3, 4)]
    assert [layer["kernel"].shape for layer in layers] == [(8, 7), (7, 7), (7, 7), (7, 2)]
    x = np.asarray(token_BD, float)
    for index, layer in enumerate(layers):
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        if index < 3:
            x = np.maximum(x, 0)
    np.testing.assert_allclose(head.apply(variables, token_BD), x, rtol=1e-4, atol=1e-5)
