"""Batches as nested dicts of arrays: attaching labels, and placing them on the devices.

Dimension letters: N rows, B global batch, b batch of one process, S image size in pixels.
"""

import collections
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data_pipeline import order
from data_pipeline.frames import FrameTable, labels

if TYPE_CHECKING:
    import jax

Batch = dict[str, Any]
"""Nested dict of arrays, see `input.train_batches` and `input.eval_batches`."""

IndexedImages = Iterator[tuple[order.Indices, npt.NDArray[np.uint8]]]
"""Row indices [b] and their images [b, S, S, 3]."""


def gather_images(
    image_NSSC: npt.NDArray[np.uint8], indices: Iterator[order.Indices]
) -> IndexedImages:
    """Images of each batch of indices out of one array [N, S, S, 3]; padding is black."""
    for index_b in indices:
        image_bSSC = image_NSSC[index_b]
        image_bSSC[index_b == order.PADDING] = 0
        yield index_b, image_bSSC


def with_labels(
    table: FrameTable,
    decoded: IndexedImages,
    with_index: bool,
) -> Iterator[Batch]:
    """Adds targets and weights, 0 in padding; `with_index` also adds `index` and `valid`."""
    all_targets, all_weights = labels(table)
    for index_b, image_bSSC in decoded:
        valid_b = index_b != order.PADDING
        batch: Batch = {"image": image_bSSC}
        for name, columns in (("targets", all_targets), ("weights", all_weights)):
            batch[name] = {task: column[index_b] for task, column in columns.items()}
            for column in batch[name].values():
                column[~valid_b] = 0
        if with_index:
            batch |= {"index": index_b, "valid": valid_b}
        yield batch


def to_devices(
    batches: Iterable[Batch], sharding: "jax.sharding.NamedSharding", ahead: int = 2
) -> Iterator[Batch]:
    """Turns each process's batches into global arrays, with transfers running ahead.

    Args:
        batches: nested dicts of NumPy arrays [b, ...] of this process. Devices of one process must
            be neighbours along the batch axis of the mesh, in the order of the processes.
        sharding: how the first axis is laid out, for instance `NamedSharding(mesh, P("data"))`;
            further axes are not sharded.
        ahead: batches whose transfer is started before the one in use is asked for.

    Yields:
        The same dicts with global `jax.Array`s [B, ...]. int64 becomes int32, which JAX uses.
    """
    import jax

    def place(batch: Batch) -> Batch:
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(
                sharding, leaf.astype(np.int32) if leaf.dtype == np.int64 else leaf
            ),
            batch,
        )

    placed: collections.deque[Batch] = collections.deque()
    for batch in batches:
        placed.append(place(batch))
        if len(placed) > ahead:
            yield placed.popleft()
    yield from placed
