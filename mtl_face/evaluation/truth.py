"""What a score needs to know of the labels, and which rows count for which task.

Dimension letters: N rows, A action units (12).
"""

import dataclasses
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

AuMask = Literal["all", "any"]
"""Which rows count for action units.

`all`, the official rule: a row counts if all twelve are labelled. `any`: each action unit counts
on the rows where it is labelled itself.
"""


class Truth(Protocol):
    """Labels of N rows, as any object with these columns; a frame table is one.

    Attributes:
        dataset: data set of each row, str [N].
        video: video of each row, str [N].
        frame: frame number in its video, int [N].
        valence: float [N] in [-1, 1], NaN where missing.
        arousal: float [N] in [-1, 1], NaN where missing.
        expression: int [N] in 0..7, -1 where missing.
        au: float [N, 12], 0 or 1, NaN where missing.
    """

    @property
    def dataset(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def video(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def frame(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def valence(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def arousal(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def expression(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def au(self) -> NDArray[Any]: ...  # noqa: D102


@dataclasses.dataclass(frozen=True, eq=False)
class LabelRows:
    """Some rows of labels, with the columns of `Truth`."""

    dataset: NDArray[Any]
    video: NDArray[Any]
    frame: NDArray[Any]
    valence: NDArray[Any]
    arousal: NDArray[Any]
    expression: NDArray[Any]
    au: NDArray[Any]

    @classmethod
    def of(cls, truth: Truth, rows: NDArray[np.int64]) -> Self:
        """These rows of `truth`, in this order.

        Args:
            truth: N rows of labels.
            rows: row numbers, int [M], repetition allowed.

        Returns:
            M rows of labels.
        """
        return cls(
            **{
                field.name: np.asarray(getattr(truth, field.name))[rows]
                for field in dataclasses.fields(cls)
            }
        )


def valid_va(truth: Truth) -> NDArray[np.bool_]:
    """Rows that count for valence and arousal: those with both, bool [N]."""
    return ~(np.isnan(truth.valence) | np.isnan(truth.arousal))


def valid_au(truth: Truth, rule: AuMask = "all") -> NDArray[np.bool_]:
    """Labels that count for each action unit, bool [N, 12].

    Args:
        truth: the labels.
        rule: see `AuMask`.

    Returns:
        True where the label of that row and action unit counts.

    Raises:
        ValueError: the rule is unknown.
    """
    labelled_NA = ~np.isnan(truth.au)
    if rule == "any":
        return labelled_NA
    if rule != "all":
        raise ValueError(f"au_mask is {rule!r}, expected 'all' or 'any'")
    complete_N = labelled_NA.all(axis=1)
    return np.broadcast_to(complete_N[:, None], labelled_NA.shape)


def valid_expression(truth: Truth) -> NDArray[np.bool_]:
    """Rows that count for the expression: class 0 or higher, bool [N]."""
    return np.asarray(truth.expression) >= 0
