"""Runs that a benchmark trains, each in a folder; finished ones stay, stopped ones go on.

What several seeds score is compared on the same resamples of the validation set's videos.
"""

import dataclasses
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtl_face.evaluation import bootstrap

ROOT = Path(__file__).parents[1]


def train(folder: Path, config: str, settings: Mapping[str, object]) -> None:
    """Trains one run to its end, or goes on with it; what it prints goes to a file beside it."""
    if (folder / "evaluation" / "metrics.json").is_file():
        return
    # Runs that differ in their seeds share their programs.
    settings = {**settings, "training.compilation_cache": "user"}
    command = [sys.executable, "run.py", "train", f"--config={config}"]
    command += [f"--workdir={folder.absolute()}"]
    command += [f"--config.{name}={value}" for name, value in settings.items()]
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"training {folder} (progress: {log}) ...", flush=True)
    before = _processor_seconds()
    with log.open("a") as file:
        status = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        sys.exit(f"{' '.join(command)}\nended with status {status}, see {log}")
    print(f"trained in {_processor_seconds() - before:.0f} s of processor time", flush=True)


def _processor_seconds() -> float:
    """That the processes started so far took, those that ended alone."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_between(begin: str, end: str, text: str, document: Path) -> None:
    """Replaces what stands between two marks of a document."""
    before, _, rest = document.read_text().partition(begin)
    document.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}")


def mean(samples: Sequence[bootstrap.Resampling]) -> bootstrap.Resampling:
    """Means of scores, resample by resample."""
    paths = set.intersection(*(set(sample.point) for sample in samples))
    parts = {
        field.name: {
            path: np.mean([getattr(sample, field.name)[path] for sample in samples], axis=0)
            for path in paths
        }
        for field in dataclasses.fields(bootstrap.Resampling)
    }
    return bootstrap.Resampling(**parts)


def difference(
    samples: Sequence[bootstrap.Resampling], others: Sequence[bootstrap.Resampling], path: str
) -> str:
    """How far one score lies above the others' of the same seeds, with its interval.

    Both have a resampling for each seed, of the same videos: the mean over the seeds is resampled.
    """
    pairs = zip(samples, others, strict=True)
    found = mean([one.minus(other) for one, other in pairs])
    ends = bootstrap.interval(found, path)
    shown = f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else "no interval"
    return f"{found.point[path]:+.3f} {shown}"
