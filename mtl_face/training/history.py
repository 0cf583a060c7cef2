"""The learning curves of a run: `history.jsonl`, and TensorBoard's event files.

Both survive sudden death. A run that goes on from a checkpoint computes the steps after it again,
so it first drops their rows: no step is ever there twice.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_face import files
from mtl_face.errors import WorkdirError
from mtl_face.tasks import TASKS

_AGAIN = "then run the same command again: it goes on from the last checkpoint"


class History:
    """Rows of numbers by step in `history.jsonl`, one JSON object a line, in step order."""

    def __init__(
        self,
        path: Path,
        *,
        after_step: int,
        warn: Callable[[str], None] | None = None,
        write: bool = True,
    ) -> None:
        """Opens the file, made if absent, and drops rows past `after_step`, where the run goes on.

        With `warn`, a row that the disk refuses is no error: the first is reported, and all are
        written with the next row that the disk takes. Of several processes, one has `write`.
        WorkdirError if the file cannot be written, or is no history.
        """
        self._path = path
        self._warn = warn
        self._write = write
        self._unwritten: list[dict[str, Any]] = []
        if write:
            kept = (row for row in read(path) if row["step"] <= after_step)
            files.write_text(path, "".join(map(_line, kept)))

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row: `step`, the number of steps taken, and numbers; null if not finite.

        Without `warn`, WorkdirError if the file cannot be written.
        """
        if not self._write:
            return
        self._unwritten.append(row)
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("a") as file:
                file.write("".join(map(_line, self._unwritten)))
        except OSError as error:
            with contextlib.suppress(OSError):  # half a line would spoil those that follow
                os.truncate(self._path, size)
            if self._warn is None:
                raise files.unwritable(self._path, error, otherwise=_AGAIN) from error
            if len(self._unwritten) == 1:
                self._warn(f"{self._path}: cannot be written: {files.reason(error)}; going on")
            return
        self._unwritten = []


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a history file; none if it is absent. A last line cut short by a kill is left out.

    WorkdirError if it cannot be read, or a line is no row.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise WorkdirError(
            f"cannot be read: {files.reason(error)}", path=path, remedy="correct the permissions"
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


def criterion(scores: Mapping[str, Any]) -> str:
    """What the number `score` of an evaluation is, in words: P, or the sum of what there is."""
    if scores.get("p") is not None:
        return "P"
    there = [task for task in TASKS if scores.get(task) is not None]
    return f"the sum of {' and '.join(there) or 'nothing'}, since P is not defined"


def selection(rows: Sequence[Mapping[str, Any]], step: int) -> dict[str, Any] | None:
    """How the checkpoint of a step was chosen, from the rows of a history.

    Returns:
        `criterion` in words; `looks`, evaluations that it is the best of; `step` and its `score`;
        `last_step` and `last_score`, those of the last evaluation. None if the step was not
        evaluated.
    """
    head = "validation/"
    looks = [
        {name.removeprefix(head): value for name, value in row.items() if name.startswith(head)}
        | {"step": row["step"]}
        for row in rows
        if isinstance(row.get(f"{head}score"), int | float)
    ]
    own = next((look for look in looks if look["step"] == step), None)
    if own is None:
        return None
    return {
        "criterion": criterion(own),
        "looks": len(looks),
        "step": step,
        "score": own["score"],
        "last_step": looks[-1]["step"],
        "last_score": looks[-1]["score"],
    }


def _line(row: dict[str, Any]) -> str:
    clean = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(clean) + "\n"


def scalar_writer(
    writer: Any, folder: Path, *, warn: Callable[[str], None] | None = None
) -> Callable[[int, dict[str, float]], None]:
    """A function `(step, numbers)` that writes to TensorBoard, and to the disk at once.

    So a run that is killed has written all that came before its last checkpoint. `writer` is of
    `clu.metric_writers`, and writes to `folder`. With `warn`, the first write that the disk refuses
    is reported, and the numbers of such writes are lost; without it, the function raises
    WorkdirError.
    """
    warned = False

    def write(step: int, numbers: dict[str, float]) -> None:
        nonlocal warned
        try:
            writer.write_scalars(step, numbers)
            writer.flush()
        except Exception as error:
            # TensorFlow has types of its own for what a disk says; they are not imported here.
            if not (isinstance(error, OSError) or type(error).__module__.startswith("tensorflow")):
                raise
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            if warn is None:
                raise WorkdirError(
                    f"cannot be written: {words}",
                    path=folder,
                    remedy=f"free some space or correct the permissions, {_AGAIN}",
                ) from error
            if not warned:
                warn(f"{folder}: cannot be written: {words}; going on")
            warned = True

    return write


# An event file is a sequence of records: length (uint64, little-endian), its check sum (4 bytes),
# the event, its check sum (4 bytes).
_HEADER, _FOOTER = 12, 4


def forget_events_after(folder: Path, step: int) -> int:
    """Drops TensorBoard's events of later steps, and what a kill or a dead machine left unreadable.

    No writer has the files of the folder open; it may be absent. Returns the number dropped;
    WorkdirError if a file cannot be read or written.
    """
    dropped = 0
    for path in sorted(folder.glob("events.out.tfevents.*")):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WorkdirError(
                f"cannot be read: {files.reason(error)}",
                path=path,
                remedy=files.remedy(error, _AGAIN),
            ) from error
        kept, lost = _events_until(content, step)
        if len(kept) < len(content):
            with files.replacing(path) as temporary:
                temporary.write_bytes(kept)
        dropped += lost
    return dropped


def _events_until(content: bytes, step: int) -> tuple[bytes, int]:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto import event_pb2

    kept, lost = [], 0
    for record in _records(content):
        try:
            event = event_pb2.Event.FromString(record[_HEADER:-_FOOTER])
        except DecodeError:
            break
        if event.step > step:
            lost += 1
        else:
            kept.append(record)
    return b"".join(kept), lost


def _records(content: bytes) -> Iterator[bytes]:
    """The complete records up to the first damaged one: no reader gets past that.

    A machine that died may have left a tail of zeros in place of what was to be written.
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    start = 0
    while start + _HEADER + _FOOTER <= len(content):
        length = int.from_bytes(content[start : start + 8], "little")
        end = start + _HEADER + length + _FOOTER
        check_sum = int.from_bytes(content[start + 8 : start + _HEADER], "little")
        if end > len(content) or masked_crc32c(content[start : start + 8]) != check_sum:
            return
        yield content[start:end]
        start = end
