"""Batches for training and evaluation: indices -> image files -> uint8 crops, with their labels.

Labels stay in NumPy. Images are delivered as stored bytes of RGB; every augmentation and scaling to
floats happens on the device. TensorFlow decodes them; where it is not installed, Pillow does, which
gives the same pixels but for rounding of those that are resized. Features of frames, such as face
points, are read by the same indices.

Dimension letters: N rows, B global batch, b batch of one process, S image size in pixels.
"""

import collections
import dataclasses
import functools
import importlib.util
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from data_pipeline import images as image_files
from data_pipeline import order
from data_pipeline.batch import (
    Batch,
    IndexedImages,
    IndexedInputs,
    gather_images,
    to_devices,
    with_features,
    with_labels,
)
from data_pipeline.features import Rows
from data_pipeline.records import Records
from mtl_face.errors import ConfigError
from mtl_face.tables import FrameTable

__all__ = [
    "Batch",
    "Source",
    "Upright",
    "WithFeatures",
    "decode_all",
    "eval_batches",
    "images_from",
    "to_devices",
    "train_batches",
]


@dataclasses.dataclass(frozen=True)
class Upright:
    """Encoded images in shards or files (None), which are turned as their EXIF orientation says."""

    encoded: Records | None = None


Source = npt.NDArray[np.uint8] | Records | Upright | None
"""Where pixels come from: the image files (None), encoded images in shards, either of them turned
upright, or an array from `decode_all`. All give identical batches, but for what is turned."""


@dataclasses.dataclass(frozen=True)
class WithFeatures:
    """Features of the rows by name, beside their images, or with `images` False without."""

    features: Mapping[str, Rows]
    source: Source = None
    images: bool = True


_CGROUP = Path("/sys/fs/cgroup")


def train_batches(
    table: FrameTable,
    *,
    batch_size: int,
    image_size: int = 112,
    rows: order.Order,
    start_step: int = 0,
    source: Source | WithFeatures = None,
    process: order.Process = order.ALONE,
) -> Iterator[Batch]:
    """Endless batches for training, in the order that `order.step_indices` defines.

    Starting at `start_step` gives what a run from step 0 would give from there on. B is over all
    processes; images that are stored at another size than S are resized as by `images.read_image`.
    `rows` gives those of each epoch, for instance `order.Permutations(len(table), seed)`.

    Returns:
        Iterator of dicts: `image` uint8 [b, S, S, 3]; features [b, ...] by name; `labels` with `va`
        float32 [b, 2], `au` int8 [b, 12], `expr` int8 [b], or soft ones, as `batch.compact_labels`.

    Raises:
        ConfigError: B does not divide, or exceeds an epoch. Raised at once.
        ImageError: an image cannot be decoded; from the iterator.
    """
    order.steps_per_epoch(rows.length, batch_size)
    local_size = process.local_size(batch_size)
    indices = order.batches(rows, batch_size, start_step=start_step, process=process)
    return with_labels(table, _inputs(table, indices, local_size, image_size, source))


def eval_batches(
    table: FrameTable,
    *,
    batch_size: int,
    image_size: int = 112,
    first: int = 0,
    source: Source | WithFeatures = None,
    process: order.Process = order.ALONE,
) -> Iterator[Batch]:
    """Every row from `first` on exactly once, in the table's order; the last batch is padded.

    All processes yield the same number of batches, ceil(N / B), as collective computations need.
    Arguments and errors are those of `train_batches`.

    Returns:
        Iterator of dicts: `image` uint8 [b, S, S, 3] and features [b, ...] by name, 0 in padding;
        `index` int32 [b], the row in the table, -1 in padding.
    """
    local_size = process.local_size(batch_size)
    indices = order.eval_batches(len(table), batch_size, first=first, process=process)
    return (
        {**arrays, "index": index_b.astype(np.int32)}
        for index_b, arrays in _inputs(table, indices, local_size, image_size, source)
    )


