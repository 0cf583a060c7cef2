"""Variances of single examples: the likelihood, its gradients, masks, and what is learned by it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mtl_face.model.heads import MAX_LOG_RATIO, TaskHead, bounded_log_ratio
from mtl_face.objective import losses, mixup, uncertainty
from mtl_face.tasks import VA_LOG_VARIANCE

BATCH = 16
T = {"va": 0.3, "au": 0.7, "expr": 2.0}


@pytest.fixture
def batch():
    """(outputs, targets, weights), everything labelled."""
    rng = np.random.default_rng(0)
    outputs = {
        "va": rng.normal(0, 0.5, (BATCH, 2)),
        VA_LOG_VARIANCE: rng.normal(0, 1.5, (BATCH, 2)),
        "au": rng.normal(0, 2, (BATCH, 12)),
        "expr": rng.normal(0, 2, (BATCH, 8)),
    }
    targets = {
        "va": rng.uniform(-1, 1, (BATCH, 2)),
        "au": rng.integers(0, 2, (BATCH, 12)),
        "expr": np.eye(8)[rng.integers(0, 8, BATCH)],
    }
    weights = {"va": np.ones(BATCH), "au": np.ones((BATCH, 12)), "expr": np.ones(BATCH)}
    return jax.tree.map(lambda x: np.asarray(x, np.float32), (outputs, targets, weights))


def va_only(weights: dict) -> dict:
    return weights | {"au": np.zeros_like(weights["au"]), "expr": np.zeros_like(weights["expr"])}


def total(outputs: dict, targets: dict, weights: dict, kind: str = "fixed", **options: Any) -> Any:
    learned = uncertainty.init_uncertainty(kind, T) or None
    return losses.multi_task_loss(
        outputs,
        targets,
        weights,
        learned,
        kind=kind,
        temperatures=T,
        options=losses.LossOptions(**options),
    ).total


def gradients(outputs: dict, targets: dict, weights: dict, **options: Any) -> dict:
    found = jax.grad(lambda o: total(o, targets, weights, **options))(outputs)
    return {name: np.asarray(found[name]) for name in ("va", VA_LOG_VARIANCE)}


@pytest.mark.parametrize("kind", ["learned", "likelihood"])
def test_likelihood_is_that_of_torch(batch, kind):
    outputs, targets, weights = batch
    weights = va_only(weights)
    mean = torch.tensor(outputs["va"], dtype=torch.float64, requires_grad=True)
    ratio = torch.tensor(outputs[VA_LOG_VARIANCE], dtype=torch.float64, requires_grad=True)
    target = torch.tensor(targets["va"], dtype=torch.float64)
    expected = torch.nn.functional.gaussian_nll_loss(
        mean, target, T["va"] * torch.exp(ratio), full=kind == "likelihood", eps=1e-12
    )
    expected.backward()
    found = total(outputs, targets, weights, kind)
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)
    slopes = gradients(outputs, targets, weights, kind=kind)
    np.testing.assert_allclose(slopes["va"], mean.grad.numpy(), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(slopes[VA_LOG_VARIANCE], ratio.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_fixed_differs_from_learned_by_a_constant(batch):
    outputs, targets, weights = batch
    weights = va_only(weights)
    difference = total(outputs, targets, weights, "learned") - total(outputs, targets, weights)
    assert float(difference) == pytest.approx(0.5 * np.log(T["va"]), rel=1e-5)
    fixed, learned = (gradients(outputs, targets, weights, kind=k) for k in ("fixed", "learned"))
    for name, slope in fixed.items():
        np.testing.assert_allclose(slope, learned[name], rtol=1e-5)


def test_gradient_with_respect_to_the_task_variance(batch):
    """d/dlog T of e^2 / (2 T exp(r)) + log(T) / 2."""
    outputs, targets, weights = batch
    learned = uncertainty.init_uncertainty("learned", T)

    def loss(learned):
        return losses.multi_task_loss(
            outputs, targets, va_only(weights), learned, kind="learned", temperatures=T
        ).total

    error = (outputs["va"] - targets["va"]) ** 2
    expected = 0.5 - 0.5 * np.mean(error / (T["va"] * np.exp(outputs[VA_LOG_VARIANCE])))
    assert float(jax.grad(loss)(learned)["va"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", uncertainty.KINDS)
def test_without_a_deviation_it_is_the_shared_variance(batch, kind):
    outputs, targets, weights = batch
    flat = outputs | {VA_LOG_VARIANCE: np.zeros((BATCH, 2), np.float32)}
    shared = {name: value for name, value in outputs.items() if name != VA_LOG_VARIANCE}
    assert float(total(flat, targets, weights, kind)) == pytest.approx(
        float(total(shared, targets, weights, kind)), rel=1e-6
    )
    expected = jax.grad(lambda o: total(o, targets, weights, kind))(shared)
    found = jax.grad(lambda o: total(o, targets, weights, kind))(flat)
    for name, slope in expected.items():
        np.testing.assert_allclose(found[name], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0])
def test_beta_weighs_the_gradients(batch, beta):
    outputs, targets, weights = batch
    weights = va_only(weights)
    plain = gradients(outputs, targets, weights)
    weighed = gradients(outputs, targets, weights, beta_nll=beta)
    variance = T["va"] * np.exp(outputs[VA_LOG_VARIANCE])
    for name, slope in plain.items():
        np.testing.assert_allclose(weighed[name], variance**beta * slope, rtol=1e-4, atol=1e-8)
    if beta == 1:  # that of the squared error
        expected = (outputs["va"] - targets["va"]) / (2 * BATCH)
        np.testing.assert_allclose(weighed["va"], expected, rtol=1e-4, atol=1e-8)


def test_missing_labels_reach_nothing(batch):
    outputs, targets, weights = batch
    weights["va"][::2] = 0
    spoiled = targets | {"va": targets["va"].copy()}
    spoiled["va"][::2] = np.nan
    for beta in (0.0, 0.5):
        clean = gradients(outputs, targets, weights, beta_nll=beta)
        found = gradients(outputs, spoiled, weights, beta_nll=beta)
        for name, slope in found.items():
            assert (slope[::2] == 0).all()
            assert (slope[1::2] != 0).all()
            np.testing.assert_array_equal(slope, clean[name])
    none = jax.tree.map(np.zeros_like, weights)
    assert float(total(outputs, spoiled, none)) == 0
    for slope in gradients(outputs, spoiled, none).values():
        assert (slope == 0).all()


def test_soft_weights(batch):
    """By hand: shares of MixUp weigh examples among each other, and tasks within them."""
    outputs, targets, weights = batch
    rng = np.random.default_rng(1)
    weights = va_only(weights) | {"va": rng.uniform(0, 1, BATCH).astype(np.float32)}
    error = (outputs["va"] - targets["va"]) ** 2
    ratio = outputs[VA_LOG_VARIANCE]
    each = 0.5 * np.mean(error * np.exp(-ratio) / T["va"] + ratio, axis=1)
    expected = np.sum(weights["va"] * each) / np.sum(weights["va"])
    assert float(total(outputs, targets, weights)) == pytest.approx(expected, rel=1e-5)


def test_mixed_examples(batch):
    outputs, targets, weights = batch
    weights["va"][::3] = 0
    targets["va"][::3] = np.nan
    image = np.zeros((BATCH, 2, 2, 3), np.float32)
    _, mixed, shares = mixup.mixup(jax.random.key(0), image, targets, weights, alpha=0.4)
    assert ((shares["va"] > 0) & (shares["va"] < 1)).any()
    assert np.isfinite(total(outputs, mixed, shares))
    for slope in gradients(outputs, mixed, shares, beta_nll=0.5).values():
        assert np.isfinite(slope).all()


@pytest.mark.parametrize("raw", [-1e30, -1e4, -20.0, 20.0, 1e4, 1e30])
def test_extreme_variances_stay_finite(batch, raw):
    outputs, targets, weights = batch

    def loss(value):
        ratio = bounded_log_ratio(jnp.full((BATCH, 2), value, jnp.bfloat16))
        assert ratio.dtype == jnp.float32
        return total(outputs | {VA_LOG_VARIANCE: ratio}, targets, weights, beta_nll=0.5)

    value, slope = jax.value_and_grad(loss)(raw)
    assert np.isfinite(value)
    assert np.isfinite(slope)


def test_bound_is_smooth_and_the_identity_near_zero():
    raw = jnp.array([-1e9, -0.05, 0.0, 0.05, 1e9], jnp.float32)
    np.testing.assert_allclose(
        bounded_log_ratio(raw), [-MAX_LOG_RATIO, -0.05, 0, 0.05, MAX_LOG_RATIO], rtol=1e-4
    )
    slope = jax.vmap(jax.grad(bounded_log_ratio))(jnp.array([0.0, MAX_LOG_RATIO, 30.0]))
    np.testing.assert_allclose(slope, 1 - np.tanh([0, 1, 30 / MAX_LOG_RATIO]) ** 2, rtol=1e-3)


def test_on_eight_devices(batch):
    """One global batch, labels unevenly spread: the same loss and gradients."""
    outputs, targets, weights = batch
    weights["va"][:6] = 0
    targets["va"][:6] = np.nan
    place = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    step = jax.jit(
        jax.value_and_grad(lambda o, t, w: total(o, t, w, "learned", beta_nll=0.5)),
        in_shardings=place,
    )
    value, slopes = step(outputs, targets, weights)
    expected = total(outputs, targets, weights, "learned", beta_nll=0.5)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for name, slope in gradients(outputs, targets, weights, kind="learned", beta_nll=0.5).items():
        np.testing.assert_allclose(slopes[name], slope, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_a_head_learns_the_noise_of_each_example(beta):
    """Noise of 0.05 to 0.45 by a visible cause: mean and standard deviation are recovered."""
    rng = np.random.default_rng(2)
    count = 4096
    token = rng.uniform(-1, 1, (count, 4)).astype(np.float32)
    mean = np.stack([0.5 * token[:, 0], np.sin(2 * token[:, 1]) / 2], axis=1)
    std = np.stack([0.25 + 0.2 * token[:, 2], 0.25 - 0.2 * token[:, 0]], axis=1)
    target = (mean + std * rng.normal(size=mean.shape)).astype(np.float32)
    head = TaskHead(num_layers=2, width=32, out=4)
    params = head.init(jax.random.key(0), token)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 600))
    temperature = jnp.float32(0.17)

    def parts(params, token):
        value, raw = jnp.split(head.apply(params, token), 2, axis=-1)
        return value, bounded_log_ratio(raw)

    @jax.jit
    def step(params, state, rows):
        def loss(params):
            value, ratio = parts(params, jnp.asarray(token)[rows])
            error = jnp.square(value - jnp.asarray(target)[rows])
            return jnp.mean(
                uncertainty.per_example_objective("fixed", error, ratio, temperature, beta=beta)
            )

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(600):
        params, state = step(params, state, rng.integers(0, count, 256))
    value, ratio = parts(params, token)
    found = np.sqrt(0.17 * np.exp(ratio))
    assert np.abs(np.asarray(value) - mean).mean() < 0.04
    assert np.abs(found / std - 1).mean() < 0.1
    for column in range(2):
        assert np.corrcoef(found[:, column], std[:, column])[0, 1] > 0.97


@pytest.mark.parametrize(
    ("changes", "beta", "words"),
    [
        ({VA_LOG_VARIANCE: np.zeros((BATCH, 1), np.float32)}, 0.0, "has shape"),
        ({}, 1.5, "from 0 to 1"),
        ({}, -0.1, "from 0 to 1"),
    ],
)
def test_mistakes(batch, changes, beta, words):
    outputs, targets, weights = batch
    with pytest.raises(ValueError, match=words):
        total(outputs | changes, targets, weights, beta_nll=beta)


def test_beta_without_variances_is_refused(batch):
    outputs, targets, weights = batch
    del outputs[VA_LOG_VARIANCE]
    with pytest.raises(ValueError, match="beta_nll"):
        total(outputs, targets, weights, beta_nll=0.5)
