"""Each fit against a search over a grid, or over every cut, that knows nothing of it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from mtl_face.evaluation import calibration_optima as optima


def f1(truth, present):
    hits = sum(1 for t, p in zip(truth, present, strict=True) if t and p)
    return 2 * hits / max(1, int(truth.sum()) + int(present.sum()))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(-6, 6).map(lambda i: i / 2)),
        min_size=1,
        max_size=12,
    )
)
def test_threshold_is_the_best_of_all(rows):
    truth, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    threshold = optima.best_threshold(truth, score)
    every_cut = [f1(truth, score > t) for t in np.arange(-4, 4, 0.25)]
    assert f1(truth, score > threshold) == pytest.approx(max(every_cut))
    if f1(truth, score > 0.0) == pytest.approx(max(every_cut)):
        assert threshold == 0.0


def test_threshold_without_positives_stays_at_zero():
    assert optima.best_threshold(np.zeros(3, np.int64), np.array([1.0, 2.0, 3.0])) == 0.0
    all_present = optima.best_threshold(np.ones(3, np.int64), np.array([-1.0, -2.0, -3.0]))
    assert all_present < -3.0


def macro_f1(truth, prediction, num_classes):
    return f1_score(
        truth, prediction, labels=range(num_classes), average="macro", zero_division=0.0
    )


def fast_macro_f1(truth, prediction, num_classes):
    """The same for many predictions at once, [G, N]."""
    total = np.zeros(len(prediction))
    for c in range(num_classes):
        hits = ((prediction == c) & (truth == c)).sum(axis=1)
        total += 2 * hits / np.maximum((prediction == c).sum(axis=1) + (truth == c).sum(), 1)
    return total / num_classes


@settings(deadline=None, derandomize=True, max_examples=12)
@given(st.integers(1, 20), st.integers(2, 3), st.integers(0, 2**32 - 1))
def test_biases_reach_the_optimum_of_a_grid(num_rows, num_classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_rows, num_classes))
    truth = rng.integers(0, num_classes, num_rows)
    bias = optima.best_biases(truth, logits)
    reached = macro_f1(truth, np.argmax(logits + bias, axis=1), num_classes)
    grid = itertools.product(np.linspace(-5, 5, 41), repeat=num_classes - 1)
    biases = np.array([(0.0, *rest) for rest in grid])
    decisions = np.argmax(logits + biases[:, None, :], axis=2)
    assert reached >= fast_macro_f1(truth, decisions, num_classes).max() - 1e-9


def test_biases_undo_a_shift():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 8, 400)
    logits = 8.0 * np.eye(8)[truth] + rng.normal(size=(400, 8))
    shifted = logits + np.array([0, 20, 0, -20, 0, 5, 0, 0])
    assert macro_f1(truth, np.argmax(shifted, axis=1), 8) < 0.3
    bias = optima.best_biases(truth, shifted)
    assert macro_f1(truth, np.argmax(shifted + bias, axis=1), 8) > 0.99
    assert bias.mean() == pytest.approx(0.0)


def test_biases_stay_at_zero_where_nothing_gains():
    truth = np.arange(8)
    np.testing.assert_array_equal(optima.best_biases(truth, np.eye(8)), 0.0)
    np.testing.assert_array_equal(optima.best_biases(truth[:0], np.eye(8)[:0]), 0.0)


def binary_temperature(truth, logits):
    """An action unit is absent, of the logit 0, or present."""
    return optima.best_temperature(truth, np.column_stack([np.zeros_like(logits), logits]))


GRID = np.exp(np.linspace(np.log(1e-3), np.log(1e3), 801))


@settings(deadline=None, derandomize=True, max_examples=10)
@given(st.integers(1, 30), st.floats(0.1, 8), st.integers(0, 2**32 - 1))
def test_temperatures_against_a_grid(num_rows, scale, seed):
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=num_rows)
    truth = (rng.random(num_rows) < 1 / (1 + np.exp(-rng.normal(logits)))).astype(np.int64)

    def binary(t):
        return np.logaddexp(0, (1 - 2 * truth) * logits / t).mean()

    temperature = binary_temperature(truth, logits)
    assert binary(temperature) <= min(map(binary, GRID)) + 1e-9
    logits = scale * rng.normal(size=(num_rows, 4))
    truth = rng.integers(0, 4, num_rows)

    def multiclass(t):
        u = logits / t
        highest = u.max(axis=1)
        log_sum = highest + np.log(np.exp(u - highest[:, None]).sum(axis=1))
        return (log_sum - u[np.arange(num_rows), truth]).mean()

    temperature = optima.best_temperature(truth, logits)
    assert multiclass(temperature) <= min(map(multiclass, GRID)) + 1e-9


def test_temperature_of_logits_that_were_scaled():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 100_000)
    truth = (rng.random(100_000) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    assert binary_temperature(truth, 5 * logits) == pytest.approx(5, rel=0.05)
    assert binary_temperature(truth, -logits) == optima.HOTTEST
    assert binary_temperature(np.ones(2, np.int64), np.ones(2)) == 1 / optima.HOTTEST
    assert binary_temperature(truth[:0], logits[:0]) == 1.0


def test_standard_deviation():
    from scipy.optimize import minimize_scalar
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    truth, prediction = rng.uniform(-1, 1, (2, 200))
    std = rng.uniform(0.1, 1, 200)
    for own in (None, std):
        base = 1.0 if own is None else own

        def loss(log, base=base):
            return -norm.logpdf(truth, prediction, np.exp(log) * base).mean()

        best = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
        assert optima.residual_std(truth, prediction, base) == pytest.approx(best, rel=1e-3)
    clipped = optima.residual_std(np.ones(3), np.full(3, 7.0))
    assert clipped == 1e-6
