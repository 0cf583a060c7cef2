"""How far a long work is, and what its start took.

On a terminal a bar, elsewhere, as in a log file, a line now and then.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0
_BAR = "{n:,} of {total:,} {desc}|{bar}| {rate_noinv_fmt}, {remaining} left"
_BAR_WITHOUT_END = "{n:,} {desc}, {rate_noinv_fmt}"
_LINE = "{n:,} of {total:,} {unit}, {rate_noinv:,.0f} a second, {remaining} left"
_LINE_WITHOUT_END = "{n:,} {unit}, {rate_noinv:,.0f} a second"


class Progress:
    """Shows rate and time left of some things, named in the plural; call it with (done, total).

    (done, 0) has a total that nobody knows, as of the frames of a camera.
    """

    def __init__(self, things: str) -> None:
        self._things = things
        self._begin = self._last = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._finished: tuple[int, int] | None = None
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Shows the numbers, if it is time to or the work is done."""
        if self._finished == (done, total):
            return
        self._finished = (done, total) if done >= total and (total or not done) else None
        if sys.stdout.isatty():
            self._draw(done, total)
        else:
            self._print(done, total)

    def _draw(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            tqdm.monitor_interval = 0  # no thread: workers are forked, and each call looks itself
            self._bar = tqdm(
                desc=self._things,
                total=total or None,
                initial=done,
                unit="",
                bar_format=_BAR if total else _BAR_WITHOUT_END,
                miniters=1,
                dynamic_ncols=True,
                file=sys.stdout,
            )
        self._bar.total = total or None  # of videos, an estimate
        self._bar.update(done - self._bar.n)
        if self._finished:
            self._bar.close()
            self._bar = None

    def _print(self, done: int, total: int) -> None:
        from tqdm import tqdm

        now = time.monotonic()
        # The first call ends a start (programs compiled, files opened) that says nothing of the
        # rate; it counts only where there is no other.
        begin, known = self._first or (self._begin, 0)
        self._first = self._first or (now, done)
        if done <= known:
            begin, known = self._begin, 0
        if not self._finished and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        line = tqdm.format_meter(
            done,
            total if total or not done else None,
            max(now - begin, 1e-9),
            unit=self._things,
            bar_format=_LINE if total or not done else _LINE_WITHOUT_END,
            initial=known,
        )
        print(line, flush=True)


def late(things: str) -> Callable[[int, int], None]:
    """A `Progress` whose time counts from its first call, for a work that comes after another."""
    made = functools.cache(lambda: Progress(things))
    return lambda done, total: made()(done, total)


class Timing:
    """Wall seconds by part of a start; call it with the name of a part that has ended."""

    def __init__(self) -> None:
        """Begins with the process: the first call counts what it did before this one, too."""
        import psutil

        self._last = time.perf_counter() - (time.time() - psutil.Process().create_time())
        self.seconds: dict[str, float] = {}

    def __call__(self, part: str) -> None:
        """Adds the time since the last call to a part."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def lines(self) -> list[str]:
        """A line a part, and one for all."""
        rows = {**self.seconds, "all": sum(self.seconds.values())}
        return [f"timing: {part:10} {seconds:8.2f} s" for part, seconds in rows.items()]
