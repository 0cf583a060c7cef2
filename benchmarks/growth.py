"""How time and memory of input and evaluation grow with the number of frames.

    python -m benchmarks.growth --output=docs/benchmarks/growth.json

Each size runs in a process of its own, which reports seconds of processor time and the peak of what
Python and NumPy allocate meanwhile. The exponent of growth is the slope of a line through the
logarithms from 10,000 frames on; 1 is linear. A group's times are those of a million frames at the
rate of each size, so that a ratio of 1 says that a frame costs as much as in the smallest table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import comparison
from benchmarks.evaluation import make_tables
from data_pipeline import formats, order, sampling
from mtl_face.config.schema import ManifestConfig
from mtl_face.evaluation import prediction_files, scoring, smoothing
from mtl_face.tasks import AU_NAMES, VA_NAMES

SIZES = (1_000, 10_000, 100_000, 1_000_000)
_FITTED = 10_000
"""The smallest size of the fit: below it, what does not depend on the size is most of the time."""


def main() -> None:
    """Prints one table for each kind of work, and the exponents."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="frames")
    parser.add_argument("--measure", nargs=2, metavar=("WORK", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        work, size = options.measure
        print(json.dumps(measured(work, int(size), options.rounds)))
        return
    groups, exponents = [], {}
    for work in WORKS:
        found = {size: in_process(work, size, options.rounds) for size in options.sizes}
        for what, unit in (("seconds", "s"), ("megabytes", "MB")):
            values = {
                size: [value * 1e6 / size for value in one[what]] for size, one in found.items()
            }
            exponents[f"{work}, {what}"] = exponent(
                {size: float(np.median(one[what])) for size, one in found.items()}
            )
            name = f"{work}: {what}, exponent {exponents[f'{work}, {what}']:.2f}"
            times = {f"{size:,} frames": rows for size, rows in values.items()}
            groups.append(
                comparison.Group(name, next(iter(times)), f"{unit} a million frames", times)
            )
        print(f"done: {work}", flush=True)
    comparison.report("Growth with the number of frames", groups, options.output)
    for name, value in exponents.items():
        print(f"exponent of {name}: {value:.3f}")


def in_process(work: str, size: int, rounds: int) -> dict[str, list[float]]:
    """The account of `measured`, from a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.growth", f"--rounds={rounds}"]
    command += ["--measure", work, str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(work: str, size: int, rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each call, and the peak of what Python and NumPy allocate in one."""
    with tempfile.TemporaryDirectory() as folder:
        WORKS[work](64, Path(folder))()  # what happens once is no part of the growth
        call = WORKS[work](size, Path(folder))
        seconds = []
        for _ in range(rounds):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1] / 1e6
    return {"seconds": seconds, "megabytes": [peak] * rounds}


def exponent(values: dict[int, float]) -> float:
    """Slope of log(value) over log(size) by least squares, from `_FITTED` frames on."""
    sizes = [size for size, value in values.items() if size >= _FITTED and value > 0]
    if len(sizes) < 2:
        return float("nan")
    logs = np.log([values[size] for size in sizes])
    return float(np.polyfit(np.log(sizes), logs, 1)[0])


def scores(size: int, folder: Path) -> Callable[[], object]:
    """All scores, with intervals."""
    truth, predictions = make_tables(size)
    return lambda: scoring.score(truth, predictions, num_resamples=1000)


def smoothed(kernel: smoothing.Kernel, window: float) -> Callable[[int, Path], Any]:
    """Smoothing of all tasks."""
    how = smoothing.Smoothing(kernel=kernel, windows=dict.fromkeys(("va", "au", "expr"), window))

    def make(size: int, folder: Path) -> Callable[[], object]:
        table = make_tables(size)[1]
        return lambda: smoothing.smooth(table, how)

    return make


def read(ending: str) -> Callable[[int, Path], Any]:
    """Reading a table of predictions."""

    def make(size: int, folder: Path) -> Callable[[], object]:
        file = folder / f"{size}.{ending}"
        prediction_files.write(make_tables(size)[1], file)
        return lambda: prediction_files.read(file)

    return make


def annotations(size: int, folder: Path) -> Callable[[], object]:
    """Reading a file of s-Aff-Wild2."""
    frame = _labels(size)
    numbers = frame.fillna(dict.fromkeys(VA_NAMES, -5.0)).fillna(-1)
    numbers = numbers.astype(dict.fromkeys(("expression", *AU_NAMES), int))
    numbers.to_csv(folder / f"{size}.txt", index=False)
    return lambda: formats.read_labels(folder / f"{size}.txt", dataset="s_aff_wild2")


def manifest(size: int, folder: Path) -> Callable[[], object]:
    """Reading a manifest of the same rows."""
    _labels(size).to_csv(folder / f"{size}.csv", index=False)
    settings = ManifestConfig()
    return lambda: formats.read_labels(
        folder / f"{size}.csv", dataset="manifest", settings=settings
    )


def _labels(size: int) -> Any:
    frame = make_tables(size)[0].to_dataframe()
    frame.loc[frame.expression < 0, "expression"] = np.nan
    return frame[["image", *VA_NAMES, "expression", *AU_NAMES]]


def batches(size: int, folder: Path) -> Callable[[], object]:
    """The order of one epoch, and the rows of each of its batches."""
    table = make_tables(size)[0]

    def epoch() -> object:
        rows = sampling.make_order(table, kind="uniform", task_weights={}, seed=0)
        steps = size // 64
        return sum(len(order.step_indices(rows, 64, step=step)) for step in range(steps))

    return epoch


WORKS: dict[str, Callable[[int, Path], Callable[[], object]]] = {
    "scores with intervals": scores,
    "smoothing, box": smoothed("box", 30),
    "smoothing, gaussian": smoothed("gaussian", 10.0),
    "reading Parquet": read("parquet"),
    "reading CSV": read("csv"),
    "reading annotations of s-Aff-Wild2": annotations,
    "reading a manifest": manifest,
    "batches of an epoch": batches,
}

if __name__ == "__main__":
    main()
