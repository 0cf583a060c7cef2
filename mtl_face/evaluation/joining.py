"""Labels and predictions side by side: joined by what they are about, never by their position.

A row is named by its key (dataset, video, frame). Which of the joined labels count is decided by
task and not by row: a row without an expression still counts for the other tasks.

Dimension letters: N rows, A action units (12).
"""

import dataclasses
import os
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import shortened
from mtl_face.tables import FrameTable, PredictionError, PredictionTable, row_codes, row_name
from mtl_face.tasks import AU, TASKS

AuMask = Literal["all", "any"]
"""Which rows count for action units.

`all`, the official rule: a row counts if all twelve are labelled. `any`: each action unit counts
on the rows where it is labelled itself.
"""

_TOLERANCE = 1e-2
"""How far two predictions of one image may differ and still be one (rounding in bfloat16)."""


def valid_au(truth: FrameTable, rule: AuMask = "all") -> NDArray[np.bool_]:
    """Labels that count for each action unit, bool [N, A].

    Raises:
        ValueError: the rule is unknown.
    """
    if rule not in ("all", "any"):
        raise ValueError(f"au_mask is {rule!r}, expected 'all' or 'any'")
    labelled_NA = ~np.isnan(truth.au)
    return labelled_NA & (labelled_NA.all(axis=1, keepdims=True) | (rule == "any"))


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """N rows that have labels and predictions.

    Attributes:
        truth: the labels.
        predictions: the predictions, in the same order.
        counted: by task, the rows that count, bool [N]; for action units the labels, bool [N, A].
        num_unpredicted: rows of labels left out for want of a prediction.
        num_unanswered: by task, labelled rows left out because their prediction is silent on it.
    """

    truth: FrameTable
    predictions: PredictionTable
    counted: dict[str, NDArray[np.bool_]]
    num_unpredicted: int
    num_unanswered: dict[str, int]

    def __len__(self) -> int:
        return len(self.truth)


def join(
    truth: FrameTable,
    predictions: PredictionTable,
    *,
    au_mask: AuMask = "all",
    lenient: bool = False,
) -> Joined:
    """Joins labels and predictions by key, see `match`.

    If `lenient`, labels without a prediction are left out.

    Raises:
        PredictionError: a row has no prediction or is silent on a task that other rows answer
            (unless lenient), or a prediction is no finite number.
    """
    index = match(truth, predictions, lenient=lenient)
    return _pair(truth, predictions, index, au_mask=au_mask, lenient=lenient)


def join_both(
    truth: FrameTable, first: PredictionTable, second: PredictionTable, *, lenient: bool = False
) -> tuple[Joined, Joined]:
    """Joins two tables of predictions to labels, such that the same rows count for both.

    If `lenient`, rows that not both predict are left out.

    Raises:
        PredictionError: as in `join`.
    """
    indices = np.stack([match(truth, table, lenient=lenient) for table in (first, second)])
    indices[:, (indices < 0).any(axis=0)] = -1
    one, other = (
        _pair(truth, table, index, lenient=lenient)
        for table, index in zip((first, second), indices, strict=True)
    )
    counted = {task: one.counted[task] & other.counted[task] for task in TASKS}
    return dataclasses.replace(one, counted=counted), dataclasses.replace(other, counted=counted)


def join_file(
    truth: FrameTable,
    predictions: PredictionTable,
    *,
    path: str | os.PathLike[str],
    lenient: bool,
    num_unread: int = 0,
) -> tuple[Joined, "Discrepancies"]:
    """Joins labels and a file of predictions, whose rows must be those of the labels.

    Rows without any label may be predicted or not, and so may as many as there are unread rows of
    labels. If `lenient`, what has no partner is left out.

    Returns:
        The rows that have both, and where the others differ.

    Raises:
        PredictionError: as in `join` and `check_rows`.
    """
    rows, found = check_rows(truth, predictions, path=path, lenient=lenient, num_unread=num_unread)
    return join(truth.take(rows), predictions, lenient=lenient), found


