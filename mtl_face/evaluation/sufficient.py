"""Scores as functions of sums over videos, so that a resample of videos costs a matrix product.

Every score here depends on the rows only through sums: counts of a confusion matrix, moments,
losses, histograms. The sums of each video are taken once. A set of videos, repetition allowed, is
then a row of weights, and its scores follow from weights times sums.

Average precision and the area under the risk-coverage curve need all rows in order. For them rows
of about equal score share one of up to 1,024 groups, which are formed once over all rows; their
order within a group is taken to be unknown. With fewer distinct scores this is exact. Bins of
calibration errors are likewise those of all rows.

Scores are named by their dotted path in the result of `metrics.score`.

Dimension letters: N rows, V videos, R sets of videos, A action units (12), E expressions (8),
G groups, B bins.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.joining import Joined
from mtl_face.tasks import TASKS

Floats = NDArray[np.float64]
Scores = dict[str, Floats]

_MAX_GROUPS = 1024
_MAX_CELLS = 2**22
"""Videos times groups at most: where every image is a video of its own, groups get coarser."""


@dataclasses.dataclass(frozen=True, eq=False)
class Statistic:
    """Sums of each video and what follows from them.

    Attributes:
        sums: float64 [V, ...].
        scores: from sums over R sets of videos, [R, ...], to values [R] by path. NaN: undefined.
    """

    sums: Floats
    scores: Callable[[Floats], Scores]


class Videos:
    """The videos of N rows, and sums over them."""

    def __init__(self, joined: Joined) -> None:
        names = np.char.add(
            np.char.add(joined.truth.dataset.astype(np.str_), "\n"),
            joined.truth.video.astype(np.str_),
        )
        unique, self.code_N = np.unique(names, return_inverse=True)
        self.count = len(unique)

    def sums(self, rows: NDArray[np.bool_], columns: Sequence[NDArray[np.generic]]) -> Floats:
        """Sums of columns over the rows of each video.

        Args:
            rows: rows that count, bool [N].
            columns: C columns of the M rows that count, [M] each.

        Returns:
            float64 [V, C].
        """
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
        """Groups of about equal score, the largest first.

        Args:
            falling: scores, [M].

        Returns:
            (group of each score, number of groups, whether a group may hold different scores).
        """
        limit = max(2, min(_MAX_GROUPS, _MAX_CELLS // max(self.count, 1)))
        distinct, group = np.unique(-falling, return_inverse=True)
        coarse = len(distinct) > limit
        if coarse:
            edges = np.sort(-falling)[np.arange(1, limit) * len(falling) // limit]
            group = np.searchsorted(np.unique(edges), -falling, side="right")
        return group.astype(np.int64), int(group.max(initial=0)) + 1, coarse


def total(statistic: Statistic) -> Scores:
    """The scores of all videos together, [1] each."""
    return statistic.scores(statistic.sums.sum(axis=0, keepdims=True))


def weighted(statistic: Statistic, weights_RV: Floats) -> Scores:
    """The scores of R sets of videos, [R] each.

    Args:
        statistic: sums over V videos.
        weights_RV: how often each video is in each set, [R, V].
    """
    flat = weights_RV @ statistic.sums.reshape(len(statistic.sums), -1)
    return statistic.scores(flat.reshape(len(weights_RV), *statistic.sums.shape[1:]))


def without_each(statistic: Statistic) -> Scores:
    """The scores of all videos but one, for each one left out, [V] each."""
    return statistic.scores(statistic.sums.sum(axis=0, keepdims=True) - statistic.sums)


def merge(parts: Iterator[Scores]) -> Scores:
    """All scores, with `p` (the sum of the three tasks) where all three are there."""
    scores: Scores = {}
    for part in parts:
        scores |= part
    tasks = [scores[f"{task}.score"] for task in TASKS if f"{task}.score" in scores]
    if len(tasks) == len(TASKS):
        scores = {"p": np.sum(tasks, axis=0), **scores}
    return scores
