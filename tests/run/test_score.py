"""`run.py evaluate --predictions`: any file against labels, its report, all without JAX."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import own_process
import pytest
import scorer_files
from evaluation_tables import without
from PIL import Image
from scorer_files import make_rows

from mtl_face.cli import main
from mtl_face.evaluation import prediction_files
from mtl_face.evaluation.scoring import score
from mtl_face.run import score as score_module
from mtl_face.tasks import AU_NAMES

ROOT = Path(__file__).parents[2]
CONFIG = "--config=configs/rendered_faces.py"
HEAVY = {"jax", "jaxlib", "flax", "tensorflow", "torch", "orbax", "optax", "clu"}


@pytest.fixture(scope="module")
def rows():
    return make_rows()


@pytest.fixture
def truth(rows, tmp_path):
    return scorer_files.write_truth(tmp_path / "validation_set_annotations.txt", rows[0])


def run(capsys, *words):
    """Exit status, standard output, standard error."""
    status = main.main(["evaluate", "--resamples=20", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def numbers(capsys, predictions, truth, *more):
    """What --output holds after a run that must succeed."""
    output = Path(truth).parent / "result.json"
    words = (f"--predictions={predictions}", f"--truth={truth}", f"--output={output}", *more)
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert f"results: {output}" in out
    return json.loads(output.read_text()), out


def assert_alike(found, expected):
    """Equal up to rounding, through all levels."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_alike(found[key], value)
    elif isinstance(expected, list):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    else:
        assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_scoring_imports_nothing_heavy(command, rows, truth, tmp_path):
    file = scorer_files.write_predictions(tmp_path / "p.parquet", rows[1])
    submission = scorer_files.write_submission(tmp_path / "submission.txt", rows[1])
    words = {
        "evaluate": ["evaluate", f"--predictions={file}", f"--truth={truth}"],
        "compare": ["compare", str(file), str(submission), f"--truth={truth}"],
    }[command]
    own_process.run(words, HEAVY | {"matplotlib"})


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
def test_a_file_of_ours_scores_as_the_table_does(rows, truth, tmp_path, capsys, name):
    labels, table = rows
    file = scorer_files.write_predictions(tmp_path / name, table)
    result, out = numbers(capsys, file, truth)
    expected = score(labels, table, num_resamples=20)
    assert expected.keys() <= result.keys()
    assert (result["p"], result["num_rows"]) == (pytest.approx(expected["p"], abs=1e-12), 200)
    for task in ("va", "au", "expr"):
        # the rows are sorted, so that sums round differently
        assert_alike(result[task], json.loads(json.dumps(expected[task])))
    intervals = result["bootstrap"]["intervals"]
    assert intervals["p"] == pytest.approx(expected["bootstrap"]["intervals"]["p"])
    low, high = intervals["p"]
    assert f"{result['p']:.4f} [{low:.4f}, {high:.4f}]" in out


def test_a_submission_scores_as_the_table_that_made_it(rows, truth, tmp_path, capsys):
    labels, table = rows
    file = scorer_files.write_submission(tmp_path / "submission.txt", table)
    result, _ = numbers(capsys, file, truth)
    expected = score(labels, table)
    for task in ("va", "au", "expr"):
        assert result[task]["score"] == pytest.approx(expected[task]["score"], abs=1e-12)
        assert result[task]["num_valid"] == expected[task]["num_valid"]
        assert result[task]["uncertainty"] is None
        assert result["unavailable"][f"{task}.uncertainty"]
    assert result["expr"]["confusion_matrix"] == expected["expr"]["confusion_matrix"]
    assert result["expr"]["pr_auc"] is None
    assert "decisions only" in result["unavailable"]["expr.pr_auc"]


def test_rows_in_another_order_score_alike(rows, truth, tmp_path, capsys):
    header, *lines = scorer_files.submission_lines(rows[1])
    file = tmp_path / "turned.txt"
    file.write_text("\n".join([header, *reversed(lines)]) + "\n")
    plain = scorer_files.write_submission(tmp_path / "plain.txt", rows[1])
    assert numbers(capsys, file, truth)[0]["p"] == numbers(capsys, plain, truth)[0]["p"]


