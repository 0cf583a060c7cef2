"""Shards that `data_pipeline.shards` wrote: their table, and their records by row.

Record i of a split is row i of its table, over all shards in the order of their numbers, in both
formats. ArrayRecord files hold an index; for TFRecord files one is made when they are opened, by
reading the lengths alone (12 bytes a record).

Dimension letters: N rows, b batch of one process.
"""

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.user_files import read_bytes
from mtl_face import files, tasks
from mtl_face.errors import AnnotationError, ConfigError
from mtl_face.tables import AU_PROBABILITY_NAMES, RATER_NAMES, VOTE_NAMES, FrameTable

NAME = "face_frames"
"""Name of the data set in the folder that holds the shards."""

IMAGE = "image"
"""Feature of a record that holds the encoded image."""

_AGAIN = "copy the file again, or write the shards again"


def table_file(split: str) -> str:
    """File name of a split's table, beside the shards."""
    return f"frames-{split}.parquet"


def find(folder: str | os.PathLike[str]) -> Path:
    """The folder with the shards: `folder` itself, or below it where tfds put them.

    ConfigError if there are none, or several sets of them.
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

    AnnotationError if the file is absent, unreadable or no such table.
    """
    import pandas as pd

    path = folder / table_file(split)
    if not path.exists():
        raise AnnotationError(
            "no such file, so these shards have no such split",
            path=path,
            remedy="write the shards again",
        )
    content = io.BytesIO(read_bytes(path))
    try:
        frame = pd.read_parquet(content)
        names = ("dataset", "video", "frame", "image", *tasks.VA_NAMES, "expression", "row")
        columns: dict[str, Any] = {name: frame[name].to_numpy() for name in names}
        columns["au"] = frame[list(tasks.AU_NAMES)].to_numpy()
        for column, members in (
            ("raters", RATER_NAMES),
            ("votes", VOTE_NAMES),
            ("au_probability", AU_PROBABILITY_NAMES),
        ):
            if members[0] in frame:
                columns[column] = frame[list(members)].to_numpy()
        if "label_weight" in frame:
            columns["label_weight"] = frame["label_weight"].to_numpy()
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
            AnnotationError: a file cannot be read, or is damaged.
        """
        self.folder, self.split = folder, split
        paths = sorted(folder.glob(f"{NAME}-{split}.*-?????-of-?????"))
        if not paths or len(paths) != int(paths[0].name[-5:]):
            raise ConfigError(
                f"{folder} holds {len(paths)} shards of the split {split}"
                + (f" of {int(paths[0].name[-5:])}" if paths else ""),
                remedy="write the shards again, or copy the missing ones",
            )
        kind = _ArrayRecords if ".array_record-" in paths[0].name else _TFRecords
        self._shards: list[_ArrayRecords | _TFRecords] = [kind(path) for path in paths]
        self._first = np.cumsum([0, *map(len, self._shards)])
        self.mean_bytes = sum(path.stat().st_size for path in paths) // max(len(self), 1)

    def __len__(self) -> int:
        return int(self._first[-1])

    def read(self, row_b: npt.NDArray[np.int64]) -> list[bytes]:
        """Serialised `tf.train.Example`s of these rows, in the order asked for."""
        shard_b = np.searchsorted(self._first, row_b, side="right") - 1
        records = [b""] * len(row_b)
        for shard in np.unique(shard_b):
            places = np.flatnonzero(shard_b == shard)
            found = self._shards[shard].read((row_b[places] - self._first[shard]).tolist())
            for place, record in zip(places.tolist(), found, strict=True):
                records[place] = record
        return records


def _open(path: Path) -> io.FileIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        problem, remedy = files.unreadable(error, "file")
        raise AnnotationError(problem, path=path, remedy=remedy) from error


class _ArrayRecords:
    def __init__(self, path: Path) -> None:
        from array_record.python import array_record_module

        self._path = path
        _open(path).close()  # the reader does not say why it cannot
        # Random access: what lies behind a record is not wanted.
        self._file = array_record_module.ArrayRecordReader(
            str(path), options="readahead_buffer_size:0"
        )
        if not self._file.ok():
            raise AnnotationError("is no ArrayRecord file", path=path, remedy=_AGAIN)

    def __len__(self) -> int:
        return int(self._file.num_records())

    def read(self, rows: list[int]) -> list[bytes]:
        try:
            return self._file.read(rows)
        except RuntimeError as error:  # of damaged bytes, or of a disk that fails
            raise AnnotationError(
                f"a record cannot be read ({error})", path=self._path, remedy=_AGAIN
            ) from error


class _TFRecords:
    """Length (8 bytes), checksum (4), data, checksum (4), and so on."""

    def __init__(self, path: Path) -> None:
        self._file = _open(path)
        places = []  # start and length of each record's data
        size = path.stat().st_size
        start = 0
        while start < size:
            header = os.pread(self._file.fileno(), 8, start)
            (length,) = struct.unpack("<Q", header) if len(header) == 8 else (size,)
            if start + 16 + length > size:
                raise AnnotationError("ends in the middle of a record", path=path, remedy=_AGAIN)
            places.append((start + 12, length))
            start += 16 + length
        self._places = np.array(places, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._places)

    def read(self, rows: list[int]) -> list[bytes]:
        places = self._places[rows].tolist()
        return [os.pread(self._file.fileno(), length, start) for start, length in places]
