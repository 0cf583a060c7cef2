"""A test list predicted from a run or its export, and variances with and without sampling."""

import signal
import subprocess
import sys
import time

import camera_frames
import drawn_run
import jax
import numpy as np
import pytest
import small_dataset
import small_videos
from PIL import Image
from small_experiment import ROOT, Experiment, assert_is_users_error, write_config

import mtl_face
from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.errors import ImageError
from mtl_face.evaluation import face_files, prediction_files, scoring
from mtl_face.inference.predictor import Forward, Predictor
from mtl_face.run import datasets
from mtl_face.run.inputs.pixels import find_pixels
from mtl_face.run.predict import predict_table
from mtl_face.training import experiment as training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    experiment = Experiment(tmp_path_factory.mktemp("predict"))
    drawn_run.write(experiment, experiment.workdir)
    assert main.main(experiment.arguments("evaluate")) == 0
    return experiment


def run(capsys, *arguments):
    status = main.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


@pytest.fixture
def listed(trained, tmp_path):
    """The validation set's images as a test list, in another order, and what evaluation said."""
    table = prediction_files.read(trained.workdir / "evaluation" / "predictions.parquet")
    rows = np.random.default_rng(0).permutation(np.unique(table.image, return_index=True)[1])
    table = table.take(rows)
    path = tmp_path / "list.txt"
    path.write_text("image_location,\n" + "".join(f"{image},\n" for image in table.image))
    return path, table


def test_a_test_list(trained, listed, tmp_path, capsys):
    path, expected = listed
    output = tmp_path / "out" / "p.parquet"
    given = (f"--test_list={path}", f"--output={output}")
    status, out, err = run(capsys, "predict", f"--workdir={trained.workdir}", *given)
    assert (status, err) == (0, "")
    assert f"predictions: {output}" in out
    assert "next: python run.py submit" in out
    found = prediction_files.read(output)
    assert found.image.tolist() == expected.image.tolist()
    for name in ("valence", "arousal", "au_logits", "expression_logits"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6
        )
    assert found.metadata["weights_sha256"] == expected.metadata["weights_sha256"]

    assert main.main(trained.arguments("export", f"--output={tmp_path / 'export'}")) == 0
    again = tmp_path / "again.csv"
    status, _, err = run(
        capsys,
        *("predict", f"--params={tmp_path / 'export'}", f"--test_list={path}"),
        # Shards hold other rows than a test list: nothing is looked for in them.
        *(f"--config.data.shards={tmp_path / 'gone'}", f"--output={again}"),
    )
    assert (status, err) == (0, "")
    np.testing.assert_allclose(prediction_files.read(again).au_logits, found.au_logits, rtol=1e-5)

    status, out, err = run(
        capsys,
        *("submit", f"--predictions={output}", f"--test_list={path}", "--edition=abaw7_mtl"),
        f"--output={tmp_path / 'submission.txt'}",
    )
    assert (status, err) == (0, "")


def test_images_that_are_absent(trained, listed, tmp_path, capsys):
    path, expected = listed
    with path.open("a") as file:
        file.write("nobody/00007.jpg,\n")
    output = tmp_path / "p.parquet"
    given = ("predict", f"--workdir={trained.workdir}", f"--test_list={path}")
    status, _, err = run(capsys, *given, f"--output={output}")
    assert status == 2
    assert f"list.txt, line {len(expected) + 2}: 1 of the {len(expected) + 1} images" in err
    assert "nobody/00007.jpg" in err
    assert not output.exists()
    status, out, err = run(capsys, *given, f"--output={output}", "--missing_images=skip")
    assert (status, err) == (0, "")
    assert "left out: 1" in out
    assert len(prediction_files.read(output)) == len(expected)


def test_a_wrong_calibration_is_noticed_before_any_image_is_read(trained, listed, capsys):
    (listed[0].parent / "wrong.json").write_text("{}")
    for name, words in (("none", "the calibration does not exist"), ("wrong", "is no calibration")):
        status, out, err = run(
            capsys,
            *("predict", f"--model={trained.workdir}", f"--test_list={listed[0]}"),
            *(f"--calibration={listed[0].parent / name}.json", "--output=p.parquet"),
        )
        assert (status, out) == (2, "")
        assert f"{name}.json: {words}" in err


def test_a_place_that_cannot_be_written_is_noticed_first(trained, listed, capsys):
    given = ("predict", f"--model={trained.workdir}", f"--test_list={listed[0]}")
    status, out, err = run(capsys, *given, f"--output={listed[0]}/p.parquet")
    assert (status, out) == (2, "")
    assert "list.txt/p.parquet: cannot be written (Not a directory)" in err


def test_remedies_name_the_arguments_of_python_too(trained, listed, tmp_path):
    with pytest.raises(ImageError) as raised:
        mtl_face.predict(trained.workdir, listed[0], images=tmp_path, say=lambda line: None)
    assert "missing_images=skip (--missing_images=skip)" in raised.value.remedy


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir=WORKDIR", "--params=x"], "x"),
        (["--workdir=nowhere"], "does not exist"),
        (["--workdir=WORKDIR", "--output=p.txt"], "neither .parquet nor .csv"),
        (["--workdir=WORKDIR", "--images=nowhere"], "does not exist"),
    ],
)
def test_mistakes(trained, listed, capsys, arguments, words):
    given = [argument.replace("WORKDIR", str(trained.workdir)) for argument in arguments]
    status, _, err = run(
        capsys, "predict", f"--test_list={listed[0]}", "--output=p.parquet", *given
    )
    assert status == 2
    assert words in err