def test_missing_extra_and_repeated_rows_are_named(rows, truth, tmp_path, capsys):
    labels, table = rows
    header, *lines = scorer_files.submission_lines(table)
    lines = [*lines[:190], lines[5], lines[0].replace("video0/", "elsewhere/")]
    file = tmp_path / "odd.txt"
    file.write_text("\n".join([header, *lines]) + "\n")
    status, _, err = run(capsys, f"--predictions={file}", f"--truth={truth}")
    assert status == 2
    labelled = labels.take(np.arange(190, 200))
    asked = ~np.isnan(labelled.valence) | (labelled.expression >= 0)
    asked |= ~np.isnan(labelled.au).all(axis=1)
    for part in (
        f"{asked.sum()} labelled rows without a prediction: s-aff-wild2/video19 frame",
        "1 predictions without a label: s-aff-wild2/elsewhere frame 1",
        "1 surplus predictions of rows that have one: s-aff-wild2/video0 frame 16",
        "--lenient",
        str(file),
    ):
        assert part in err
    result, out = numbers(capsys, file, truth, "--lenient")
    assert out.count("warning: ") == 3
    assert result["num_rows"] == 190
    assert result["num_unpredicted"] == asked.sum()
    assert (result["matching"]["num_extra"], result["matching"]["num_repeated"]) == (1, 1)
    whole = score(labels.take(np.arange(190)), table)
    assert result["p"] == pytest.approx(whole["p"], abs=1e-12)


def test_a_row_that_is_said_twice_and_differently_is_refused(rows, truth, tmp_path, capsys):
    lines = scorer_files.submission_lines(rows[1])
    image = lines[1].split(",")[0]
    lines.append(f"{image},0.9,-0.9,7" + ",1" * 12)
    file = tmp_path / "twice.txt"
    file.write_text("\n".join(lines) + "\n")
    for more in ([], ["--lenient"]):
        status, _, err = run(capsys, f"--predictions={file}", f"--truth={truth}", *more)
        assert status == 2
        assert "several predictions that differ: s-aff-wild2/video0 frame 1" in err


def test_a_file_of_another_set_is_refused_even_leniently(rows, truth, tmp_path, capsys):
    other = dataclasses.replace(rows[1], video=np.char.add(rows[1].video, "_left"))
    file = scorer_files.write_predictions(tmp_path / "other.parquet", other)
    status, _, err = run(capsys, f"--predictions={file}", f"--truth={truth}", "--lenient")
    assert status == 2
    assert "no row in common" in err
    assert "video0_left" in err


def test_departures_from_the_form_are_read_leniently(rows, truth, tmp_path, capsys):
    lines = scorer_files.submission_lines(rows[1])
    lines[1:] = [text + "," for text in lines[1:]]
    file = tmp_path / "commas.txt"
    file.write_text("\n".join(lines) + "\n")
    status, _, err = run(capsys, f"--predictions={file}", f"--truth={truth}")
    assert status == 2
    assert f"{file}, line 2" in err
    result, out = numbers(capsys, file, truth, "--lenient")
    assert "warning: " in out
    assert result["matching"]["warnings"]
    plain = scorer_files.write_submission(tmp_path / "plain.txt", rows[1])
    assert result["p"] == numbers(capsys, plain, truth)[0]["p"]


def test_rows_of_duplicated_images(rows, truth, tmp_path, capsys):
    """The set lists some images twice: a submission does too, a table of images need not."""
    labels, table = rows
    index = np.sort(np.append(np.arange(200), [3, 3, 50]))
    scorer_files.write_truth(truth, labels.take(index))
    each = scorer_files.write_submission(tmp_path / "each.txt", table.take(index))
    once = scorer_files.write_submission(tmp_path / "once.txt", table)
    results = [numbers(capsys, file, truth)[0] for file in (each, once)]
    assert results[0]["num_rows"] == results[1]["num_rows"] == 203
    assert results[0]["p"] == results[1]["p"]


def test_a_submission_to_one_track_against_multi_task_labels(rows, truth, tmp_path, capsys):
    labels, table = rows
    # a row without action unit labels need not be predicted
    keep = np.flatnonzero(~np.isnan(labels.au).any(axis=1))
    file = scorer_files.write_au_submission(tmp_path / "au.txt", table.take(keep))
    result, out = numbers(capsys, file, truth)
    assert result["au"]["score"] == pytest.approx(score(labels, table)["au"]["score"])
    assert (result["va"]["score"], result["expr"]["score"], result["p"]) == (None, None, None)
    assert "p" not in result["bootstrap"]["intervals"]
    assert "au.score" in result["bootstrap"]["intervals"]
    assert "a submission of au" in out


