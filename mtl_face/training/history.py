"""The learning curves: one JSON object a line, in step order, safe against sudden death."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl_face.errors import WorkdirError


class History:
    """Rows of numbers by step, kept in `history.jsonl`.

    A run that goes on from an older step drops the rows past it, so that the file never holds two
    rows of one step.
    """

    def __init__(
        self,
        path: Path,
        *,
        after_step: int,
        warn: Callable[[str], None] | None = None,
        write: bool = True,
    ) -> None:
        """Opens the file and forgets rows past `after_step`.

        Args:
            path: the file; made if absent.
            after_step: the step that the run goes on from.
            warn: prints a sentence. With it, a row that the disk refuses is no error: it is told
                once, and written with the next row that the disk takes.
            write: False to keep the rows in memory alone: of several processes, one writes.

        Raises:
            WorkdirError: if the file cannot be written, or is no history.
        """
        self._path = path
        self._warn = warn
        self._write = write
        self._unwritten: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        if not write:
            return
        self.rows = [row for row in read(path) if row["step"] <= after_step]
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text("".join(_line(row) for row in self.rows))
            os.replace(temporary, path)
        except OSError as error:
            raise _unwritable(path, error) from error

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row.

        Args:
            row: `step`, the number of steps taken, and numbers; those that are not finite are
                written as null.

        Raises:
            WorkdirError: if the file cannot be written, and `warn` was not given.
        """
        self.rows.append(row)
        if not self._write:
            return
        self._unwritten.append(row)
        try:
            size = self._path.stat().st_size if self._path.exists() else 0
            try:
                with self._path.open("a") as file:
                    file.write("".join(_line(row) for row in self._unwritten))
            except OSError:
                if self._path.exists():  # half a line would spoil those that follow
                    os.truncate(self._path, size)
                raise
        except OSError as error:
            if self._warn is None:
                raise _unwritable(self._path, error) from error
            if len(self._unwritten) == 1:
                self._warn(f"{self._path}: cannot be written: {error.strerror}; going on")
            return
        self._unwritten = []


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a history file; none if it is absent. A last line cut short by a kill is left out.

    Raises:
        WorkdirError: if it cannot be read, or a line is no row.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise WorkdirError(
            f"cannot be read: {error.strerror}", path=path, remedy="mend the permissions"
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise WorkdirError(
                "is no row of a history",
                path=path,
                line=number,
                remedy="delete that line; it matters to the learning curves alone",
            )
        rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    clean = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(clean) + "\n"


def _unwritable(path: Path, error: OSError) -> WorkdirError:
    return WorkdirError(
        f"cannot be written: {error.strerror}",
        path=path,
        remedy="free some space or mend the permissions, then run the same command again",
    )
