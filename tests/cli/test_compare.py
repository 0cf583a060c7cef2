"""`run.py compare`: two files or runs on the same labels."""

import dataclasses
import json

import numpy as np
import pytest
import scorer_files
from scorer_files import make_rows

from mtl_face.cli import main
from mtl_face.evaluation.scoring import score


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Labels, and predictions of which the second are better at valence and arousal."""
    folder = tmp_path_factory.mktemp("compare")
    labels, table = make_rows()
    better = dataclasses.replace(
        table,
        valence=np.where(np.isnan(labels.valence), 0, table.valence / 2 + labels.valence / 2),
        arousal=np.where(np.isnan(labels.arousal), 0, table.arousal / 2 + labels.arousal / 2),
    )
    return {
        "labels": labels,
        "tables": (table, better),
        "truth": scorer_files.write_truth(folder / "truth.txt", labels),
        "a": scorer_files.write_predictions(folder / "a.parquet", table),
        "b": scorer_files.write_submission(folder / "b.txt", better),
        "folder": folder,
    }


def run(capsys, files, *words):
    output = files["folder"] / "comparison.json"
    output.unlink(missing_ok=True)
    flags = [f"--truth={files['truth']}", "--resamples=200", f"--output={output}"]
    status = main.main(["compare", *map(str, words), *flags])
    captured = capsys.readouterr()
    result = json.loads(output.read_text()) if output.exists() else None
    return status, captured.out, captured.err, result


def test_a_table_against_a_submission(files, capsys):
    status, out, err, result = run(capsys, files, files["a"], files["b"])
    assert (status, err) == (0, "")
    scores = [score(files["labels"], table) for table in files["tables"]]
    va = result["scores"]["va.score"]
    assert va["first"] == pytest.approx(scores[0]["va"]["score"], abs=1e-9)
    assert va["second"] == pytest.approx(scores[1]["va"]["score"], abs=1e-9)
    assert va["difference"] == pytest.approx(va["second"] - va["first"])
    low, high = va["interval"]
    assert 0 < low < va["difference"] < high
    assert va["p_value"] < 0.05
    assert result["scores"]["au.score"]["p_value"] == 1.0
    assert result["scores"]["p"]["difference"] == pytest.approx(va["difference"])
    assert "au.pr_auc.au1" not in result["scores"]  # the submission has no logits
    assert (result["num_rows"], result["num_videos"], result["num_resamples"]) == (200, 20, 200)
    assert f"A: {files['a']}" in out
    assert f"{va['difference']:+.4f} [{low:+.4f}, {high:+.4f}]  {va['p_value']:.3f}" in out


def test_runs_are_named_by_their_folders(files, tmp_path, capsys):
    for name, table in zip(("one", "two"), files["tables"], strict=True):
        folder = tmp_path / name / "evaluation"
        folder.mkdir(parents=True)
        scorer_files.write_predictions(folder / "predictions.parquet", table)
    status, _, _, result = run(capsys, files, tmp_path / "one", tmp_path / "two")
    assert status == 0
    assert "au.pr_auc.au1" in result["scores"]
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "config.json").write_text("{}")
    status, _, err, _ = run(capsys, files, tmp_path / "one", tmp_path / "three")
    assert status == 2
    assert "not evaluated yet" in err


def test_rows_that_one_lacks(files, tmp_path, capsys):
    part = files["tables"][1].take(np.arange(150))
    short = scorer_files.write_submission(tmp_path / "short.txt", part)
    status, _, err, _ = run(capsys, files, files["a"], short)
    assert status == 2
    assert f"{short}: does not fit" in err
    status, out, _, result = run(capsys, files, files["a"], short, "--lenient")
    assert status == 0
    assert result["num_rows"] == 150
    assert f"warning: {short}: " in out
    assert "left out: " in out
    first = score(files["labels"].take(np.arange(150)), files["tables"][0])
    assert result["scores"]["p"]["first"] == pytest.approx(first["p"], abs=1e-9)


def test_one_track_against_all(files, tmp_path, capsys):
    track = scorer_files.write_au_submission(tmp_path / "au.txt", files["tables"][0])
    status, out, _, result = run(capsys, files, files["a"], track)
    assert status == 0
    assert result["scores"]["au.score"]["difference"] == 0.0
    assert "va.score" not in result["scores"]
    assert "p" not in result["scores"]
    assert "none" in out


def test_no_common_task(files, tmp_path, capsys):
    track = scorer_files.write_au_submission(tmp_path / "au.txt", files["tables"][0])
    lines = ["image_location,valence,arousal", *(f"{i},0,0.5" for i in files["tables"][0].image)]
    other = tmp_path / "va.txt"
    other.write_text("\n".join(lines) + "\n")
    status, _, err, _ = run(capsys, files, track, other)
    assert status == 2
    assert "no common task" in err


def test_labels_must_be_named(files, capsys):
    with pytest.raises(SystemExit) as left:
        main.main(["compare", str(files["a"]), str(files["b"])])
    assert left.value.code == 2
    assert "--truth" in capsys.readouterr().err


def test_rows_without_labels_may_be_predicted_by_one_alone(files, tmp_path, capsys):
    """Nothing is asked of them, so each file may have them or not, as when it is scored."""
    labels, table = files["labels"], files["tables"][0]
    labelled = ~np.isnan(labels.valence) | (labels.expression >= 0) | ~np.isnan(labels.au[:, 0])
    assert not labelled.all()
    rows = np.flatnonzero(labelled)
    part = scorer_files.write_predictions(tmp_path / "part.parquet", table.take(rows))
    status, _, err, result = run(capsys, files, files["a"], part)
    assert (status, err) == (0, "")
    assert result["num_rows"] == len(rows)
    assert result["scores"]["p"]["difference"] == 0.0
    assert result["warnings"] == []