@pytest.mark.parametrize("stated", [True, False], ids=["settings of the run", "defaults"])
def test_a_manifest_is_the_truth(rows, tmp_path, capsys, stated):
    """It means what the run's settings say: here valence and arousal from 1 to 9."""
    labels, table = rows
    scale = (lambda value: value * 4 + 5) if stated else (lambda value: value)
    frame = labels.to_dataframe()[["image", "video", "frame", "expression", *AU_NAMES]]
    frame["valence"], frame["arousal"] = scale(labels.valence), scale(labels.arousal)
    truth = tmp_path / "mine.csv"
    frame.to_csv(truth, index=False)
    settings = {"kind": "manifest", "manifest": {"va_range": [1.0, 9.0]}} if stated else {}
    table = dataclasses.replace(table, metadata={"config": {"data": settings}})
    file = scorer_files.write_predictions(tmp_path / "p.parquet", table)
    result, _ = numbers(capsys, file, truth)
    expected = score(labels, table)
    for task in ("va", "au", "expr"):
        assert result[task]["score"] == pytest.approx(expected[task]["score"], abs=1e-6)
        assert result[task]["num_valid"] == expected[task]["num_valid"]
    assert main.main(["compare", str(file), str(file), f"--truth={truth}", "--resamples=10"]) == 0
    assert f"{expected['va']['score']:.4f}" in capsys.readouterr().out


def test_labels_of_one_track_in_a_folder(rows, tmp_path, capsys):
    labels, table = rows
    folder = scorer_files.write_va_folder(tmp_path / "Validation_Set", labels)
    file = scorer_files.write_predictions(tmp_path / "p.parquet", table)
    result, _ = numbers(capsys, file, folder)
    expected = score(labels, table)["va"]
    assert result["va"]["score"] == pytest.approx(expected["score"], abs=1e-12)
    assert result["va"]["num_valid"] == expected["num_valid"]
    assert result["expr"]["num_valid"] == 0


def test_a_folder_without_labels(rows, tmp_path, capsys):
    file = scorer_files.write_predictions(tmp_path / "p.parquet", rows[1])
    (tmp_path / "empty").mkdir()
    status, _, err = run(capsys, f"--predictions={file}", f"--truth={tmp_path / 'empty'}")
    assert status == 2
    assert "holds no .txt file" in err
    (tmp_path / "empty" / "x.txt").write_text("a,b\n1,2\n")
    status, _, err = run(capsys, f"--predictions={file}", f"--truth={tmp_path / 'empty'}")
    assert status == 2
    assert "unknown header" in err


def test_the_folder_of_a_data_set_is_not_its_labels(rows, truth, tmp_path, capsys):
    file = scorer_files.write_predictions(tmp_path / "p.parquet", rows[1])
    status, _, err = run(capsys, f"--predictions={file}", f"--truth={tmp_path}")
    assert status == 2
    assert f"{tmp_path}: is the folder of a data set (of kind s_aff_wild2), not its labels" in err
    assert f"-> name the labels inside it, as {truth}" in err


def test_an_export_holds_no_predictions(truth, tmp_path, capsys):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.json").write_text("{}")
    words = ["compare", str(tmp_path / "export"), str(tmp_path / "export"), f"--truth={truth}"]
    assert main.main(words) == 2
    err = capsys.readouterr().err
    assert "export: is an export, which holds no predictions" in err
    assert "run.py evaluate --model=EXPORT --output=DIR" in err


def test_predictions_of_several_data_sets_want_a_choice(rows, truth, tmp_path, capsys):
    labels, table = rows
    both = table.take(np.append(np.arange(200), np.arange(200)))
    both.dataset[:200] = "another"
    file = scorer_files.write_predictions(tmp_path / "both.parquet", both)
    status, _, err = run(capsys, f"--predictions={file}", f"--truth={truth}")
    assert status == 2
    assert "another, rendered" in err
    assert "--dataset=NAME" in err
    result, _ = numbers(capsys, file, truth, "--dataset=rendered")
    assert result["p"] == pytest.approx(score(labels, table)["p"])
    words = (f"--predictions={file}", f"--truth={truth}", "--dataset=rendred")
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "another, rendered" in err


def test_scores_without_intervals(rows, truth, tmp_path, capsys):
    file = scorer_files.write_predictions(tmp_path / "p.parquet", rows[1])
    result, out = numbers(capsys, file, truth, "--resamples=0")
    assert result["bootstrap"] is None
    assert "% interval" not in out
    assert result["unavailable"]["bootstrap"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["nothing to evaluate", "--predictions=FILE --truth=ANNOTATIONS"]),
        (["--predictions=x.txt"], ["needs --truth"]),
        (["--truth=x.txt"], ["needs --predictions"]),
        (["--predictions=x.txt", "--truth=y.txt", CONFIG], ["score a file"]),
        ([CONFIG], ["nothing to evaluate"]),
        ([CONFIG, "--model=z", "--lenient"], ["--lenient", "go with --predictions"]),
        ([CONFIG, "--model=z", "--report=x.html"], ["--report", "go with --predictions"]),
        (["--predictions=nowhere.txt", "--truth=y.txt"], ["nowhere.txt", "does not exist"]),
    ],
)
def test_flags_that_do_not_go_together(words, parts, capsys):
    status, _, err = run(capsys, *words)
    assert status == 2
    assert err.startswith("error: ")
    assert "\n  -> " in err
    for part in parts:
        assert part in err


