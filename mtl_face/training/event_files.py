"""TensorBoard's event files of a run that goes on: rows past the step it goes on from are dropped.

What a killed run wrote after its last checkpoint is computed and written again; left where it is,
each such step would be drawn twice.

An event file is a sequence of records: length (uint64, little-endian), its check sum (4 bytes), the
event, its check sum (4 bytes).
"""

import os
from collections.abc import Iterator
from pathlib import Path

from mtl_face.errors import WorkdirError

_HEADER, _FOOTER = 12, 4
_PATTERN = "events.out.tfevents.*"


def forget_after(folder: Path, step: int) -> int:
    """Drops the events of later steps, and what a kill or a dead machine left unreadable.

    Args:
        folder: holds event files; it may be absent. No writer has them open.
        step: the last step whose events are kept.

    Returns:
        Number of events dropped.

    Raises:
        WorkdirError: if a file cannot be read or written.
    """
    dropped = 0
    for path in sorted(folder.glob(_PATTERN)):
        try:
            content = path.read_bytes()
            kept, lost = _keep(content, step)
            if len(kept) < len(content):
                temporary = path.with_name(f"{path.name}.tmp")
                temporary.write_bytes(kept)
                os.replace(temporary, path)
        except OSError as error:
            raise WorkdirError(
                f"cannot be rewritten: {error.strerror}",
                path=path,
                remedy="free some space or mend the permissions, then run the same command again",
            ) from error
        dropped += lost
    return dropped


def _keep(content: bytes, step: int) -> tuple[bytes, int]:
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

    A machine that died may have left a tail of zeros, in place of what was to be written.
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
