"""Fits a calibration to labelled predictions, and keeps of it what holds on other videos.

Every part is judged by cross-fitting: the videos are dealt into folds, each fold is decided on by
a fit to the others, and the decisions of all folds are scored together, as the official score
does. The parts that gain that way are kept. Because that choice flatters the gain, the reported
score comes from a second, outer cross-fitting, which repeats the whole selection without the fold
that it judges. One choice is made on the reported number itself: a task that loses stays as it
was, and counts with its score of before.

Dimension letters: W windows, N rows, C values of a task (2, 12, 8), A action units (12),
E expressions (8).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from mtl_face.evaluation import calibration_optima as optima
from mtl_face.evaluation.calibration import (
    Calibration,
    CalibrationError,
    check_uncalibrated,
    group_names,
    weights_of,
)
from mtl_face.evaluation.joining import match, valid_au
from mtl_face.evaluation.measures import binary_f1, concordance, macro_f1
from mtl_face.evaluation.smoothing import Kernel, Scale, Smoothing, Unit, smooth
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, TASKS, VA, VA_NAMES

Rows = NDArray[np.int64]
Splits = Sequence[tuple[Rows, Rows]]
"""Rows to fit on and rows to judge by, of each fold."""

Values = Mapping[str, NDArray[np.float64]]
"""Valence and arousal, and the logits, by task, [N, C]."""

_FEWEST_VIDEOS = 3
_SMALLEST_GAIN = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """What is tried, and how it is judged.

    Attributes:
        windows: smoothing windows to choose from, for each task by itself. No smoothing is always
            among them, and the only choice if the table was smoothed before.
        kernel: of the smoothing, as `unit` and `on`; see `Smoothing`.
        unit: what windows count.
        on: what is averaged.
        num_folds: folds of the cross-fitting, by video.
        keep_all: keep what fits best in sample, whatever the cross-fitted score says.

    Raises:
        ValueError: a window is out of range.
    """

    windows: Sequence[float] = ()
    kernel: Kernel = "box"
    unit: Unit = "frames"
    on: Scale = "logits"
    num_folds: int = 5
    keep_all: bool = False

    def __post_init__(self) -> None:
        for window in self.windows:
            self.smoothing(dict.fromkeys(TASKS, window))

    def smoothing(self, windows: Mapping[str, float]) -> Smoothing:
        """The smoothing with these windows."""
        return Smoothing(kernel=self.kernel, unit=self.unit, on=self.on, windows=windows)


def calibrate(
    truth: FrameTable, table: PredictionTable, search: Search | None = None
) -> Calibration:
    """Fits smoothing windows, temperatures, standard deviations, thresholds and biases.

    Decisions of a task are changed only if that raises its cross-fitted score. Labels and
    predictions are matched by key. Without `search` there are no smoothing and five folds.

    Returns:
        The calibration. `fitted_on` holds `scores` (`uncalibrated`, `in_sample`, `cross_fitted`,
        each with `va`, `au`, `expr` and `p`), `measured` (cross-fitted scores before tasks were
        left unchanged for them), `gains` of the single parts, in words `refused` and `notes` (on
        temperatures that mean nothing), `not_fitted` (tasks without labels, or that the network was
        not trained on), `num_rows`, `num_folds`, `videos`, and what the table came with
        (`smoothing`, `probability`).

    Raises:
        CalibrationError: the table was calibrated before, or there are fewer than three videos.
        PredictionError: rows do not match, or predictions are not finite.
    """
    search = search or Search()
    check_uncalibrated(table)
    data = _Data(truth, table, search)
    rows = np.arange(len(data.group))
    plain = {task: data.values[task][0] for task in TASKS}
    before = _task_scores(data, plain, rows)

    held_out = {task: value_NC.copy() for task, value_NC in plain.items()}
    for test in make_folds(data.group, rows, search.num_folds):
        decided = _decided(data, _select(data, np.setdiff1d(rows, test), search))
        for task in TASKS:
            held_out[task][test] = decided[task][test]
    measured = _task_scores(data, held_out, rows)

    frozen = frozenset(
        task
        for task in TASKS
        if not search.keep_all and (measured[task] or 0.0) < (before[task] or 0.0) - _SMALLEST_GAIN
    )
    found = _select(data, rows, search, frozen)
    refused = found.refused + [
        f"decisions of {task}: cross-fitted {measured[task]:.4f} against {before[task]:.4f} "
        "uncalibrated, so they stay as they are"
        for task in TASKS
        if task in frozen
    ]
    windows = {task: data.windows[found.window[task]] for task in TASKS}
    smoothing = search.smoothing(windows)
    temperatures = found.temperatures
    return Calibration(
        smoothing=None if smoothing.changes_nothing else smoothing,
        temperatures=temperatures,
        std_scales=found.std_scales,
        std_is_predicted=table.valence_std is not None,
        au_thresholds=_named(AU_NAMES, found.au_thresholds / temperatures[AU]),
        expression_biases=_named(EXPRESSION_NAMES, found.expression_biases / temperatures[EXPR]),
        fitted_on={
            "num_rows": len(rows),
            "num_folds": search.num_folds,
            "videos": data.videos,
            "smoothing": table.metadata.get("smoothing") or None,
            "probability": table.metadata.get("probability"),
            "weights_sha256": weights_of(table.metadata),
            "windows_tried": data.windows,
            "kept_all": search.keep_all,
            "scores": {
                "uncalibrated": before,
                "in_sample": _task_scores(data, _decided(data, found), rows),
                "cross_fitted": _with_sum(
                    {task: (before if task in frozen else measured)[task] for task in TASKS}
                ),
            },
            "measured": measured,
            "gains": found.gains,
            "refused": refused,
            "notes": [
                f"temperature of {task}: {words}"
                for task, temperature in temperatures.items()
                if (words := optima.meaning_of_end(temperature))
            ],
            "not_fitted": [task for task in TASKS if before[task] is None],
        },
    )


def _named(names: Sequence[str], values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


class _Data:
    """Labels, and their predictions under each smoothing that is tried."""

    def __init__(self, truth: FrameTable, table: PredictionTable, search: Search) -> None:
        """Joins labels and predictions, and smooths with every window."""
        index = match(truth, table)
        candidates = {0.0: table.take(index)}
        candidates[0.0].check_numbers()
        windows = () if table.metadata.get("smoothing") else search.windows
        for window in windows:
            smoothing = search.smoothing(dict.fromkeys(TASKS, window))
            if not smoothing.changes_nothing:
                # all predictions take part in the means, also those of unlabelled frames
                candidates[float(window)] = smooth(table, smoothing).take(index)
        tables = [candidates[window] for window in sorted(candidates)]
        stds = [t.va_std for t in tables if t.va_std is not None]
        names = group_names(truth.dataset, truth.video)
        videos, group_N = np.unique(names, return_inverse=True)
        if len(videos) < _FEWEST_VIDEOS:
            raise CalibrationError(
                f"there are labels of {len(videos)} videos, and cross-fitting needs "
                f"{_FEWEST_VIDEOS}",
                remedy=f"give predictions and labels of {_FEWEST_VIDEOS} videos or more (two "
                "persons of one video count once), or use the predictions without a calibration",
            )
        self.truth = truth
        # by task: whether a row counts, [N]; none does of a task that the network cannot answer
        self.labelled = {
            task: mask_N & (task not in table.untrained)
            for task, mask_N in {**truth.labelled(), AU: valid_au(truth)[:, 0]}.items()
        }
        self.windows = sorted(candidates)  # the first is 0: the predictions as they are
        # by task, [W, N, C]
        self.values = {task: np.stack([t.values(task) for t in tables]) for task in TASKS}
        self.std = np.stack(stds) if stds else None  # of valence and arousal, [W, N, 2]
        self.group: NDArray[np.int64] = group_N.astype(np.int64)  # number of each row's video, [N]
        self.videos: list[str] = videos.tolist()

    def of_task(self, task: str, rows: Rows) -> Rows:
        """Those of the rows whose labels count for a task."""
        return rows[self.labelled[task][rows]]

    def splits(self, task: str, folds: Sequence[Rows]) -> Iterator[tuple[Rows, Rows]]:
        """Rows to fit on and rows to judge by, of each fold that has any; none if only one has."""
        labelled = [self.of_task(task, fold) for fold in folds]
        for k, test in enumerate(labelled):
            train = np.concatenate([*labelled[:k], *labelled[k + 1 :]])
            if len(test) and len(train):
                yield train, test


class _Fit:
    """What was found. Thresholds and biases count in logits before the temperature."""

    def __init__(self, keep_all: bool, frozen: frozenset[str]) -> None:
        """`frozen` are tasks whose decisions stay as they are."""
        self.keep_all, self.frozen = keep_all, frozen
        self.window = dict.fromkeys(TASKS, 0)  # number of each task's window
        self.temperatures = {AU: 1.0, EXPR: 1.0}
        self.std_scales: dict[str, float] = {}
        self.au_thresholds = np.zeros(len(AU_NAMES))
        self.expression_biases = np.zeros(len(EXPRESSION_NAMES))
        # cross-fitted gain of each part that was tried, in the score; of temperatures in the
        # negative log-likelihood
        self.gains: dict[str, float] = {}
        self.refused: list[str] = []  # parts that lost, in words

    def keeps(self, part: str, gain: float, *, decides: str | None = None) -> bool:
        """Notes the gain of a part, and says whether the part is kept."""
        if decides in self.frozen:
            return False
        self.gains[part] = gain
        if gain < -_SMALLEST_GAIN and not self.keep_all:
            self.refused.append(f"{part}: cross-fitted gain {gain:+.4f}")
        return self.keep_all or gain > _SMALLEST_GAIN


def _select(data: _Data, rows: Rows, search: Search, frozen: frozenset[str] = frozenset()) -> _Fit:
    """Fits all parts to some rows, and keeps those with a positive cross-fitted gain."""
    folds = make_folds(data.group, rows, search.num_folds)
    found = _Fit(search.keep_all, frozen)
    for task in TASKS:
        labelled = data.of_task(task, rows)
        if not len(labelled):
            continue
        splits = list(data.splits(task, folds))
        if not splits:
            found.refused.append(f"all of {task}: its labels lie in one fold, which leaves none")
            continue
        if len(data.windows) > 1:
            gain = _window_gain(data, task, rows, splits)
            if found.keeps(f"window of {task}", gain, decides=task):
                found.window[task] = _best_window(data, task, rows)
        if task == AU:
            _fit_thresholds(data, labelled, splits, found)
        if task == EXPR:
            _fit_biases(data, labelled, splits, found)
        if task != VA:
            _fit_temperature(data, task, labelled, splits, found)
    va_rows = data.of_task(VA, rows)
    if not len(va_rows):
        return found
    window = found.window[VA]
    std_N2 = 1.0 if data.std is None else data.std[window, va_rows]
    scales = optima.residual_std(data.truth.va[va_rows], data.values[VA][window, va_rows], std_N2)
    found.std_scales = _named(VA_NAMES, scales)
    return found


def _window_gain(data: _Data, task: str, rows: Rows, splits: Splits) -> float:
    """Cross-fitted gain of choosing a task's window."""
    plain_NC = data.values[task][0]
    chosen_NC = plain_NC.copy()
    for train, test in splits:
        chosen_NC[test] = data.values[task][_best_window(data, task, train)][test]
    return _task_score(data, task, chosen_NC, rows) - _task_score(data, task, plain_NC, rows)