def test_truth_that_is_missing_or_broken(rows, truth, tmp_path, capsys):
    file = scorer_files.write_predictions(tmp_path / "p.parquet", rows[1])
    status, _, err = run(capsys, f"--predictions={file}", f"--truth={tmp_path / 'nowhere'}")
    assert status == 2
    assert "does not exist" in err
    lines = truth.read_text().splitlines()
    lines[7] = lines[7].replace(",", ";")
    truth.write_text("\n".join(lines))
    status, _, err = run(capsys, f"--predictions={file}", f"--truth={truth}")
    assert status == 2
    assert "line 8" in err


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with labels, predictions with logits, a submission, and one picture."""
    folder = tmp_path_factory.mktemp("files")
    table = scorer_files.write_files(folder, 100, "ours.parquet")
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


@pytest.mark.parametrize("how", ["ignore", "apply"])
def test_pictures_are_turned_as_the_run_did(files, monkeypatch, how):
    """As its settings say, which lie in the metadata of the predictions."""
    table = prediction_files.read(files / "ours.parquet")
    metadata = {**table.metadata, "config": {"data": {"exif_orientation": how}}}
    prediction_files.write(dataclasses.replace(table, metadata=metadata), files / "p.parquet")
    how_scored = score_module.Scoring(files / "truth.txt", num_resamples=0)
    scored = score_module.score_file(files / "p.parquet", how_scored, say=print)
    asked = []
    monkeypatch.setattr(
        score_module.images,
        "read_image",
        lambda path, size, *, upright: asked.append(upright) or np.zeros((size, size, 3), np.uint8),
    )
    score_module.report_file(scored, files / "out/turned.html", image_folder=files / "images")
    assert set(asked) == {how == "apply"}


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
    own_process.run(words, HEAVY)
    assert (tmp_path / "report.html").is_file()


def test_a_folder_of_images_that_is_none_is_refused(capsys, files):
    path = files / "out" / "never.html"
    words = (f"--predictions={files / 'ours.parquet'}", f"--truth={files / 'truth.txt'}")
    status = main.main(["evaluate", *words, f"--report={path}", f"--images={files / 'imges'}"])
    assert status == 2
    assert "imges is no folder" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
def test_a_task_that_was_never_trained_is_said_and_not_scored(rows, truth, tmp_path, capsys, name):
    file = scorer_files.write_predictions(tmp_path / name, without(rows[1], "va"))
    result, out = numbers(capsys, file, truth)
    assert (result["p"], result["va"]["score"]) == (None, None)
    words = "the network was trained without a label of va: its outputs for that are left out"
    if name == "p.csv":
        words = "no row has an answer for va: it is not scored"
    assert f"warning: {words}" in out
    assert result["au"]["score"] == pytest.approx(score(*rows)["au"]["score"])
    other = scorer_files.write_predictions(tmp_path / "whole.parquet", rows[1])
    words = ["compare", str(file), str(other), f"--truth={truth}", "--resamples=10"]
    assert main.main(words) == 0
    assert "valence/arousal mean CCC     none" in capsys.readouterr().out


def test_bad_rows_of_the_labels_can_be_left_out(rows, truth, tmp_path, capsys):
    labels, table = rows
    path = tmp_path / "predictions.parquet"
    prediction_files.write(table, path)
    lines = truth.read_text().splitlines()
    for line in (7, 80):
        lines[line] = lines[line].replace(",", ",9", 1)
    truth.write_text("\n".join(lines) + "\n")
    words = (f"--predictions={path}", f"--truth={truth}")
    status, _, err = run(capsys, *words)
    assert (status, "--skip_bad_rows" in err) == (2, True)
    result, out = numbers(capsys, path, truth, "--skip_bad_rows")
    assert "left out 2 bad rows (skip_bad_rows):" in out
    keep = np.setdiff1d(np.arange(len(labels)), [6, 79])
    assert_alike(result["va"]["score"], score(labels.take(keep), table.take(keep))["va"]["score"])
    words = ["compare", str(path), str(path), f"--truth={truth}", "--resamples=20"]
    assert main.main(words) == 2
    assert main.main([*words, "--skip_bad_rows"]) == 0
    out = capsys.readouterr().out
    assert "warning: left out 2 bad rows (skip_bad_rows):" in out
    assert "2 predictions without a label" in out
