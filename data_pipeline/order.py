"""Which rows make up which batch: pure functions of (number of rows, batch size, seed, step).

Training passes over the rows in epochs. Each epoch is a fresh permutation cut into as many whole
global batches as fit; the rest of that permutation is left out, so that every epoch starts anew
and step s alone says where it stands: no replay on resuming. Processes take contiguous parts of
each global batch, so the order does not depend on how many there are.

Dimension letters: N rows, B global batch, b batch of one process.
"""

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mtl_face.errors import ConfigError

Indices = npt.NDArray[np.int64]

PADDING = -1
"""Index of a place in an evaluation batch that no row fills."""


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> Indices:
    """The permutation of rows 0..N-1 that epoch `epoch` goes through.

    Rows are sorted by random 64-bit keys from the counter-based generator Philox, keyed with
    (seed, epoch). NumPy keeps that bit stream fixed, unlike the one of `Generator.permutation`.

    Args:
        num_examples: N, at least 1.
        seed: 0 <= seed < 2**64.
        epoch: 0 <= epoch < 2**64.

    Returns:
        int64 [N], read-only.
    """
    return _epoch_order(num_examples, seed, epoch)


@functools.lru_cache(maxsize=4)  # consecutive steps ask for the same epoch
def _epoch_order(num_examples: int, seed: int, epoch: int) -> Indices:
    key = np.array([seed, epoch], dtype=np.uint64)
    sort_keys_N = np.random.Philox(key=key).random_raw(num_examples)
    order_N = np.argsort(sort_keys_N, kind="stable")
    order_N.setflags(write=False)
    return order_N


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Number of whole global batches in an epoch, N // B.

    Raises:
        ConfigError: the batch is empty or larger than the data set.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}", remedy="choose 1 or more")
    if batch_size > num_examples:
        raise ConfigError(
            f"batch_size {batch_size} is larger than the {num_examples} rows to train on",
            remedy=f"choose batch_size <= {num_examples}, or add data",
        )
    return num_examples // batch_size


def step_indices(num_examples: int, batch_size: int, *, seed: int, step: int) -> Indices:
    """Rows of the global batch of step `step` (from 0), int64 [B].

    Raises:
        ConfigError: as `steps_per_epoch`.
    """
    epoch, position = divmod(step, steps_per_epoch(num_examples, batch_size))
    order_N = epoch_order(num_examples, seed=seed, epoch=epoch)
    return order_N[position * batch_size : (position + 1) * batch_size]


def process_slice(batch_size: int, *, process_index: int, process_count: int) -> slice:
    """The part of each global batch that one process loads: contiguous, of equal size.

    Raises:
        ConfigError: the batch does not divide.
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index {process_index} of {process_count} processes")
    if batch_size < 1 or batch_size % process_count:
        raise ConfigError(
            f"batch_size {batch_size} does not divide into {process_count} processes",
            remedy=f"choose a positive multiple of {process_count}",
        )
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)


def batches(
    num_examples: int,
    batch_size: int,
    *,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Indices]:
    """Rows that one process loads at `start_step`, `start_step + 1`, ...; endless.

    Yields:
        int64 [b], b = batch_size / process_count.

    Raises:
        ConfigError: as `steps_per_epoch` and `process_slice`.
    """
    part = process_slice(batch_size, process_index=process_index, process_count=process_count)
    step = start_step
    while True:
        yield step_indices(num_examples, batch_size, seed=seed, step=step)[part]
        step += 1


def eval_batches(
    num_examples: int, batch_size: int, *, process_index: int = 0, process_count: int = 1
) -> Iterator[Indices]:
    """Every row once, in order; each process yields the same number of batches, ceil(N / B).

    Yields:
        int64 [b]; `PADDING` in the places after the last row.

    Raises:
        ConfigError: as `process_slice`.
    """
    part = process_slice(batch_size, process_index=process_index, process_count=process_count)
    for start in range(0, num_examples, batch_size):
        index_B = np.arange(start, start + batch_size, dtype=np.int64)
        yield np.where(index_B < num_examples, index_B, PADDING)[part]
