"""Shards written by the command give a run the same rows and images as the data itself."""

import itertools

import jax
import numpy as np
import pytest
import small_dataset
from small_experiment import Experiment

from data_pipeline import input as data_input
from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.errors import ConfigError
from mtl_face.run import datasets, pixels


def first_batches(config):
    table, rows = datasets.load_training(config.data, seed=0, say=print)
    data = pixels.find_pixels(config, table, print, split="train")
    stream = data_input.train_batches(
        table, batch_size=8, image_size=32, rows=rows, source=data.source
    )
    root = datasets.ensure_data(config.data, print)
    validation = datasets.load_split(config.data, root, "validation", print)
    scored = pixels.find_pixels(config, validation, print)
    evaluated = data_input.eval_batches(
        validation, batch_size=8, image_size=32, source=scored.source
    )
    return list(itertools.islice(stream, 9)), list(evaluated)


@pytest.mark.parametrize("mixture", [False, True])
def test_shards_take_the_place_of_the_data(tmp_path, capsys, mixture):
    experiment = Experiment(tmp_path)
    given = []
    if mixture:
        small_dataset.write(tmp_path / "other", seed=1, rows={"training": 25})
        given = [
            f"data.mixture.main.root={experiment.data}",
            f"data.mixture.other.root={tmp_path / 'other'}",
            "data.mixture.other.weight=2.0",
            "data.mixture.other.tasks=au",
            "data.validation=main",
        ]
    status, out, err = experiment.run(
        capsys, "prepare", f"--shards={tmp_path / 'shards'}", *(f"--config.{g}" for g in given)
    )
    assert status == 0, err
    assert f"wrote {84 if mixture else 59} records" in out
    assert f"--config.data.shards={tmp_path / 'shards' / 'face_frames' / 'table'}" in out
    files = config_lib.load(experiment.config, [f"data.root={experiment.data}", *given])
    shards = config_lib.load(experiment.config, [f"data.shards={tmp_path / 'shards'}", *given])
    for expected, found in zip(first_batches(files), first_batches(shards), strict=True):
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(one, other)
    status, _, err = experiment.run(capsys, "prepare", f"--shards={tmp_path / 'shards'}")
    assert status == 2
    assert "exists already" in err
    if mixture:  # a record is found by its place: less or other data sets would move them all
        for name in ("main", "zzz"):
            other = [g.replace("mixture.other", f"mixture.{name}") for g in given]
            changed = config_lib.load(
                experiment.config, [f"data.shards={tmp_path / 'shards'}", *other]
            )
            with pytest.raises(ConfigError, match="hold the data sets main, other"):
                datasets.load_training(changed.data, seed=0, say=print)
        moved = [g.replace("validation=main", "validation=other") for g in given]
        changed = config_lib.load(experiment.config, [f"data.shards={tmp_path / 'shards'}", *moved])
        root = datasets.ensure_data(changed.data, print)
        with pytest.raises(ConfigError, match=r"hold the data sets main, data\.validation names"):
            datasets.load_split(changed.data, root, "validation", print)


def test_a_damaged_image_is_no_record(tmp_path, capsys):
    experiment = Experiment(tmp_path)
    image = next((experiment.data / "cropped_aligned").rglob("*.jpg"))
    image.write_bytes(image.read_bytes()[:200])
    status, _, err = experiment.run(capsys, "prepare", f"--shards={tmp_path / 'shards'}")
    assert status == 2
    assert "image files of the train" in err or "image files of the validation" in err
    assert str(image) in err
    assert not (tmp_path / "shards").exists()


def test_a_table_beside_shards_of_another_writing(tmp_path, capsys):
    experiment = Experiment(tmp_path)
    assert experiment.run(capsys, "prepare", f"--shards={tmp_path / 'shards'}")[0] == 0
    (folder,) = (tmp_path / "shards/face_frames/table").iterdir()
    (folder / "frames-train.parquet").write_bytes(
        (folder / "frames-validation.parquet").read_bytes()
    )
    shards = config_lib.load(experiment.config, [f"data.shards={folder}"])
    table, _ = datasets.load_training(shards.data, seed=0, say=print)
    with pytest.raises(ConfigError, match=r"records, their table has \d+ rows") as caught:
        pixels.find_pixels(shards, table, print, split="train")
    assert str(folder) in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    experiment = Experiment(tmp_path)
    (tmp_path / "file").write_text("")
    status, _, err = experiment.run(capsys, "prepare", f"--shards={tmp_path / 'file'}")
    assert status == 2
    assert "cannot be written" in err


@pytest.mark.parametrize("audit", [[], ["--audit"]])
def test_what_is_looked_at_beside_shards(tmp_path, capsys, audit):
    experiment = Experiment(tmp_path)
    shards = f"--config.data.shards={tmp_path / 'gone'}"
    status, out, err = experiment.run(capsys, "prepare", *audit, shards)
    assert (status, err) == (0, "")
    assert "is left aside: this reads the data set itself" in out
    assert "59 of 59 images" in out if audit else str(experiment.data) in out
    status = main.main(["prepare", *audit, f"--config={experiment.config}", shards])
    assert status == 2
    assert "data.root is not set" in capsys.readouterr().err


def test_beam_is_named_where_it_is_absent(tmp_path, capsys):
    experiment = Experiment(tmp_path)
    status, _, err = experiment.run(capsys, "prepare", "--beam=--runner=DirectRunner")
    assert status == 2
    assert "--beam goes with --shards" in err
    try:
        import apache_beam  # noqa: F401
    except ModuleNotFoundError:
        shards = f"--shards={tmp_path / 'shards'}"
        status, _, err = experiment.run(capsys, "prepare", shards, "--beam=--runner=DirectRunner")
        assert status == 2
        assert "not installed" in err
