"""Labels that a model gives: which rows get them, the file, and the two commands on a small run."""

import contextlib
import csv
import dataclasses
import json
import shlex
import shutil

import drawn_run
import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions
from small_experiment import Experiment, assert_is_users_error

from data_pipeline.formats.manifest import read_manifest
from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import ConfigError
from mtl_face.run import datasets
from mtl_face.run.teachers.pseudo_labels import Confidence, teach, write_manifest
from mtl_face.tables import TRAINING

NUM_ROWS = 60


def tables():
    labels = make_labels(NUM_ROWS, missing=0.5)
    random = np.random.default_rng(4)
    std = {f"{name}_std": random.uniform(0.05, 0.5, NUM_ROWS) for name in ("valence", "arousal")}
    return labels, dataclasses.replace(make_predictions(labels), **std)


def test_only_what_is_missing_and_sure_is_taught():
    labels, predictions = tables()
    taught = teach(labels, predictions, Confidence(va=0.3, au=0.8, expr=0.4))
    p, q = predictions.expression_probabilities, predictions.au_probabilities
    for row in range(NUM_ROWS):
        new = taught.table
        given = labels.expression[row] >= 0
        sure = p[row].max() >= 0.4
        expected = labels.expression[row] if given else p[row].argmax() if sure else -1
        assert new.expression[row] == expected
        share = new.expression_shares()[row]
        if sure and not given:
            np.testing.assert_allclose(share, p[row], rtol=1e-5)
        else:
            assert np.isnan(share).all()
        for unit in range(12):
            if not np.isnan(labels.au[row, unit]):
                assert new.au[row, unit] == labels.au[row, unit]
                assert np.isnan(new.au_probability[row, unit])
            elif max(q[row, unit], 1 - q[row, unit]) >= 0.8:
                assert new.au[row, unit] == (q[row, unit] >= 0.5)
                assert new.au_probability[row, unit] == np.float32(q[row, unit])
            else:
                assert np.isnan(new.au[row, unit])
        low = max(predictions.valence_std[row], predictions.arousal_std[row]) <= 0.3
        answer = np.clip(predictions.va[row], -1, 1) if low else np.full(2, np.nan)
        expected_va = np.where(np.isnan(labels.va[row]), answer, labels.va[row])
        np.testing.assert_allclose(new.va[row], expected_va, rtol=1e-6)
    assert (np.isnan(labels.valence) != np.isnan(labels.arousal)).any()
    for task, counts in taught.counts.items():
        assert all(counts.values()), task
        assert sum(counts.values()) == (NUM_ROWS * 12 if task == "au" else NUM_ROWS)
    assert taught.taught_N.any()
    assert not taught.taught_N.all()


def test_a_task_without_a_rule_gets_nothing():
    labels, predictions = tables()
    taught = teach(labels, predictions, Confidence(expr=0.4))
    assert taught.counts["au"]["taught"] == taught.counts["va"]["taught"] == 0
    np.testing.assert_array_equal(taught.table.au, labels.au)
    np.testing.assert_array_equal(taught.table.va, labels.va)


def test_votes_at_hand_go_before_the_model():
    labels, predictions = tables()
    votes = np.full((NUM_ROWS, 8), np.nan, np.float32)
    tied = int(np.flatnonzero(labels.expression < 0)[0])
    votes[tied] = [2, 2, 0, 0, 0, 0, 0, 0]
    labels = dataclasses.replace(labels, votes=votes)
    taught = teach(labels, predictions, Confidence(expr=0.0)).table
    assert taught.expression[tied] == -1
    np.testing.assert_array_equal(taught.expression_shares()[tied], [0.5, 0.5] + [0] * 6)
    assert (np.delete(taught.expression, tied) >= 0).all()


