"""Errors in place of the paper's: against loops, PyTorch and optax, with masks and in parts."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.sharding import NamedSharding, PartitionSpec

from mtl_face.objective import losses, mixup, uncertainty
from mtl_face.objective.task_errors import AuError, ExprError, au_error, ccc_error, expr_error
from mtl_face.tasks import TASKS

BATCH = 16
T = {"va": 0.6, "au": 0.8, "expr": 2.0}
POSITIVE = tuple(np.linspace(0.5, 6, 12).tolist())
CLASSES = tuple(np.linspace(0.3, 3, 8).tolist())
ALL = losses.LossOptions(
    va_ccc=0.6,
    au=AuError(1.5, 2.5, 0.05, 0.1, POSITIVE),
    expr=ExprError(2.0, 0.1, CLASSES),
)


def arrays(seed=0, batch=BATCH):
    """Outputs, soft targets, and weights between 0 and 1, of which many are 0."""
    rng = np.random.default_rng(seed)
    outputs = {
        "va": rng.normal(0, 0.5, (batch, 2)),
        "au": rng.normal(0, 2, (batch, 12)),
        "expr": rng.normal(0, 2, (batch, 8)),
    }
    targets = {
        "va": rng.uniform(-1, 1, (batch, 2)),
        "au": rng.uniform(0, 1, (batch, 12)),
        "expr": rng.dirichlet(np.ones(8), batch),
    }
    weights = {
        "va": rng.integers(0, 2, batch) * rng.uniform(0.1, 1, batch),
        "au": rng.integers(0, 2, (batch, 12)) * rng.uniform(0.1, 1, (batch, 12)),
        "expr": rng.integers(0, 2, batch) * rng.uniform(0.1, 1, batch),
    }
    weights["au"][:3] = 0
    return jax.tree.map(lambda x: np.asarray(x, np.float32), (outputs, targets, weights))


def loss(outputs, targets, weights, *, kind="learned", options=ALL):
    learned = uncertainty.init_uncertainty(kind, T) or None
    return losses.multi_task_loss(
        outputs, targets, weights, learned, kind=kind, temperatures=T, options=options
    )


@jax.jit
def all_on(outputs, targets, weights):
    return jax.value_and_grad(lambda o: loss(o, targets, weights).total)(outputs)


def test_au_error_is_its_formula():
    outputs, targets, _ = arrays()
    found = au_error(jnp.asarray(outputs["au"]), jnp.asarray(targets["au"]), ALL.au)
    for i in range(BATCH):
        for k in range(12):
            t = 0.9 * float(targets["au"][i, k]) + 0.05
            p = 1 / (1 + math.exp(-float(outputs["au"][i, k])))
            q = max(p - 0.05, 0)
            expected = -t * POSITIVE[k] * (1 - p) ** 1.5 * math.log(p)
            expected -= (1 - t) * q**2.5 * math.log(1 - q)
            assert float(found[i, k]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_expr_error_is_its_formula():
    outputs, targets, _ = arrays()
    found = expr_error(jnp.asarray(outputs["expr"]), jnp.asarray(targets["expr"]), ALL.expr)
    u = outputs["expr"].astype(np.float64)
    p = np.exp(u) / np.exp(u).sum(axis=1, keepdims=True)
    t = 0.9 * targets["expr"] + 0.1 / 8
    expected = -(t * np.asarray(CLASSES) * (1 - p) ** 2 * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.torch
def test_weights_and_smoothing_are_pytorchs():
    outputs, targets, _ = arrays()
    functional = torch.nn.functional
    classes = targets["expr"].argmax(axis=1)
    u = torch.tensor(outputs["expr"], dtype=torch.float64)
    expected = functional.cross_entropy(
        u,
        torch.tensor(classes),
        weight=torch.tensor(CLASSES, dtype=torch.float64),
        label_smoothing=0.2,
        reduction="none",
    )
    found = expr_error(
        jnp.asarray(outputs["expr"]), jnp.eye(8)[classes], ExprError(0.0, 0.2, CLASSES)
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
    units = functional.binary_cross_entropy_with_logits(
        torch.tensor(outputs["au"], dtype=torch.float64),
        torch.tensor(targets["au"], dtype=torch.float64),
        pos_weight=torch.tensor(POSITIVE, dtype=torch.float64),
        reduction="none",
    )
    found_units = au_error(
        jnp.asarray(outputs["au"]), jnp.asarray(targets["au"]), AuError(positive_weights=POSITIVE)
    )
    np.testing.assert_allclose(found_units, units.numpy(), rtol=1e-5, atol=1e-7)


def test_equal_gammas_are_optaxs_focal_loss():
    outputs, targets, _ = arrays()
    hard = np.round(targets["au"])
    found = au_error(jnp.asarray(outputs["au"]), jnp.asarray(hard), AuError(2.0, 2.0))
    expected = optax.sigmoid_focal_loss(outputs["au"], hard, gamma=2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_ccc_error_is_its_definition():
    """With whole weights as repetitions, by NumPy's moments of a population."""
    outputs, targets, _ = arrays()
    times = np.random.default_rng(1).integers(0, 4, BATCH)
    x, y = (np.repeat(part["va"].astype(np.float64), times, axis=0) for part in (outputs, targets))
    ccc = [
        2 * np.cov(x[:, k], y[:, k], ddof=0)[0, 1]
        / (x[:, k].var() + y[:, k].var() + (x[:, k].mean() - y[:, k].mean()) ** 2)
        for k in range(2)
    ]  # fmt: skip
    found = ccc_error(outputs["va"], targets["va"], jnp.asarray(times, jnp.float32))
    assert float(found) == pytest.approx(1 - np.mean(ccc), rel=1e-5)
    assert float(ccc_error(targets["va"], targets["va"], jnp.ones(BATCH))) == pytest.approx(0)


