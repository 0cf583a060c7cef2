"""Commands whose results or whose text nobody takes: a full disk, a reader that went away."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import scorer_files
from scorer_files import make_rows

from mtl_face.cli import main
from mtl_face.evaluation import prediction_files

ROOT = Path(__file__).parents[2]
EVALUATE = ("evaluate", "--predictions=a.parquet", "--truth=truth.txt", "--resamples=10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    labels, table = make_rows(60)
    scorer_files.write_truth(folder / "truth.txt", labels)
    prediction_files.write(table, folder / "a.parquet")
    prediction_files.write(table, folder / "b.parquet")
    return folder


@contextlib.contextmanager
def small_files():
    """Makes files above 1,000 bytes impossible, as if the disk were full.

    To be left before anything else is written: a test's own output may go to a file, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "words",
    [
        (*EVALUATE, "--output=new.json"),
        (*EVALUATE, "--report=new.html"),
        ("compare", "a.parquet", "b.parquet", "--truth=truth.txt", "--resamples=10",
         "--output=new.json"),
        ("smooth", "--predictions=a.parquet", "--output=new.parquet"),
        ("smooth", "--predictions=a.parquet", "--output=new.csv"),
        ("ensemble", "a.parquet", "b.parquet", "--output=new.parquet"),
        ("calibrate", "--predictions=a.parquet", "--truth=truth.txt", "--windows=0",
         "--output=new.json"),
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)  # fmt: skip
def test_results_on_a_full_disk(words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    with small_files():
        status = main.main(list(words))
    assert status == 2
    name = words[-1].partition("=")[2]
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}: cannot be written (File too large)\n  -> ")
    assert error.count("\n") == 2
    assert sorted(folder.iterdir()) == before


def test_a_report_that_cannot_be_written_costs_no_number(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    output = tmp_path / "metrics.json"
    assert main.main([*EVALUATE, f"--output={output}", f"--report={tmp_path}"]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert json.loads(output.read_text())["num_rows"] == 60


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [("--help",), ("settings",), EVALUATE], ids=lambda w: w[0])
def test_a_reader_that_went_away_ends_a_command_quietly(words, unbuffered, folder):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *words],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert result.stderr == ""
    # without a buffer, the parser itself passes over a help text that nobody takes
    assert result.returncode == (0 if words == ("--help",) and unbuffered else 128 + 13)


def test_another_broken_pipe_is_no_reader_of_ours(monkeypatch):
    def fail(arguments):
        raise BrokenPipeError

    monkeypatch.setattr(main, "_run", fail)
    with pytest.raises(BrokenPipeError):
        main.main(["settings"])
