"""How far predicted probabilities are from what happens: reliability bins and calibration errors.

Bins are adaptive: each holds about the same number of rows (Nguyen and O'Connor 2015), and equal
confidences share a bin, so that the order of rows does not matter.

Dimension letters: N rows, B bins; arrays may have further axes in front (written `...`).
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Sums of each bin. They add up over parts of the data, say over videos.

    Attributes:
        count: rows, [..., B].
        confidence: sum of the predicted probabilities, [..., B].
        hits: number of rows where the event happened, [..., B].
    """

    count: NDArray[np.float64]
    confidence: NDArray[np.float64]
    hits: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Means of the bins that are not empty: `count`, `confidence`, `frequency` (lists)."""
        some = self.count > 0
        return {
            "count": self.count[some].astype(int).tolist(),
            "confidence": (self.confidence[some] / self.count[some]).tolist(),
            "frequency": (self.hits[some] / self.count[some]).tolist(),
        }


def adaptive_bins(values_N: NDArray[np.float64], num_bins: int = NUM_BINS) -> NDArray[np.int64]:
    """Assigns each value a bin, such that bins are in order and hold about equally many values.

    Args:
        values_N: finite values, [N].
        num_bins: bins wanted; there are fewer where many values are equal.

    Returns:
        Bin of each value in 0 .. num_bins - 1, int64 [N].
    """
    num_rows = len(values_N)
    if not num_rows:
        return np.zeros(0, np.int64)
    starts = np.arange(1, num_bins) * num_rows // num_bins
    edges = np.unique(np.sort(values_N)[starts])
    return np.searchsorted(edges, values_N, side="right").astype(np.int64)


def reliability(
    confidence_N: NDArray[np.float64], hit_N: NDArray[Any], num_bins: int = NUM_BINS
) -> Reliability:
    """Sums of the adaptive bins.

    Args:
        confidence_N: predicted probability of the event, [N], in [0, 1].
        hit_N: whether it happened, 0 or 1, [N].
        num_bins: number of bins.

    Returns:
        The sums, [num_bins].
    """
    bin_N = adaptive_bins(confidence_N, num_bins)

    def sums(weights_N: NDArray[Any] | None) -> NDArray[np.float64]:
        return np.bincount(bin_N, weights=weights_N, minlength=num_bins).astype(np.float64)

    return Reliability(sums(None), sums(confidence_N), sums(np.asarray(hit_N, np.float64)))


def expected_calibration_error(bins: Reliability) -> NDArray[np.float64]:
    """ECE: mean over rows of the distance between a bin's mean confidence and its frequency.

    Its expectation exceeds the true error, the more so the fewer rows a bin has; compare
    `debiased_calibration_error`.

    Args:
        bins: sums, [..., B].

    Returns:
        Errors in [0, 1], [...]; NaN where there are no rows.
    """
    weight, distance, _ = _bins(bins)
    return (weight * np.abs(distance)).sum(axis=-1)


def debiased_calibration_error(bins: Reliability) -> NDArray[np.float64]:
    """ECE less its bias, after Kumar, Liang and Ma, *Verified Uncertainty Calibration* (2019).

    The frequency of a bin of n rows scatters about its expectation like a normal variable with
    variance f (1 - f) / n. What that scatter adds to the absolute distance is estimated at the
    observed frequencies and taken off. They draw samples for it; the mean of a folded normal
    variable is known, so nothing is drawn here. Bins that are all hits or all misses have no
    estimated scatter.

    Args:
        bins: sums, [..., B].

    Returns:
        Errors in [0, 1], [...]; NaN where there are no rows.
    """
    from scipy.special import erf

    weight, distance, deviation = _bins(bins)
    ratio = np.divide(
        distance, deviation * np.sqrt(2.0), out=np.zeros_like(distance), where=deviation > 0
    )
    folded = np.where(
        deviation > 0,
        deviation * np.sqrt(2.0 / np.pi) * np.exp(-(ratio**2)) + distance * erf(ratio),
        np.abs(distance),
    )
    return np.maximum((weight * (2.0 * np.abs(distance) - folded)).sum(axis=-1), 0.0)


def _bins(bins: Reliability) -> tuple[NDArray[np.float64], ...]:
    """Each bin's share of rows, frequency less confidence, and the frequency's deviation."""
    total = bins.count.sum(axis=-1, keepdims=True)
    weight = np.divide(bins.count, total, out=np.full(bins.count.shape, np.nan), where=total > 0)
    num = np.maximum(bins.count, 1.0)
    frequency = bins.hits / num
    deviation = np.sqrt(np.maximum(frequency * (1.0 - frequency), 0.0) / num)
    return weight, (bins.hits - bins.confidence) / num, deviation