@pytest.mark.parametrize(
    ("value", "target", "weight"), [(0.3, 0.3, 1.0), (0.3, 0.5, 0.0), (0.0, 0.0, 1.0)]
)
def test_a_ccc_that_is_undefined_counts_as_0(value, target, weight):
    arguments = (jnp.full((4, 2), value), jnp.full((4, 2), target), jnp.full(4, weight))
    error, slope = jax.value_and_grad(ccc_error)(*arguments)
    assert float(error) == 1
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("kind", uncertainty.KINDS)
def test_the_loss_is_its_formula(kind):
    """Each example's errors, weighed by temperatures and weights, in NumPy's float64."""
    outputs, targets, weights = arrays(3)
    found = loss(outputs, targets, weights, kind=kind)
    divisor = T if kind == "likelihood" else dict.fromkeys(TASKS, 1.0)
    w = {"va": weights["va"], "au": weights["au"].max(axis=1), "expr": weights["expr"]}
    units = np.asarray(
        au_error(jnp.asarray(outputs["au"] / divisor["au"]), jnp.asarray(targets["au"]), ALL.au)
    )
    share = weights["au"] / np.maximum(weights["au"].sum(axis=1, keepdims=True), 1e-9)
    mse = ((outputs["va"] - targets["va"]) ** 2).mean(axis=1)
    one_minus = float(ccc_error(outputs["va"], targets["va"], weights["va"]))
    e = {
        "va": 0.4 * mse + 0.6 * one_minus,
        "au": (share * units).sum(axis=1),
        "expr": np.asarray(
            expr_error(outputs["expr"] / divisor["expr"], jnp.asarray(targets["expr"]), ALL.expr)
        ),
    }
    half = {t: math.log(T[t]) / 2 for t in TASKS}
    example = {
        "fixed": [e["va"] / (2 * T["va"]), e["au"] / (2 * T["au"]), e["expr"] / T["expr"]],
        "learned": [
            e["va"] / (2 * T["va"]) + 0.4 * half["va"],
            e["au"] / (2 * T["au"]) + half["au"],
            e["expr"] / T["expr"] + half["expr"],
        ],
        "likelihood": [
            e["va"] / (2 * T["va"]) + 0.4 * (half["va"] + math.log(2 * math.pi) / 2),
            e["au"],
            e["expr"],
        ],
    }[kind]
    sums = sum(w.values())
    mean = sum(w[t] * part for t, part in zip(TASKS, example, strict=True)) / np.maximum(sums, 1e-9)
    largest = np.stack([*w.values()]).max(axis=0)
    assert float(found.total) == pytest.approx(float((largest * mean).sum() / largest.sum()), 1e-5)
    for task in TASKS:
        expected = (w[task] * e[task]).sum() / w[task].sum()
        assert float(found.task_loss[task]) == pytest.approx(float(expected), rel=1e-5)


def test_missing_targets_never_matter_to_any_of_them():
    outputs, targets, weights = arrays(5)
    clean, slopes = all_on(outputs, targets, weights)
    dirty = {
        "va": np.where(weights["va"][:, None] > 0, targets["va"], np.nan),
        "au": np.where(weights["au"] > 0, targets["au"], np.nan),
        "expr": np.where(weights["expr"][:, None] > 0, targets["expr"], np.nan),
    }
    found, found_slopes = all_on(outputs, dirty, weights)
    assert float(found) == float(clean)
    for task in TASKS:
        np.testing.assert_array_equal(found_slopes[task], slopes[task])
        np.testing.assert_array_equal(np.asarray(slopes[task])[weights[task] == 0], 0)
        assert np.abs(slopes[task]).max() > 0
    nothing = jax.tree.map(np.zeros_like, weights)
    total, zero = all_on(outputs, dirty, nothing)
    for leaf in jax.tree.leaves((total, zero)):
        np.testing.assert_array_equal(leaf, 0)


