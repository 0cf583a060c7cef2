"""Labels and answers side by side, row for row, and which of them count for which task.

Dimension letters: N rows, A action units (12).
"""

import dataclasses
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.answers import Answers
from mtl_face.evaluation.match import match
from mtl_face.evaluation.truth import (
    AuMask,
    LabelRows,
    Truth,
    valid_au,
    valid_expression,
    valid_va,
)
from mtl_face.tables import PredictionError, PredictionTable
from mtl_face.tasks import AU, EXPR, TASKS, VA


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """N rows that have labels and answers.

    Attributes:
        truth: the labels.
        answers: the answers, in the same order.
        va_rows: rows that count for valence and arousal, bool [N].
        au_labels: labels that count for each action unit, bool [N, A].
        expr_rows: rows that count for the expression, bool [N].
        num_unpredicted: rows of labels left out because no row of answers is about them.
        num_unanswered: by task, rows left out of it because their row of answers is silent on it.
    """

    truth: LabelRows
    answers: Answers
    va_rows: NDArray[np.bool_]
    au_labels: NDArray[np.bool_]
    expr_rows: NDArray[np.bool_]
    num_unpredicted: int
    num_unanswered: dict[str, int]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.truth.frame)

    def restrict(self, other: "Joined") -> Self:
        """The same rows, of which count only those that count in `other` as well.

        Args:
            other: answers of another source to the same N rows.
        """
        return dataclasses.replace(
            self,
            va_rows=self.va_rows & other.va_rows,
            au_labels=self.au_labels & other.au_labels,
            expr_rows=self.expr_rows & other.expr_rows,
        )


def join(
    truth: Truth,
    predictions: PredictionTable | Answers,
    *,
    au_mask: AuMask = "all",
    lenient: bool = False,
) -> Joined:
    """Joins labels and predictions by (dataset, video, frame), see `match`.

    Args:
        truth: rows of labels.
        predictions: what is said about them.
        au_mask: which rows count for action units.
        lenient: leave out labels without an answer, instead of raising.

    Returns:
        The rows that have both.

    Raises:
        PredictionError: a row has no prediction or is silent on a task that other rows answer
            (unless lenient), or a prediction is not finite.
    """
    index = match(truth, predictions, lenient=lenient)
    return take(truth, predictions, index, au_mask=au_mask, lenient=lenient)


def take(
    truth: Truth,
    predictions: PredictionTable | Answers,
    index: NDArray[np.int64],
    *,
    au_mask: AuMask = "all",
    lenient: bool = False,
) -> Joined:
    """Joins by row numbers that are known already.

    Args:
        truth: M rows of labels.
        predictions: what is said about them.
        index: row of `predictions` for each row of labels, -1 to leave it out; int64 [M].
        au_mask: as in `join`.
        lenient: as in `join`.

    Returns:
        The rows whose index is not -1.

    Raises:
        PredictionError: as in `join`.
    """
    rows = np.flatnonzero(index >= 0)
    labels = LabelRows.of(truth, rows)
    answers = Answers.of(predictions.take(index[rows]))
    labelled = {VA: valid_va(labels), AU: valid_au(labels, au_mask), EXPR: valid_expression(labels)}
    answered = {
        VA: ~(np.isnan(answers.valence) | np.isnan(answers.arousal)),
        AU: answers.au >= 0,
        EXPR: answers.expression >= 0,
    }
    silent = {task: labelled[task] & ~answered[task] for task in TASKS}
    if not lenient:
        _refuse_gaps(answers, answered, silent)
    counts = {task: labelled[task] & answered[task] for task in TASKS}
    return Joined(
        truth=labels,
        answers=answers,
        va_rows=counts[VA],
        au_labels=counts[AU],
        expr_rows=counts[EXPR],
        num_unpredicted=len(index) - len(rows),
        num_unanswered={task: int(_any_of_row(silent[task]).sum()) for task in TASKS},
    )


def _refuse_gaps(
    answers: Answers,
    answered: dict[str, NDArray[np.bool_]],
    silent: dict[str, NDArray[np.bool_]],
) -> None:
    """Raises where a task is answered in some rows only. One answered in none is left alone."""
    for task in TASKS:
        missing_N = _any_of_row(silent[task])
        if missing_N.any() and answered[task].any():
            row = int(np.argmax(missing_N))
            raise PredictionError(
                f"{int(missing_N.sum())} labelled rows have no answer for {task}, the first "
                f"{answers.video[row]} frame {answers.frame[row]}",
                remedy="answer every row, or ask for a lenient score that leaves them out",
            )


def _any_of_row(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether any flag of a row is true, bool [N], for [N] or [N, A]."""
    return np.asarray(flags.any(axis=1) if flags.ndim == 2 else flags)