def check_rows(
    truth: FrameTable,
    predictions: PredictionTable,
    *,
    path: str | os.PathLike[str],
    lenient: bool,
    num_unread: int = 0,
) -> tuple[NDArray[np.int64], "Discrepancies"]:
    """Checks that the rows of a file are those of the labels; see `join_file`.

    Returns:
        The `asked_rows` of the labels, and what is missing, extra or repeated.

    Raises:
        PredictionError: something is (unless lenient), or nothing fits.
    """
    rows = asked_rows(truth, predictions)
    found = find_discrepancies(truth.take(rows), predictions)
    if found.num_missing == len(rows):
        raise PredictionError(
            "has no row in common with the labels; it has "
            f"{found.extra or 'no rows'}, they have {found.missing}",
            path=path,
            remedy="check that both are of the same set, with videos and frames named alike",
        )
    surplus = found.num_extra > num_unread
    if not lenient and (surplus or found.num_missing or found.num_repeated):
        raise PredictionError(
            "does not fit the labels\n" + "\n".join(f"  {line}" for line in found.lines()),
            path=path,
            remedy="check that both are of the same set, or score what fits with --lenient",
        )
    return rows, found


def asked_rows(truth: FrameTable, predictions: PredictionTable) -> NDArray[np.int64]:
    """Rows that have a label or a prediction, int64 [M]; the others need neither."""
    predicted_N = match(truth, predictions, lenient=True) >= 0
    return np.flatnonzero(np.any([*truth.labelled().values(), predicted_N], axis=0))


