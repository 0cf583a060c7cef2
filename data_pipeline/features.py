"""Features of frames, kept beside their pixels: arrays with a row for each row of a frame table.

    FOLDER/KIND-HASH/features.json   whose rows they are, and how they were made
    FOLDER/KIND-HASH/NAME.npy        an array [N, ...] of any shape and dtype, mapped into memory

The name has the hash of what features.json says of rows and making, so that other rows, or another
making, have another folder, and none is taken for another. What is being written lies in a folder
`KIND-HASH.part`, with the number of rows that are done, and goes on from there.

Dimension letters: N rows, M videos, K kinds of baselines, b batch of one process.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from mtl_face import files, locks
from mtl_face.errors import UserError
from mtl_face.tables import FrameTable
from mtl_face.tasks import EXPRESSION_NAMES

SCHEMA = 1

NOTE = "features.json"

NONE, PERSON, NEUTRAL = "none", "person", "neutral"
"""Kinds of baselines, see `baselines`."""

_PROGRESS = "progress.json"

_SECONDS_BETWEEN_NOTES = 5.0

_AGAIN = "delete the folder: it is made again"

Block = Mapping[str, npt.NDArray[Any]]
"""Arrays [n, ...] by name, of the next n rows."""


class Rows(Protocol):
    """Something that has a value for each row of a table."""

    def __getitem__(self, index_b: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The values of rows, [b, ...]; of a row -1 anything."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """Values that rows have in common: `values` [M, ...], and the place of each row's, int [N]."""

    values: npt.NDArray[Any]
    place: npt.NDArray[np.int64]

    def __getitem__(self, index_b: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The values of rows, [b, ...]."""
        return self.values[self.place[index_b]]


@dataclasses.dataclass(frozen=True)
class Identity:
    """What features are of, and how they were made.

    Attributes:
        kind: word that the folder's name begins with.
        count: number of rows, N.
        rows_sha256: hash of the rows' names, in their order.
        making: JSON values: everything that the arrays depend on besides the pixels.
    """

    kind: str
    count: int
    rows_sha256: str
    making: Mapping[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """As JSON values."""
        rows = {"count": self.count, "sha256": self.rows_sha256}
        return {"schema": SCHEMA, "kind": self.kind, "rows": rows, "making": dict(self.making)}

    def folder(self, parent: Path) -> Path:
        """Where they lie below a folder."""
        text = json.dumps(self.values, sort_keys=True)
        return parent / f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read(parent: Path, identity: Identity) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays by name, mapped into memory; None if there are none.

    Raises:
        UserError: they are of other rows or another making than their folder says, or damaged.
    """
    folder = identity.folder(parent)
    if not folder.exists():
        return None
    note = files.read_json(folder / NOTE, remedy=_AGAIN, failure=UserError)
    if {name: note.get(name) for name in identity.values} != identity.values:
        raise UserError(
            "holds features of other rows, or made in another way, than its name says",
            path=folder,
            remedy=_AGAIN,
        )
    arrays = {}
    for name, stated in note.get("arrays", {}).items():
        path = folder / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"cannot be read: {files.reason(error)}", path=path, remedy=_AGAIN
            ) from error
        found = {"shape": list(arrays[name].shape), "dtype": arrays[name].dtype.str}
        if found != stated:
            raise UserError(f"holds {found}, {NOTE} says {stated}", path=path, remedy=_AGAIN)
    return arrays


