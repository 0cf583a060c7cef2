"""The elementary measures of predicted uncertainties: losses of rows, calibration of probabilities.

Bins of a calibration error are adaptive: each holds about the same number of rows (Nguyen and
O'Connor 2015), and equal confidences share a bin, so that the order of rows does not matter.

Dimension letters: N rows, E expressions (8), B bins; further axes in front are written `...`.
"""

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit, log_softmax

from mtl_face.evaluation.measures import Floats, ratio

INTERVAL_LEVELS = {"50": 0.5, "80": 0.8, "95": 0.95}
"""Nominal probabilities of the central intervals whose coverage is counted, by name in percent."""

NUM_BINS = 15


def gaussian_losses(truth: Floats, mean: Floats, std: Floats) -> Floats:
    """Negative log density of a normal prediction, in nats; same shape as the arguments."""
    return 0.5 * np.log(2.0 * np.pi * std**2) + (truth - mean) ** 2 / (2.0 * std**2)


def inside_interval(
    truth: Floats, mean: Floats, std: Floats, probability: float
) -> NDArray[np.bool_]:
    """Whether the truth lies in the central interval of a normal prediction.

    The interval is that of the normal variable clipped to [-1, 1], as the predictions are: an end
    beyond the range takes in the whole range on its side.
    """
    half = NormalDist().inv_cdf(0.5 + probability / 2.0) * std
    return (truth >= np.minimum(mean - half, 1.0)) & (truth <= np.maximum(mean + half, -1.0))


def binary_losses(truth: Floats, logits: Floats) -> tuple[Floats, Floats]:
    """Negative log likelihood in nats and Brier score ``(p - y)^2`` of each decision."""
    nll = np.logaddexp(0.0, logits) - truth * logits
    return nll, (expit(logits) - truth) ** 2


def class_losses(truth_N: NDArray[np.int64], logits_NE: Floats) -> tuple[Floats, Floats]:
    """Negative log likelihood in nats and Brier score ``sum_k (p_k - y_k)^2``, [N] each."""
    log_NE = log_softmax(logits_NE, axis=1)
    one_hot_NE = np.arange(logits_NE.shape[1])[None, :] == truth_N[:, None]
    nll_N = -np.take_along_axis(log_NE, truth_N[:, None], axis=1)[:, 0]
    return nll_N, ((np.exp(log_NE) - one_hot_NE) ** 2).sum(axis=1)


def adaptive_bins(values_N: Floats, num_bins: int = NUM_BINS) -> NDArray[np.int64]:
    """Bin of each finite value in 0 .. num_bins - 1, int64 [N].

    Bins are in order of the values and hold about equally many; there are fewer bins where many
    values are equal.
    """
    if not len(values_N):
        return np.zeros(0, np.int64)
    starts = np.arange(1, num_bins) * len(values_N) // num_bins
    edges = np.unique(np.sort(values_N)[starts])
    return np.searchsorted(edges, values_N, side="right").astype(np.int64)


def reliability(confidence_N: Floats, hit_N: NDArray[Any]) -> Floats:
    """Sums of the adaptive bins: rows, probabilities and hits (rows where the event happened).

    They add up over parts of the data, say over videos.

    Args:
        confidence_N: probabilities, [N].
        hit_N: 0 or 1, [N].

    Returns:
        float64 [3, B].
    """
    bin_N = adaptive_bins(confidence_N)
    columns = (np.ones(len(bin_N)), confidence_N, hit_N)
    return np.array([np.bincount(bin_N, column, minlength=NUM_BINS) for column in columns])


def reliability_points(sums: Floats) -> dict[str, Any]:
    """Means of the bins of `reliability` that are not empty, as JSON: lists."""
    count, confidence, hits = sums[:, sums[0] > 0]
    return {
        "count": count.astype(int).tolist(),
        "confidence": (confidence / count).tolist(),
        "frequency": (hits / count).tolist(),
    }


def expected_calibration_error(sums: Floats) -> Floats:
    """ECE: mean over rows of the distance between a bin's mean confidence and its frequency.

    Its expectation exceeds the true error, the more so the fewer rows a bin has; compare
    `debiased_calibration_error`.

    Args:
        sums: of `reliability`, [..., 3, B].

    Returns:
        Errors in [0, 1], [...]; NaN where there are no rows.
    """
    weight, distance, _ = _bins(sums)
    return (weight * np.abs(distance)).sum(axis=-1)


def debiased_calibration_error(sums: Floats) -> Floats:
    """ECE less its bias, after Kumar, Liang and Ma, *Verified Uncertainty Calibration* (2019).

    The frequency of a bin of n rows scatters about its expectation like a normal variable with
    variance f (1 - f) / n. What that scatter adds to the absolute distance is estimated at the
    observed frequencies and taken off. They draw samples for it; the mean of a folded normal
    variable is known, so nothing is drawn here. Bins that are all hits or all misses have no
    estimated scatter. Arguments and result are those of `expected_calibration_error`.
    """
    weight, distance, deviation = _bins(sums)
    scaled = ratio(distance, deviation * np.sqrt(2.0))
    folded = np.where(
        deviation > 0,
        deviation * np.sqrt(2.0 / np.pi) * np.exp(-(scaled**2)) + distance * erf(scaled),
        np.abs(distance),
    )
    return np.maximum((weight * (2.0 * np.abs(distance) - folded)).sum(axis=-1), 0.0)


def _bins(sums: Floats) -> tuple[Floats, ...]:
    """Each bin's share of rows, frequency less confidence, and the frequency's deviation."""
    count, confidence, hits = np.moveaxis(sums, -2, 0)
    num = np.maximum(count, 1.0)
    frequency = hits / num
    deviation = np.sqrt(np.maximum(frequency * (1.0 - frequency), 0.0) / num)
    return ratio(count, count.sum(axis=-1, keepdims=True)), (hits - confidence) / num, deviation
