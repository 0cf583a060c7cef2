"""Ways of doing one thing, timed in turn in one run; results as JSON, from which pages are drawn.

Other programs slow a machine down for seconds at a time. So every way is timed once a round, in an
order that rotates from round to round, and compared with the reference of the same round. A
time or ratio is given as the median of the rounds, with the quartiles as its spread.
"""

import argparse
import dataclasses
import gc
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy", "scipy", "pandas", "tensorflow-cpu")


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        """`median (low to high)`, three digits."""
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclasses.dataclass(frozen=True)
class Group:
    """Ways that do the same work.

    Attributes:
        name: what the work is.
        reference: the way whose time is divided by each other's: above 1 is faster than it.
        unit: of `times`, as "ms an image".
        times: by way, one for each round.
    """

    name: str
    reference: str
    unit: str
    times: Mapping[str, list[float]]

    def spread(self, way: str) -> Spread:
        """Of the way's times."""
        return spread(self.times[way])

    def ratio(self, way: str) -> Spread:
        """Of the reference's time over the way's, round by round."""
        rounds = zip(self.times[self.reference], self.times[way], strict=True)
        return spread([reference / own for reference, own in rounds])


def spread(values: list[float]) -> Spread:
    """Quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def time_in_turn(
    ways: Mapping[str, Callable[[], object]], *, rounds: int, calls: int = 1
) -> dict[str, list[float]]:
    """Wall seconds of a call, one for each way and round; each way is called once before.

    A call must return when its work is done. With more `calls` a time is their mean.
    """
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            start = time.perf_counter()
            for _ in range(calls):
                ways[name]()
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def environment() -> dict[str, Any]:
    """Processor, cores, load, Python and the versions of what was compared."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": name,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **versions,
    }


def add_arguments(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Flags that every benchmark has."""
    parser.add_argument("--rounds", type=int, default=rounds, help="times that each way is timed")
    parser.add_argument("--output", type=Path, help="JSON file of the results")


def report(title: str, groups: list[Group], output: Path | None) -> None:
    """Prints environment and tables; writes them as JSON where an output is named."""
    values = results(title, groups)
    print(", ".join(f"{name} {value}" for name, value in values["environment"].items()))
    for group in groups:
        show(group)
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(values, indent=1) + "\n")
    print(f"\nresults: {output}\nnext: python -m benchmarks.document")


def show(group: Group) -> None:
    """Prints a table of times and ratios."""
    print(f"\n{group.name} ({group.unit}; ratio: how many times as fast as {group.reference})")
    for way in group.times:
        print(f"  {way:34s} {group.spread(way)!s:28s} ratio {group.ratio(way)}", flush=True)


def command(words: list[str]) -> str:
    """The command line of this program, without the file that it writes."""
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before != "--output" and word.partition("=")[0] != "--output"
    ]
    return shlex.join(["python", "-m", sys.modules["__main__"].__spec__.name, *kept])


def results(title: str, groups: list[Group]) -> dict[str, Any]:
    """JSON values of a run of the program, as `document` reads them."""
    return {
        "title": title,
        "command": command(sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "groups": [dataclasses.asdict(group) for group in groups],
    }
