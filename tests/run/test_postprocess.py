"""smooth, ensemble, calibrate and evaluate --calibration, as a user calls them."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions

from mtl_face.cli import main
from mtl_face.errors import WorkdirError
from mtl_face.evaluation.calibration import CalibrationError
from mtl_face.evaluation.calibration_fit import Search
from mtl_face.evaluation.prediction_files import read, write
from mtl_face.evaluation.smoothing import Smoothing, smooth
from mtl_face.run import postprocess
from mtl_face.run.postprocess import PostProcessing
from mtl_face.tables import PredictionError


def annotation_lines(labels):
    yield "image,valence,arousal,expression,aus"
    for row in range(len(labels.frame)):
        va = np.nan_to_num([labels.valence[row], labels.arousal[row]], nan=-5.0)
        au = np.nan_to_num(labels.au[row], nan=-1.0).astype(int)
        if (va == -5.0).any():
            va = np.array([-5.0, -5.0])
        values = [*map(repr, va.tolist()), labels.expression[row], *au]
        yield f"{labels.video[row]}/{labels.frame[row]:05}.jpg," + ",".join(map(str, values))


@pytest.fixture
def files(tmp_path):
    labels = make_labels(120)
    for name, seed in (("a", 1), ("b", 2)):
        write(make_predictions(labels, seed=seed), tmp_path / f"{name}.parquet")
    (tmp_path / "truth.txt").write_text("\n".join(annotation_lines(labels)) + "\n")
    return tmp_path


def run(capsys, *words):
    status = main.main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_from_predictions_to_a_calibrated_score(files, capsys):
    a, b, truth = files / "a.parquet", files / "b.parquet", f"--truth={files / 'truth.txt'}"
    status, said = run(
        capsys, "ensemble", a, b, "--window=va:9,au:3", f"--output={files / 'mean.parquet'}"
    )
    assert status == 0, said
    assert "mean of 2 members on probabilities" in said
    mean = read(files / "mean.parquet")
    assert mean.metadata["smoothing"]["windows"] == {"va": 9.0, "au": 3.0, "expr": 0.0}
    smoothed = files / "smoothed.parquet"
    status, said = run(capsys, "smooth", f"--predictions={a}", f"--output={smoothed}")
    assert status == 0, said
    assert read(smoothed).metadata["smoothing"]["windows"]["expr"] == 30

    output = files / "calibration.json"
    status, said = run(
        capsys, "calibrate", f"--predictions={a}", truth, "--windows=0,5", "--folds=3",
        f"--output={output}",
    )  # fmt: skip
    assert status == 0, said
    for word in ("uncalibrated", "in sample", "cross-fitted", f"results: {output}", "next: "):
        assert word in said
    content = json.loads(output.read_text())
    assert content["schema"] == 1
    assert len(content["fitted_on"]["predictions_sha256"]) == 64
    assert len(content["fitted_on"]["truth_sha256"]) == 64

    scores = files / "scores.json"
    score = ["evaluate", truth, f"--calibration={output}", "--resamples=0", f"--output={scores}"]
    status, said = run(capsys, *score, f"--predictions={a}")
    assert status == 0, said
    assert "fitted on 12 of the 12 videos scored here" in said
    reached = json.loads(scores.read_text())["p"]
    assert reached == pytest.approx(content["fitted_on"]["scores"]["in_sample"]["p"])
    status, said = run(capsys, *score, f"--predictions={smoothed}")
    assert status == 2
    assert "calibration.json: the calibration was fitted on predictions with smoothing" in said


def test_another_file_is_not_written_over_by_a_calibration(files):
    source = postprocess.labelled_files(files / "a.parquet", files / "truth.txt", say=print)
    settings = files / "config.json"
    settings.write_text('{"seed": 1}')
    with pytest.raises(WorkdirError, match="holds no calibration"):
        postprocess.calibrate(source, Search(num_folds=2), settings, print)
    assert settings.read_text() == '{"seed": 1}'


def test_a_calibration_brings_its_own_smoothing(files):
    a, output = files / "a.parquet", files / "calibration.json"
    source = postprocess.labelled_files(a, files / "truth.txt", say=print)
    found = postprocess.calibrate(source, Search(num_folds=2), output, print)
    own, other = (Smoothing(windows={"va": window}) for window in (9, 3))
    output.write_text(json.dumps(dataclasses.replace(found, smoothing=own).to_dict()))
    lines = []
    table, _ = PostProcessing.of(None, output).apply(read(a), lines.append)
    np.testing.assert_array_equal(table.valence, smooth(read(a), own).valence)
    assert lines[0] == f"smoothed: {own}"
    assert lines[1] == f"calibrated with {output}"
    with pytest.raises(PredictionError, match="smoothed before"):
        PostProcessing.of(None, output).apply(smooth(read(a), own), print)
    with pytest.raises(CalibrationError, match="was fitted on predictions with smoothing") as error:
        PostProcessing.of(other, output).apply(read(a), print)
    assert error.value.path == str(output)


def test_workdirs_are_members(files, capsys):
    for name in ("a", "b"):
        folder = files / f"run_{name}" / "evaluation"
        folder.mkdir(parents=True)
        (files / f"{name}.parquet").rename(folder / "predictions.parquet")
    # what the network said goes before what was scored
    raw = files / "run_b" / "evaluation" / "predictions_raw.parquet"
    write(make_predictions(make_labels(120), seed=5), raw)
    output = files / "mean.parquet"
    words = ["--workdirs", files / "run_a", files / "run_b", f"--output={output}"]
    assert run(capsys, "ensemble", *words)[0] == 0
    names = [member["name"] for member in read(output).metadata["ensemble"]["members"]]
    assert names[1] == str(raw)
    status, said = run(capsys, "ensemble", "--workdirs", files, files / "run_a", words[-1])
    assert status == 2
    assert "holds no evaluation/predictions.parquet" in said


def test_a_calibration_of_a_mean(files, capsys):
    """Fitted on the mean of two, it is applied to the mean of the same two, and to no single one.

    What `ensemble` writes is what smoothing and calibrating the mean gives.
    """
    for name, weights in (("a", "11" * 32), ("b", "22" * 32)):
        table = read(files / f"{name}.parquet")
        changed = dataclasses.replace(table, metadata={**table.metadata, "weights_sha256": weights})
        write(changed, files / f"{name}.parquet")
    members, mean = [files / "a.parquet", files / "b.parquet"], files / "mean.parquet"
    status, said = run(capsys, "ensemble", *members, f"--output={mean}")
    assert status == 0, said
    assert f"calibrate --predictions={mean} --truth=ANNOTATIONS" in said
    fitted, truth = files / "calibration.json", f"--truth={files / 'truth.txt'}"
    status, said = run(
        capsys, "calibrate", f"--predictions={mean}", truth, "--windows=0", "--keep_all",
        f"--output={fitted}",
    )  # fmt: skip
    assert status == 0, said
    assert "run.py ensemble" in said
    found = json.loads(fitted.read_text())
    assert found["fitted_on"]["weights_sha256"] == ["11" * 32, "22" * 32]
    own = Smoothing(windows={"va": 7, "expr": 3})
    fitted.write_text(json.dumps({**found, "smoothing": own.to_dict()}))
    output = files / "calibrated.parquet"
    words = [f"--calibration={fitted}", f"--output={output}"]
    status, said = run(capsys, "ensemble", *members[::-1], *words)
    assert status == 0, said
    assert f"smoothed: {own}" in said
    assert "other weights" not in said
    assert f"run.py submit --predictions={output}" in said
    expected, _ = PostProcessing.of(None, fitted).apply(read(mean), print)
    for name in ("valence", "au_logits", "expression_logits"):
        np.testing.assert_allclose(getattr(read(output), name), getattr(expected, name))
    assert read(output).metadata["decisions"] == expected.metadata["decisions"]
    warned = PostProcessing.of(None, fitted).apply(read(members[0]), print)[1]
    assert any("other weights than these" in line for line in warned)
    status, said = run(capsys, "ensemble", *members, "--window=5", *words)
    assert status == 2
    assert "smoothed before" in said


def test_the_third_submission_by_name(files, capsys):
    config = Path(__file__).parents[2] / "configs" / "paper_ensemble.py"
    members = files / "a.parquet", files / "b.parquet"
    for name, flag in (("flags", "--window=30"), ("config", f"--config={config}")):
        status, said = run(capsys, "ensemble", *members, flag, f"--output={files / name}.parquet")
        assert status == 0, said
        assert "each member was smoothed first: box" in said
    by_flags, by_config = (read(files / f"{name}.parquet") for name in ("flags", "config"))
    for name, column in by_flags.columns().items():
        np.testing.assert_array_equal(column, by_config.columns()[name])
    assert by_config.metadata["smoothing"]["windows"] == {"va": 30.0, "au": 30.0, "expr": 30.0}
    status, said = run(
        capsys, "ensemble", *members, "--window=3", f"--config={config}", "--output=x.parquet"
    )
    assert status == 2
    assert "both --window and --config" in said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["ensemble", "{}/a.parquet"], "an ensemble of 1 is none"),
        (["ensemble", "{}/a.parquet", "{}/a.parquet"], "is named twice"),
        (["ensemble", "{}/a.parquet", "{}/out.parquet"], "is one of the members"),
        (["ensemble", "{}/a.parquet", "{}/b.parquet", "--window=1.5"], "not whole"),
        (["ensemble", "{}/a.parquet", "{}/b.parquet", "--calibration={}/none.json"], "none.json"),
        (["smooth", "--predictions={}/a.parquet", "--window=x"], "--window=x is no window"),
        (
            ["smooth", "--predictions={}/none.parquet"],
            "none.parquet: the file of pred",
        ),
        (["calibrate", "--predictions={}/a.parquet"], "needs predictions and their labels"),
        (["calibrate", "--model={}"], "holds no run, and no export either"),
        (
            ["calibrate", "--predictions={}/a.parquet", "--truth={}/truth.txt", "--windows=-1"],
            "not in 0..",
        ),
    ],
)
def test_mistakes(files, capsys, words, problem):
    status, said = run(
        capsys, *(word.format(files) for word in words), f"--output={files / 'out.parquet'}"
    )
    assert status == 2, said
    assert problem in said
    assert "->" in said
    assert not (files / "out.parquet").exists()


def test_the_commands_are_light():
    names = "postprocess", "score"
    code = "import sys\n" + "".join(f"import mtl_face.run.{name}\n" for name in names)
    code += "assert not {'jax', 'tensorflow', 'flax'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_without_labels_need_no_predictions(files, capsys):
    labels, table = make_labels(120), read(files / "a.parquet")
    labelled = np.isfinite(labels.valence + labels.arousal)
    labelled |= (labels.expression >= 0) | np.isfinite(labels.au[:, 0])
    assert not labelled.all()
    write(table.take(np.flatnonzero(labelled)), files / "part.parquet")
    status, said = run(
        capsys, "calibrate", f"--predictions={files / 'part.parquet'}",
        f"--truth={files / 'truth.txt'}", "--windows=0", f"--output={files / 'part.json'}",
    )  # fmt: skip
    assert status == 0, said
    assert json.loads((files / "part.json").read_text())["fitted_on"]["num_rows"] == labelled.sum()


def test_a_file_without_rows_is_refused(files, capsys):
    empty = files / "empty.parquet"
    write(read(files / "a.parquet").take(np.arange(0)), empty)
    status, said = run(
        capsys, "calibrate", f"--predictions={empty}", f"--truth={files / 'truth.txt'}",
        f"--output={files / 'none.json'}",
    )  # fmt: skip
    assert status == 2
    assert said.startswith(f"error: {empty}: holds no predictions")
