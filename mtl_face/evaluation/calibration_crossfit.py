"""Fits a calibration to labelled predictions, with an honest estimate of what it gains.

The score in sample is that of the calibration on the rows that it was fitted on, and flatters it.
The cross-fitted score repeats everything, the choice of parts included, without the videos that
are scored; but a task that it shows to lose is left as it was, and then counts with its score of
before. `measured` holds the scores without that last choice. See `calibration_selection`.

Dimension letters: N rows, A action units (12), E expressions (8).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_face.evaluation.calibration import Calibration, CalibrationError
from mtl_face.evaluation.calibration_selection import (
    Data,
    Parameters,
    Rows,
    group_names,
    make_folds,
    select,
    task_score,
)
from mtl_face.evaluation.joining import check_numbers, match
from mtl_face.evaluation.smoothing import Kernel, Scale, Smoothing, Unit, smooth
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, TASKS, VA, VA_NAMES

_FEWEST_VIDEOS = 3


def calibrate(
    truth: FrameTable,
    table: PredictionTable,
    *,
    windows: Sequence[float] = (),
    kernel: Kernel = "box",
    unit: Unit = "frames",
    on: Scale = "logits",
    num_folds: int = 5,
    keep_all: bool = False,
) -> Calibration:
    """Fits smoothing windows, temperatures, standard deviations, thresholds and biases.

    Decisions of a task are changed only if that raises its cross-fitted score.

    Args:
        truth: labels of the validation set.
        table: their predictions, matched by key.
        windows: smoothing windows to choose from, for each task by itself; no smoothing is always
            among them, and the only choice if the table was smoothed before.
        kernel: of the smoothing, as `unit` and `on`; see `Smoothing`.
        unit: what windows count.
        on: what is averaged.
        num_folds: folds of the cross-fitting, by video.
        keep_all: keep what fits best in sample, whatever the cross-fitted score says.

    Returns:
        The calibration. `fitted_on` holds `scores` (`uncalibrated`, `in_sample`, `cross_fitted`,
        each with `va`, `au`, `expr` and `p`), `measured` (cross-fitted scores before tasks were
        left unchanged for them), `gains` of the single parts, `refused` (in words), `num_rows`,
        `num_folds`, `videos`, `smoothing` (what the table came with).

    Raises:
        CalibrationError: the table was calibrated before, or there are fewer than three videos.
        PredictionError: rows do not match, or predictions are not finite.
    """
    if table.metadata.get("calibration") or table.metadata.get("decisions"):
        raise CalibrationError(
            "the predictions were calibrated before",
            remedy="give the predictions as the network made them",
        )
    data, names = _prepare(truth, table, windows, kernel, unit, on)
    rows = np.arange(len(data.group))
    if len(names) < _FEWEST_VIDEOS:
        raise CalibrationError(
            f"there are labels of {len(names)} videos, and cross-fitting needs {_FEWEST_VIDEOS}",
            remedy="calibrate on the whole validation set",
        )
    before = task_scores(data, data.candidates[0.0], rows)
    held_out = data.candidates[0.0]
    for test in make_folds(data.group, rows, num_folds):
        train = np.setdiff1d(rows, test)
        parameters = select(data, train, num_folds=num_folds, keep_all=keep_all)
        held_out = _with_rows(held_out, _decided(data, parameters), test)
    measured = task_scores(data, held_out, rows)
    frozen = frozenset(
        task
        for task in TASKS
        if not keep_all and (measured[task] or 0.0) < (before[task] or 0.0) - 1e-12
    )
    found = select(data, rows, num_folds=num_folds, keep_all=keep_all, frozen=frozen)
    refused = found.refused + [
        f"decisions of {task}: cross-fitted {measured[task]:.4f} against {before[task]:.4f} "
        "uncalibrated, so they stay as they are"
        for task in TASKS
        if task in frozen
    ]
    crossed = _total({task: (before if task in frozen else measured)[task] for task in TASKS})
    smoothing = Smoothing(kernel=kernel, unit=unit, on=on, windows=found.windows)
    return Calibration(
        smoothing=None if smoothing.changes_nothing else smoothing,
        temperatures=found.temperatures,
        std_scales=found.std_scales,
        std_is_predicted=table.valence_std is not None,
        au_thresholds=_named(AU_NAMES, found.au_thresholds / found.temperatures[AU]),
        expression_biases=_named(
            EXPRESSION_NAMES, found.expression_biases / found.temperatures[EXPR]
        ),
        fitted_on={
            "num_rows": len(rows),
            "num_folds": num_folds,
            "videos": names,
            "smoothing": table.metadata.get("smoothing") or None,
            "weights_sha256": table.metadata.get("weights_sha256"),
            "windows_tried": sorted(data.candidates),
            "kept_all": keep_all,
            "scores": {
                "uncalibrated": before,
                "in_sample": task_scores(data, _decided(data, found), rows),
                "cross_fitted": crossed,
            },
            "measured": measured,
            "gains": found.gains,
            "refused": refused,
        },
    )


def task_scores(data: Data, table: PredictionTable, rows: Rows) -> dict[str, float | None]:
    """The official scores of some rows and their sum `p`; None for a task without labels."""
    return _total(
        {
            task: task_score(data, task, table, rows) if len(data.labelled(task, rows)) else None
            for task in TASKS
        }
    )


def _total(scores: dict[str, float | None]) -> dict[str, float | None]:
    values = [value for value in scores.values() if value is not None]
    return {**scores, "p": sum(values) if len(values) == len(scores) else None}


def _named(names: Sequence[str], values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _prepare(
    truth: FrameTable,
    table: PredictionTable,
    windows: Sequence[float],
    kernel: Kernel,
    unit: Unit,
    on: Scale,
) -> tuple[Data, list[str]]:
    """Joins labels and predictions, and smooths with every window; also the videos' names."""
    index = match(truth, table)
    candidates = {0.0: table.take(index)}
    check_numbers(candidates[0.0])
    if not table.metadata.get("smoothing"):
        for window in windows:
            smoothing = Smoothing(
                kernel=kernel, unit=unit, on=on, windows=dict.fromkeys(TASKS, window)
            )
            if not smoothing.changes_nothing:
                # all predictions take part in the means, also those of unlabelled frames
                candidates[float(window)] = smooth(table, smoothing).take(index)
    names, group_N = np.unique(
        group_names(np.asarray(truth.dataset), np.asarray(truth.video)), return_inverse=True
    )
    return Data(truth, candidates, group_N.astype(np.int64)), names.tolist()


def _decided(data: Data, found: Parameters) -> PredictionTable:
    """All rows under a fit, with logits shifted so that the usual decisions are the fit's."""
    va, au, expr = (data.candidates[found.windows[task]] for task in (VA, AU, EXPR))
    return dataclasses.replace(
        data.candidates[0.0],
        **{name: getattr(va, name) for name in VA_NAMES},
        au_logits=au.logits(AU) - found.au_thresholds,
        expression_logits=expr.logits(EXPR) + found.expression_biases,
    )


def _with_rows(table: PredictionTable, other: PredictionTable, rows: Rows) -> PredictionTable:
    """A table with some rows taken from another one."""
    columns: dict[str, Any] = {}
    for name in (*VA_NAMES, "au_logits", "expression_logits"):
        columns[name] = getattr(table, name).copy()
        columns[name][rows] = getattr(other, name)[rows]
    return dataclasses.replace(table, **columns)
