"""Shards that `data_pipeline.shards` wrote: their table, and their records by row.

Record i of a split is row i of its table, over all shards in the order of their numbers, in both
formats. ArrayRecord files hold an index; for TFRecord files one is made when they are opened, by
reading the lengths alone (12 bytes a record).

Dimension letters: N rows, b batch of one process.
"""

import bisect
import itertools
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_face import tasks
from mtl_face.errors import AnnotationError, ConfigError
from mtl_face.tables import FrameTable

NAME = "face_frames"
"""Name of the data set in the folder that holds the shards."""

IMAGE = "image"
"""Feature of a record that holds the encoded image."""


def table_file(split: str) -> str:
    """File name of a split's table, beside the shards."""
    return f"frames-{split}.parquet"


def find(folder: str | os.PathLike[str]) -> Path:
    """The folder with the shards: `folder` itself, or below it where tfds put them.

    Raises:
        ConfigError: there are none, or several sets of them.
    """
    folder = Path(folder)
    patterns = ("dataset_info.json", f"{NAME}/*/*/dataset_info.json")
    found = sorted({info.parent for pattern in patterns for info in folder.glob(pattern)})
    if len(found) != 1:
        many = ": " + ", ".join(map(str, found)) if found else ""
        raise ConfigError(
            f"{folder} holds {len(found) or 'no'} sets of shards{many}",
            remedy="name one of these folders"
            if found
            else "write them with `python run.py prepare --config=... --shards=DIR`",
        )
    return found[0]


def read_table(folder: Path, split: str) -> FrameTable:
    """The table of a split, in the order of its records; `folder` is as `find` returned it.

    Raises:
        AnnotationError: the file is absent or no such table.
    """
    import pandas as pd

    path = folder / table_file(split)
    if not path.is_file():
        raise AnnotationError(
            "no such file, so these shards have no such split",
            path=path,
            remedy="write the shards again",
        )
    try:
        frame = pd.read_parquet(path)
        names = ("dataset", "video", "frame", "image", *tasks.VA_NAMES, "expression", "row")
        columns: dict[str, Any] = {name: frame[name].to_numpy() for name in names}
        columns["au"] = frame[list(tasks.AU_NAMES)].to_numpy()
        return FrameTable.from_columns(root=str(folder), **columns, sort=False)
    except (OSError, KeyError, ValueError) as error:
        raise AnnotationError(
            f"is not a table of frames ({error})", path=path, remedy="write the shards again"
        ) from error


class Records:
    """Serialised records of one split, by row.

    Safe to be read from several threads. `mean_bytes` is the size of a record, about.
    """

    def __init__(self, folder: Path, split: str) -> None:
        """Opens the shards in `folder`, as `find` returned it; reads no record.

        Raises:
            ConfigError: there are no shards of that split, or some are missing.
        """
        self.folder, self.split = folder, split
        paths = sorted(folder.glob(f"{NAME}-{split}.*-?????-of-?????"))
        if not paths or len(paths) != int(paths[0].name[-5:]):
            raise ConfigError(
                f"{folder} holds {len(paths)} shards of the split {split}"
                + (f" of {int(paths[0].name[-5:])}" if paths else ""),
                remedy="write the shards again, or copy the missing ones",
            )
        kind = paths[0].name.split(".")[1].split("-")[0]
        self._reader = _ArrayRecords(paths) if kind == "array_record" else _TFRecords(paths)
        self.mean_bytes = sum(path.stat().st_size for path in paths) // max(len(self), 1)

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, row_b: npt.NDArray[np.int64]) -> list[bytes]:
        """Serialised `tf.train.Example`s of these rows, in the order asked for."""
        return self._reader.read(row_b.tolist())


class _ArrayRecords:
    def __init__(self, paths: list[Path]) -> None:
        from array_record.python import array_record_module

        self._paths = paths
        # Random access: what lies behind a record is not wanted.
        self._files = [
            array_record_module.ArrayRecordReader(str(path), options="readahead_buffer_size:0")
            for path in paths
        ]
        self._first = np.cumsum([0, *(file.num_records() for file in self._files)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def read(self, rows: list[int]) -> list[bytes]:
        row_b = np.array(rows, np.int64)
        file_b = np.searchsorted(self._first, row_b, side="right") - 1
        records: list[bytes] = [b""] * len(rows)
        for file in np.unique(file_b):
            places = np.flatnonzero(file_b == file)
            try:
                found = self._files[file].read((row_b[places] - self._first[file]).tolist())
            except RuntimeError as error:  # of damaged bytes, or of a disk that fails
                raise AnnotationError(
                    f"a record cannot be read ({error})",
                    path=self._paths[file],
                    remedy="copy the file again, or write the shards again",
                ) from error
            for place, record in zip(places.tolist(), found, strict=True):
                records[place] = record
        return records


class _TFRecords:
    """Length (8 bytes), checksum (4), data, checksum (4), and so on."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = [os.open(path, os.O_RDONLY) for path in paths]
        self._records = [_record_places(path) for path in paths]
        self._first = [0, *itertools.accumulate(map(len, self._records))]

    def __del__(self) -> None:
        for file in self.__dict__.get("_files", ()):
            os.close(file)

    def __len__(self) -> int:
        return self._first[-1]

    def read(self, rows: list[int]) -> list[bytes]:
        records = []
        for row in rows:
            shard = bisect.bisect_right(self._first, row) - 1
            start, length = self._records[shard][row - self._first[shard]]
            records.append(os.pread(self._files[shard], int(length), int(start)))
        return records


def _record_places(path: Path) -> npt.NDArray[np.int64]:
    """Start and length of each record's data, int64 [records, 2]."""
    places = []
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        start = 0
        while start < size:
            header = os.pread(file.fileno(), 8, start)
            (length,) = struct.unpack("<Q", header) if len(header) == 8 else (size,)
            if start + 16 + length > size:
                raise AnnotationError(
                    "ends in the middle of a record", path=path, remedy="write the shards again"
                )
            places.append((start + 12, length))
            start += 16 + length
    return np.array(places, np.int64).reshape(-1, 2)