def match(
    truth: FrameTable | PredictionTable, predictions: PredictionTable, *, lenient: bool = False
) -> NDArray[np.int64]:
    """Finds the prediction of each row of labels by its key.

    A key may occur more than once on either side: the k-th row of labels gets the k-th prediction
    of its key, or the first if there are fewer. Where their numbers differ, the predictions of
    the key must agree, since it is then unclear which one is meant. Predictions without labels
    are left aside.

    Returns:
        Row of `predictions` for each row of `truth`, int64 [N]; -1 where there is none, if
        `lenient`.

    Raises:
        PredictionError: a row has no prediction (unless lenient), or has several that contradict
            each other.
    """
    import pandas as pd

    truth_code, prediction_code, in_truth, in_predictions = _codes(truth, predictions)
    num_rows, num_predictions = in_truth[truth_code], in_predictions[truth_code]
    order = np.argsort(prediction_code, kind="stable")
    first = np.cumsum(in_predictions) - in_predictions  # place in `order` of each code's first
    occurrence = pd.Series(truth_code).groupby(truth_code).cumcount().to_numpy()
    found = num_predictions > 0
    if not lenient and not found.all():
        missing = np.flatnonzero(~found)
        raise PredictionError(
            f"{len(missing)} of {len(found)} labelled rows have no prediction: "
            f"{_examples(truth, missing)}",
            remedy="predict those images too, or leave them out of the score (--lenient)",
        )
    contradicting = found & (num_predictions > 1) & (num_predictions != num_rows)
    if contradicting.any():
        values = predictions.numbers()
        firsts = values[order[first[prediction_code]]]
        close = np.isclose(values, firsts, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
        differs = np.bincount(prediction_code, ~close.all(axis=1), minlength=len(first)) > 0
        contradicting &= differs[truth_code]
    if contradicting.any():
        rows = np.flatnonzero(contradicting)
        raise PredictionError(
            f"{len(rows)} rows have several predictions that differ: {_examples(truth, rows)}",
            remedy="give the predictions of one model only, each image once",
        )
    index = np.full(len(truth_code), -1, np.int64)
    offset = np.where(occurrence < num_predictions, occurrence, 0)
    index[found] = order[(first[truth_code] + offset)[found]]
    return index


@dataclasses.dataclass(frozen=True)
class Discrepancies:
    """Where the rows of predictions are not those of the labels.

    Attributes:
        num_missing: rows of labels without a prediction.
        num_extra: predictions without a label.
        num_repeated: predictions beyond the number of rows of labels with their key.
        missing: the first few in words; empty if there are none. `extra` and `repeated` likewise.
    """

    num_missing: int
    num_extra: int
    num_repeated: int
    missing: str
    extra: str
    repeated: str

    def lines(self) -> list[str]:
        """A sentence for each kind that occurs."""
        parts = (
            (self.num_missing, "labelled rows without a prediction", self.missing),
            (self.num_extra, "predictions without a label", self.extra),
            (self.num_repeated, "surplus predictions of rows that have one", self.repeated),
        )
        return [f"{number} {what}: {examples}" for number, what, examples in parts if number]


def find_discrepancies(
    truth: FrameTable | PredictionTable, predictions: PredictionTable
) -> Discrepancies:
    """Compares the keys of labels, or of other predictions, and predictions."""
    truth_code, prediction_code, in_truth, in_predictions = _codes(truth, predictions)
    missing = np.flatnonzero(in_predictions[truth_code] == 0)
    extra = np.flatnonzero(in_truth[prediction_code] == 0)
    surplus = np.where(in_truth > 0, np.maximum(in_predictions - np.maximum(in_truth, 1), 0), 0)
    _, first = np.unique(prediction_code, return_index=True)
    repeated = np.sort(first[surplus[prediction_code[first]] > 0])
    return Discrepancies(
        num_missing=len(missing),
        num_extra=len(extra),
        num_repeated=int(surplus.sum()),
        missing=_examples(truth, missing),
        extra=_examples(predictions, extra),
        repeated=_examples(predictions, repeated),
    )


def _pair(
    truth: FrameTable,
    predictions: PredictionTable,
    index: NDArray[np.int64],
    *,
    au_mask: AuMask = "all",
    lenient: bool,
) -> Joined:
    """Joins by row numbers: row of `predictions` for each row of labels, or -1."""
    rows = np.flatnonzero(index >= 0)
    labels = truth if len(rows) == len(truth) else truth.take(rows)
    table = predictions.take(index[rows])
    table.check_numbers()
    counted = {**labels.labelled(), AU: valid_au(labels, au_mask)}
    num_unanswered = {}
    for task in TASKS:
        answered = table.answered(task)
        silent = counted[task] & ~answered
        silent_N = np.any(silent, axis=1) if silent.ndim == 2 else silent
        # a task that no row answers is not asked for
        if not lenient and silent_N.any() and answered.any():
            row = int(np.argmax(silent_N))
            raise PredictionError(
                f"{int(silent_N.sum())} labelled rows have no answer for {task}, the first "
                f"{table.video[row]} frame {table.frame[row]}",
                remedy="answer every row, or leave them out of the score (--lenient)",
            )
        counted[task] = counted[task] & answered
        num_unanswered[task] = int(silent_N.sum())
    return Joined(
        truth=labels,
        predictions=table,
        counted=counted,
        num_unpredicted=len(index) - len(rows),
        num_unanswered=num_unanswered,
    )


def _codes(
    truth: FrameTable | PredictionTable, predictions: PredictionTable
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Codes of the keys of both sides, and how often each code occurs on either."""
    names = ("dataset", "video", "frame")
    columns = [np.concatenate([getattr(truth, n), getattr(predictions, n)]) for n in names]
    code = row_codes(*columns)
    num_codes = int(code.max(initial=-1)) + 1
    sides = code[: len(truth)], code[len(truth) :]
    in_truth, in_predictions = (np.bincount(side, minlength=num_codes) for side in sides)
    return *sides, in_truth, in_predictions


def _examples(table: FrameTable | PredictionTable, rows: NDArray[np.int64]) -> str:
    """The first few of these rows in words."""
    return ", ".join(shortened(rows.tolist(), 3, lambda row: row_name(table, row)))
