"""Batches for training and evaluation: indices -> image files -> uint8 crops, with their labels.

TensorFlow decodes images here and does nothing else. Labels stay in NumPy. Images are delivered as
stored bytes of RGB; every augmentation and scaling to floats happens on the device.

Dimension letters: N rows, B global batch, b batch of one process, S image size in pixels.
"""

import atexit
import collections
import itertools
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from data_pipeline import decoding, order
from data_pipeline.batch import (
    Batch,
    IndexedImages,
    gather_images,
    to_devices,
    with_index,
    with_labels,
)
from data_pipeline.records import IMAGE, Records
from mtl_face.errors import ConfigError, ImageError
from mtl_face.tables import FrameTable

__all__ = ["Batch", "Source", "decode_all", "eval_batches", "to_devices", "train_batches"]

Source = str | npt.NDArray[np.uint8] | Records
"""Where pixels come from: "files", "memory", the array that `decode_all` made, or shards."""

_MOST_TOGETHER = 64
"""Images that one call decodes at most; several calls run at a time, so this bounds memory."""

_ANNOUNCED = 1024
"""Rows named to the pipeline at a time, before their decoding starts."""

_READ_AT_ONCE = 32 * 2**20
"""Bytes of the records read for the pipeline at a time, about; it may hold three times as many."""

_CGROUP = "/sys/fs/cgroup/memory"

_running: "weakref.WeakSet[_Running]" = weakref.WeakSet()


