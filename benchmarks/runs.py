"""Runs that a benchmark trains, each in a folder; finished ones stay, stopped ones go on."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

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
    with log.open("a") as file:
        status = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        sys.exit(f"{' '.join(command)}\nended with status {status}, see {log}")


def write_between(begin: str, end: str, text: str, document: Path) -> None:
    """Replaces what stands between two marks of a document."""
    before, _, rest = document.read_text().partition(begin)
    document.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}")
