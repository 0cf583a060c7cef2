"""The elementary measures of decisions, of valence and arousal, and of rankings, in float64.

Each is a function of sums, which add up over parts of the data. The functions of rows take those
sums of the rows and call it.

Dimension letters: N rows, C classes, G groups of equal score; further axes in front are `...`.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

NO_SPREAD = 1e-13
"""A variance below this is that of a constant, but for the rounding of its sums."""

COVERAGES = tuple(step / 20 for step in range(1, 21))
"""Coverages at which the risk-coverage curve is reported."""


def moments(truth_N: Floats, prediction_N: Floats) -> list[Floats]:
    """The columns whose sums `concordance_of_sums` takes: 1, x, y, x^2, y^2, x y.

    Both are taken relative to the mean of the truth, so that differences of the moments lose no
    digits. The sums of two parts add up only if they were taken relative to the same mean.
    """
    center = truth_N.mean() if len(truth_N) else 0.0
    x, y = truth_N - center, prediction_N - center
    return [np.ones_like(x), x, y, x * x, y * y, x * y]


def concordance_of_sums(sums: Floats) -> Floats:
    """Concordance correlation coefficient of Lin (1989), over all rows pooled.

    ``2 cov(x, y) / (var x + var y + (mean x - mean y)^2)`` with population statistics (division
    by N). A constant prediction or a constant truth gives exactly 0. That holds too where both
    are constant and equal, 0/0 by the formula: such rows are no evidence of concordance.

    Args:
        sums: of `moments`, [..., 6].

    Returns:
        Numbers in [-1, 1], [...]; NaN where there are no rows.
    """
    x, y, var_x, var_y, covariance, spread = _variances(sums)
    denominator = np.where(spread, var_x + var_y + (x - y) ** 2, 1.0)
    value = np.where(spread, 2.0 * covariance / denominator, 0.0)
    return np.where(sums[..., 0] > 0, value, np.nan)


def concordance_parts(sums: Floats) -> dict[str, Floats]:
    """What a concordance is made of: ``concordance = correlation * accuracy`` (Lin 1989).

    Args:
        sums: of `moments`, [..., 6].

    Returns:
        Each [...], NaN where one of the two is constant. `correlation`: Pearson's; `scale`:
        standard deviation of the predictions over that of the truth, 1 at best; `shift`: mean of
        the predictions less that of the truth, over the geometric mean of the two deviations, 0
        at best; `accuracy`: ``2 / (scale + 1 / scale + shift^2)``, 1 at best.
    """
    x, y, var_x, var_y, covariance, spread = _variances(sums)
    sx, sy = (np.sqrt(np.where(spread, var, np.nan)) for var in (var_x, var_y))
    scale, shift = sy / sx, (y - x) / np.sqrt(sx * sy)
    return {
        "correlation": covariance / (sx * sy),
        "scale": scale,
        "shift": shift,
        "accuracy": 2.0 / (scale + 1.0 / scale + shift**2),
    }


def ranks(values_N: Floats) -> Floats:
    """Ranks from above 0 to 1, float64 [N]; equal values share the mean of theirs."""
    _, group_N, count_G = np.unique(values_N, return_inverse=True, return_counts=True)
    return ((np.cumsum(count_G) - (count_G - 1) / 2)[group_N]) / max(len(values_N), 1)


def concordance(truth: ArrayLike, prediction: ArrayLike) -> float:
    """`concordance_of_sums` of rows: finite values, [N], N > 0.

    Raises:
        ValueError: shapes differ, there are no rows, or a value is not finite.
    """
    x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    _check_rows(x, y)
    if not x.size:
        raise ValueError("there are no rows")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("concordance of values that are not finite")
    return float(concordance_of_sums(np.array([column.sum() for column in moments(x, y)])))


def confusion_matrix(
    truth: ArrayLike, prediction: ArrayLike, *, num_classes: int
) -> NDArray[np.int64]:
    """Counts of each pair of true and predicted class, int64 [C, C]; row = truth.

    Raises:
        ValueError: shapes differ, or a class is not in 0 .. num_classes - 1.
    """
    rows, columns = as_classes(truth, num_classes), as_classes(prediction, num_classes)
    _check_rows(rows, columns)
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def f1_per_class(confusion: NDArray[Any]) -> Floats:
    """F1 of each class, ``2 TP / (2 TP + FP + FN)``, of confusion matrices [..., C, C].

    Returns:
        float64 [..., C]; 0 for a class in neither truth nor prediction.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return 2.0 * hits / np.maximum(confusion.sum(axis=-2) + confusion.sum(axis=-1), 1)


def precision_per_class(confusion: NDArray[Any]) -> Floats:
    """Share of right answers among those of each class, [..., C]; NaN if never answered."""
    return ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-2))


def recall_per_class(confusion: NDArray[Any]) -> Floats:
    """Share of each class's rows that are found, [..., C]; NaN for a class without rows."""
    return ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def always(confusion: NDArray[Any], answer: int) -> NDArray[Any]:
    """The confusion matrix [C, C] of the same truth and one constant answer."""
    constant = np.zeros_like(confusion)
    constant[..., answer] = confusion.sum(axis=-1)
    return constant


def binary_f1(truth: ArrayLike, prediction: ArrayLike) -> float:
    """F1 of the positive class of rows of 0 or 1, [N]; 0 if it is in neither.

    Raises:
        ValueError: shapes differ or a value is neither 0 nor 1.
    """
    return float(f1_per_class(confusion_matrix(truth, prediction, num_classes=2))[1])


