"""How long a start takes: help, import, a first prediction, and the first step of a training.

    python -m benchmarks.startup --output=docs/benchmarks/startup.json
    python -m benchmarks.startup --config=FILE --config.data.root=FOLDER

Each start is a process of its own. Wall time is what one waits; processor time, of all threads, is
disturbed less by other programs. A training ends after its first step. Cold means that no compiled
program is kept, warm that those of an earlier start are. The data are made and their files read
before. Every process is started once before it is timed, so that its files are in the page cache.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks import comparison
from mtl_face import config as config_lib

GOALS = {"cold": 25, "warm": 12}
"""Seconds from the command to the first step of the embedded default, on two quiet cores."""

PREDICT = """
import sys, numpy, mtl_face
model = mtl_face.load(sys.argv[1])
model.predict_crops(numpy.zeros((1, model.crop_size, model.crop_size, 3), numpy.uint8))
"""

LAST = "timing: all"
"""Begin of the line of `train --timing` that follows the first step."""

Seconds = tuple[float, float]
"""Wall and processor seconds."""


def main() -> None:
    """Prints two tables, wall and processor seconds, for each kind of start."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="--config.NAME=VALUE changes a setting"
    )
    comparison.add_arguments(parser, rounds=5)
    parser.add_argument("--config", default="rendered_faces", help="what is trained")
    options, changes = parser.parse_known_args()
    for change in changes:
        config_lib.split_override(change.removeprefix("--config."))
    settings = [f"--config={options.config}", *changes]
    with tempfile.TemporaryDirectory() as name:
        groups = starts(settings, Path(name), options.rounds)
    comparison.report("Start", groups, options.output)
    for group in groups:
        for way, goal in GOALS.items():
            if way in group.times:
                print(f"{group.name}: {way} {group.spread(way)}, goal {goal} s")


def starts(settings: list[str], folder: Path, rounds: int) -> list[comparison.Group]:
    """Times of all starts."""
    cache, models = folder / "compiled", {}
    first_step(settings, folder / "first", cache)
    for form in ("safetensors", "orbax"):
        models[form] = folder / form
        words = ["export", f"--model={folder / 'first'}", "--config.evaluation.checkpoint=last"]
        ran([*program(), *words, f"--format={form}", f"--output={models[form]}"])
    numbers = iter(range(10**6))

    def train(cache: Path | None) -> Seconds:
        number = next(numbers)
        own = folder / f"compiled{number}" if cache is None else cache
        return first_step(settings, folder / f"run{number}", own)

    python = [sys.executable, "-c"]
    return [
        *timed(
            "Command line and import",
            {
                "python": lambda: ran([*python, "pass"]),
                "import mtl_face": lambda: ran([*python, "import mtl_face"]),
                "--help": lambda: ran([*program(), "--help"]),
            },
            rounds,
        ),
        *timed(
            "An export loaded, and a first prediction",
            {
                "import jax, and a first sum": lambda: ran(
                    [*python, "import jax; (jax.numpy.ones(3) + 1).block_until_ready()"]
                ),
                **{
                    f"{form}, {kind}": lambda path=path, kept=kept: ran(
                        [*python, PREDICT, str(path)], kept
                    )
                    for form, path in models.items()
                    for kind, kept in (("cold", None), ("warm", cache))
                },
            },
            rounds,
        ),
        *timed(
            "From the command to the first step",
            {"cold": lambda: train(None), "warm": lambda: train(cache)},
            rounds,
        ),
    ]


def program() -> list[str]:
    """The command line of this checkout."""
    return [sys.executable, str(Path(__file__).parents[1] / "run.py")]


def timed(name: str, ways: dict[str, Callable[[], Seconds]], rounds: int) -> list[comparison.Group]:
    """Wall and processor seconds of processes, in turn; the first is the reference."""
    found: dict[str, list[Seconds]] = {label: [] for label in ways}
    calls = {label: lambda label=label: found[label].append(ways[label]()) for label in ways}
    comparison.time_in_turn(calls, rounds=rounds)
    print(f"done: {name}", flush=True)
    return [
        comparison.Group(
            f"{name}, {kind} time",
            next(iter(ways)),
            "s",
            {label: [pair[index] for pair in pairs[1:]] for label, pairs in found.items()},
        )
        for index, kind in enumerate(("wall", "processor"))
    ]


def ran(command: list[str], cache: Path | None = None) -> Seconds:
    """Runs a process to its end; RuntimeError with its words where it fails."""
    before, start = _of_children(), time.perf_counter()
    done = subprocess.run(command, env=environment(cache), capture_output=True, text=True)
    seconds = time.perf_counter() - start, _of_children() - before
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr or done.stdout}")
    return seconds


def first_step(settings: list[str], workdir: Path, cache: Path) -> Seconds:
    """Trains to the first step, then asks the run to stop, which saves it.

    `cache` holds the compiled programs; those of the step are kept there.
    """
    words = ["train", *settings, f"--workdir={workdir}", "--timing"]
    start, seconds, lines = time.perf_counter(), None, []
    with subprocess.Popen(
        [*program(), *words],
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith(LAST):
                wall, used = time.perf_counter() - start, psutil.Process(process.pid).cpu_times()
                seconds = wall, used.user + used.system
                process.send_signal(signal.SIGTERM)
    if seconds is None:
        raise RuntimeError(f"{words}: {''.join(lines)}")
    return seconds


def environment(cache: Path | None) -> dict[str, str]:
    """Variables of a process; compiled programs are kept in the folder alone, all of them."""
    found = dict(os.environ)
    if cache is not None:
        found["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    return found


def _of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system


if __name__ == "__main__":
    main()
