"""The processes of one run: how they join, and the folder that they share."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mtl_face import config as config_lib
from mtl_face.errors import UserError, WorkdirError
from mtl_face.run import Say
from mtl_face.run import workdir as workdirs
from mtl_face.training.processes import distributed

_PATIENCE = 60.0
"""Seconds that a network's file system may take to show a file."""


def digest(config: config_lib.Config) -> str:
    """A digest that is the same for settings that processes of one run may have."""
    text = json.dumps(config_lib.common(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def own_workdir(folder: Path, say: Say) -> Iterator[Callable[[], None]]:
    """`workdir.locked` in process 0, for all of them.

    Gives a function that raises WorkdirError once another run has taken the folder.
    """
    with contextlib.ExitStack() as stack:
        held = distributed.first(lambda: stack.enter_context(workdirs.locked(folder, say)))
        yield (lambda: None) if held is None else held.require


def open_workdir(folder: Path, config: config_lib.Config, say: Say = print) -> Path:
    """`workdir.open_for_training` in process 0; the others check that they see the same folder.

    WorkdirError as there, or if the folder is not shared.
    """
    opened = distributed.first(lambda: workdirs.open_for_training(folder, config, say))
    if opened is not None:
        return opened
    folder = folder.expanduser().resolve()
    deadline = time.monotonic() + _PATIENCE
    while not workdirs.is_run(folder):
        if time.monotonic() > deadline:
            raise WorkdirError(
                "is not the folder that process 0 has written to",
                path=folder,
                remedy="give a workdir (--workdir) on a file system that all hosts share",
            )
        time.sleep(0.2)
    # Process 0 has checked that it belongs to these settings, and `joined` that all have the same
    # but for places of files, which may be others here.
    return folder


@contextlib.contextmanager
def unless_refused(folder: Path) -> Iterator[None]:
    """Takes back what `open_workdir` wrote where the block ends in a user's mistake."""
    try:
        yield
    except UserError:
        if distributed.is_writer():
            workdirs.forget(folder)
        raise
