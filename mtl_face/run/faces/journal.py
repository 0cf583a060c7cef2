"""A file that a long work appends to, so that what is done outlasts an interruption.

The file begins with a line of JSON that says which work it belongs to. Records follow, each with
its length and a checksum; the beginning of one that was not written to its end is dropped when the
file is opened again. Memory holds where records lie, not what is in them.
"""

import dataclasses
import io
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_face import files
from mtl_face.errors import WorkdirError
from mtl_face.run import Say

VERSION = "journal"
"""Key of the work that numbers the form of its records: of another number they are of no use."""

_HEAD = struct.Struct("<QI")  # length and CRC-32 of a record
_NOTES = "json"
_SYNC_S = 5.0  # between two times that the disk is asked to have it


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """Arrays by name, of any dtype but objects, and JSON values."""

    arrays: Mapping[str, NDArray[Any]]
    notes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a record lies, and the JSON values in it."""

    offset: int
    length: int
    notes: Mapping[str, Any]


class Journal:
    """Records on disk; `entries` are those so far, in their order."""

    def __init__(
        self,
        path: Path,
        work: Mapping[str, Any],
        require: Callable[[], None] = lambda: None,
        say: Say = lambda line: None,
    ) -> None:
        """Begins a file, or goes on with the one that an earlier call left.

        The same work begins anew where another version of mtl_face left it (`VERSION`).

        Args:
            path: the file, which no other process writes.
            work: JSON values by which the work is known again.
            require: called before each change; raises if another process has taken the file.
            say: takes a line where the work begins anew.

        Raises:
            WorkdirError: the file is of another work, or cannot be read or written.
        """
        self.path = path
        self._require, self._say = require, say
        self.entries: list[Entry] = []
        line = json.dumps(work, sort_keys=True).encode() + b"\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            end = self._scan(line) if os.fstat(self._file.fileno()).st_size else 0
            self._file.truncate(end)
            if not end:
                self._file.write(line)
                self._file.flush()
        except OSError as error:
            raise files.unwritable(path, error) from error
        self._synced = time.monotonic()

    def _scan(self, line: bytes) -> int:
        """Finds the records; returns where the last whole one ends, 0 if none is of use.

        WorkdirError if the file is of another work.
        """
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):
            return 0
        if _is_of_another_version(first, line):
            self._say(f"{self.path} was left by another version of mtl_face: it begins again")
            return 0
        if first != line:
            raise WorkdirError(
                "holds what is done of another command: its inputs, model or flags differ",
                path=self.path,
                remedy="give that command again to go on with it, or delete the file",
            )
        end = len(first)
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            if length > os.fstat(self._file.fileno()).st_size:
                break
            content = self._file.read(length)
            if len(content) < length or zlib.crc32(content) != checksum:
                break
            self._note(end, content)
            end += _HEAD.size + length
        return end

    def _note(self, offset: int, content: bytes) -> None:
        notes = _unpack(content, only_notes=True).notes
        self.entries.append(Entry(offset + _HEAD.size, len(content), notes))

    def add(self, arrays: Mapping[str, NDArray[Any]], **notes: Any) -> None:
        """Appends a record; WorkdirError if it cannot be written."""
        self._require()
        content = _pack(arrays, notes)
        try:
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(_HEAD.pack(len(content), zlib.crc32(content)) + content)
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_S:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise files.unwritable(self.path, error) from error
        self.entries.append(Entry(offset + _HEAD.size, len(content), notes))

    def read(self, entry: Entry) -> Record:
        """The record of an entry; WorkdirError if it cannot be read."""
        try:
            self._file.seek(entry.offset)
            return _unpack(self._file.read(entry.length))
        except OSError as error:
            problem, remedy = files.unreadable(error, "file")
            raise WorkdirError(problem, path=self.path, remedy=remedy) from error

    def delete(self) -> None:
        """Removes the file, whose work is done."""
        self._require()
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def _is_of_another_version(first: bytes, line: bytes) -> bool:
    """Whether a file's first line is of the same work, written by another version."""
    try:
        found = json.loads(first)
    except (ValueError, RecursionError):
        return False
    work = json.loads(line)
    if not isinstance(found, dict) or found.get(VERSION) == work.get(VERSION):
        return False
    both = (found.keys() & work.keys()) - {VERSION}
    return bool(both) and all(found[name] == work[name] for name in both)


def _pack(arrays: Mapping[str, NDArray[Any]], notes: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, **{_NOTES: text}, **arrays)
    return buffer.getvalue()


def _unpack(content: bytes, *, only_notes: bool = False) -> Record:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        notes = json.loads(stored[_NOTES].tobytes())
        names = [] if only_notes else [name for name in stored.files if name != _NOTES]
        return Record({name: stored[name] for name in names}, notes)