def _best_window(data: _Data, task: str, rows: Rows) -> int:
    """The window with the highest score on these rows, the shortest of equals."""
    scores = [_task_score(data, task, value_NC, rows) for value_NC in data.values[task]]
    return int(np.argmax(scores))


def _fit_thresholds(data: _Data, labelled: Rows, splits: Splits, found: _Fit) -> None:
    logits_NA, truth_NA = data.values[AU][found.window[AU]], data.truth.au

    def threshold(some: Rows, i: int) -> float:
        return optima.best_threshold(truth_NA[some, i].astype(np.int64), logits_NA[some, i])

    for i, name in enumerate(AU_NAMES):
        present_N = np.zeros(len(logits_NA), np.bool_)
        for train, test in splits:
            present_N[test] = logits_NA[test, i] > threshold(train, i)
        truth_N = truth_NA[labelled, i]
        before = binary_f1(truth_N, logits_NA[labelled, i] > 0.0)
        gain = binary_f1(truth_N, present_N[labelled]) - before
        if found.keeps(f"threshold of {name}", gain, decides=AU):
            found.au_thresholds[i] = threshold(labelled, i)


def _fit_biases(data: _Data, labelled: Rows, splits: Splits, found: _Fit) -> None:
    logits_NE = data.values[EXPR][found.window[EXPR]]
    truth_N = data.truth.expression.astype(np.int64)
    biased_NE = logits_NE.copy()
    for train, test in splits:
        # two starts suffice to see whether biases are worth anything
        biased_NE[test] += optima.best_biases(truth_N[train], logits_NE[train], num_starts=2)
    before = _task_score(data, EXPR, logits_NE, labelled)
    if found.keeps(
        "biases of expr", _task_score(data, EXPR, biased_NE, labelled) - before, decides=EXPR
    ):
        found.expression_biases = optima.best_biases(truth_N[labelled], logits_NE[labelled])


