"""Which rows make up which batch: pure functions of (order, batch size, step).

Training goes through one endless sequence of rows: epoch 0, then epoch 1, and so on, each a fresh
permutation. Batches are cut from that sequence without regard to where an epoch ends, so that
each row comes exactly once per epoch whatever the batch size, and no batch holds padding, which
batch norm would see. Step s begins at place s * B: resuming costs the sorting of one epoch, no
replay. Processes take contiguous parts of each global batch, so the order does not depend on how
many there are.

Dimension letters: N rows, B global batch, b batch of one process.
"""

import dataclasses
import fractions
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mtl_face.errors import ConfigError

Indices = npt.NDArray[np.int64]

PADDING = -1
"""Index of a place in an evaluation batch that no row fills."""


@dataclasses.dataclass(frozen=True)
class Process:
    """One of several processes, `index` of `count`; ValueError if it is none of them.

    Each loads a contiguous part, of equal size, of a global batch.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"process {self.index} of {self.count} processes")

    def local_size(self, batch_size: int) -> int:
        """B of a global batch of B; ConfigError if it does not divide."""
        if batch_size < 1 or batch_size % self.count:
            raise ConfigError(
                f"batch_size {batch_size} does not divide into {self.count} processes",
                remedy=f"choose a positive multiple of {self.count}",
            )
        return batch_size // self.count

    def part(self, batch_size: int) -> slice:
        """This process's part of a global batch; ConfigError as `local_size`."""
        local = self.local_size(batch_size)
        return slice(self.index * local, (self.index + 1) * local)


ALONE = Process()


class Order(Protocol):
    """The rows of each epoch, as a pure function of the epoch's number."""

    @property
    def length(self) -> int:
        """Places in an epoch, the same in every epoch."""

    def epoch(self, number: int) -> Indices:
        """Rows of epoch `number` (from 0), int64 [length], read-only."""


@dataclasses.dataclass(frozen=True)
class Permutations:
    """Every row exactly once per epoch.

    Rows are sorted by random 64-bit keys from the counter-based generator Philox, keyed with
    (seed, epoch). NumPy keeps that bit stream fixed, unlike the one of `Generator.permutation`.

    Attributes:
        length: N, at least 1.
        seed: 0 <= seed < 2**64.
        stream: tells apart several orders of one seed, 0 <= stream < 2**64.
    """

    length: int
    seed: int
    stream: int = 0

    def epoch(self, number: int) -> Indices:
        """See `Order`; 0 <= number < 2**64."""
        return _permutation(self.length, self.seed, number, self.stream)


@functools.lru_cache(maxsize=8)  # consecutive steps ask for the same epoch
def _permutation(num_rows: int, seed: int, epoch: int, stream: int) -> Indices:
    order_N = np.argsort(
        random_bits(num_rows, seed=seed, epoch=epoch, stream=stream), kind="stable"
    )
    order_N.setflags(write=False)
    return order_N


def random_bits(count: int, *, seed: int, epoch: int, stream: int = 0) -> npt.NDArray[np.uint64]:
    """uint64 [count], a function of the arguments alone."""
    generator = np.random.Philox(
        key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64)
    )
    return generator.random_raw(count)


def steps_per_epoch(
    num_examples: int, batch_size: int, *, things: str = "rows"
) -> fractions.Fraction:
    """Length of an epoch in steps, N / B exactly; a whole number only if B divides N.

    ConfigError if the batch is empty or larger than the data set, whose examples are `things`.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}", remedy="choose 1 or more")
    if batch_size > num_examples:
        raise ConfigError(
            f"batch_size {batch_size} is larger than the {num_examples} {things} to train on",
            remedy=f"choose batch_size <= {num_examples}, or add data",
        )
    return fractions.Fraction(num_examples, batch_size)


def total_steps(epochs: int, per_epoch: fractions.Fraction) -> int:
    """Steps after which all places of `epochs` epochs have been seen.

    The last batch is filled up with the first places of the epoch that would follow.
    """
    return math.ceil(epochs * per_epoch)


def rows_at(order: Order, start: int, count: int) -> Indices:
    """Rows at the places `start`, ..., `start + count - 1` of the endless sequence, int64."""
    pieces = []
    while count:
        epoch, place = divmod(start, order.length)
        piece = order.epoch(epoch)[place : place + count]
        pieces.append(piece)
        start, count = start + len(piece), count - len(piece)
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


def step_indices(order: Order, batch_size: int, *, step: int) -> Indices:
    """Rows of the global batch of step `step` (from 0), int64 [B]."""
    return rows_at(order, step * batch_size, batch_size)


def batches(
    order: Order, batch_size: int, *, start_step: int = 0, process: Process = ALONE
) -> Iterator[Indices]:
    """Rows [b] that one process loads at `start_step`, `start_step + 1`, ...; endless.

    ConfigError if the number of processes does not divide the batch.
    """
    part = process.part(batch_size)
    for step in itertools.count(start_step):
        yield rows_at(order, step * batch_size + part.start, part.stop - part.start)


def eval_batches(
    num_examples: int, batch_size: int, *, first: int = 0, process: Process = ALONE
) -> Iterator[Indices]:
    """Every row once, in order, from `first` on; each process yields as many batches.

    Yields:
        int64 [b], `PADDING` after the last row; ConfigError if the batch does not divide.
    """
    part = process.part(batch_size)
    for start in range(first, num_examples, batch_size):
        index_B = np.arange(start, start + batch_size, dtype=np.int64)
        yield np.where(index_B < num_examples, index_B, PADDING)[part]
