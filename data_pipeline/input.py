"""Batches for training and evaluation: indices -> image files -> uint8 crops, with their labels.

TensorFlow decodes images here and does nothing else; this is the module of the package that
imports it. Labels stay in NumPy. Images are delivered as stored bytes of RGB; every augmentation
and scaling to floats happens on the device.

Dimension letters: N rows, B global batch, b batch of one process, S image size in pixels.
"""

import collections
import os
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from data_pipeline import images, memory, order
from data_pipeline.batch import (
    Batch,
    IndexedImages,
    gather_images,
    to_devices,
    with_index,
    with_labels,
)
from data_pipeline.frames import FrameTable
from mtl_face.errors import ConfigError, ImageError

__all__ = ["Batch", "Source", "decode_all", "eval_batches", "to_devices", "train_batches"]

Source = str | npt.NDArray[np.uint8]
"""Where pixels come from: "files", "memory", or the array that `decode_all` made."""

_DECODE_BATCH = 256

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
    prefetch: int = 2,
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
            * 3 bytes; an array from `decode_all` shares one decoding between several calls.
        process_index: this process, 0 <= process_index < process_count.
        process_count: processes; each gets a contiguous part of every global batch.
        prefetch: batches decoded ahead.

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
    prefetch: int = 2,
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


def decode_all(table: FrameTable, *, image_size: int = 112) -> npt.NDArray[np.uint8]:
    """Decodes every row's image into one array, to be passed as `source`.

    Returns:
        uint8 [N, S, S, 3] in the table's order.

    Raises:
        ConfigError: it would take more than half of the memory that is free.
        ImageError: an image cannot be decoded.
    """
    shape = (len(table), image_size, image_size, 3)
    needed = int(np.prod(shape))
    available = memory.available_bytes()
    if needed > available // 2:
        raise ConfigError(
            f"{len(table):,} images of {image_size} pixels take {needed / 2**30:.1f} GiB, more "
            f"than half of the {available / 2**30:.1f} GiB of memory that are free",
            remedy='use source="files"',
        )
    image_NSSC = np.empty(shape, np.uint8)
    indices = order.eval_batches(len(table), _DECODE_BATCH)
    for index_b, image_bSSC in _decoded_files(
        table, indices, local_size=_DECODE_BATCH, image_size=image_size, prefetch=2
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
    if isinstance(source, str):
        if source == "files":
            return _decoded_files(
                table, indices, local_size=local_size, image_size=image_size, prefetch=prefetch
            )
        if source != "memory":
            raise ConfigError(f"source is {source!r}", remedy='choose "files" or "memory"')
        source = decode_all(table, image_size=image_size)
    if source.shape != (len(table), image_size, image_size, 3) or source.dtype != np.uint8:
        raise ValueError(f"source is {source.dtype} {source.shape}, not one image a row")
    return gather_images(source, indices)


def _decoded_files(
    table: FrameTable,
    indices: Iterator[order.Indices],
    *,
    local_size: int,
    image_size: int,
    prefetch: int,
) -> IndexedImages:
    """Decodes the images of each batch of indices, several at a time, keeping the order."""
    paths = table.paths()
    path_N = tf.constant([os.fsencode(path) for path in paths], tf.string)
    # Batches that are on their way, oldest first. Filled by a thread of the pipeline, emptied by
    # the caller's: a batch that arrives or fails is always the oldest.
    underway: collections.deque[order.Indices] = collections.deque()

    def announce() -> Iterator[order.Indices]:
        for index_b in indices:
            underway.append(index_b)
            yield index_b

    def load(index: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            index == order.PADDING,
            lambda: tf.zeros((image_size, image_size, 3), tf.uint8),
            lambda: _decode(tf.io.read_file(path_N[index]), image_size),
        )

    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = num_threads
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.inject_prefetch = False  # `prefetch` is the memory bound
    dataset = (
        tf.data.Dataset.from_generator(
            announce, output_signature=tf.TensorSpec((local_size,), tf.int64)
        )
        .unbatch()
        .map(load, num_parallel_calls=num_threads, deterministic=True)
        .batch(local_size, drop_remainder=True)
        .prefetch(prefetch)
        .with_options(options)
    )
    decoded = dataset.as_numpy_iterator()
    while True:
        try:
            image_bSSC = next(decoded)
        except StopIteration:
            return
        except (tf.errors.OpError, UnicodeDecodeError) as error:  # of a message with odd bytes
            failed = [paths[row] for row in underway[0] if row != order.PADDING]
            # The user's file is at fault; a TensorFlow trace would only hide it.
            raise _find_culprit(failed, error) from None
        yield underway.popleft(), image_bSSC


def _decode(content: tf.Tensor, image_size: int) -> tf.Tensor:
    """Encoded JPEG, PNG or BMP to uint8 [S, S, 3]; anything else fails."""
    # Zeros behind it: reading beyond the end would fail with the file's bytes in the message,
    # which Python cannot decode.
    header = tf.strings.join([tf.strings.substr(content, 0, 32), bytes(32)])
    image = tf.cond(
        tf.strings.substr(header, 0, 3) == b"\xff\xd8\xff",
        lambda: _decode_compressed(content, tf.io.extract_jpeg_shape(content)[:2]),
        lambda: tf.cond(
            tf.strings.substr(header, 0, 4) == b"\x89PNG",
            lambda: _decode_compressed(content, _png_size(header)),
            lambda: _decode_bmp(content, header),
        ),
    )
    image = tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == image_size),
        lambda: image,
        lambda: tf.cast(
            # A triangle filter stays within the input's range: rounding needs no clipping.
            tf.round(tf.image.resize(image, (image_size, image_size), "bilinear", antialias=True)),
            tf.uint8,
        ),
    )
    return tf.ensure_shape(image, (image_size, image_size, 3))


