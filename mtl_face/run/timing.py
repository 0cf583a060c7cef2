"""Where the time of a start goes, from the begin of the process on."""

import time

import psutil


class Timing:
    """Wall seconds by part of a start, in the order of the parts' first laps."""

    def __init__(self) -> None:
        """Begins with the process: the first lap holds what it did before this call, too."""
        self._last = time.perf_counter() - (time.time() - psutil.Process().create_time())
        self.seconds: dict[str, float] = {}

    def lap(self, part: str) -> None:
        """Adds the time since the last lap to a part."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def lines(self) -> list[str]:
        """A line a part, and one for all."""
        rows = {**self.seconds, "all": sum(self.seconds.values())}
        return [f"timing: {part:10} {seconds:8.2f} s" for part, seconds in rows.items()]