def decode_all(
    table: FrameTable, *, image_size: int = 112, source: Records | Upright | None = None
) -> npt.NDArray[np.uint8]:
    """Decodes every row's image into one array, to be passed as `source`.

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
            remedy="set data.source=files",
        )
    image_NSSC = np.empty(shape, np.uint8)
    done = 0
    for image_nSSC in images_from(table, 0, image_size=image_size, source=source):
        image_NSSC[done : done + len(image_nSSC)] = image_nSSC
        done += len(image_nSSC)
    return image_NSSC


def images_from(
    table: FrameTable, start: int, *, image_size: int = 112, source: Source = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Images of the rows from `start` on, in their order, uint8 [n, S, S, 3] at a time.

    ImageError: an image cannot be decoded.
    """
    together = 16  # a graph for more takes longer to build than it saves in calls
    row_n = np.arange(start, len(table), dtype=np.int64)
    row_n = np.pad(row_n, (0, -len(row_n) % together), constant_values=order.PADDING)
    indices = iter(row_n.reshape(-1, together))
    for index_b, image_bSSC in _with_images(table, indices, together, image_size, source):
        yield image_bSSC[index_b != order.PADDING]


def available_bytes() -> int:
    """Bytes of memory that can still be taken: of the machine, or of its container if less.

    File caches that the system would give up count as free.
    """
    free = psutil.virtual_memory().available
    maximum = _CGROUP / "memory.max"
    limit = maximum.read_text().strip() if maximum.exists() else "max"
    if limit != "max":
        used = int((_CGROUP / "memory.current").read_text())
        counts = dict(map(str.split, (_CGROUP / "memory.stat").read_text().splitlines()))
        free = min(free, max(int(limit) - used + int(counts["inactive_file"]), 0))
    return free


def _inputs(
    table: FrameTable,
    indices: Iterator[order.Indices],
    local_size: int,
    image_size: int,
    source: Source | WithFeatures,
) -> IndexedInputs:
    if not isinstance(source, WithFeatures):
        return with_features(_with_images(table, indices, local_size, image_size, source), {})
    if not source.images:
        return with_features(indices, source.features)
    decoded = _with_images(table, indices, local_size, image_size, source.source)
    return with_features(decoded, source.features)


def _with_images(
    table: FrameTable,
    indices: Iterator[order.Indices],
    local_size: int,
    image_size: int,
    source: Source,
) -> IndexedImages:
    if isinstance(source, np.ndarray):
        if source.shape != (len(table), image_size, image_size, 3) or source.dtype != np.uint8:
            raise ValueError(f"source is {source.dtype} {source.shape}, not one image a row")
        return gather_images(source, indices)
    upright = isinstance(source, Upright)
    if isinstance(source, Upright):
        source = source.encoded
    if importlib.util.find_spec("tensorflow") is None:
        if source is not None:
            raise ConfigError(
                "shards are read by TensorFlow, which is not installed",
                remedy="set data.shards=None, or install all of the package (docs/install.md)",
            )
        return _decoded_by_pillow(table, indices, image_size, upright=upright)
    from data_pipeline import decoding

    if source is None:
        encoded = decoding.from_files(table)
    elif len(source) == len(table):
        encoded = decoding.from_records(table, source)
    else:
        raise ValueError(f"source has {len(source)} records for {len(table)} rows")
    return decoding.decoded(
        encoded, indices, local_size=local_size, image_size=image_size, upright=upright
    )


def _decoded_by_pillow(
    table: FrameTable, indices: Iterator[order.Indices], image_size: int, *, upright: bool
) -> IndexedImages:
    """As `decoding.decoded`, from the files, the next batch read while one is in use."""
    read = functools.partial(image_files.read_image, size=image_size, upright=upright)
    paths = table.paths()
    black = np.zeros((image_size, image_size, 3), np.uint8)
    underway: collections.deque[tuple[order.Indices, list[Future | None]]] = collections.deque()

    def oldest() -> tuple[order.Indices, npt.NDArray[np.uint8]]:
        index_b, reading = underway.popleft()
        return index_b, np.stack([black if one is None else one.result() for one in reading])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for index_b in indices:
            reading = [
                None if row == order.PADDING else pool.submit(read, paths[row])
                for row in index_b.tolist()
            ]
            underway.append((index_b, reading))
            if len(underway) > 1:
                yield oldest()
        while underway:
            yield oldest()
