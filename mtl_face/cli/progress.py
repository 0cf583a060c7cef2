"""A line of progress with rate and time left."""

import time


class Progress:
    """Prints how far a long work is, at most every second, over the line before it.

    Call it with (done, total).

    Args:
        things: what is counted, in the plural.
    """

    def __init__(self, things: str) -> None:
        self._things = things
        self._begin = time.perf_counter()
        self._last = 0.0
        self._shown: tuple[int, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Prints the line, if it is time for one or the work is done."""
        now = time.perf_counter()
        if (done < total and now - self._last < 1.0) or self._shown == (done, total):
            return
        self._last, self._shown = now, (done, total)
        rate = done / max(now - self._begin, 1e-9)
        left = (total - done) / rate if done else 0.0
        print(
            f"{done:,} of {total:,} {self._things}, {rate:,.0f} a second, {left:.0f} s left  ",
            end="\r" if done < total else "\n",
            flush=True,
        )
