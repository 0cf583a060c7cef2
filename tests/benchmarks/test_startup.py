"""The benchmark of starts: what counts as the first step, and what is said of a failure."""

import sys
import time

import pytest
import small_dataset
import small_experiment

from benchmarks import startup

STEPS = f"""
import pathlib, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("{startup.LAST}  1.00 s", flush=True)
signal.sigwait([signal.SIGTERM])
pathlib.Path("stopped").touch()
"""


def program(monkeypatch, folder, text):
    script = folder / "program.py"
    script.write_text(text)
    monkeypatch.setattr(startup, "program", lambda: [sys.executable, str(script)])


def test_a_training_is_stopped_after_its_first_step(monkeypatch, tmp_path):
    program(monkeypatch, tmp_path, STEPS)
    monkeypatch.chdir(tmp_path)
    start = time.perf_counter()
    wall, processor = startup.first_step([], tmp_path / "run", tmp_path / "cache")
    assert 0 < wall < time.perf_counter() - start
    assert processor >= 0
    assert (tmp_path / "stopped").exists()


def test_a_training_that_fails_says_why(monkeypatch, tmp_path):
    program(monkeypatch, tmp_path, "print('error: no data')")
    with pytest.raises(RuntimeError, match="error: no data"):
        startup.first_step([], tmp_path / "run", tmp_path / "cache")


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="nothing here"):
        startup.ran([sys.executable, "-c", "raise SystemExit('nothing here')"])


def test_processor_time_is_that_of_the_process():
    wall, processor = startup.ran([sys.executable, "-c", "import time; time.sleep(1)"])
    assert wall >= 1
    assert 0 < processor < wall


def test_two_groups_a_kind():
    numbers = iter(range(100))
    ways = {name: lambda: (float(next(numbers)), 0.5) for name in ("one", "two")}
    wall, processor = startup.timed("Work", ways, 2)
    assert (wall.name, processor.name) == ("Work, wall time", "Work, processor time")
    assert wall.times == {"one": [2.0, 5.0], "two": [3.0, 4.0]}  # the first of each not counted
    assert processor.times == {"one": [0.5, 0.5], "two": [0.5, 0.5]}


@pytest.mark.slow
def test_a_real_training(tmp_path):
    config = small_experiment.write_config(tmp_path)
    data = small_dataset.write(tmp_path / "data")
    settings = [f"--config={config}", f"--config.data.root={data}"]
    wall, processor = startup.first_step(settings, tmp_path / "run", tmp_path / "cache")
    assert wall > 0
    assert processor > 0
    assert list((tmp_path / "cache").iterdir())
    assert list((tmp_path / "run" / "checkpoints").iterdir())
