"""How often each row is drawn: weights of rows, and the order that follows them.

Dimension letters: N rows, A action units (12).
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline import order
from mtl_face.errors import ConfigError
from mtl_face.tables import FrameTable

UNIFORM, EXPRESSION_BALANCED, AU_BALANCED, WEIGHTED = KINDS = (
    "uniform",
    "expression_balanced",
    "au_balanced",
    "weighted",
)

COMMON_SHARE = 0.5
"""Action units that are active in this share of the rows are common enough."""


class Draws:
    """Rows drawn in proportion to weights, as many places an epoch as there are rows.

    By systematic sampling: a row whose weight is w times the mean comes floor(w) or ceil(w) times
    an epoch, w times on average. Neighbouring rows (frames of one video) are thinned out evenly.
    The draw and its permutation depend on (seed, epoch, stream) alone.
    """

    def __init__(self, weight_N: npt.ArrayLike, seed: int, stream: int = 0) -> None:
        """Keeps the weights [N], in any unit; `stream` < 2**63 tells apart orders of one seed.

        ValueError if a weight is negative or not finite, or none is positive.
        """
        weight_N = np.asarray(weight_N, np.float64)
        if not np.isfinite(weight_N).all() or (weight_N < 0).any() or not weight_N.any():
            raise ValueError("weights must be finite, not negative, and one of them positive")
        self.length = len(weight_N)
        self._expected_N = np.cumsum(weight_N) * (self.length / weight_N.sum())
        last = int(np.flatnonzero(weight_N)[-1])
        self._expected_N[last:] = self.length  # not a rounding error away from it
        self._seed, self._stream = seed, stream
        self.epoch = functools.lru_cache(maxsize=4)(self._draw)  # see `order.Order`

    def _draw(self, number: int) -> order.Indices:
        bits = order.random_bits(
            self.length + 1, seed=self._seed, epoch=number, stream=2**63 + self._stream
        )
        offset = int(bits[-1] >> np.uint64(11)) / 2**53  # uniform in [0, 1)
        upto_N = np.floor(self._expected_N + offset).astype(np.int64)
        rows = np.repeat(np.arange(self.length), np.diff(upto_N, prepend=0))
        drawn = rows[np.argsort(bits[:-1], kind="stable")]
        drawn.setflags(write=False)
        return drawn


def make_order(
    table: FrameTable,
    *,
    kind: str = UNIFORM,
    task_weights: Mapping[str, float] | None = None,
    seed: int,
    stream: int = 0,
) -> order.Order:
    """The order of a table's rows in training; uniform gives every row exactly once per epoch.

    `kind` is one of `KINDS`; `task_weights` are for `weighted`. Seed and epoch decide the order,
    `stream` tells apart several orders of one seed. ConfigError if the table has no label that the
    kind goes by.
    """
    if kind == UNIFORM:
        return order.Permutations(len(table), seed, stream)
    if kind == EXPRESSION_BALANCED:
        weight_N = weights_by_expression(table)
    elif kind == AU_BALANCED:
        weight_N = weights_by_au(table)
    else:
        weight_N = weights_by_task(table, task_weights or {})
    return Draws(weight_N, seed, stream)


def weights_by_expression(table: FrameTable) -> npt.NDArray[np.float64]:
    """Every expression that occurs equally often; rows without one keep their share.

    float64 [N] of mean 1; ConfigError if no row has an expression.
    """
    labelled_N = table.expression >= 0
    if not labelled_N.any():
        raise ConfigError(
            "no row to train on has an expression to balance by",
            remedy="use data.sampling=uniform",
        )
    weight_N = np.ones(len(table))
    classes, count = np.unique(table.expression[labelled_N], return_counts=True)
    for expression, number in zip(classes, count, strict=True):
        weight_N[table.expression == expression] = labelled_N.sum() / len(classes) / number
    return weight_N


def weights_by_au(table: FrameTable) -> npt.NDArray[np.float64]:
    """Rows with rare action units more often: repeat factors after Gupta et al. (2019).

    An action unit that is active in a share f of the rows that are labelled for it asks for a
    factor max(1, sqrt(COMMON_SHARE / f)); a row gets the largest of its active ones, 1 without any.
    The units come together on faces, so that no weights could make all of them equally frequent.

    float64 [N], at least 1; ConfigError if no row has an action unit.
    """
    labelled_NA = ~np.isnan(table.au)
    if not labelled_NA.any():
        raise ConfigError(
            "no row to train on has action units to balance by", remedy="use data.sampling=uniform"
        )
    active_NA = table.au == 1  # a comparison with NaN is false
    share_A = active_NA.sum(axis=0) / np.maximum(labelled_NA.sum(axis=0), 1)
    factor_A = np.sqrt(np.maximum(COMMON_SHARE / np.where(share_A > 0, share_A, 1), 1))
    factor_NA: npt.NDArray[Any] = np.where(active_NA, factor_A[None, :], 1.0)
    return factor_NA.max(axis=1)


def weights_by_task(
    table: FrameTable, task_weights: Mapping[str, float]
) -> npt.NDArray[np.float64]:
    """Rows in proportion to what their labels count: the sum over the tasks that they have.

    A task that is not among `task_weights` counts 1. float64 [N]; ConfigError if all are 0.
    """
    weight_N = np.zeros(len(table))
    for task, mask_N in table.labelled().items():
        weight_N += task_weights.get(task, 1.0) * mask_N
    if not weight_N.any():
        raise ConfigError(
            "no row to train on has a label of positive weight",
            remedy="raise one of data.task_sampling.va, .au and .expr, or use "
            "data.sampling=uniform",
        )
    return weight_N
