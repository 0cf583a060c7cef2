"""How a training run speaks of what went wrong around it, and goes on where it was told to."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from mtl_face.errors import WorkdirError


def warn(sentence: str) -> None:
    """Prints a warning to standard error, from one process only."""
    if jax.process_index() == 0:
        print(f"warning: {sentence}", file=sys.stderr)


def this_host() -> str:
    """This host's name, and which of the processes this one is."""
    return f"host {socket.gethostname()} (process {jax.process_index()} of {jax.process_count()})"


def scalar_writer(
    writer: Any, folder: Path, *, on_failure: str
) -> Callable[[int, dict[str, float]], None]:
    """A function that writes numbers to TensorBoard, and to the disk at once.

    A run that is killed has then written all that came before its last checkpoint, and a run that
    goes on from there needs to write none of it again.

    Args:
        writer: of `clu.metric_writers`.
        folder: where it writes, for the message.
        on_failure: `stop`, or `continue` without the numbers that the disk refuses.

    Returns:
        `(step, numbers) -> None`. It raises WorkdirError if a write failed and is to stop.
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
            if on_failure == "stop":
                raise WorkdirError(
                    f"cannot be written: {words}",
                    path=folder,
                    remedy="free some space or mend the permissions, then run the same command "
                    "again: it goes on from the last checkpoint",
                ) from error
            if not warned:
                warn(f"{folder}: cannot be written: {words}; going on")
            warned = True

    return write
