"""What is gained by answering only where one is sure: risk against coverage.

Rows are answered in order of confidence. At coverage c the surest c N rows are answered; the risk
there is their mean loss (Geifman and El-Yaniv 2017). The area under the curve (AURC) is the mean
of the risks at 1, 2, ..., N answered rows. Where confidences are equal the expectation over all
orders of those rows is taken, so that the order of rows does not matter.

Dimension letters: N rows, G groups of equal confidence; further axes in front are written `...`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

COVERAGES = tuple(step / 20 for step in range(1, 21))
"""Coverages at which the curve is told."""


def group_by_confidence(
    confidence_N: NDArray[np.float64], loss_N: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and summed loss of each group of equal confidence, the surest first.

    Args:
        confidence_N: larger is surer, [N].
        loss_N: losses, [N].

    Returns:
        (count, loss), each float64 [G].
    """
    _, group_N = np.unique(-confidence_N, return_inverse=True)
    count_G = np.bincount(group_N).astype(np.float64)
    return count_G, np.bincount(group_N, weights=loss_N).astype(np.float64)


def area(count_G: NDArray[np.float64], loss_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """AURC of groups in order of falling confidence.

    Args:
        count_G: rows of each group, whole numbers, [..., G].
        loss_G: summed loss of each group, [..., G].

    Returns:
        Areas, [...]; NaN where there are no rows.
    """
    end = count_G.cumsum(axis=-1).astype(np.int64)
    start = end - count_G.astype(np.int64)
    before = loss_G.cumsum(axis=-1) - loss_G
    mean = loss_G / np.maximum(count_G, 1.0)
    # sum of (before + (k - start) mean) / k over k = start + 1 .. end
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, end.max(initial=0) + 1))])
    part = mean * count_G + (before - start * mean) * (harmonic[end] - harmonic[start])
    total = end[..., -1] if end.shape[-1] else np.zeros(end.shape[:-1], np.int64)
    return np.divide(
        part.sum(axis=-1), total, out=np.full(total.shape, np.nan), where=np.asarray(total > 0)
    )


def risk_coverage(
    confidence_N: NDArray[np.float64], loss_N: NDArray[np.float64]
) -> dict[str, Any] | None:
    """The curve and its area.

    Args:
        confidence_N: larger is surer, finite, [N].
        loss_N: loss of each row, at least 0, [N]; 0 or 1 for decisions.

    Returns:
        `aurc`; `excess_aurc`: what lies above the area of the best order, that by loss;
        `coverage` and `risk`: points of the curve, lists. None if N is 0.
    """
    num_rows = len(loss_N)
    if not num_rows:
        return None
    loss_N = np.asarray(loss_N, np.float64)
    count_G, loss_G = group_by_confidence(np.asarray(confidence_N, np.float64), loss_N)
    aurc = float(area(count_G, loss_G))
    best = float(area(*group_by_confidence(-loss_N, loss_N)))
    answered = np.maximum(np.ceil(np.asarray(COVERAGES) * num_rows - 1e-9), 1.0)
    # within a group the expected loss grows linearly
    summed = np.interp(answered, np.append(0.0, count_G.cumsum()), np.append(0.0, loss_G.cumsum()))
    return {
        "aurc": aurc,
        "excess_aurc": max(aurc - best, 0.0),
        "coverage": list(COVERAGES),
        "risk": (summed / answered).tolist(),
    }
