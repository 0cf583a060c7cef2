"""The elementary measures of decisions and of valence and arousal, in float64.

Dimension letters: N rows.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def concordance(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Concordance correlation coefficient of Lin (1989), over all rows pooled.

    ``2 cov(x, y) / (var x + var y + (mean x - mean y)^2)`` with population statistics (division
    by N). A constant prediction or a constant truth gives exactly 0. That holds too where both
    are constant and equal, 0/0 by the formula: such rows are no evidence of concordance.

    Args:
        truth: values without NaN, [N], N > 0.
        prediction: values without NaN, [N].

    Returns:
        A number in [-1, 1].

    Raises:
        ValueError: shapes differ, there are no rows, or a value is not finite.
    """
    x = np.asarray(truth, np.float64)
    y = np.asarray(prediction, np.float64)
    _check_rows(x, y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("concordance of values that are not finite")
    if np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return 0.0
    dx = x - x.mean()
    dy = y - y.mean()
    denominator = np.mean(dx**2) + np.mean(dy**2) + (x.mean() - y.mean()) ** 2
    if denominator == 0.0:  # a spread so small that its square is not representable
        return 0.0
    return float(2.0 * np.mean(dx * dy) / denominator)


def concordance_parts(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float] | None:
    """What a concordance is made of: ``concordance = correlation * accuracy`` (Lin 1989).

    Args:
        truth: finite values, [N], N > 0.
        prediction: finite values, [N].

    Returns:
        `correlation`: Pearson's; `scale`: standard deviation of the predictions over that of the
        truth, 1 at best; `shift`: mean of the predictions less that of the truth, over the
        geometric mean of the two deviations, 0 at best; `accuracy`:
        ``2 / (scale + 1 / scale + shift^2)``, 1 at best. None where one of the two is constant.
    """
    x = np.asarray(truth, np.float64)
    y = np.asarray(prediction, np.float64)
    _check_rows(x, y)
    sx, sy = x.std(), y.std()
    if np.ptp(x) == 0.0 or np.ptp(y) == 0.0 or sx * sy == 0.0:
        return None
    scale = float(sy / sx)
    shift = float((y.mean() - x.mean()) / np.sqrt(sx * sy))
    return {
        "correlation": float(np.mean((x - x.mean()) * (y - y.mean())) / (sx * sy)),
        "scale": scale,
        "shift": shift,
        "accuracy": 2.0 / (scale + 1.0 / scale + shift**2),
    }


def root_mean_square_error(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Root of the mean square difference; [N] each, N > 0."""
    x = np.asarray(truth, np.float64)
    y = np.asarray(prediction, np.float64)
    _check_rows(x, y)
    return float(np.sqrt(np.mean((x - y) ** 2)))


def sign_agreement(truth: ArrayLike, prediction: ArrayLike) -> float:
    """SAGR: share of rows whose prediction has the sign of the truth (Nicolaou et al. 2011).

    Zero is a sign of its own. [N] each, N > 0.
    """
    x = np.asarray(truth, np.float64)
    y = np.asarray(prediction, np.float64)
    _check_rows(x, y)
    return float(np.mean(np.sign(x) == np.sign(y)))


def confusion_matrix(
    truth: ArrayLike, prediction: ArrayLike, *, num_classes: int
) -> NDArray[np.int64]:
    """Counts of each pair of true and predicted class.

    Args:
        truth: classes in 0 .. num_classes - 1, int [N].
        prediction: likewise.
        num_classes: number of classes.

    Returns:
        int64 [num_classes, num_classes]; row = truth, column = prediction.

    Raises:
        ValueError: shapes differ or a class is out of range.
    """
    rows = _classes(truth, num_classes)
    columns = _classes(prediction, num_classes)
    _check_rows(rows, columns, allow_empty=True)
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def f1_per_class(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of each class, ``2 TP / (2 TP + FP + FN)``, from its confusion matrix.

    Args:
        confusion: counts, int64 [C, C]; row = truth.

    Returns:
        float64 [C]; 0 for a class in neither truth nor prediction.
    """
    hits = np.diag(confusion).astype(np.float64)
    total = confusion.sum(axis=0) + confusion.sum(axis=1)
    return 2.0 * hits / np.maximum(total, 1)


def precision_per_class(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of right answers among those of each class, float64 [C]; NaN if never answered."""
    return _share(np.diag(confusion), confusion.sum(axis=0))


def recall_per_class(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class's rows that are found, float64 [C]; NaN for a class without rows."""
    return _share(np.diag(confusion), confusion.sum(axis=1))


def binary_f1(truth: ArrayLike, prediction: ArrayLike) -> float:
    """F1 of the positive class; 0 if it is in neither truth nor prediction.

    Args:
        truth: 0 or 1 (or bool), [N].
        prediction: likewise.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: shapes differ or a value is neither 0 nor 1.
    """
    return float(f1_per_class(confusion_matrix(truth, prediction, num_classes=2))[1])


def macro_f1(truth: ArrayLike, prediction: ArrayLike, *, num_classes: int) -> float:
    """Mean F1 over all `num_classes` classes; one in neither truth nor prediction counts 0.

    Args:
        truth: classes in 0 .. num_classes - 1, int [N].
        prediction: likewise.
        num_classes: number of classes that the mean is over.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: shapes differ or a class is out of range.
    """
    return float(f1_per_class(confusion_matrix(truth, prediction, num_classes=num_classes)).mean())


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _classes(values: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """The values as classes; ValueError where one is none, such as 0.5, NaN or -1."""
    given = np.asarray(values)
    if not np.isin(given, np.arange(num_classes)).all():
        raise ValueError(f"there are values other than the classes 0..{num_classes - 1}")
    return given.astype(np.int64)


def _check_rows(
    truth: NDArray[np.generic], prediction: NDArray[np.generic], *, allow_empty: bool = False
) -> None:
    """Raises ValueError unless both are [N] with the same N, which is not 0 unless allowed."""
    if truth.ndim != 1 or truth.shape != prediction.shape:
        raise ValueError(f"shapes {truth.shape} and {prediction.shape}, expected [N] and [N]")
    if not allow_empty and not truth.size:
        raise ValueError("there are no rows")
