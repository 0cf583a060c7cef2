"""Face points of a data set: computed once, kept, never taken from other rows, and trained on."""

import dataclasses
import shutil

import numpy as np
import pytest
from small_experiment import Experiment

import mtl_face
from data_pipeline import images
from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.faces import points
from mtl_face.run import datasets, progress_lines
from mtl_face.run.export import export
from mtl_face.run.inputs.pixels import find_pixels
from mtl_face.weights import card


def made_up(crop_NSS3):
    """Points that tell the crop: its mean colour; of a crop with a bright first pixel none."""
    mean_N3 = crop_NSS3.mean(axis=(1, 2)) / 2550
    point_NV3 = np.repeat(mean_N3[:, None], 468, axis=1).astype(np.float32)
    found_N = crop_NSS3[:, 0, 0, 2] < 200
    return np.where(found_N[:, None, None], point_NV3, 0).astype(np.float32), found_N


@pytest.fixture
def calls(monkeypatch):
    """The mesh is replaced; the numbers of crops that it was asked for."""
    counts = []

    def counted(crop_NSS3):
        counts.append(len(crop_NSS3))
        return made_up(crop_NSS3)

    monkeypatch.setattr(points, "points_of_crops", counted)
    return counts


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


def test_a_start_does_not_count_in_the_rate(monkeypatch):
    """Neither its seconds, nor what an interrupted computation had done before."""
    now, said = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = progress_lines(said.append, "points")
    now[0] = 60.0
    for done in range(500, 601, 10):
        progress(done, 600)
        now[0] += 1.0
    assert said == [
        "points: 510 of 600, 10 a second, 9 s left",
        "points: 600 of 600, 10 a second, 0 s left",
    ]


def load(experiment, *more):
    overrides = [f"data.root={experiment.data}", "model.inputs=points", *more]
    return config_lib.load(experiment.config, overrides)


def expected(table, size=32):
    crops = [images.read_image(path, size) for path in table.paths()]
    return made_up(np.stack(crops))


def test_points_are_of_the_rows_and_computed_once(experiment, calls):
    config = load(experiment)
    table = datasets.load_split(config.data, "validation", print)
    said = []
    found = find_pixels(config, table, said.append).points
    point_NV3, found_N = expected(table)
    assert 0 < found_N.sum() < len(table)
    np.testing.assert_array_equal(found.points, point_NV3)
    assert sum(calls) == len(table)
    note = f"note: of {(~found_N).sum()} of {len(table)} faces no points were found"
    assert any(line.startswith(note) for line in said)
    again = find_pixels(config, table, said.append).points
    np.testing.assert_array_equal(again.points, point_NV3)
    assert sum(calls) == len(table)
    assert (experiment.data / "features").is_dir()


def test_baselines_in_training_and_in_prediction(experiment, calls):
    config = load(experiment, "data.baseline=none,person")
    table = datasets.load_split(config.data, "validation", print)
    found = find_pixels(config, table, print).points
    rows = np.arange(len(table))
    training, prediction = (found.by_name(training)["baseline"][rows] for training in (True, False))
    assert training.shape == (len(table), 2, 468, 3)
    np.testing.assert_array_equal(prediction, training[:, 0])
    assert not prediction.any()
    assert training[:, 1].any()


def test_other_rows_have_points_of_their_own(experiment, calls):
    config = load(experiment)
    table = datasets.load_split(config.data, "validation", print)
    find_pixels(config, table, print)
    part = table.take(np.arange(len(table)) % 2 == 0)
    calls.clear()
    found = find_pixels(config, part, print).points
    np.testing.assert_array_equal(found.points, expected(part)[0])
    assert sum(calls) == len(part)


def test_points_of_other_crops_are_others(experiment, calls):
    """Pixels are resized, so that the mesh sees something else."""
    config = load(experiment)
    table = datasets.load_split(config.data, "validation", print)
    find_pixels(config, table, print)
    data = dataclasses.replace(config.data, image_size=16)
    calls.clear()
    found = find_pixels(dataclasses.replace(config, data=data), table, print).points
    assert sum(calls) == len(table)
    np.testing.assert_allclose(found.points, expected(table, 16)[0], atol=1e-4)


