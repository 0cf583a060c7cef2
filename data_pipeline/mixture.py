"""Several data sets trained on together: one table, one order, counts per data set.

Each data set keeps the labels that it has; what it lacks stays missing in its rows, so that a loss
with weights never sees it. Each goes through its own epochs at its own pace: none of its rows comes
again before all have come (under uniform sampling), whatever the shares are.

Dimension letters: N rows, B global batch.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipeline import order
from data_pipeline.sampling import UNIFORM
from data_pipeline.sampling import make_order as make_part
from mtl_face.errors import ConfigError
from mtl_face.tables import FrameTable
from mtl_face.tasks import TASKS


def join(tables: Mapping[str, FrameTable]) -> FrameTable:
    """Puts tables one behind the other; column `dataset` of the result holds the names given.

    ConfigError if a table has no rows.
    """
    for name, table in tables.items():
        if not len(table):
            raise ConfigError(
                f"the data set {name} has no rows to train on",
                remedy="leave it out of data.mixture",
            )
    named = [
        dataclasses.replace(table, dataset=np.full(len(table), name, object))
        for name, table in tables.items()
    ]
    return FrameTable.joined(named, sort=False)


class MixedOrder:
    """Places of an epoch dealt out to several orders in fixed shares.

    Each epoch has as many places as all parts together. A part gets the same number of them in
    every epoch, its share (rounded, at least 1), at random places; it fills them with the next rows
    of its own endless sequence. Where a part's share is that of its rows, an epoch is exactly one
    epoch of it.
    """

    def __init__(self, parts: Sequence[order.Order], shares: Sequence[float], seed: int) -> None:
        """Deals the places out, in positive shares of any unit.

        Each part is over its own rows from 0; parts are of different streams.
        """
        if len(parts) != len(shares) or not all(0 < share < np.inf for share in shares):
            raise ValueError("one positive share per part is needed")
        self.length = sum(part.length for part in parts)
        self.counts = _apportion(self.length, shares)
        self._parts, self._seed = tuple(parts), seed
        self._first_row = np.cumsum([0, *(part.length for part in parts)])
        self.epoch = functools.lru_cache(maxsize=4)(self._deal)  # see `order.Order`

    def _deal(self, number: int) -> order.Indices:
        bits = order.random_bits(self.length, seed=self._seed, epoch=number, stream=2**64 - 1)
        rows = np.concatenate(
            [
                order.rows_at(part, number * count, count) + first_row
                for part, count, first_row in zip(
                    self._parts, self.counts, self._first_row, strict=False
                )
            ]
        )
        # Places are given to parts at random, but each part's rows stay in its own order.
        part_of_place = np.repeat(np.arange(len(self.counts)), self.counts)[np.argsort(bits)]
        place = np.argsort(part_of_place, kind="stable")
        dealt = np.empty(self.length, np.int64)
        dealt[place] = rows
        dealt.setflags(write=False)
        return dealt


def make_order(
    tables: Mapping[str, FrameTable],
    *,
    weights: Mapping[str, float],
    per_row: bool,
    sampling: str = UNIFORM,
    task_weights: Mapping[str, float] | None = None,
    seed: int,
) -> MixedOrder:
    """The order of the rows of `join(tables)` in training.

    With `per_row` a positive weight says how often each row of a data set comes, in proportion to
    those of others; else it is the share of examples that the data set gives. Within a data set,
    rows are drawn as in `sampling.make_order`, and uniformly if they have no labels to go by;
    ConfigError if no data set has them.
    """
    parts: list[order.Order] = []
    unsuited: list[ConfigError] = []
    for stream, table in enumerate(tables.values()):
        try:
            part = make_part(
                table, kind=sampling, task_weights=task_weights, seed=seed, stream=stream
            )
        except ConfigError as error:
            unsuited.append(error)
            part = order.Permutations(len(table), seed, stream)
        parts.append(part)
    if len(unsuited) == len(parts):
        raise unsuited[0]
    shares = [weights[name] * (len(table) if per_row else 1.0) for name, table in tables.items()]
    return MixedOrder(parts, shares, seed)


def _apportion(total: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers in proportion to shares, each at least 1, by largest remainders."""
    exact = np.asarray(shares, np.float64) / sum(shares) * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    by_remainder = np.argsort(counts - exact, kind="stable")
    counts[by_remainder[: total - int(counts.sum())]] += 1
    while (counts == 0).any():
        counts[np.argmax(counts)] -= 1
        counts[np.argmin(counts)] += 1
    return tuple(counts.tolist())


class Counter:
    """Counts what a step's batch holds, per task and per data set."""

    def __init__(self, table: FrameTable, rows: order.Order, batch_size: int) -> None:
        """Prepares the counting; the arguments are those of the training batches."""
        self._rows, self._batch_size = rows, batch_size
        names, self._dataset_N = np.unique(table.dataset.astype(str), return_inverse=True)
        self._names = names.tolist()
        self._labelled = table.labelled()

    def of_step(self, step: int) -> dict[str, float]:
        """Numbers of a global batch, over all processes.

        Returns:
            `count/TASK`, examples labelled for the task; with several data sets also
            `count/NAME/examples` and `count/NAME/TASK` for each.
        """
        row_B = order.step_indices(self._rows, self._batch_size, step=step)
        counts = {f"count/{task}": float(self._labelled[task][row_B].sum()) for task in TASKS}
        if len(self._names) > 1:
            for number, name in enumerate(self._names):
                own = row_B[self._dataset_N[row_B] == number]
                counts[f"count/{name}/examples"] = float(len(own))
                for task in TASKS:
                    counts[f"count/{name}/{task}"] = float(self._labelled[task][own].sum())
        return counts