def macro_f1(truth: ArrayLike, prediction: ArrayLike, *, num_classes: int) -> float:
    """Mean F1 over all classes of rows of classes, [N]; one in neither counts 0.

    Raises:
        ValueError: shapes differ or a class is out of range.
    """
    return float(f1_per_class(confusion_matrix(truth, prediction, num_classes=num_classes)).mean())


def average_precision(
    positive_G: NDArray[Any], count_G: NDArray[Any], *, spread: bool = False
) -> Floats:
    """Area under the precision-recall curve as a sum of steps, ``sum (R_k - R_k-1) P_k``.

    Nothing is interpolated, and rows of equal score enter together.

    Args:
        positive_G: positive rows of each group, the largest score first, [..., G].
        count_G: rows of each group, [..., G].
        spread: the rows of a group are not tied but lie between its neighbours in an unknown
            order: take the precision in the middle of the group and not at its end.

    Returns:
        Numbers in (0, 1], [...]; NaN without a positive row: there is no recall then.
    """
    hits = positive_G.cumsum(axis=-1)
    answered = count_G.cumsum(axis=-1)
    if spread:
        hits = hits - (positive_G - np.minimum(positive_G, 1)) / 2.0
        answered = answered - (count_G - np.minimum(count_G, 1)) / 2.0
    area = (positive_G * hits / np.maximum(answered, 1.0)).sum(axis=-1)
    return ratio(area, positive_G.sum(axis=-1))


def area_under_risk(count_G: Floats, loss_G: Floats) -> Floats:
    """AURC: the mean of the risks at 1, 2, ..., N answered rows (Geifman and El-Yaniv 2017).

    Rows are answered in order of confidence. At coverage c the surest c N rows are answered; the
    risk there is their mean loss. Where confidences are equal the expectation over all orders of
    those rows is taken, so that the order of rows does not matter.

    Args:
        count_G: rows of each group, the surest first; whole numbers, [..., G].
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
    return ratio(part.sum(axis=-1), total)


def risk_coverage(confidence_N: Floats, loss_N: NDArray[Any]) -> dict[str, Any]:
    """The risk-coverage curve and its area.

    Args:
        confidence_N: larger is surer, finite, [N], N > 0.
        loss_N: loss of each row, at least 0, [N]; 0 or 1 for decisions.

    Returns:
        `aurc`; `excess_aurc`: what lies above the area of the best order, that by loss;
        `coverage` and `risk`: points of the curve, lists.
    """
    loss_N = np.asarray(loss_N, np.float64)
    count_G, loss_G = _by_falling(np.asarray(confidence_N, np.float64), loss_N)
    aurc = float(area_under_risk(count_G, loss_G))
    best = float(area_under_risk(*_by_falling(-loss_N, loss_N)))
    answered = np.maximum(np.ceil(np.asarray(COVERAGES) * len(loss_N) - 1e-9), 1.0)
    # within a group the expected loss grows linearly
    summed = np.interp(answered, np.append(0.0, count_G.cumsum()), np.append(0.0, loss_G.cumsum()))
    return {
        "aurc": aurc,
        "excess_aurc": max(aurc - best, 0.0),
        "coverage": list(COVERAGES),
        "risk": (summed / answered).tolist(),
    }


def ratio(part: ArrayLike, whole: ArrayLike) -> Floats:
    """Their quotient, NaN where the whole is 0; the arguments are broadcast together."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def mean_of_defined(values: Floats, axis: int = -1) -> Floats:
    """Mean over an axis of what is not NaN; NaN if nothing is left."""
    some = ~np.isnan(values)
    return ratio(np.where(some, values, 0.0).sum(axis=axis), some.sum(axis=axis))


def or_none(value: float | Floats) -> float | None:
    """The number as JSON has it: None for NaN."""
    return None if np.isnan(value) else float(value)


def as_classes(values: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """The values as classes; ValueError where one is none, such as 0.5, NaN or -1."""
    given = np.asarray(values)
    if not np.isin(given, np.arange(num_classes)).all():
        raise ValueError(f"there are values other than the classes 0..{num_classes - 1}")
    return given.astype(np.int64)


def _variances(sums: Floats) -> tuple[NDArray[Any], ...]:
    """Means of x and y, variances, covariance, and whether both vary."""
    num = np.maximum(sums[..., 0], 1.0)
    x, y, xx, yy, xy = (sums[..., i] / num for i in range(1, 6))
    var_x, var_y = xx - x * x, yy - y * y
    return x, y, var_x, var_y, xy - x * y, (var_x > NO_SPREAD) & (var_y > NO_SPREAD)


def _by_falling(score_N: Floats, weight_N: Floats) -> tuple[Floats, Floats]:
    """Rows and summed weight of each group of equal score, the largest score first, [G] each."""
    _, group_N = np.unique(-score_N, return_inverse=True)
    count_G = np.bincount(group_N).astype(np.float64)
    return count_G, np.bincount(group_N, weights=weight_N).astype(np.float64)


def _check_rows(truth: NDArray[np.generic], prediction: NDArray[np.generic]) -> None:
    if truth.ndim != 1 or truth.shape != prediction.shape:
        raise ValueError(f"shapes {truth.shape} and {prediction.shape}, expected [N] and [N]")