def write(
    parent: Path,
    identity: Identity,
    make: Callable[[int], Iterable[Block]],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Makes and writes features, or goes on where an earlier call was interrupted.

    `make(start)` yields the arrays of rows `start`, `start + 1`, ... in blocks of any number.
    Another process that writes the same ones is waited for. `progress` is called with the number of
    rows that are done, and of all; `say` with a line before a wait.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be written, or what `make` raises.
    """
    folder = identity.folder(parent)
    files.make_folder(parent, otherwise="or name another folder: data.features=FOLDER")
    with locks.hold(
        parent / f"{folder.name}.lock",
        what="the features are being written",
        remedy="wait for it",
        wait=True,
        say=say,
    ):
        if not folder.exists():
            try:
                _write(folder, identity, make, progress)
            except OSError as error:
                raise files.unwritable(folder, error) from error
    return folder


def _write(
    folder: Path,
    identity: Identity,
    make: Callable[[int], Iterable[Block]],
    progress: Callable[[int, int], None],
) -> None:
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(exist_ok=True)
    done = _done(part)
    stated: dict[str, dict[str, Any]] = {}
    opened: dict[str, BinaryIO] = {}
    noted = time.monotonic()
    with contextlib.ExitStack() as stack:

        def note() -> None:
            for file in opened.values():
                file.flush()
                os.fsync(file.fileno())
            files.write_json(part / _PROGRESS, {"done": done, "arrays": sorted(opened)})

        progress(done, identity.count)
        for block in make(done):
            for name, values in block.items():
                shape = (identity.count, *values.shape[1:])
                if name not in opened:
                    file = _open(part / f"{name}.npy", values.dtype, shape, done)
                    opened[name] = stack.enter_context(file)
                    stated[name] = {"shape": list(shape), "dtype": values.dtype.str}
                opened[name].write(np.ascontiguousarray(values).tobytes())
            done += len(next(iter(block.values())))
            progress(done, identity.count)
            if time.monotonic() - noted > _SECONDS_BETWEEN_NOTES:
                note()
                noted = time.monotonic()
        if done != identity.count:
            raise ValueError(f"{done} of {identity.count} rows were made")
        note()
    files.write_json(part / NOTE, identity.values | {"arrays": stated})
    (part / _PROGRESS).unlink()
    part.rename(folder)


def _open(path: Path, dtype: np.dtype, shape: tuple[int, ...], done: int) -> BinaryIO:
    """Opens an array of NumPy's format for writing, behind the rows that are done.

    Not mapped into memory: a full disk would end the process without a message.
    """
    file: BinaryIO
    if done:
        file = path.open("r+b")
        file.seek(_begin_of_data(file) + done * _row_bytes(dtype, shape))
        return file
    file = path.open("wb")
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _row_bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return dtype.itemsize * math.prod(shape[1:])


def _begin_of_data(file: BinaryIO) -> int:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return file.tell()


def _done(part: Path) -> int:
    """Rows that an interrupted call has written."""
    try:
        note = json.loads((part / _PROGRESS).read_bytes())
        for name in note["arrays"]:
            with (part / f"{name}.npy").open("rb") as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                needed = file.tell() + note["done"] * _row_bytes(dtype, shape)
                if file.seek(0, os.SEEK_END) < needed:
                    return 0
        return note["done"]
    except (OSError, ValueError, KeyError, EOFError):
        return 0


def baselines(
    table: FrameTable,
    points_NV3: npt.NDArray[np.floating],
    found_N: npt.NDArray[np.bool_],
    kinds: Sequence[str],
) -> Shared:
    """The face at rest of each row's person: of each video (of a data set), who is one person.

    Kinds: `none`, which is 0: not known; `person`, the mean of all of the video's frames;
    `neutral`, the mean of those that are labelled Neutral and of which no action unit is labelled
    as present, or of all where there are none. Frames that are not `found` do not count.

    Returns:
        float32 [N, K, V, 3].
    """
    names = np.char.add(np.char.add(table.dataset.astype(str), "\n"), table.video.astype(str))
    videos, place_N = np.unique(names, return_inverse=True)
    at_rest_N = table.expression == EXPRESSION_NAMES.index("Neutral")
    at_rest_N &= ~(table.au > 0).any(axis=1)
    shape = points_NV3.shape[1:]
    values = np.zeros((len(videos), len(kinds), *shape), np.float32)
    for video, row in enumerate(_rows_of(place_N, len(videos))):
        row = row[found_N[row]]
        if not len(row):
            continue
        point = np.asarray(points_NV3[row], np.float64)
        resting = at_rest_N[row]
        for number, kind in enumerate(kinds):
            if kind == PERSON or (kind == NEUTRAL and not resting.any()):
                values[video, number] = point.mean(axis=0)
            elif kind == NEUTRAL:
                values[video, number] = point[resting].mean(axis=0)
    return Shared(values, place_N)


def _rows_of(place_N: npt.NDArray[np.int64], count: int) -> list[npt.NDArray[np.int64]]:
    """Rows at each place."""
    order_N = np.argsort(place_N, kind="stable")
    return np.split(order_N, np.searchsorted(place_N[order_N], np.arange(1, count)))