def test_a_manifest_is_read_back_as_it_was(tmp_path):
    labels, predictions = tables()
    taught = teach(labels, predictions, Confidence(va=0.3, au=0.8, expr=0.4)).table
    weight = np.linspace(0, 1, NUM_ROWS).astype(np.float32)
    raters = np.where(np.isnan(taught.va).any(axis=1, keepdims=True), np.nan, [[0.25, 0.5, 3]])
    taught = dataclasses.replace(taught, label_weight=weight, raters=raters.astype(np.float32))
    write_manifest(tmp_path / "taught.csv", taught)
    found = read_manifest(tmp_path / "taught.csv", ManifestConfig(), image_root="/images")
    order = np.lexsort((taught.frame, taught.video.astype(str)))
    assert found.image.tolist() == taught.image[order].tolist()
    for name in ("video", "frame", "expression", "au"):
        np.testing.assert_array_equal(getattr(found, name), getattr(taught, name)[order])
    for name in ("va", "raters", "au_probability", "label_weight"):
        np.testing.assert_allclose(getattr(found, name), getattr(taught, name)[order], rtol=1e-6)
    np.testing.assert_allclose(
        found.expression_shares(), taught.expression_shares()[order], rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.9", Confidence(au=0.9, expr=0.9)),
        ("va:0.2,expr:0.5", Confidence(va=0.2, expr=0.5)),
        ("au:0.5", Confidence(au=0.5)),
    ],
)
def test_rules(text, expected):
    assert Confidence.from_text(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "that of au"),
        ("high", "that of au"),
        ("0.3", "that of au is from 0.5"),
        ("1.5", "to 1"),
        ("au:0.9,au:0.8", "repeats one"),
        ("pain:0.9", "names no task"),
        ("0.8,0.9", "names no task"),
        ("va:0", "above 0"),
        ("va:nan", "above 0"),
    ],
)
def test_rules_that_are_none(text, words):
    with pytest.raises(ConfigError, match=words):
        Confidence.from_text(text)


def test_a_rule_for_what_the_model_does_not_say():
    labels, predictions = tables()
    without = dataclasses.replace(predictions, valence_std=None, arousal_std=None)
    with pytest.raises(ConfigError, match="no standard deviations"):
        teach(labels, without, Confidence(va=0.2))
    silent = dataclasses.replace(
        predictions,
        au_logits=np.full_like(predictions.au_logits, np.nan),
        metadata={TRAINING: {"labels": {"va": 3, "au": 0, "expr": 3}}},
    )
    with pytest.raises(ConfigError, match="names au, on which the model was never trained") as no:
        teach(labels, silent, Confidence(au=0.9))
    assert "another task: it knows va, expr" in no.value.remedy
    with pytest.raises(ConfigError, match="names au") as no:
        teach(labels, silent, Confidence.from_text("0.9"))
    assert no.value.remedy == "write --confidence=expr:0.9"


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A run with drawn weights, that of Aff-Wild2 it says, and the labels that it gave.

    What its settings say of a table of its own is not true of the labels' manifest.
    """
    experiment = Experiment(tmp_path_factory.mktemp("taught"))
    own = "settings.data.manifest.va_range, settings.data.manifest.au_threshold = (1.0, 9.0), 2.0"
    text = experiment.config.read_text()
    experiment.config.write_text(text.replace("return settings", f"{own}\n    return settings"))
    drawn_run.write(experiment, experiment.workdir, "provenance.training_data=Aff-Wild2")
    output = experiment.folder / "its labels" / "train.csv"
    command = (f"--pseudo_labels={output}", "--confidence=au:0.5,expr:0.1")
    with printed(experiment).open("w") as file, contextlib.redirect_stdout(file):
        assert main.main(experiment.arguments("predict", *command)) == 0
    return experiment, output


def printed(experiment):
    """Where what the first command printed lies."""
    return experiment.folder / "printed.txt"


def next_flags(printed):
    """The flags of the student's data that the command prints."""
    (line,) = [line for line in printed.splitlines() if line.startswith("next: ")]
    program, *flags = shlex.split(line.removeprefix("next: python run.py train "))
    assert program == "--config=NAME"
    return [flag for flag in flags if flag.startswith("--config.data.")]


def settings_of(flags, experiment):
    return config_lib.load(experiment.config, [f.removeprefix("--config.") for f in flags]).data


def test_what_the_command_says_to_do_next(taught):
    """Its line reads the labels as they are, in a folder with a blank."""
    experiment, output = taught
    data = settings_of(next_flags(printed(experiment).read_text()), experiment)
    assert (data.kind, data.root, data.soft_labels) == ("manifest", str(output.parent), True)
    assert data.manifest == ManifestConfig()
    student = datasets.load_split(data, "train", print)
    own = read_manifest(output, ManifestConfig(), image_root="/")
    np.testing.assert_array_equal(student.au, own.au)
    assert len(datasets.load_split(data, "validation", print)) == 19


def test_crops_without_labels(taught, tmp_path, capsys):
    """A list of images: the record names their folder, and what to do next is said."""
    experiment, _ = taught
    images = tmp_path / "Aff-Wild2" / "crops"
    images.mkdir(parents=True)
    for number, path in enumerate(sorted(experiment.data.glob("cropped_aligned/*/*.jpg"))[:3]):
        shutil.copy(path, images / f"face{number}.jpg")
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"face{number}.jpg\n" for number in range(3)))
    output = tmp_path / "taught.csv"
    command = (f"--pseudo_labels={output}", "--confidence=expr:0", f"--test_list={listed}")
    status, out, err = experiment.run(capsys, "predict", *command, f"--images={images}")
    assert status == 0, err
    assert len(datasets.load_split(settings_of(next_flags(out), experiment), "train", print)) == 3
    assert "FILE.csv is a manifest of labelled images" in out
    known = json.loads(output.with_suffix(".teacher.json").read_text())
    assert known["images_of"] == ["Aff-Wild2/crops"]