def test_mixup_of_two_examples_is_the_mean_of_their_errors():
    """Linear in the target, with every option but CCC; a missing partner takes no part."""
    outputs, targets, weights = arrays(6)
    hard = targets | {"au": np.round(targets["au"])}
    full = jax.tree.map(np.ones_like, weights)
    full["expr"][1] = 0
    _, mixed, shares = mixup.mixup(jax.random.key(0), jnp.zeros((BATCH, 1)), hard, full, alpha=0.4)
    lonely = expr_error(outputs["expr"][:1], hard["expr"][:1], ALL.expr)
    alone = expr_error(outputs["expr"][:1], mixed["expr"][:1], ALL.expr)
    assert float(alone[0]) == pytest.approx(float(lonely[0]), rel=1e-5)
    assert 0 < float(shares["expr"][0]) < 1
    logits = jnp.asarray(outputs["au"])
    swapped = hard["au"].reshape(-1, 2, 12)[:, ::-1].reshape(BATCH, 12)
    lam = np.asarray(mixup.draw_shares(jax.random.key(0), BATCH, alpha=0.4))[:, None]
    expected = lam * au_error(logits, hard["au"], ALL.au)
    expected += (1 - lam) * au_error(logits, swapped, ALL.au)
    np.testing.assert_allclose(
        au_error(logits, mixed["au"], ALL.au), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_extreme_logits_have_finite_gradients(gamma):
    logits = jnp.asarray([[-200.0, -30.0, -1.0, 0.0, 1.0, 20.0, 90.0, 200.0]])
    settings = AuError(gamma, gamma, 0.05, 0.0, None)

    @jax.jit
    def slopes(logits, target_18, class_8):
        of_units = jax.grad(lambda u: au_error(u, target_18, settings).sum())(logits)
        of_class = jax.grad(lambda u: expr_error(u, class_8[None], ExprError(gamma)).sum())(logits)
        return of_units, of_class

    for number in range(8):
        target = jnp.full_like(logits, number % 2)
        for slope in slopes(logits, target, jax.nn.one_hot(number, 8)):
            assert np.isfinite(slope).all()


def test_the_batch_is_global_whatever_the_devices():
    batch = arrays(7)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    found, expected = all_on(*spread), all_on(*batch)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7), found, expected
    )


@pytest.mark.parametrize(
    "kind", ["learned", *(pytest.param(k, marks=pytest.mark.slow) for k in ("fixed", "likelihood"))]
)
def test_parts_of_a_batch_add_up_to_it(kind):
    """Values and gradients, also by learned temperatures, of four parts, one without a label."""
    outputs, targets, weights = arrays(8)
    for task in TASKS:
        weights[task][4:8] = 0
    learned = uncertainty.init_uncertainty(kind, T)

    def total(outputs, learned, coupled, targets, weights):
        result = losses.multi_task_loss(
            outputs,
            targets,
            weights,
            learned or None,
            kind=kind,
            temperatures=T,
            options=losses.LossOptions(va_ccc=0.6, coupled=coupled),
        )
        return result.example_weight * result.total, result.example_weight

    gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (whole, weight), expected = gradient(outputs, learned, None, targets, weights)
    coupled = losses.couple(outputs, targets, weights)
    sums, slopes, by_temperature = 0.0, [], []
    for start in range(0, BATCH, 4):
        part = jax.tree.map(
            lambda leaf, s=start: leaf[s : s + 4], (outputs, coupled, targets, weights)
        )
        (value, _), found = gradient(part[0], learned, *part[1:])
        sums += float(value)
        slopes.append(found[0]["va"])
        by_temperature.append(found[1])
    assert sums == pytest.approx(float(whole), rel=1e-5)
    assert float(weight) > 0
    # The weight of all examples multiplies the whole; CCC's slope is that of the whole batch.
    np.testing.assert_allclose(np.concatenate(slopes), expected[0]["va"], rtol=1e-4, atol=1e-6)
    for task in learned:
        found_slope = sum(float(part[task]) for part in by_temperature)
        assert found_slope == pytest.approx(float(expected[1][task]), rel=1e-4, abs=1e-6)