def _decode_compressed(content: tf.Tensor, size_px: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG whose header promises `size_px`; checked before memory is taken for it."""
    allowed = tf.reduce_prod(tf.cast(size_px, tf.int64)) <= images.MAX_PIXELS
    return tf.io.decode_jpeg(  # reads PNG as well
        tf.where(allowed, content, b""), channels=3, dct_method="INTEGER_ACCURATE"
    )


def _png_size(header: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False)


def _decode_bmp(content: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """BMP of 24 or 32 bits a pixel, not packed.

    Of one with a palette, TensorFlow would return the indices, and it takes any order of the
    colours for the usual one.
    """
    bits, packing = tf.strings.substr(header, 28, 1), tf.strings.substr(header, 30, 4)
    allowed = (
        (tf.strings.substr(header, 0, 2) == b"BM")
        & ((bits == b"\x18") | (bits == b"\x20"))
        & (packing == bytes(4))
    )
    return tf.io.decode_bmp(tf.where(allowed, content, b""), channels=3)


def _find_culprit(paths: list[str], error: Exception) -> ImageError:
    """The image of a failed batch that cannot be read."""
    for path in paths:
        fault = images.diagnose(path)
        if fault is not None:
            return fault
    for path in paths:  # sound for Pillow: ask TensorFlow itself
        try:
            _decode(tf.io.read_file(path), 8)
        except tf.errors.OpError as own_error:
            return ImageError(
                f"the image cannot be decoded ({_plain(own_error)})",
                path=path,
                remedy="save it again as JPEG or PNG with an image program",
            )
    return ImageError(
        f"an image could not be read, but can be now ({_plain(error)})",
        path=paths[0] if paths else None,
        remedy="check the disk or the network share that holds the images, then start again",
    )


def _plain(error: Exception) -> str:
    """TensorFlow's reason without the names of its graph nodes around it."""
    return re.sub(r"\{\{.*?\}\} ?| ?\[(Op:|\[).*", "", str(error), flags=re.DOTALL).strip()
