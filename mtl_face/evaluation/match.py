"""Joining labels and predictions by what they are about, never by their position."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.answers import Answers, numbers
from mtl_face.evaluation.truth import Truth
from mtl_face.tables import PredictionError, PredictionTable

_TOLERANCE = 1e-2
"""How far two predictions of one image may differ and still be one (rounding in bfloat16)."""


@dataclasses.dataclass(frozen=True)
class Discrepancies:
    """Where the rows of predictions are not those of the labels.

    Attributes:
        num_missing: rows of labels without a prediction.
        num_extra: predictions that no label is about.
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


def find_discrepancies(truth: Truth, predictions: PredictionTable | Answers) -> Discrepancies:
    """Compares the keys (dataset, video, frame) of labels and predictions.

    Args:
        truth: rows of labels.
        predictions: rows of predictions.

    Returns:
        What is missing, extra and repeated.
    """
    truth_code, prediction_code = _codes(truth, predictions)
    num_codes = 1 + max(truth_code.max(initial=-1), prediction_code.max(initial=-1))
    in_truth = np.bincount(truth_code, minlength=num_codes)
    in_predictions = np.bincount(prediction_code, minlength=num_codes)
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


def match(
    truth: Truth, predictions: PredictionTable | Answers, *, lenient: bool = False
) -> NDArray[np.int64]:
    """Finds the prediction of each row of labels by (dataset, video, frame).

    A key may occur more than once on either side: the k-th row of labels gets the k-th prediction
    of its key, or the first if there are fewer. Where their numbers differ, the predictions of
    the key must agree, since it is then unclear which one is meant. Predictions without labels
    are left aside.

    Args:
        truth: N rows of labels; only its key columns are read.
        predictions: M rows, in any order.
        lenient: give -1 to a row of labels without a prediction, instead of raising.

    Returns:
        Row of `predictions` for each row of `truth`, int64 [N].

    Raises:
        PredictionError: a row has no prediction (unless lenient), or has several that contradict
            each other.
    """
    truth_code, prediction_code = _codes(truth, predictions)
    order = np.argsort(prediction_code, kind="stable")
    sorted_code = prediction_code[order]
    first = np.searchsorted(sorted_code, truth_code, side="left")
    num_predictions = np.searchsorted(sorted_code, truth_code, side="right") - first

    truth_order = np.argsort(truth_code, kind="stable")
    sorted_truth = truth_code[truth_order]
    occurrence = np.empty(len(truth_code), np.int64)
    occurrence[truth_order] = np.arange(len(truth_code)) - np.searchsorted(
        sorted_truth, sorted_truth, side="left"
    )
    num_rows = np.searchsorted(sorted_truth, truth_code, side="right") - np.searchsorted(
        sorted_truth, truth_code, side="left"
    )

    found = num_predictions > 0
    if not lenient and not found.all():
        missing = np.flatnonzero(~found)
        raise PredictionError(
            f"{len(missing)} of {len(found)} labelled rows have no prediction: "
            f"{_examples(truth, missing)}",
            remedy="predict those images too, or ask for a lenient score that leaves them out",
        )
    ambiguous = np.flatnonzero(found & (num_predictions > 1) & (num_predictions != num_rows))
    _check_agreement(truth, predictions, ambiguous, order, first, num_predictions)

    index = np.full(len(truth_code), -1, np.int64)
    offset = np.where(occurrence < num_predictions, occurrence, 0)
    index[found] = order[(first + offset)[found]]
    return index


def _codes(
    truth: Truth, predictions: PredictionTable | Answers
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One integer for each row of either side, equal where (dataset, video, frame) are equal."""
    code = np.zeros(len(truth.frame) + len(predictions), np.int64)
    for name in ("dataset", "video", "frame"):
        left = np.asarray(getattr(truth, name))
        column = np.concatenate(
            [left.astype(np.int64 if name == "frame" else np.str_), getattr(predictions, name)]
        )
        values, column_code = np.unique(column, return_inverse=True)
        # numbered anew after each column, so that the product cannot overflow
        _, code = np.unique(code * len(values) + column_code, return_inverse=True)
    return code[: len(truth.frame)], code[len(truth.frame) :]


def _check_agreement(
    truth: Truth,
    predictions: PredictionTable | Answers,
    rows: NDArray[np.int64],
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    num_predictions: NDArray[np.int64],
) -> None:
    """Raises PredictionError where the predictions of these rows of labels are not all alike."""
    if not len(rows):
        return
    values = numbers(predictions)
    contradicting = [
        row
        for row in rows
        if not np.allclose(
            values[order[first[row] : first[row] + num_predictions[row]]],
            values[order[first[row]]][None],
            rtol=_TOLERANCE,
            atol=_TOLERANCE,
            equal_nan=True,
        )
    ]
    if contradicting:
        raise PredictionError(
            f"{len(contradicting)} labelled rows have several predictions that differ: "
            f"{_examples(truth, np.asarray(contradicting))}",
            remedy="give the predictions of one model only, each image once",
        )


def _examples(table: Truth | PredictionTable | Answers, rows: NDArray[np.int64]) -> str:
    """The first few of these rows in words."""
    shown = [
        f"{table.dataset[row]}/{table.video[row]} frame {table.frame[row]}" for row in rows[:3]
    ]
    return ", ".join(shown) + (", ..." if len(rows) > 3 else "")