def test_the_files(taught):
    experiment, output = taught
    rows = list(csv.DictReader(output.open()))
    validation = list(csv.DictReader(output.with_name("train_validation.csv").open()))
    assert (len(rows), len(validation)) == (40, 19)
    assert "teacher" not in validation[0]
    known = json.loads(output.with_suffix(".teacher.json").read_text())
    assert known["file"] == str(experiment.workdir)
    assert known["provenance"]["training_data"] == ["Aff-Wild2"]
    assert known["confidence"] == {"va": None, "au": 0.5, "expr": 0.1}
    assert known["counts"]["expr"]["taught"] > 0
    assert known["counts"]["va"]["taught"] == 0
    assert known["images_of"] == ["data, in the layout of s-Aff-Wild2"]
    marked = [row for row in rows if row["teacher"]]
    assert {row["teacher"] for row in marked} == {known["sha256"][:12]}
    assert all(row["expression"] for row in rows)
    assert any(row["expr_other_probability"] for row in marked)


def test_what_is_refused(taught, tmp_path, capsys):
    experiment, _ = taught
    output = f"--pseudo_labels={tmp_path / 'p.csv'}"
    for words, message in (
        ((output, "--confidence=au:1,expr:1"), "no answer of the model passes --confidence"),
        ((output,), "--pseudo_labels needs --confidence"),
        (("--pseudo_labels=p.parquet", "--confidence=0.9"), "is no .csv"),
        (("photo.jpg", output, "--confidence=0.9"), "INPUT is of no use"),
        (("--confidence=0.9",), "--confidence goes with --pseudo_labels"),
        ((output, "--confidence=0.9", f"--images={tmp_path}"), "--images is of no use"),
        ((output, "--confidence=0.9", "--test_list=l", "--replace_labels"), "--replace_labels is"),
        (
            (output, "--confidence=0.9", "--test_list=l", f"--data={tmp_path}"),
            "--data is of no use",
        ),
        ((output, "--confidence=0.9", "--mesh"), "--mesh is of no use"),
    ):
        assert_is_users_error(experiment.run(capsys, "predict", *words), message)
    assert not (tmp_path / "p.csv").exists()
    status = main.main(["predict", output, "--confidence=0.9", f"--config={experiment.config}",
                        f"--config.data.root={experiment.data}"])  # fmt: skip
    assert_is_users_error((status, *capsys.readouterr()), "no model is named for the labels")


@pytest.mark.slow
def test_a_student_inherits_what_its_teacher_has_seen(taught, capsys):
    """Labels given, labels of others and soft labels; from files, and from shards of them."""
    experiment, output = taught
    data = [
        *next_flags(printed(experiment).read_text()),
        "--config.optimizer.epochs=1",
        "--config.training.evaluate_every_epochs=1",
    ]
    student = experiment.folder / "student"
    command = ["train", f"--config={experiment.config}", f"--workdir={student}", *data]
    assert main.main(command) == 0
    assert "soft labels: expressions of" in capsys.readouterr().out
    found = json.loads((student / "provenance.json").read_text())
    assert found["aff_wild2_pretrained"]
    assert found["pretrained_on"] == ["Aff-Wild2"]
    assert "data, in the layout of s-Aff-Wild2" in found["training_data"]
    assert found["teachers"][0]["provenance"]["training_data"] == ["Aff-Wild2"]
    shards = experiment.folder / "shards"
    prepare = ["prepare", f"--config={experiment.config}", *data, f"--shards={shards}"]
    assert main.main(prepare) == 0
    other = experiment.folder / "of_shards"
    command[2] = f"--workdir={other}"
    assert main.main([*command, f"--config.data.shards={shards}"]) == 0
    assert json.loads((other / "provenance.json").read_text())["aff_wild2_pretrained"]
    # the record is needed
    record = output.with_suffix(".teacher.json")
    record.rename(record.with_suffix(".away"))
    command[2] = f"--workdir={experiment.folder / 'third'}"
    capsys.readouterr()
    status = main.main(command)
    record.with_suffix(".away").rename(record)
    assert_is_users_error((status, *capsys.readouterr()), "there is no train.teacher.json")
