"""Fits a calibration, and keeps of it what is worth something on videos it was not fitted on.

Everything is judged by cross-fitting: the videos are dealt into folds, each fold is decided on by
a fit to the others, and the decisions of all folds are scored together, as the official score
does. `select` keeps the parts that gain that way. Because choosing by that score flatters it, the
score that is reported comes from a second, outer cross-fitting, in which the whole of `select` is
repeated without the fold that it is judged on.

Dimension letters: N rows, A action units (12), E expressions (8).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation import calibration_fit as fit
from mtl_face.evaluation.joining import valid_au, valid_expression, valid_va
from mtl_face.evaluation.measures import binary_f1, concordance, macro_f1
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, TASKS, VA, VA_NAMES

Rows = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Labels, and their predictions under each smoothing that is to be tried.

    Attributes:
        truth: N rows of labels.
        candidates: the predictions of those rows, in the same order, by window; window 0 is the
            predictions as they are.
        group: number of each row's video, int64 [N].
    """

    truth: FrameTable
    candidates: Mapping[float, PredictionTable]
    group: NDArray[np.int64]

    def labelled(self, task: str, rows: Rows) -> Rows:
        """Those of the rows whose labels count for a task."""
        counts = {VA: valid_va, EXPR: valid_expression}
        valid_N = counts[task](self.truth) if task in counts else valid_au(self.truth)[:, 0]
        return rows[np.asarray(valid_N)[rows]]


@dataclasses.dataclass
class Parameters:
    """A fit. Thresholds and biases are in units of the logits before the temperature."""

    windows: dict[str, float]
    temperatures: dict[str, float]
    std_scales: dict[str, float]
    au_thresholds: NDArray[np.float64]
    expression_biases: NDArray[np.float64]
    gains: dict[str, float]
    """Cross-fitted gain in the score (for temperatures in the negative log-likelihood) of each
    part that was tried."""
    refused: list[str]
    """Parts that were left out since they did not gain, in words."""

    @classmethod
    def unchanged(cls) -> "Parameters":
        """Those that change nothing."""
        return cls(
            windows=dict.fromkeys(TASKS, 0.0),
            temperatures={AU: 1.0, EXPR: 1.0},
            std_scales=dict.fromkeys(VA_NAMES, 1.0),
            au_thresholds=np.zeros(len(AU_NAMES)),
            expression_biases=np.zeros(len(EXPRESSION_NAMES)),
            gains={},
            refused=[],
        )


def group_names(dataset_N: NDArray[Any], video_N: NDArray[Any]) -> NDArray[np.str_]:
    """What belongs together: a video, with both of its persons where it shows two, str [N]."""
    names = []
    for dataset, video in zip(dataset_N.tolist(), video_N.tolist(), strict=True):
        names.append(f"{dataset}/{video.removesuffix('_left').removesuffix('_right')}")
    return np.asarray(names, np.str_)


def make_folds(group_N: NDArray[np.int64], rows: Rows, num_folds: int) -> list[Rows]:
    """Deals whole groups into folds of about equal size; the same groups give the same folds.

    Args:
        group_N: group of each row, int [N].
        rows: the rows to deal, [M].
        num_folds: number of folds; fewer if there are fewer groups.

    Returns:
        Rows of each fold; together they are all of `rows`.
    """
    groups, count = np.unique(group_N[rows], return_counts=True)
    filled = np.zeros(min(num_folds, len(groups)), np.int64)
    fold_of = np.zeros(int(groups.max(initial=-1)) + 1, np.int64)
    for k in np.argsort(-count, kind="stable"):
        smallest = int(np.argmin(filled))
        fold_of[groups[k]] = smallest
        filled[smallest] += count[k]
    fold_N = fold_of[group_N[rows]]
    return [rows[fold_N == fold] for fold in range(len(filled))]


