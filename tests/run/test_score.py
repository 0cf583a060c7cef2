"""`run.py evaluate --predictions --report`: the report of a file, without JAX."""

import subprocess
import sys
from pathlib import Path

import pytest
import scorer_files
from PIL import Image
from scorer_files import make_rows

from mtl_face.cli import main
from mtl_face.evaluation import prediction_files

ROOT = Path(__file__).parents[2]

_RUN = """
import runpy, sys
sys.argv = ["run.py", *sys.argv[1:]]
try:
    runpy.run_path("run.py", run_name="__main__")
except SystemExit as exit:
    print("STATUS", exit.code)
heavy = {"jax", "jaxlib", "flax", "tensorflow", "torch", "orbax", "optax", "clu"}
print("HEAVY", *sorted(set(sys.modules) & heavy))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with labels, predictions with logits, a submission, and one picture."""
    folder = tmp_path_factory.mktemp("files")
    labels, table = make_rows(100)
    scorer_files.write_truth(folder / "truth.txt", labels)
    prediction_files.write(table, folder / "ours.parquet")
    scorer_files.write_submission(folder / "theirs.txt", table)
    for name in table.image:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
    for name in table.image[:50]:
        Image.new("RGB", (20, 20)).save(folder / "images" / name)
    return folder


def report(capsys, folder, name, *more):
    """Text of the report, after a run that must succeed."""
    path = folder / "out" / "report.html"
    given = (f"--predictions={folder / name}", f"--truth={folder / 'truth.txt'}")
    status = main.main(["evaluate", *given, f"--report={path}", "--resamples=20", *more])
    captured = capsys.readouterr()
    assert (status, captured.err) == (0, "")
    assert f"report: {path}" in captured.out
    return path.read_text(encoding="utf-8")


def test_of_a_submission_with_reasons_for_what_it_lacks(capsys, files):
    text = report(capsys, files, "theirs.txt")
    for words in (
        "No learning curves",
        "Left out: Action units, Expressions (there are decisions only",
        "No attention maps",
        "No most uncertain frames",
        "No pictures",
        "whether they were pre-trained on Aff-Wild2",
        "theirs.txt, a submission of va, expr, au",
        'class="timeline"',
    ):
        assert words in text, words
    assert "<img" not in text


def test_of_predictions_with_pictures_where_there_are_any(capsys, files):
    text = report(capsys, files, "ours.parquet", f"--images={files / 'images'}")
    assert 0 < text.count("<img") < 24
    assert text.count("<img") + text.count(">no picture<") == 24
    assert "Most uncertain frames" in text
    assert "reliability-au" in text


def test_pictures_without_a_report_are_a_mistake(capsys, files):
    given = [f"--predictions={files / 'ours.parquet'}", f"--truth={files / 'truth.txt'}"]
    assert main.main(["evaluate", *given, f"--images={files}"]) == 2
    assert "--report" in capsys.readouterr().err
    model = ["--model=run", f"--config={ROOT / 'configs/rendered_faces.py'}"]
    assert main.main(["evaluate", *model, "--report=z.html"]) == 2
    assert "go with --predictions" in capsys.readouterr().err


def test_without_jax_and_tensorflow(files, tmp_path):
    words = [
        "evaluate",
        f"--predictions={files / 'theirs.txt'}",
        f"--truth={files / 'truth.txt'}",
        f"--report={tmp_path / 'report.html'}",
        "--resamples=10",
    ]
    result = subprocess.run(
        [sys.executable, "-c", _RUN, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "STATUS 0" in result.stdout
    assert result.stdout.rstrip().endswith("HEAVY")
    assert (tmp_path / "report.html").is_file()


def test_a_folder_of_images_that_is_none_is_refused(capsys, files):
    path = files / "out" / "never.html"
    words = (f"--predictions={files / 'ours.parquet'}", f"--truth={files / 'truth.txt'}")
    status = main.main(["evaluate", *words, f"--report={path}", f"--images={files / 'imges'}"])
    assert status == 2
    assert "imges is no folder" in capsys.readouterr().err
    assert not path.exists()
