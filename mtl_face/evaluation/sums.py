"""Scores as functions of sums over videos, so that a resample of videos costs a matrix product.

Every score depends on the rows only through sums: counts of a confusion matrix, moments, losses,
histograms. The official score is its function of the sums over all rows; the score of a set of
videos, repetition allowed, is the same function of weights times the sums of each video.

Average precision and the area under the risk-coverage curve need all rows in order, and their sums
are those of groups of equal score. Over all rows together every score is a group, which is exact.
By video, rows of about equal score share one of up to 1,024 groups, which are formed once over all
rows; their order within a group is then taken to be unknown.

Dimension letters: N rows, M rows that count, V videos, R sets of videos, C columns, G groups.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.joining import Joined
from mtl_face.evaluation.measures import Floats
from mtl_face.tables import row_codes
from mtl_face.tasks import TASKS

Scores = dict[str, Floats]
"""Values [R] by the dotted path that they have in the result of `scoring.score`. NaN: undefined."""

_MAX_GROUPS = 1024
_MAX_CELLS = 2**22
"""Videos times groups at most: where every image is a video of its own, groups get coarser."""


@dataclasses.dataclass(frozen=True, eq=False)
class Statistic:
    """Sums of each video and the scores that follow from them.

    Attributes:
        sums: float64 [V, ...].
        scores: from sums over R sets of videos, [R, ...], to the scores of each.
    """

    sums: Floats
    scores: Callable[[Floats], Scores]

    def total(self) -> Scores:
        """The scores of all videos together, [1] each."""
        return self.scores(self.sums.sum(axis=0, keepdims=True))

    def weighted(self, weights_RV: Floats) -> Scores:
        """The scores of R sets that have each video as often as the weights say, [R] each."""
        flat = weights_RV @ self.sums.reshape(len(self.sums), -1)
        return self.scores(flat.reshape(len(weights_RV), *self.sums.shape[1:]))

    def without_each(self) -> Scores:
        """The scores of all videos but one, for each one left out, [V] each."""
        return self.scores(self.sums.sum(axis=0, keepdims=True) - self.sums)


@dataclasses.dataclass(frozen=True, eq=False)
class Videos:
    """The videos of N rows, and sums over each.

    Attributes:
        code_N: number of each row's video, int64 [N].
        count: V.
        exact: whether every score is a group of its own, see the module.
    """

    code_N: NDArray[np.int64]
    count: int
    exact: bool

    @classmethod
    def of(cls, joined: Joined) -> Self:
        """The videos by data set and name."""
        code_N = row_codes(joined.truth.dataset, joined.truth.video)
        return cls(code_N, int(code_N.max(initial=-1)) + 1, exact=False)

    @classmethod
    def together(cls, joined: Joined) -> Self:
        """All rows as one video, with a group for every score: what the official score is of."""
        return cls(np.zeros(len(joined), np.int64), 1, exact=True)

    def sums(self, rows: NDArray[np.bool_], columns: Sequence[NDArray[np.generic]]) -> Floats:
        """Sums of columns over the rows of each video.

        Args:
            rows: rows that count, bool [N].
            columns: C columns of the M rows that count, [M] each.

        Returns:
            float64 [V, C].
        """
        if self.count == 1:  # NumPy's own sum rounds less
            return np.array([[np.asarray(column, np.float64).sum() for column in columns]])
        code = self.code_N[rows]
        sums = [np.bincount(code, weights=column, minlength=self.count) for column in columns]
        return np.stack(sums, axis=1).astype(np.float64)

    def histograms(
        self,
        rows: NDArray[np.bool_],
        groups: NDArray[np.int64],
        num_groups: int,
        columns: Sequence[NDArray[np.generic]],
    ) -> Floats:
        """Sums of columns over the rows of each video and group.

        Args:
            rows: rows that count, bool [N].
            groups: group of the M rows that count, int [M].
            num_groups: G.
            columns: C columns, [M] each.

        Returns:
            float64 [V, C, G].
        """
        cell = self.code_N[rows] * num_groups + groups
        size = self.count * num_groups
        flat = [np.bincount(cell, weights=column, minlength=size) for column in columns]
        sums = np.stack(flat, axis=1).astype(np.float64)
        return sums.reshape(self.count, num_groups, -1).swapaxes(1, 2)

    def groups(self, falling: Floats) -> tuple[NDArray[np.int64], int, bool]:
        """Groups of about equal score, [M], the largest first.

        Returns:
            (group of each score, number of groups, whether a group may hold different scores).
        """
        limit = max(2, min(_MAX_GROUPS, _MAX_CELLS // max(self.count, 1)))
        distinct, group = np.unique(-falling, return_inverse=True)
        coarse = len(distinct) > limit and not self.exact
        if coarse:
            edges = np.sort(-falling)[np.arange(1, limit) * len(falling) // limit]
            group = np.searchsorted(np.unique(edges), -falling, side="right")
        return group.astype(np.int64), int(group.max(initial=0)) + 1, coarse


def merge(parts: Iterable[Scores]) -> Scores:
    """All scores, with `p` (the sum of the three tasks) where all three are there."""
    scores: Scores = {}
    for part in parts:
        scores |= part
    tasks = [scores[f"{task}.score"] for task in TASKS if f"{task}.score" in scores]
    if len(tasks) == len(TASKS):
        scores = {"p": np.sum(tasks, axis=0), **scores}
    return scores