def select(
    data: Data,
    rows: Rows,
    *,
    num_folds: int,
    keep_all: bool = False,
    frozen: frozenset[str] = frozenset(),
) -> Parameters:
    """Fits all parts, and keeps those with a positive cross-fitted gain.

    Args:
        data: labels and predictions.
        rows: the rows that may be looked at.
        num_folds: folds of the cross-fitting within these rows.
        keep_all: keep every part, whatever it gains.
        frozen: tasks whose decisions are to stay as they are.

    Returns:
        The fit.
    """
    folds = make_folds(data.group, rows, num_folds)
    found = Parameters.unchanged()

    def consider(name: str, gain: float, *, decides: str | None = None) -> bool:
        if decides in frozen:
            return False
        found.gains[name] = gain
        if gain > 1e-12 or keep_all:
            return True
        if gain < -1e-12:
            found.refused.append(f"{name}: cross-fitted gain {gain:+.4f}")
        return False

    for task in TASKS:
        if len(data.candidates) > 1 and len(data.labelled(task, rows)):
            gain = _window_gain(data, task, rows, folds)
            if consider(f"window of {task}", gain, decides=task):
                found.windows[task] = _best_window(data, task, rows)
    _select_au(data, rows, folds, found, consider)
    _select_expression(data, rows, folds, found, consider)
    va = data.candidates[found.windows[VA]]
    va_rows = data.labelled(VA, rows)
    for name in VA_NAMES:
        std = getattr(va, f"{name}_std")
        found.std_scales[name] = fit.residual_std(
            getattr(data.truth, name)[va_rows],
            getattr(va, name)[va_rows],
            None if std is None else std[va_rows],
        )
    return found


class Consider(Protocol):
    """Notes a part's gain, and says whether the part is kept."""

    def __call__(self, name: str, gain: float, *, decides: str | None = None) -> bool: ...  # noqa: D102


def _select_au(
    data: Data, rows: Rows, folds: Sequence[Rows], found: Parameters, consider: Consider
) -> None:
    table = data.candidates[found.windows[AU]]
    labelled = data.labelled(AU, rows)
    if not len(labelled):
        return
    parts = _labelled_folds(data, AU, folds)
    for i, name in enumerate(AU_NAMES):
        truth_N, logits_N = data.truth.au[:, i], table.logits(AU)[:, i]
        present_N = np.zeros(len(truth_N), np.bool_)
        for train, test in parts:
            threshold = fit.best_threshold(_binary(truth_N[train]), logits_N[train])
            present_N[test] = logits_N[test] > threshold
        before = binary_f1(truth_N[labelled], logits_N[labelled] > 0.0)
        gain = binary_f1(truth_N[labelled], present_N[labelled]) - before
        if consider(f"threshold of {name}", gain, decides=AU):
            found.au_thresholds[i] = fit.best_threshold(
                _binary(truth_N[labelled]), logits_N[labelled]
            )

    def temperature(some: Rows) -> float:
        return fit.binary_temperature(
            _binary(data.truth.au[some]).ravel(), table.logits(AU)[some].ravel()
        )

    def loss(some: Rows, at: float) -> NDArray[np.float64]:
        sign = 1.0 - 2.0 * data.truth.au[some]
        return np.logaddexp(0.0, sign * table.logits(AU)[some] / at).mean(axis=1)

    if consider("temperature of au", _likelihood_gain(parts, temperature, loss)):
        found.temperatures[AU] = temperature(labelled)