class _Running:
    """A running `tf.data` pipeline with a Python generator in it, over at the program's end.

    While the interpreter shuts down, a thread of TensorFlow that is inside the generator never
    comes back from it, and the pipeline's own end would wait for that thread for ever.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self.iterator: Iterator[Any] | None = dataset.as_numpy_iterator()
        _running.add(self)


@atexit.register
def _stop_all() -> None:
    for running in list(_running):
        running.iterator = None


if tf.config.get_visible_devices("GPU"):
    tf.config.set_visible_devices([], "GPU")  # they belong to JAX; TensorFlow would fill them


def train_batches(
    table: FrameTable,
    *,
    batch_size: int,
    image_size: int = 112,
    rows: order.Order,
    start_step: int = 0,
    source: Source = "files",
    process_index: int = 0,
    process_count: int = 1,
    prefetch: int = 1,
) -> Iterator[Batch]:
    """Endless batches for training, in the order that `order.step_indices` defines.

    Starting at `start_step` gives what a run from step 0 would give from there on. Both sources
    give identical batches.

    Args:
        table: the rows to train on.
        batch_size: B, over all processes.
        image_size: S; images stored at another size are resized as by `images.read_image`.
        rows: the rows of each epoch, for instance `order.Permutations(len(table), seed)`.
        start_step: step of the first batch.
        source: "files" decodes as batches are needed; "memory" decodes all rows first, N * S * S
            * 3 bytes; an array from `decode_all` shares one decoding between several calls;
            `records.Records` reads the encoded images from shards.
        process_index: this process, 0 <= process_index < process_count.
        process_count: processes; each gets a contiguous part of every global batch.
        prefetch: batches decoded ahead, beside one for each core.

    Returns:
        Iterator of dicts: `image` uint8 [b, S, S, 3]; `labels` with `va` float32 [b, 2], `au` int8
        [b, 12], `expr` int8 [b], as `batch.compact_labels`.

    Raises:
        ConfigError: B does not divide, or exceeds an epoch; too little memory. Raised at once.
        ImageError: an image cannot be decoded; from the iterator (from the call for "memory").
    """
    order.steps_per_epoch(rows.length, batch_size)
    part = {"process_index": process_index, "process_count": process_count}
    indices = order.batches(rows, batch_size, start_step=start_step, **part)
    local_size = _local_size(batch_size, **part)
    return with_labels(
        table, _with_images(table, indices, local_size, image_size, source, prefetch)
    )


def eval_batches(
    table: FrameTable,
    *,
    batch_size: int,
    image_size: int = 112,
    source: Source = "files",
    process_index: int = 0,
    process_count: int = 1,
    prefetch: int = 1,
) -> Iterator[Batch]:
    """Every row exactly once, in the table's order; the last batch is padded to full size.

    All processes yield the same number of batches, ceil(N / B), as collective computations need.

    Args:
        table: the rows to evaluate.
        batch_size: B, over all processes.
        image_size: as `train_batches`.
        source: as `train_batches`.
        process_index: as `train_batches`.
        process_count: as `train_batches`.
        prefetch: as `train_batches`.

    Returns:
        Iterator of dicts: `image` uint8 [b, S, S, 3], black in padding; `index` int32 [b], the row
        in the table, -1 in padding.

    Raises:
        ConfigError: B does not divide, or memory does not suffice. Raised at once.
        ImageError: as `train_batches`.
    """
    part = {"process_index": process_index, "process_count": process_count}
    local_size = _local_size(batch_size, **part)
    indices = order.eval_batches(len(table), batch_size, **part)
    return with_index(_with_images(table, indices, local_size, image_size, source, prefetch))


def decode_all(
    table: FrameTable, *, image_size: int = 112, source: str | Records = "files"
) -> npt.NDArray[np.uint8]:
    """Decodes every row's image into one array, to be passed as `source`.

    Args:
        table: the rows.
        image_size: S.
        source: "files", or shards.

    Returns:
        uint8 [N, S, S, 3] in the table's order.

    Raises:
        ConfigError: it would take more than half of the memory that is free.
        ImageError: an image cannot be decoded.
    """
    shape = (len(table), image_size, image_size, 3)
    needed = int(np.prod(shape))
    available = available_bytes()
    if needed > available // 2:
        raise ConfigError(
            f"{len(table):,} images of {image_size} pixels take {needed / 2**30:.1f} GiB, more "
            f"than half of the {available / 2**30:.1f} GiB of memory that are free",
            remedy='use source="files"',
        )
    image_NSSC = np.empty(shape, np.uint8)
    indices = order.eval_batches(len(table), _MOST_TOGETHER)
    for index_b, image_bSSC in _with_images(
        table, indices, _MOST_TOGETHER, image_size, source, prefetch=1
    ):
        valid_b = index_b != order.PADDING
        image_NSSC[index_b[valid_b]] = image_bSSC[valid_b]
    return image_NSSC


def _local_size(batch_size: int, *, process_index: int, process_count: int) -> int:
    part = order.process_slice(batch_size, process_index=process_index, process_count=process_count)
    return part.stop - part.start


def _with_images(
    table: FrameTable,
    indices: Iterator[order.Indices],
    local_size: int,
    image_size: int,
    source: Source,
    prefetch: int,
) -> IndexedImages:
    options = {"local_size": local_size, "image_size": image_size, "prefetch": prefetch}
    if isinstance(source, Records):
        if len(source) != len(table):
            raise ValueError(f"source has {len(source)} records for {len(table)} rows")
        return _decoded_records(table, source, indices, **options)
    if isinstance(source, str):
        if source == "files":
            return _decoded_files(table, indices, **options)
        if source != "memory":
            raise ConfigError(f"source is {source!r}", remedy='choose "files" or "memory"')
        source = decode_all(table, image_size=image_size)
    if source.shape != (len(table), image_size, image_size, 3) or source.dtype != np.uint8:
        raise ValueError(f"source is {source.dtype} {source.shape}, not one image a row")
    return gather_images(source, indices)


def _decoded_files(
    table: FrameTable, indices: Iterator[order.Indices], **options: int
) -> IndexedImages:
    paths = table.paths()
    path_N = tf.constant([os.fsencode(path) for path in paths], tf.string)

    def fault(row_b: order.Indices, error: Exception) -> ImageError:
        return decoding.find_culprit([paths[row] for row in row_b], error)

    def contents(row_c: tf.Tensor) -> list[tf.Tensor]:
        return [tf.io.read_file(path_N[row_c[i]]) for i in range(row_c.shape[0])]

    return _decoded(
        indices,
        to_item=lambda row_b: row_b,
        item_type=tf.int64,
        contents=contents,
        fault=fault,
        **options,
    )


def _decoded_records(
    table: FrameTable, records: Records, indices: Iterator[order.Indices], **options: int
) -> IndexedImages:
    def read(row_b: order.Indices) -> npt.NDArray[np.object_]:
        return np.array(records.read(row_b), object)

    def contents(record_c: tf.Tensor) -> list[tf.Tensor]:
        features = {IMAGE: tf.io.FixedLenFeature((), tf.string)}
        return tf.unstack(tf.io.parse_example(record_c, features)[IMAGE], record_c.shape[0])

    def fault(row_b: order.Indices, error: Exception) -> ImageError:
        return decoding.find_culprit_record(
            row_b.tolist(),
            lambda row: contents(tf.constant(records.read(np.array([row]))))[0].numpy(),
            lambda row: f"{records.folder}: {table.image[row]}",
            error,
        )

    return _decoded(
        indices,
        to_item=read,
        item_type=tf.string,
        contents=contents,
        fault=fault,
        announced=min(_ANNOUNCED, _READ_AT_ONCE // max(records.mean_bytes, 1)),
        **options,
    )


def _decoded(
    indices: Iterator[order.Indices],
    *,
    to_item: Callable[[order.Indices], npt.NDArray[Any]],
    item_type: tf.DType,
    contents: Callable[[tf.Tensor], list[tf.Tensor]],
    fault: Callable[[order.Indices, Exception], ImageError],
    local_size: int,
    image_size: int,
    prefetch: int,
    announced: int = _ANNOUNCED,
) -> IndexedImages:
    """Decodes the images of each batch of indices, several at a time, keeping the order.

    Args:
        indices: [b] each.
        to_item: row [b] -> what `contents` needs of each, [b] of `item_type`.
        item_type: type of these items.
        contents: item [c] -> the encoded images, c scalar strings.
        fault: (row [b], error) -> what to raise when a batch failed.
        local_size: b.
        image_size: S.
        prefetch: batches decoded ahead.
        announced: rows that `to_item` is asked for at a time, or one batch if that is more.
    """
    # A whole batch, if it is not too large, is decoded by one call: nothing handles single images,
    # and their pixels are copied once.
    together = next(c for c in range(_MOST_TOGETHER, 0, -1) if local_size % c == 0)
    parts = local_size // together
    # A call of a Python generator by TensorFlow costs as much as the decoding of an image: one
    # call announces several batches, this many at most.
    batches_announced = max(1, announced // local_size)
    # Batches that are on their way, oldest first. Filled by a thread of the pipeline, emptied by
    # the caller's: a batch that arrives or cannot be decoded is always the oldest.
    underway: collections.deque[order.Indices] = collections.deque()

    def announce() -> Iterator[npt.NDArray[Any]]:
        count = 1  # the first batch does not wait for many records
        while several := list(itertools.islice(indices, count)):
            count = min(2 * count, batches_announced)
            underway.extend(several)
            row_n = np.concatenate([_rows_to_read(index_b) for index_b in several])
            yield to_item(row_n).reshape(-1, together)

    def load(item_c: tf.Tensor) -> tf.Tensor:
        return decoding.decode_several(contents(item_c), image_size)

    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    options = tf.data.Options()
    options.deterministic = True
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.inject_prefetch = False  # `prefetch` is the memory bound
    options.autotune.enabled = False  # nothing to tune: its clocks alone cost a few per cent
    dataset = (
        tf.data.Dataset.from_generator(
            announce, output_signature=tf.TensorSpec((None, together), item_type)
        )
        .prefetch(1)  # decoding does not wait while the next records are read
        .unbatch()
        .map(load, num_parallel_calls=num_threads, deterministic=True)
    )
    if parts > 1:
        dataset = dataset.batch(parts, drop_remainder=True)
    running = _Running(dataset.prefetch(prefetch).with_options(options))
    while running.iterator is not None:
        try:
            image_bSSC = next(running.iterator).reshape(-1, image_size, image_size, 3)
        except StopIteration:
            return
        except (tf.errors.OpError, UnicodeDecodeError) as error:  # of a message with odd bytes
            # The user's file is at fault; a TensorFlow trace would only hide it.
            ahead = list(underway)  # at once: the pipeline's thread may add to it
            raise fault(np.concatenate([_rows_to_read(i) for i in ahead]), error) from None
        index_b = underway.popleft()
        padding_b = index_b == order.PADDING
        if padding_b.any():
            image_bSSC = np.where(padding_b[:, None, None, None], np.uint8(0), image_bSSC)
        yield index_b, image_bSSC


def _rows_to_read(index_b: order.Indices) -> order.Indices:
    """The rows, and in place of padding one that is there: a branch for it would cost more."""
    return np.where(index_b == order.PADDING, max(int(index_b[0]), 0), index_b)


def available_bytes() -> int:
    """Bytes of memory that can still be taken: of the machine, or of its container if less.

    File caches that the system would give up count as free. On systems that do not say what is
    free, all of the machine's memory counts.
    """
    if os.path.exists("/proc/meminfo"):
        free = _read_fields("/proc/meminfo")["MemAvailable:"] * 1024
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if os.path.exists(f"{_CGROUP}.max"):
        with open(f"{_CGROUP}.max", encoding="ascii") as file:
            limit = file.read().strip()
        if limit != "max":
            with open(f"{_CGROUP}.current", encoding="ascii") as file:
                used = int(file.read())
            reclaimable = _read_fields(f"{_CGROUP}.stat")["inactive_file"]
            free = min(free, max(int(limit) - used + reclaimable, 0))
    return free


def _read_fields(path: str) -> dict[str, int]:
    with open(path, encoding="ascii") as file:
        return {words[0]: int(words[1]) for words in map(str.split, file) if len(words) > 1}