def test_points_of_shards(experiment, calls, tmp_path, capsys):
    config = load(experiment)
    table = datasets.load_split(config.data, "train", print)
    direct = find_pixels(config, table, print, split="train").points
    shards = tmp_path / "shards"
    status, _, err = experiment.run(capsys, "prepare", f"--shards={shards}")
    assert status == 0, err
    moved = tmp_path / "elsewhere"
    config = load(experiment, f"data.shards={shards}", f"data.features={moved}")
    stored = datasets.load_split(config.data, "train", print)
    found = find_pixels(config, stored, print, split="train").points
    assert moved.is_dir()
    # JPEG files are decoded by two libraries, which differ in a bit.
    np.testing.assert_allclose(found.points, direct.points, atol=1e-3)


def test_the_command_goes_on_and_says_where(experiment, calls, tmp_path, capsys):
    output = tmp_path / "kept"
    arguments = [
        *("features", f"--config={experiment.config}", f"--config.data.root={experiment.data}"),
        *("--config.model.inputs=points", f"--output={output}"),
    ]
    assert main.main(arguments) == 0
    out = capsys.readouterr().out
    assert "40 of 40 faces" in out
    assert "19 of 19 faces" in out
    folders = sorted(output.iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert str(folder) in out
    calls.clear()
    assert main.main(arguments) == 0
    assert not calls
    shutil.rmtree(folders[0])
    assert main.main(arguments) == 0
    assert sum(calls) in (40, 19)


@pytest.mark.parametrize("inputs", ["points", pytest.param("image,points", marks=pytest.mark.slow)])
def test_train_export_and_predict(experiment, calls, tmp_path, inputs):
    """A whole run: a network of points alone, and one of both inputs."""
    config = load(
        experiment,
        f"model.inputs={inputs}",
        "data.baseline=person,neutral",
        "optimizer.epochs=4",
        "optimizer.batch_size=16",
        "augmentation.points_identity=0.03",
        "augmentation.baseline_dropout=0.5",
        "augmentation.mixup_alpha=0.4",
    )
    result = mtl_face.train(config, tmp_path / "run", say=lambda line: None)
    assert result.step == 10  # of 40 rows
    assert sum(calls) == 59
    model = mtl_face.load(tmp_path / "run")
    assert model.inputs == tuple(inputs.split(","))
    again = mtl_face.evaluate(model, say=lambda line: None)
    assert again["p"] == result.metrics["p"]
    assert sum(calls) == 59
    folder = export_of(tmp_path / "run")
    exported = mtl_face.load(folder)
    table = datasets.load_split(config.data, "validation", print)
    rows = np.flatnonzero(expected(table)[1])[:3]
    crops = np.stack([images.read_image(table.paths()[row], 32) for row in rows])
    found = exported.predict_crops(crops)
    point_NV3 = made_up(crops)[0]
    arrays = {"image": crops, "points": point_NV3}
    np.testing.assert_array_equal(found.au_logits, model.predict_arrays(arrays).au_logits)
    known = model.predict_arrays({**arrays, "baseline": point_NV3 + 0.01})
    assert np.abs(known.au_logits - found.au_logits).max() > 1e-4
    # The data of the training may be elsewhere: the points of a list lie with its images.
    listed = tmp_path / "list.txt"
    listed.write_text("image\n" + "".join(f"{table.image[row]}\n" for row in rows))
    pictures = shutil.copytree(config.data.root, tmp_path / "p") / config.data.image_folder
    experiment.data.rename(tmp_path / "moved")
    answers = mtl_face.predict(exported, listed, images=pictures, say=lambda line: None)
    assert len(answers) == 3
    assert (pictures / "features").is_dir()


def export_of(run):
    """An export of a run, whose card says how points are made."""
    folder = export(run, form="safetensors", output=run.with_name("exported"), say=print)
    stated = card.parse((folder / card.FILE).read_text(), folder / card.FILE)
    assert stated["points"] == points.statement(["person", "neutral"])
    return folder


def test_other_points_are_told():
    stated = points.specification() | {"mean_face_sha256": "0" * 64}
    assert points.differences(points.specification()) == []
    (line,) = points.differences(stated)
    assert line.startswith("mean_face_sha256 is '000")