def _select_expression(
    data: Data, rows: Rows, folds: Sequence[Rows], found: Parameters, consider: Consider
) -> None:
    logits_NE = data.candidates[found.windows[EXPR]].logits(EXPR)
    truth_N = data.truth.expression.astype(np.int64)
    labelled = data.labelled(EXPR, rows)
    if not len(labelled):
        return
    parts = _labelled_folds(data, EXPR, folds)
    biased_NE = logits_NE.copy()
    for train, test in parts:
        # two starts suffice to see whether biases are worth anything
        biased_NE[test] += fit.best_biases(truth_N[train], logits_NE[train], num_starts=2)

    def score(values_NE: NDArray[np.float64]) -> float:
        prediction_N = np.argmax(values_NE[labelled], axis=1)
        return macro_f1(truth_N[labelled], prediction_N, num_classes=len(EXPRESSION_NAMES))

    if consider("biases of expr", score(biased_NE) - score(logits_NE), decides=EXPR):
        found.expression_biases = fit.best_biases(truth_N[labelled], logits_NE[labelled])

    def temperature(some: Rows) -> float:
        return fit.class_temperature(truth_N[some], logits_NE[some])

    def loss(some: Rows, at: float) -> NDArray[np.float64]:
        from scipy.special import log_softmax

        return -log_softmax(logits_NE[some] / at, axis=1)[np.arange(len(some)), truth_N[some]]

    if consider("temperature of expr", _likelihood_gain(parts, temperature, loss)):
        found.temperatures[EXPR] = temperature(labelled)


def _likelihood_gain(
    parts: Sequence[tuple[Rows, Rows]],
    temperature: Callable[[Rows], float],
    loss: Callable[[Rows, float], NDArray[np.float64]],
) -> float:
    """Mean drop of the negative log-likelihood on held-out rows."""
    drops = [loss(test, 1.0) - loss(test, temperature(train)) for train, test in parts]
    return float(np.concatenate(drops).mean())


def _labelled_folds(data: Data, task: str, folds: Sequence[Rows]) -> list[tuple[Rows, Rows]]:
    """Rows to fit on and rows to judge by, of each fold that has any to judge by."""
    labelled = [data.labelled(task, fold) for fold in folds]
    return [
        (np.concatenate([*labelled[:k], *labelled[k + 1 :]]), test)
        for k, test in enumerate(labelled)
        if len(test)
    ]


def _binary(values: NDArray[np.floating]) -> NDArray[np.int64]:
    return values.astype(np.int64)


def _window_gain(data: Data, task: str, rows: Rows, folds: Sequence[Rows]) -> float:
    """Cross-fitted gain of choosing a task's window."""
    chosen_N = np.zeros(len(data.group))
    for train, test in _labelled_folds(data, task, folds):
        chosen_N[test] = _best_window(data, task, train)
    mixed = _mixed(data, task, chosen_N)
    return task_score(data, task, mixed, rows) - task_score(data, task, data.candidates[0.0], rows)


def _best_window(data: Data, task: str, rows: Rows) -> float:
    """The window with the highest score on these rows, the shortest of equals."""
    scores = {
        w: task_score(data, task, table, rows) for w, table in sorted(data.candidates.items())
    }
    return max(scores, key=lambda window: scores[window])


def _mixed(data: Data, task: str, window_N: NDArray[np.float64]) -> PredictionTable:
    """A table that takes each row's columns of a task from the candidate of its window."""
    names = {VA: VA_NAMES, AU: ("au_logits",), EXPR: ("expression_logits",)}[task]
    base = data.candidates[0.0]
    columns: dict[str, Any] = {name: getattr(base, name).copy() for name in names}
    for window, table in data.candidates.items():
        for name in names:
            columns[name][window_N == window] = getattr(table, name)[window_N == window]
    return dataclasses.replace(base, **columns)


def task_score(data: Data, task: str, table: PredictionTable, rows: Rows) -> float:
    """The official score of a task on some rows, with the usual decisions; 0 without labels."""
    rows = data.labelled(task, rows)
    if not len(rows):
        return 0.0
    truth = data.truth
    if task == VA:
        scores = [
            concordance(getattr(truth, name)[rows], np.clip(getattr(table, name)[rows], -1.0, 1.0))
            for name in VA_NAMES
        ]
        return float(np.mean(scores))
    if task == AU:
        present_NA = table.logits(AU)[rows] > 0.0
        return float(
            np.mean([binary_f1(truth.au[rows, i], present_NA[:, i]) for i in range(len(AU_NAMES))])
        )
    prediction_N = np.argmax(table.logits(EXPR)[rows], axis=1)
    return macro_f1(truth.expression[rows], prediction_N, num_classes=len(EXPRESSION_NAMES))
