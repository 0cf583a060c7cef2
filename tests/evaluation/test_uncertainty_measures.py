"""Proper scores and calibration errors against other programs and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn import metrics as sklearn_metrics

from mtl_face.evaluation.uncertainty_measures import (
    NUM_BINS,
    adaptive_bins,
    binary_losses,
    class_losses,
    debiased_calibration_error,
    expected_calibration_error,
    gaussian_losses,
    inside_interval,
    reliability,
    reliability_points,
)

SETTINGS = settings(deadline=None, derandomize=True, max_examples=100)


def test_losses_of_classes_are_scikit_learns():
    rng = np.random.default_rng(0)
    truth, logits = rng.integers(0, 8, 300), 2 * rng.normal(size=(300, 8))
    probability = special.softmax(logits, axis=1)
    nll, brier = class_losses(truth, logits)
    assert nll.mean() == pytest.approx(
        sklearn_metrics.log_loss(truth, probability, labels=range(8))
    )
    expected = ((probability - np.eye(8)[truth]) ** 2).sum(axis=1)
    np.testing.assert_allclose(brier, expected)


def test_losses_of_action_units_are_scikit_learns():
    rng = np.random.default_rng(0)
    truth, logits = rng.integers(0, 2, 300).astype(float), 2 * rng.normal(size=300)
    nll, brier = binary_losses(truth, logits)
    probability = special.expit(logits)
    assert nll.mean() == pytest.approx(sklearn_metrics.log_loss(truth, probability))
    assert brier.mean() == pytest.approx(sklearn_metrics.brier_score_loss(truth, probability))


def test_losses_of_extreme_logits_do_not_overflow():
    nll, brier = binary_losses(np.array([1.0, 0.0]), np.array([1e4, 1e4]))
    assert nll.tolist() == [0.0, 1e4]
    assert brier.tolist() == [0.0, 1.0]
    nll, _ = class_losses(np.array([0, 1]), np.array([[1e4, 0.0], [1e4, 0.0]]))
    assert nll.tolist() == [0.0, 1e4]


def test_normal_predictions_against_scipy():
    rng = np.random.default_rng(0)
    truth, mean = np.clip(rng.normal(0, 0.3, (2, 200)), -1, 1)
    std = rng.uniform(0.1, 0.4, 200)
    np.testing.assert_allclose(
        gaussian_losses(truth, mean, std), -stats.norm.logpdf(truth, mean, std)
    )
    low, high = stats.norm.interval(0.8, mean, std)
    np.testing.assert_array_equal(
        inside_interval(truth, mean, std, 0.8), (low <= truth) & (truth <= high)
    )


def test_an_interval_beyond_the_range_takes_in_its_end():
    one = np.ones(1)
    assert inside_interval(one, 3 * one, 0.1 * one, 0.5).all()
    assert not inside_interval(-one, 3 * one, 0.1 * one, 0.5).any()


@SETTINGS
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 20))
def test_adaptive_bins_keep_order_and_ties(values, num_bins):
    values = np.array(values, float)
    bins = adaptive_bins(values, num_bins)
    assert ((bins >= 0) & (bins < num_bins)).all()
    for i, j in itertools.combinations(range(len(values)), 2):
        if values[i] == values[j]:
            assert bins[i] == bins[j]
        elif values[i] < values[j]:
            assert bins[i] <= bins[j]


def test_adaptive_bins_are_equally_full():
    values = np.random.default_rng(0).random(1503)
    count = np.bincount(adaptive_bins(values))
    assert len(count) == NUM_BINS
    assert count.max() - count.min() <= 1


def naive_calibration_error(confidence, hit, num_bins):
    """Sorts, cuts into parts of equal size, and adds up; for confidences without ties."""
    order = np.argsort(confidence)
    cuts = [k * len(order) // num_bins for k in range(num_bins + 1)]
    parts = [order[a:b] for a, b in itertools.pairwise(cuts)]
    return sum(
        len(part) / len(order) * abs(confidence[part].mean() - hit[part].mean())
        for part in parts
        if len(part)
    )


@SETTINGS
@given(st.integers(20, 200), st.integers(0, 2**32 - 1))
def test_calibration_error_by_brute_force(num_rows, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.random(num_rows)
    hit = rng.random(num_rows) < confidence**2
    value = expected_calibration_error(reliability(confidence, hit))
    assert value == pytest.approx(naive_calibration_error(confidence, hit, NUM_BINS), abs=1e-12)


def test_debiased_error_is_the_mean_of_drawn_frequencies():
    rng = np.random.default_rng(0)
    confidence = rng.random(600)
    hit = rng.random(600) < 0.7 * confidence + 0.1
    bins = reliability(confidence, hit)
    count, confidences, hits = bins
    frequency, mean = hits / count, confidences / count
    weight = count / 600
    deviation = np.sqrt(frequency * (1 - frequency) / count)
    drawn = rng.normal(frequency, deviation, (200_000, NUM_BINS))
    biased = (weight * np.abs(drawn - mean)).sum(axis=1).mean()
    plain = expected_calibration_error(bins)
    assert debiased_calibration_error(bins) == pytest.approx(2 * plain - biased, abs=3e-4)


def test_debiased_error_of_honest_probabilities_is_nearer_to_zero():
    rng = np.random.default_rng(0)
    plain, debiased = [], []
    for _ in range(200):
        confidence = rng.random(500)
        bins = reliability(confidence, rng.random(500) < confidence)
        plain.append(expected_calibration_error(bins))
        debiased.append(debiased_calibration_error(bins))
    assert np.mean(plain) > 0.04
    assert np.mean(debiased) < 0.65 * np.mean(plain)


def test_calibration_error_of_a_known_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 0.7, 200_000)
    bins = reliability(confidence, rng.random(200_000) < confidence + 0.2)
    assert expected_calibration_error(bins) == pytest.approx(0.2, abs=0.005)
    assert debiased_calibration_error(bins) == pytest.approx(0.2, abs=0.005)
    told = reliability_points(bins)
    assert sum(told["count"]) == 200_000
    gap = np.subtract(told["frequency"], told["confidence"])
    np.testing.assert_allclose(gap, 0.2, atol=0.02)
