"""The measurement of one GPU, tried on a processor, without the packages that it must not need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import gpu, gpu_sections

ROOT = Path(__file__).parents[2]

REFUSED = ("tensorflow", "clu", "pandas", "matplotlib", "pyarrow", "psutil", "h5py", "PIL", "numba")

REFUSE = f"""
import importlib.machinery

found = importlib.machinery.PathFinder.find_spec

def find_spec(cls, name, path=None, target=None):
    return None if name.split(".")[0] in {REFUSED} else found(name, path, target)

importlib.machinery.PathFinder.find_spec = classmethod(find_spec)
"""


def run(folder, *words):
    (folder / "sitecustomize.py").write_text(REFUSE)
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is one")
def test_without_a_gpu_it_says_so(tmp_path):
    outcome = run(tmp_path)
    assert outcome.returncode == 1
    assert "No GPU to measure on" in outcome.stdout
    assert "--device=cpu --tiny" in outcome.stdout


@pytest.mark.slow
def test_every_section_on_a_processor(tmp_path):
    plan = tmp_path / "plan.json"
    figures = {"batch_size": 4, "compute_dtype": "float32", "memory": {"total": 2**30}}
    plan.write_text(json.dumps(figures))
    kept = tmp_path / "gpu.json"
    words = ("--device=cpu", "--tiny", "--minutes=60", "--rounds=2", "--batch-sizes", "4")
    outcome = run(tmp_path, *words, f"--plan={plan}", f"--output={kept}")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    results = json.loads(kept.read_text())
    assert list(results["sections"]) == list(gpu.SHARES)
    assert {section["status"] for section in results["sections"].values()} == {"done"}
    rows = {name: section["rows"] for name, section in results["sections"].items()}
    checks = [(row["precision"], row["of"]) for row in rows["parity"] if row["passed"]]
    assert len(checks) == sum(map(len, gpu_sections.TOLERANCES.values()))
    assert rows["memory"][0]["plan total MiB"] == 1024
    assert [row["error"] for row in rows["memory"] if "error" in row] == []
    assert all(row["total MiB"] > 0 for row in rows["memory"][1:])
    assert rows["determinism"][0]["passed"]
    compared = {group["name"]: set(group["times"]) for group in results["groups"]}
    for precision in gpu_sections.PRECISIONS:
        for kind in ("train step", "forward"):
            ways = compared[f"{kind}, batch 4, {precision}"]
            assert ways >= {"mtl_face", "PyTorch, channels-last"}


def test_a_section_that_fails_says_why(tmp_path):
    kept = tmp_path / "rows.json"
    asked = {"section": "memory", "keep": str(kept), "plan": {"memory": 1}}
    outcome = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_sections", json.dumps(asked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 1
    assert json.loads(kept.read_text())["status"].startswith("failed: AttributeError")


def test_differences_are_relative_and_parameters_by_their_change():
    before = {"parameters": np.array([1.0, 1.0])}
    expected = {
        "loss": 2.0,
        "gradients": np.array([3.0, 4.0]),
        "statistics": np.array([1.0, 0.0]),
        "parameters": np.array([1.1, 1.0]),
    }
    found = expected | {"loss": 1.9, "parameters": np.array([1.1, 1.05])}
    assert gpu_sections.difference(found, expected, before) == pytest.approx(
        {"loss": 0.05, "gradients": 0.0, "parameters": 0.5, "statistics": 0.0}
    )
