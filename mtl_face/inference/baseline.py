"""A person's points at rest, from pictures in which the person may never be at rest.

Each picture counts by how neutral the network finds it by itself, without knowing the person: the
weight is w = p^2, p the probability that the face is neutral. The points at rest are the weighted
mean. How far they are believed is the share

    s = min(1, 4 e) n / (n + 1),   e = sum p^2 / sum p,   n = (sum w)^2 / sum w^2.

e is the p of the pictures that count: near 1 as soon as some are neutral, however few; near 0 where
none is, as of a person who smiles throughout. n is how many pictures count. An answer is s times
the one beside the points at rest, and 1 - s times the one of the picture by itself: the smile of
who always smiles stays in it.

Dimension letters: N pictures, V mesh points (468), E expressions (8).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.face_table import MESH_POINTS
from mtl_face.tables import PredictionTable
from mtl_face.tasks import EXPRESSION_NAMES

_FULL = 0.25  # e from which the points at rest are believed
_FEW = 1.0  # pictures that count, at which half is
_NEUTRAL = EXPRESSION_NAMES.index("Neutral")

LEAST_SHARE = 0.05
"""Share s below which a picture is answered by itself."""


@dataclasses.dataclass
class Baseline:
    """Points at rest of one person, from all pictures so far.

    Attributes:
        sum_p, sum_w, sum_ww: sums of p, w and w^2.
        sum_wx: sum of w times the normalised points, float64 [V, 3].
    """

    sum_p: float = 0.0
    sum_w: float = 0.0
    sum_ww: float = 0.0
    sum_wx: NDArray[np.float64] = dataclasses.field(
        default_factory=lambda: np.zeros((MESH_POINTS, 3))
    )

    def add(self, point_NV3: NDArray[np.floating], neutral_N: NDArray[np.float64]) -> None:
        """Takes pictures, with the probability that each is neutral; NaN leaves one out."""
        known_N = ~np.isnan(neutral_N)
        p_N = neutral_N[known_N]
        w_N = p_N**2
        self.sum_p += float(p_N.sum())
        self.sum_w += float(w_N.sum())
        self.sum_ww += float((w_N**2).sum())
        self.sum_wx += np.tensordot(w_N, point_NV3[known_N].astype(np.float64), axes=1)

    @property
    def share(self) -> float:
        """s, 0..1; 0 below `LEAST_SHARE`."""
        if self.sum_ww <= 0:
            return 0.0
        evidence = self.sum_w / self.sum_p
        count = self.sum_w**2 / self.sum_ww
        share = min(1.0, evidence / _FULL) * count / (count + _FEW)
        return share if share >= LEAST_SHARE else 0.0

    @property
    def points(self) -> NDArray[np.float32]:
        """The points at rest, normalised, [V, 3]; of use where `share` is above 0."""
        return (self.sum_wx / max(self.sum_w, 1e-12)).astype(np.float32)


def neutrality(predictions: PredictionTable) -> NDArray[np.float64]:
    """Probability that each face is neutral, [N]; NaN of a network that was not trained to say."""
    probability_NE = predictions.expression_probabilities
    if probability_NE is None:
        return np.full(len(predictions), np.nan)
    return probability_NE[:, _NEUTRAL]


class Baselines:
    """The baselines of the persons of a source, by their numbers."""

    def __init__(self) -> None:
        self._of: dict[int, Baseline] = {}

    def add(
        self,
        person_N: NDArray[np.int64],
        point_NV3: NDArray[np.floating],
        neutral_N: NDArray[np.float64],
    ) -> None:
        """Takes faces of several persons."""
        for person in np.unique(person_N).tolist():
            rows = person_N == person
            self._of.setdefault(person, Baseline()).add(point_NV3[rows], neutral_N[rows])

    def state(self) -> dict[str, Any]:
        """All that is known, as JSON values."""
        return {
            str(person): {**vars(one), "sum_wx": one.sum_wx.tolist()}
            for person, one in self._of.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._of = {
            int(person): Baseline(**{**one, "sum_wx": np.asarray(one["sum_wx"])})
            for person, one in state.items()
        }

    def known(self, person_N: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Points at rest of the person of each face, [N, V, 3], and their shares, [N].

        Both are 0 where nothing is known.
        """
        point_NV3 = np.zeros((len(person_N), MESH_POINTS, 3), np.float32)
        share_N = np.zeros(len(person_N))
        for person in np.unique(person_N).tolist():
            one = self._of.get(person, Baseline())
            if share := one.share:
                rows = person_N == person
                point_NV3[rows], share_N[rows] = one.points, share
        return point_NV3, share_N
