"""How well scores rank the rows where something is present above the others.

Dimension letters: N rows, G groups of equal score; further axes in front are written `...`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_precision(truth_N: NDArray[Any], score_N: NDArray[np.float64]) -> float | None:
    """Area under the precision-recall curve as a sum of steps, ``sum (R_k - R_k-1) P_k``.

    Nothing is interpolated, and rows of equal score enter together.

    Args:
        truth_N: 0 or 1, [N].
        score_N: larger is more likely, finite, [N].

    Returns:
        A number in (0, 1], or None without a positive row: there is no recall then.
    """
    _, group_N = np.unique(-np.asarray(score_N), return_inverse=True)
    positive_G = np.bincount(group_N, weights=np.asarray(truth_N, np.float64))
    value = float(average_precision_of_groups(positive_G, np.bincount(group_N)))
    return None if np.isnan(value) else value


def average_precision_of_groups(
    positive_G: NDArray[Any], count_G: NDArray[Any], *, spread: bool = False
) -> NDArray[np.float64]:
    """Average precision from counts of groups in order of falling score.

    Args:
        positive_G: positive rows of each group, [..., G].
        count_G: rows of each group, [..., G].
        spread: the rows of a group are not tied but lie between its neighbours in an unknown
            order: take the precision in the middle of the group and not at its end.

    Returns:
        Values, [...]; NaN where there is no positive row.
    """
    hits = positive_G.cumsum(axis=-1)
    answered = count_G.cumsum(axis=-1)
    if spread:
        hits = hits - (positive_G - np.minimum(positive_G, 1)) / 2.0
        answered = answered - (count_G - np.minimum(count_G, 1)) / 2.0
    precision = hits / np.maximum(answered, 1.0)
    total = positive_G.sum(axis=-1)
    area = (positive_G * precision).sum(axis=-1)
    return np.divide(area, total, out=np.full(np.shape(total), np.nan), where=total > 0)
