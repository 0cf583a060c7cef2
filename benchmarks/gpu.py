"""What one GPU does with the paper's train step: right numbers, speed, cost of parts, memory.

    python -m benchmarks.gpu --output=docs/benchmarks/gpu.json
    python -m benchmarks.gpu --device=cpu --tiny        (tries every section, at meaningless sizes)

Needs jax with CUDA, flax, optax, ml_collections, numpy and torch. Each section runs in a process of
its own, with a share of `--minutes`: what one does not use goes to those after it, and one that
fails, does not fit into memory or runs out of time leaves the others alone. The file is written
after every section. Exit status 1 where a section failed or a check of parity did.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import comparison
from mtl_face import files
from mtl_face.run import environment

SHARES = {"parity": 15, "memory": 15, "augmentation": 12, "determinism": 18, "throughput": 40}
"""Sections in their order, with their shares of the time; the last does as much as it can."""

STOP_EARLY = 0.15
"""Part of a section's time in which it starts nothing new; at its end the process is killed."""

DEVICE_SECONDS = 60
"""Longest wait for the libraries to load and find the device."""


def main() -> int:
    """Runs the sections one after the other."""
    begin = time.time()
    options = parsed()
    end = begin + 60 * options.minutes - 3  # for what comes after the last section
    results = comparison.results("One GPU: the paper's preset", [])
    results |= {"tiny": options.tiny, "sections": {}}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        device = run_section("device", options, place, min(end, time.time() + DEVICE_SECONDS))
        if device["status"] != "done":
            print(
                f"No GPU to measure on: {device['status']}. "
                "`--device=cpu --tiny` tries the sections on a processor."
            )
            return 1
        results["environment"] |= device["rows"][0]
        for index, name in enumerate(SHARES):
            if name not in options.sections:
                continue
            left = [SHARES[later] for later in list(SHARES)[index:] if later in options.sections]
            until = time.time() + (end - time.time()) * SHARES[name] / sum(left)
            print(f"\n== {name}: up to {until - time.time():.0f} s ==", flush=True)
            start = time.time()
            section = run_section(name, options, place, until)
            section["seconds"] = round(time.time() - start, 1)
            results["groups"] += section.pop("groups")
            results["sections"][name] = section
            print(f"{name}: {section['status']}, {section['seconds']} s", flush=True)
            if options.output is not None:
                options.output.parent.mkdir(parents=True, exist_ok=True)
                files.write_json(options.output, results, indent=1)
    return summary(results, options.output, time.time() - begin)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=7)
    parser.add_argument("--minutes", type=float, default=7.5, help="for everything")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--tiny", action="store_true", help="a network of no use, small batches")
    parser.add_argument("--batch-sizes", type=int, nargs="+", metavar="N", help="16 64 256")
    parser.add_argument("--plan", type=Path, help="what `run.py plan --output` wrote")
    parser.add_argument("--sections", nargs="+", choices=SHARES, default=list(SHARES))
    options = parser.parse_args()
    options.batch_sizes = options.batch_sizes or ([2, 4] if options.tiny else [16, 64, 256])
    if options.plan is not None:
        remedy = "name a file of `run.py plan --output=FILE.json`"
        options.plan = files.read_json(options.plan, remedy=remedy)
    return options


def run_section(name: str, options: argparse.Namespace, place: Path, until: float) -> dict:
    """Runs a section in a process; its `rows`, `groups` and `status`, `done` or what happened."""
    kept = place / f"{name}.json"
    request = vars(options) | {
        "section": name,
        "keep": str(kept),
        "until": until - STOP_EARLY * (until - time.time()),
    }
    request.pop("output")
    words = [sys.executable, "-m", "benchmarks.gpu_sections", json.dumps(request)]
    status = ""
    with subprocess.Popen(
        words, env=environment_of(options, place, name), start_new_session=True
    ) as process:
        try:
            process.wait(timeout=max(until - time.time(), 0.1))
        except subprocess.TimeoutExpired:
            status = "stopped: its time was over"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    section = {"rows": [], "groups": []}
    if kept.exists():
        section |= json.loads(kept.read_text())
    if process.returncode != 0 and not status:
        status = section.get("status") or f"failed: the process ended with {process.returncode}"
    return section | {"status": status or section.get("status", "failed: it wrote nothing")}


def environment_of(options: argparse.Namespace, place: Path, section: str) -> dict[str, str]:
    """Variables of a section's process.

    Compiled programs are shared by the sections and not by runs of this program. JAX must leave
    memory to PyTorch, and two processes to each other, hence no allocation ahead.
    """
    found = dict(os.environ)
    if options.tiny:
        found["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # they would take longer than the rest
    for variable in ("JAX_COMPILATION_CACHE_DIR", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        found.pop(variable, None)
    environment.prepare(
        preset="none", compilation_cache="workdir", workdir=place, environment=found
    )
    found["JAX_PLATFORMS"] = "cuda,cpu" if options.device == "gpu" else "cpu"
    found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if section == "throughput":
        found["XLA_CLIENT_MEM_FRACTION"] = "0.48"
    return found


def summary(results: dict[str, Any], output: Path | None, seconds: float) -> int:
    """Prints how each section ended; the exit status."""
    print(f"\n== {seconds:.0f} s ==")
    failed = False
    for name, section in results["sections"].items():
        wrong = [row for row in section["rows"] if row.get("passed") is False]
        failed |= section["status"].startswith(("failed", "stopped")) or bool(wrong)
        note = f", {len(wrong)} checks FAILED" if wrong else ""
        print(f"{name:14s} {section['status']}{note}")
    if output is not None:
        print(f"results: {output}\nnext: python -m benchmarks.document")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
