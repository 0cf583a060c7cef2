"""The application as functions on values: the only room that knows data and networks both."""

import time
from collections.abc import Callable

from mtl_face.errors import escaped

Say = Callable[[str], None]
"""Takes a line for the user."""


def show(line: str) -> None:
    """Prints a line, `escaped`."""
    print(escaped(line))


Progress = Callable[[int, int], None]
"""Called with (done, total) now and then."""

_SECONDS_BETWEEN_LINES = 10.0


def progress_lines(say: Say, things: str) -> Progress:
    """A line with rate and time left of some things, now and then.

    The first call ends a start, or tells what was done before: it does not count in the rate.
    """
    last = time.monotonic()
    first: tuple[float, int] | None = None

    def progress(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = (now, done) if first is None else first
        if done > first[1] and (now - last > _SECONDS_BETWEEN_LINES or done == total):
            last = now
            rate = (done - first[1]) / max(now - first[0], 1e-9)
            left = (total - done) / rate
            say(f"{things}: {done:,} of {total:,}, {rate:.0f} a second, {left:.0f} s left")

    return progress
