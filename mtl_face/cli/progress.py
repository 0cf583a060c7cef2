"""How far a long work is: a bar on a terminal, a line now and then elsewhere, as in a log file."""

import sys
import time
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0
_BAR = "{n:,} of {total:,} {desc}|{bar}| {rate_noinv_fmt}, {remaining} left"
_LINE = "{n:,} of {total:,} {unit}, {rate_noinv:,.0f} a second, {remaining} left"


class Progress:
    """Shows rate and time left of some things, named in the plural; call it with (done, total)."""

    def __init__(self, things: str) -> None:
        self._things = things
        self._begin = self._last = time.monotonic()
        self._finished: tuple[int, int] | None = None
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Shows the numbers, if it is time to or the work is done."""
        if self._finished == (done, total):
            return
        self._finished = (done, total) if done >= total else None
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
                total=total,
                unit="",
                bar_format=_BAR,
                miniters=1,
                dynamic_ncols=True,
                file=sys.stdout,
            )
        self._bar.total = total  # of videos, an estimate
        self._bar.update(done - self._bar.n)
        if self._finished:
            self._bar.close()
            self._bar = None

    def _print(self, done: int, total: int) -> None:
        from tqdm import tqdm

        now = time.monotonic()
        if not self._finished and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        elapsed = max(now - self._begin, 1e-9)
        line = tqdm.format_meter(done, total, elapsed, unit=self._things, bar_format=_LINE)
        print(line, flush=True)
