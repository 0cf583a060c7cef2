"""What Python and libraries of other projects do, import and print unasked, kept away."""

import contextlib
import gc
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

NOTHING: Any = types.ModuleType("nothing")
"""A module of which every name is None."""

NOTHING.__getattr__ = lambda name: None


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Python's garbage collector rests.

    For work that makes many objects which stay: the collector would go through all of them again
    and again.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def without(name: str, stand_in: types.ModuleType | None = None) -> Iterator[None]:
    """Spares imports inside the block a slow module that they ask for and do not need.

    They get `stand_in` for it; None makes the import of it fail, for importers that can go without.
    After the block it can be imported as ever. Has no effect once the module is loaded.
    """
    loaded = name in sys.modules
    if not loaded:
        sys.modules[name] = stand_in  # type: ignore[assignment]
    try:
        yield
    finally:
        if not loaded:
            del sys.modules[name]


def quiet_orbax(*, after_failure: bool = False) -> None:
    """Keeps away orbax's logs: a page a save, and the traceback of each error that it raises.

    After a failure its other tasks complain one by one of the same thing; they are silenced too.
    """
    logging.getLogger("absl").addFilter(_not_from_orbax)
    if after_failure:
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
