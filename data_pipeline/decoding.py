"""Decoding of JPEG, PNG and BMP by TensorFlow: the graph, the pipeline that runs it, its faults.

TensorFlow decodes images here and does nothing else. Images are delivered as stored bytes of RGB.

Dimension letters: b batch of one process, c images decoded together, S image size in pixels.
"""

import atexit
import collections
import dataclasses
import functools
import itertools
import os
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# TensorFlow prints pages at start, and on some processors lines about oneDNN whatever the level;
# nothing that it does here goes through oneDNN. A user's own settings win.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from data_pipeline import images
from data_pipeline.batch import IndexedImages
from data_pipeline.order import PADDING, Indices
from data_pipeline.records import IMAGE, Records
from mtl_face import libraries, pictures
from mtl_face.errors import ImageError
from mtl_face.tables import FrameTable

# Without it TensorFlow leaves Keras, a quarter of its own import, for when it is asked for.
with libraries.without("keras.src.optimizers"):
    import tensorflow as tf

MOST_TOGETHER = 64
"""Images that one call decodes at most; several calls run at a time, so this bounds memory."""

ANNOUNCED = 1024
"""Rows named to the pipeline at a time, before their decoding starts."""

_READ_AT_ONCE = 32 * 2**20
"""Bytes of the records read for the pipeline at a time, about; it may hold three times as many."""

_JPEG = b"\xff\xd8\xff"

