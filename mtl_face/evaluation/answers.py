"""What is scored: an answer of each task for each row, from a network or from a submission.

Dimension letters: N rows, A action units (12), E expressions (8).
"""

import dataclasses
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_face.tables import PredictionError, PredictionTable

LOGITS_REASON = "there are decisions only: this needs logits, as in a .parquet or .csv of ours"
STD_REASON = "the predictions have no valence_std and arousal_std"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Answers of N rows as columns. A task may be without an answer in any row.

    Attributes:
        dataset: data set of each row, str [N].
        video: video of each row, str [N].
        frame: frame number in its video, int64 [N].
        valence: float64 [N]; NaN where there is no answer.
        arousal: float64 [N]; NaN where there is no answer.
        au: int8 [N, A], 0 or 1; -1 where there is no answer.
        expression: int64 [N] in 0..7; -1 where there is no answer.
        au_logits: float64 [N, A], or None where only decisions are known.
        expression_logits: float64 [N, E], or None likewise.
        valence_std: predicted standard deviation, float64 [N], or None.
        arousal_std: the same of arousal.
    """

    dataset: NDArray[np.str_]
    video: NDArray[np.str_]
    frame: NDArray[np.int64]
    valence: NDArray[np.float64]
    arousal: NDArray[np.float64]
    au: NDArray[np.int8]
    expression: NDArray[np.int64]
    au_logits: NDArray[np.float64] | None = None
    expression_logits: NDArray[np.float64] | None = None
    valence_std: NDArray[np.float64] | None = None
    arousal_std: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @classmethod
    def of(cls, predictions: "PredictionTable | Answers") -> "Answers":
        """The answers of a prediction table; answers are returned as they are.

        Raises:
            PredictionError: a value of the table is NaN or infinite, or a standard deviation is
                not positive.
        """
        if isinstance(predictions, Answers):
            return predictions
        _check_values(predictions)
        return cls(
            dataset=predictions.dataset,
            video=predictions.video,
            frame=predictions.frame,
            valence=predictions.valence,
            arousal=predictions.arousal,
            au=predictions.au,
            expression=predictions.expression,
            au_logits=predictions.au_logits,
            expression_logits=predictions.expression_logits,
            valence_std=predictions.valence_std,
            arousal_std=predictions.arousal_std,
        )

    def take(self, rows: NDArray[np.int64]) -> Self:
        """These rows, in this order.

        Args:
            rows: row numbers, int [M], repetition allowed.
        """
        columns: dict[str, Any] = {
            field.name: getattr(self, field.name)[rows]
            for field in dataclasses.fields(self)
            if getattr(self, field.name) is not None
        }
        return dataclasses.replace(self, **columns)


def numbers(predictions: PredictionTable | Answers) -> NDArray[np.float64]:
    """Everything that the predictions say of each row side by side, float64 [N, ...].

    Logits stand for the decisions where there are any.
    """
    if isinstance(predictions, Answers) and predictions.au_logits is None:
        decisions: list[Any] = [predictions.au, predictions.expression]
    else:
        decisions = [predictions.au_logits, predictions.expression_logits]
    return np.column_stack([predictions.valence, predictions.arousal, *decisions])


def _check_values(table: PredictionTable) -> None:
    finite_N = np.asarray(np.isfinite(numbers(table)).all(axis=1))
    _refuse(
        table,
        ~finite_N,
        "are not finite",
        "use a checkpoint from before training diverged",
    )
    if table.valence_std is not None and table.arousal_std is not None:
        std_N2 = np.column_stack([table.valence_std, table.arousal_std])
        _refuse(
            table,
            ~np.asarray((np.isfinite(std_N2) & (std_N2 > 0.0)).all(axis=1)),
            "have a standard deviation that is not a positive number",
            "write the predictions again, or leave out valence_std and arousal_std",
        )


def _refuse(table: PredictionTable, bad_N: NDArray[np.bool_], fault: str, remedy: str) -> None:
    if bad_N.any():
        row = int(np.argmax(bad_N))
        raise PredictionError(
            f"{int(bad_N.sum())} of {len(table)} predictions {fault}, the first at "
            f"{table.dataset[row]}/{table.video[row]} frame {table.frame[row]}",
            remedy=remedy,
        )