def predict_untrained(folder, *, temperature):
    """Tables of an untrained network by `sample_dropout`, and the labels."""
    settings = [
        f"data.root={small_dataset.write(folder / 'data')}",
        "data.source=memory",
        "model.va_variance=per_example",
        "model.dropout=0.5",
        "uncertainty.temperatures.va=0.25",
        f"uncertainty.temperatures.au={temperature}",
        f"uncertainty.temperatures.expr={temperature}",
        "evaluation.mc_dropout_samples=4",
    ]
    config = config_lib.load(write_config(folder), settings)
    experiment = training.Experiment(config)
    state = experiment.make_state()
    predictor = Predictor(
        forward=Forward(config, mesh=experiment.mesh),
        variables={"params": state.params["network"], "batch_stats": state.batch_stats},
        temperatures=experiment.temperatures(state),
        step=0,
    )
    table = datasets.load_split(config.data, "validation", print)
    data = find_pixels(config, table, print)
    found = {
        sampled: predict_table(predictor, data, sample_dropout=sampled) for sampled in (False, True)
    }
    table = data.table
    return found, table


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    return predict_untrained(tmp_path_factory.mktemp("variance"), temperature=1.0)


def test_one_prediction_with_variances_per_example(predicted):
    found, _ = predicted
    table = found[False]
    assert np.ptp(table.valence_std) > 0
    np.testing.assert_allclose(table.valence_std, 0.5, rtol=0.5)  # the task's, at first
    assert table.valence_epistemic_std is None
    assert table.metadata["temperatures"]["va"] == 0.25
    assert table.metadata["mc_dropout_samples"] == 0


def test_sampled_prediction_with_variances_per_example(predicted):
    found, labels = predicted
    table = found[True]
    assert table.metadata["mc_dropout_samples"] == 4
    assert (table.valence_epistemic_std > 0).all()
    assert (table.au_epistemic_std > 0).all()
    assert (table.valence_std > table.valence_epistemic_std).all()
    assert (table.valence != found[False].valence).any()
    scored = scoring.score(labels, table)["va"]["uncertainty"]
    assert set(scored["coverage"]["arousal"]) == {"50", "80", "95"}
    assert jax.tree.all(jax.tree.map(np.isfinite, scored["nll"]))


def test_a_fixed_temperature_is_no_part_of_a_prediction(predicted, tmp_path):
    """It weighs the task: sampled probabilities are of the logits that the table has."""
    (expected, _), (found, _) = predicted, predict_untrained(tmp_path, temperature=5.0)
    assert found[True].metadata["temperatures"]["expr"] == 5.0
    for sampled in (False, True):
        columns = expected[sampled].columns()
        for name, column in found[sampled].columns().items():
            np.testing.assert_array_equal(column, columns[name], err_msg=name)


def test_photos_and_what_cannot_be_read(trained, tmp_path, capsys):
    """The others are done, and the exit status says that not all are."""
    picture, _ = camera_frames.head(1)
    Image.fromarray(picture).save(tmp_path / "p.png")
    (tmp_path / "talk.mp4").write_text("no video at all\n" * 50)
    given = ("predict", f"--model={trained.workdir}", tmp_path / "p.png")
    status, out, err = run(capsys, *given, f"--output={tmp_path / 't.csv'}")
    assert (status, err) == (0, "")
    assert f"faces: {tmp_path / 't.csv'}" in out
    table = face_files.read(tmp_path / "t.csv")
    assert table.person.tolist() == [1]
    assert not np.isnan(table.au_probability).any()

    status, out, err = run(capsys, *given, tmp_path / "talk.mp4", tmp_path / "gone.jpg")
    assert status == 2
    assert "p.png" in out
    assert "next: " not in out
    assert "inputs that cannot be read: 2 (rows of the others: 1)" in err
    assert "talk.mp4: this is" in err
    assert "gone.jpg" in err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "nothing to look at"),
        (("a.jpg", "--test_list=l.txt", "--output=t.csv"), "a.jpg besides --test_list=l.txt"),
        (("--test_list=l.txt",), "--output is given 0 times"),
        (("a.jpg", "--output=t.xlsx"), "no format of tables"),
    ],
)
def test_flags_that_do_not_go_together(trained, capsys, words, part):
    assert_is_users_error(run(capsys, "predict", f"--model={trained.workdir}", *words), part)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_ended_goes_on(trained, tmp_path, kill):
    """The table is the one of a command that was left alone."""
    path = small_videos.write(tmp_path / "talk.mp4", small_videos.two_people(16) * 20)
    command = [sys.executable, "run.py", "predict", f"--model={trained.workdir}", str(path)]
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    subprocess.run([*command, f"--output={whole}"], check=True, cwd=ROOT)
    journal = tmp_path / ".parts.parquet.unfinished"
    process = subprocess.Popen(
        [*command, f"--output={parts}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    while not (journal.exists() and journal.stat().st_size > 100_000):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(kill)
    out, _ = process.communicate()
    assert process.returncode == (130 if kill == signal.SIGINT else -signal.SIGKILL)
    assert ("the same command goes on with it" in out) == (kill == signal.SIGINT)
    assert not parts.exists()
    done = subprocess.run(
        [*command, f"--output={parts}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"going on with {journal}" in done.stdout
    found, expected = face_files.read(parts), face_files.read(whole)
    for name in ("frame", "person", "landmarks", "va", "status"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert not journal.exists()
