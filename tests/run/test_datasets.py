"""Rows whose images are missing: an error, or skipped and counted."""

import pytest
from small_experiment import Experiment, assert_is_users_error

from mtl_face import config as config_lib
from mtl_face.errors import ImageError
from mtl_face.run import datasets


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


def test_images_missing(experiment, capsys):
    images = sorted((experiment.data / "cropped_aligned").rglob("*.jpg"))
    gone = [path for path in images if "training_1" in str(path)][:3]
    for path in gone:
        path.unlink()
    for command in ("train", "prepare"):
        result = experiment.run(capsys, command)
        assert_is_users_error(result, gone[0], "and 2 more", "--config.data.missing_images=skip")

    status, out, err = experiment.run(capsys, "prepare", "--config.data.missing_images=skip")
    assert (status, err) == (0, "")
    assert f"train: skipped 3 rows whose image file is missing: {gone[0]}" in out
    assert "train: 37 rows" in out
    assert "validation: 19 rows" in out
    assert "all rows and images are sound" in out


def test_skipped_rows_are_gone_from_the_table(experiment):
    (experiment.data / "cropped_aligned" / "training_0" / "00001.jpg").unlink()
    said = []
    data = config_lib.DataConfig(root=str(experiment.data), missing_images="skip")
    table = datasets.load_split(data, "train", said.append)
    assert len(table) == 39
    assert "skipped 1 rows" in said[0]
    with pytest.raises(ImageError, match=r"training_0/00001\.jpg"):
        datasets.load_split(
            config_lib.DataConfig(root=str(experiment.data)),
            "train",
            said.append,
        )


def test_all_images_missing(experiment, capsys):
    for path in (experiment.data / "cropped_aligned").rglob("*.jpg"):
        path.unlink()
    result = experiment.run(capsys, "prepare", "--config.data.missing_images=skip")
    assert_is_users_error(result, "none of the 40 images exists")
