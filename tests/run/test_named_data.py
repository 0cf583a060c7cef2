"""What evaluated rows are called, and other data sets by a path or a name."""

import dataclasses

import pytest
from small_experiment import Experiment

from mtl_face import config as config_lib
from mtl_face.errors import ConfigError
from mtl_face.run import datasets, named_data


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


def test_another_data_set_by_its_path_or_its_name(experiment):
    own = config_lib.load(
        experiment.config,
        [
            *(f"data.mixture.mine.root={experiment.data}", "data.mixture.mine.kind=s_aff_wild2"),
            *("data.mixture.other.root=/elsewhere", "data.mixture.other.kind=manifest"),
            "data.validation=mine",
        ],
    ).data
    folder = named_data.another(own, experiment.data)
    assert (folder.kind, folder.root, folder.mixture) == ("s_aff_wild2", str(experiment.data), {})
    assert len(datasets.load_split(folder, "train", print)) == 40

    labels = experiment.data / "training_set_annotations.txt"
    for split in datasets.SPLITS:  # images lie in the image folder beside it
        assert len(datasets.load_split(named_data.another(own, labels), split, print)) == 40

    table = datasets.load_split(folder, "validation", print)
    lines = [
        f"cropped_aligned/{image},{video},0.5"
        for image, video in zip(table.image, table.video, strict=True)
    ]
    (experiment.data / "table").mkdir()
    (experiment.data / "mine.csv").write_text("\n".join(["image,video,valence", *lines]) + "\n")
    found = named_data.another(
        dataclasses.replace(own, image_folder="nowhere"), experiment.data / "mine.csv"
    )
    assert (found.kind, found.image_folder) == ("manifest", ".")
    assert datasets.load_split(found, "validation", print).video.tolist() == table.video.tolist()

    other = named_data.another(own, "other")
    assert (other.kind, other.root, other.image_size) == ("manifest", "/elsewhere", own.image_size)

    with pytest.raises(ConfigError, match="holds no annotations under a usual name") as raised:
        named_data.another(own, experiment.data / "table")
    assert "validation.csv" in raised.value.remedy
    with pytest.raises(ConfigError, match=r"nowhere: does not exist") as raised:
        named_data.another(own, experiment.data / "nowhere")
    assert "one of mine, other" in raised.value.remedy
    (experiment.data / "train.csv").write_text("image,valence\n")
    with pytest.raises(ConfigError, match="holds files of s_aff_wild2 and of manifest"):
        named_data.another(own, experiment.data)


def test_rows_are_called_by_their_data(experiment):
    data = config_lib.load(experiment.config, [f"data.root={experiment.data}"]).data
    about = named_data.about(data, "validation")
    assert about == named_data.About("data", "validation set", rendered=False)
    labels = experiment.data / "training_set_annotations.txt"
    found = named_data.about(named_data.another(data, labels), "validation")
    assert found == named_data.About("data", "training_set_annotations.txt", rendered=False)
    (experiment.data / "dataset.json").write_text('{"generator_version": 6}')
    assert named_data.about(data, "train") == named_data.About("rendered faces", "train set", True)
    (experiment.data / "dataset.json").write_text("theirs")
    assert not named_data.about(data, "train").rendered
    embedded = config_lib.DataConfig(kind="rendered_faces")
    assert named_data.about(embedded, "validation").name == "rendered faces"
    mixed = config_lib.load(
        experiment.config, ["data.mixture.mine.root=/x", "data.validation=mine"]
    ).data
    assert named_data.about(mixed, "validation").name == "mine"