if tf.config.get_visible_devices("GPU"):
    tf.config.set_visible_devices([], "GPU")  # they belong to JAX; TensorFlow would fill them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """Where encoded images come from.

    Attributes:
        to_item: row [b] -> what `contents` needs of each, [b] of bytes.
        contents: item [c] -> the encoded images, c scalar strings; a function of the module, whose
            graph is kept.
        fault: (row [b], error) -> what to raise when a batch failed.
        announced: rows that `to_item` is asked for at a time, or one batch if that is more.
    """

    to_item: Callable[[Indices], npt.NDArray[Any]]
    contents: Callable[[tf.Tensor], list[tf.Tensor]]
    fault: Callable[[Indices, Exception], ImageError]
    announced: int = ANNOUNCED


def from_files(table: FrameTable) -> Encoded:
    """The image files of a table."""
    paths = table.paths()
    return Encoded(
        to_item=lambda row_b: np.array([os.fsencode(paths[row]) for row in row_b], object),
        contents=_contents_of_files,
        fault=lambda row_b, error: find_culprit([paths[row] for row in row_b], error),
    )


def _contents_of_files(path_c: tf.Tensor) -> list[tf.Tensor]:
    return [tf.io.read_file(path) for path in tf.unstack(path_c)]


def from_records(table: FrameTable, records: Records) -> Encoded:
    """The records of shards, whose table this is."""

    def fault(row_b: Indices, error: Exception) -> ImageError:
        for row in row_b.tolist():
            try:
                record_c = tf.constant(records.read(np.array([row])))
                decode(_contents_of_records(record_c)[0], 8)
            except tf.errors.OpError as own_error:
                return ImageError(
                    f"the image of row {row} cannot be decoded ({_plain(own_error)})",
                    path=f"{records.folder}: {table.image[row]}",
                    remedy="replace the image file, then write the shards again",
                )
        return ImageError(
            f"a record could not be read ({_plain(error)})",
            remedy="check the disk that holds the shards, or write them again",
        )

    return Encoded(
        to_item=lambda row_b: np.array(records.read(row_b), object),
        contents=_contents_of_records,
        fault=fault,
        announced=min(ANNOUNCED, _READ_AT_ONCE // max(records.mean_bytes, 1)),
    )


def _contents_of_records(record_c: tf.Tensor) -> list[tf.Tensor]:
    features = {IMAGE: tf.io.FixedLenFeature((), tf.string)}
    return tf.unstack(tf.io.parse_example(record_c, features)[IMAGE], record_c.shape[0])


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


def decoded(
    encoded: Encoded,
    indices: Iterator[Indices],
    *,
    local_size: int,
    image_size: int,
    upright: bool = False,
) -> IndexedImages:
    """Decodes the images of each batch of indices, several at a time, keeping the order.

    An image is black where the index is `PADDING`. `local_size` is b, `image_size` S; `upright`
    turns each image as its EXIF orientation says. Yields indices [b] and images [b, S, S, 3];
    ImageError if an image cannot be read.
    """
    # A whole batch, if it is not too large, is decoded by one call: nothing handles single images,
    # and their pixels are copied once.
    together = next(c for c in range(MOST_TOGETHER, 0, -1) if local_size % c == 0)
    parts = local_size // together
    # A call of a Python generator by TensorFlow costs as much as the decoding of an image: one
    # call announces several batches, this many at most.
    batches_announced = max(1, encoded.announced // local_size)
    # Batches that are on their way, oldest first. Filled by a thread of the pipeline, emptied by
    # the caller's: a batch that arrives or cannot be decoded is always the oldest.
    underway: collections.deque[Indices] = collections.deque()

    def announce() -> Iterator[npt.NDArray[Any]]:
        count = 1  # the first batch does not wait for many records
        while several := list(itertools.islice(indices, count)):
            count = min(2 * count, batches_announced)
            underway.extend(several)
            row_n = np.concatenate([_rows_to_read(index_b) for index_b in several])
            yield encoded.to_item(row_n).reshape(-1, together)

    load = _loader(encoded.contents, together, image_size, upright)
    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    options = tf.data.Options()
    options.deterministic = True
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.inject_prefetch = False  # the one below bounds memory
    options.autotune.enabled = False  # nothing to tune: its clocks alone cost a few per cent
    dataset = (
        tf.data.Dataset.from_generator(
            announce, output_signature=tf.TensorSpec((None, together), tf.string)
        )
        .prefetch(1)  # decoding does not wait while the next records are read
        .unbatch()
        .map(load, num_parallel_calls=num_threads, deterministic=True)
    )
    if parts > 1:
        dataset = dataset.batch(parts, drop_remainder=True)
    running = _Running(dataset.prefetch(1).with_options(options))
    while running.iterator is not None:
        try:
            image_bSSC = next(running.iterator).reshape(-1, image_size, image_size, 3)
        except StopIteration:
            return
        except (tf.errors.OpError, UnicodeDecodeError) as error:  # of a message with odd bytes
            # The user's file is at fault; a TensorFlow trace would only hide it.
            ahead = list(underway)  # at once: the pipeline's thread may add to it
            rows = np.concatenate([_rows_to_read(index_b) for index_b in ahead])
            raise encoded.fault(rows, error) from None
        index_b = underway.popleft()
        padding_b = index_b == PADDING
        if padding_b.any():
            image_bSSC = np.where(padding_b[:, None, None, None], np.uint8(0), image_bSSC)
        yield index_b, image_bSSC


@functools.cache
def _loader(
    contents: Callable[[tf.Tensor], list[tf.Tensor]], together: int, image_size: int, upright: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """From items [c] to uint8 images [c, S, S, 3]; kept, as its graph takes long to make."""

    # Its branches are TensorFlow's own; to look for others in the source takes seconds.
    @tf.function(input_signature=[tf.TensorSpec((together,), tf.string)], autograph=False)
    def load(item_c: tf.Tensor) -> tf.Tensor:
        content_c = contents(item_c)
        image_cSSC = decode_several(content_c, image_size)
        return _make_upright(image_cSSC, content_c) if upright else image_cSSC

    return load


def _rows_to_read(index_b: Indices) -> Indices:
    """The rows, and in place of padding one that is there: a branch for it would cost more."""
    return np.where(index_b == PADDING, max(int(index_b[0]), 0), index_b)


def decode_several(contents: Sequence[tf.Tensor], image_size: int) -> tf.Tensor:
    """Encoded images, c scalar strings, to uint8 [c, S, S, 3].

    A branch costs a third of the decoding of a small crop, and a copy of the encoded bytes a
    twentieth. So one branch decides for several images: are they all what they usually are, JPEG
    and of the wanted size? And no operation packs or selects their bytes.
    """

    def decode_plain() -> tf.Tensor:
        return tf.stack([_decode_jpeg(content) for content in contents])

    def decode_any() -> tf.Tensor:
        crop = tf.TensorSpec((image_size, image_size, 3), tf.uint8)
        return tf.map_fn(
            lambda content: decode(content, image_size),
            tf.stack(contents),
            fn_output_signature=crop,
        )

    def of_size() -> tf.Tensor:
        size_c3 = tf.stack([tf.io.extract_jpeg_shape(content) for content in contents])
        return tf.reduce_all(size_c3[:, :2] == image_size)

    start_c = tf.stack([tf.strings.substr(content, 0, len(_JPEG)) for content in contents])
    usual = tf.cond(tf.reduce_all(start_c == _JPEG), of_size, lambda: tf.constant(False))
    image_cSSC = tf.cond(usual, decode_plain, decode_any)
    return tf.ensure_shape(image_cSSC, (len(contents), image_size, image_size, 3))


def _make_upright(image_cSSC: tf.Tensor, contents: Sequence[tf.Tensor]) -> tf.Tensor:
    """Turns square images as the EXIF orientation of each file says."""

    def read_orientations(*content_c: bytes) -> npt.NDArray[np.int64]:
        return np.fromiter(map(pictures.stored_orientation, content_c), np.int64, len(content_c))

    orientation_c = tf.numpy_function(read_orientations, contents, tf.int64)
    orientation_c = tf.ensure_shape(orientation_c, (len(contents),))
    turns = tf.constant([turn[:3] for turn in pictures.TURNS.values()])
    transposed_c, left_right_c, top_bottom_c = (
        tf.gather(turns[:, step], orientation_c - 1)[:, None, None, None] for step in range(3)
    )
    image_cSSC = tf.where(transposed_c, tf.transpose(image_cSSC, (0, 2, 1, 3)), image_cSSC)
    image_cSSC = tf.where(left_right_c, image_cSSC[:, :, ::-1], image_cSSC)
    return tf.where(top_bottom_c, image_cSSC[:, ::-1], image_cSSC)


def decode(content: tf.Tensor, image_size: int) -> tf.Tensor:
    """Encoded JPEG, PNG or BMP to uint8 [S, S, 3]; anything else fails."""
    # Zeros behind it: reading beyond the end would fail with the file's bytes in the message,
    # which Python cannot decode.
    header = tf.strings.join([tf.strings.substr(content, 0, 32), bytes(32)])
    image = tf.cond(
        tf.strings.substr(header, 0, 3) == _JPEG,
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


def _decode_jpeg(content: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG to RGB."""
    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_compressed(content: tf.Tensor, size_px: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG whose header promises `size_px`; checked before memory is taken for it."""
    allowed = tf.reduce_prod(tf.cast(size_px, tf.int64)) <= images.MAX_PIXELS
    return _decode_jpeg(tf.where(allowed, content, b""))


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


def find_culprit(paths: list[str], error: Exception) -> ImageError:
    """The image of a failed batch that cannot be read."""
    fault = next(filter(None, map(images.diagnose, paths)), None)
    if fault is not None:
        return fault
    for path in paths:  # sound for Pillow: ask TensorFlow itself
        try:
            decode(tf.io.read_file(path), 8)
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
    noise = r"\{\{.*?\}\} ?| ?\[(Op:|\[).*|Error in user-defined function .*? Iterator::\S+: "
    return re.sub(noise, "", str(error), flags=re.DOTALL).strip()