def _fit_temperature(data: _Data, task: str, labelled: Rows, splits: Splits, found: _Fit) -> None:
    """By the drop of the negative log-likelihood; a unit is absent, of the logit 0, or present."""
    value_NC = data.values[task][found.window[task]]
    truth_NK: NDArray[Any] = data.truth.expression[:, None]
    logits_NKC = value_NC[:, None]
    if task == AU:
        truth_NK = data.truth.au
        logits_NKC = np.stack([np.zeros_like(value_NC), value_NC], axis=-1)

    def classes(some: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """True class and logits of every decision of these rows."""
        truth_M = truth_NK[some].astype(np.int64).ravel()
        return truth_M, logits_NKC[some].reshape(len(truth_M), -1)

    def drop(test: Rows, temperature: float) -> NDArray[np.float64]:
        truth_M, logits_MC = classes(test)
        own = np.arange(len(truth_M)), truth_M
        before, after = (
            scipy.special.log_softmax(logits_MC / t, axis=1)[own] for t in (1.0, temperature)
        )
        return after - before

    drops = [drop(test, optima.best_temperature(*classes(train))) for train, test in splits]
    if found.keeps(f"temperature of {task}", float(np.concatenate(drops).mean())):
        found.temperatures[task] = optima.best_temperature(*classes(labelled))


def make_folds(group_N: NDArray[np.int64], rows: Rows, num_folds: int) -> list[Rows]:
    """Deals whole groups into folds of about equal size; the same groups give the same folds.

    Args:
        group_N: group of each row, int [N].
        rows: the rows to deal, [M].
        num_folds: folds at most; there are fewer if there are fewer groups.

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


def _decided(data: _Data, found: _Fit) -> Values:
    """All rows under a fit, with logits shifted so that the usual decisions are the fit's."""
    value = {task: data.values[task][found.window[task]] for task in TASKS}
    return value | {
        AU: value[AU] - found.au_thresholds,
        EXPR: value[EXPR] + found.expression_biases,
    }


def _task_scores(data: _Data, values: Values, rows: Rows) -> dict[str, float | None]:
    """The official scores of some rows and their sum `p`; None for a task without labels."""
    return _with_sum(
        {
            task: _task_score(data, task, values[task], rows)
            if len(data.of_task(task, rows))
            else None
            for task in TASKS
        }
    )


def _with_sum(scores: dict[str, float | None]) -> dict[str, float | None]:
    values = [value for value in scores.values() if value is not None]
    return {**scores, "p": sum(values) if len(values) == len(scores) else None}


def _task_score(data: _Data, task: str, value_NC: NDArray[np.float64], rows: Rows) -> float:
    """The official score of a task on some rows, with the usual decisions; 0 without labels."""
    rows = data.of_task(task, rows)
    if not len(rows):
        return 0.0
    truth, value_MC = data.truth, value_NC[rows]
    if task == VA:
        pairs = zip((truth.valence, truth.arousal), np.clip(value_MC, -1.0, 1.0).T, strict=True)
        return float(np.mean([concordance(label_N[rows], value_M) for label_N, value_M in pairs]))
    if task == AU:
        pairs = zip(truth.au[rows].T, (value_MC > 0.0).T, strict=True)
        return float(np.mean([binary_f1(label_M, present_M) for label_M, present_M in pairs]))
    prediction_M = np.argmax(value_MC, axis=1)
    return macro_f1(truth.expression[rows], prediction_M, num_classes=len(EXPRESSION_NAMES))
