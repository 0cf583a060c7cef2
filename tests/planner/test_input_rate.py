"""Rates of the input that `plan` compares with."""

import json

import pytest
import small_experiment

from mtl_face.cli import main
from mtl_face.errors import ConfigError
from mtl_face.planner import input_rate
from mtl_face.run import plan

MEASURED = {
    "cores": 2,
    "images_per_second": {
        "112": {
            "bare decode loop": 9000.0,
            "ours, from files": 5000.5,
            "ours, from shards (tfrecord)": 6000.0,
            "ours, from shards (array_record)": 6100.0,
            "ours, from memory": 90000.0,
        },
        "224": {"ours, from files": 1500.0},
    },
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "input.json"
    path.write_text(json.dumps(MEASURED))
    return path


def test_a_number():
    assert input_rate.read("1500.5", image_size=112, source="files") == 1500.5


@pytest.mark.parametrize(
    ("size", "source", "rate"),
    [
        (112, "files", 5000.5),
        (112, "shards", 6100.0),
        (112, "memory", 90000.0),
        (224, "files", 1500.0),
    ],
)
def test_a_file(file, size, source, rate):
    assert input_rate.read(str(file), image_size=size, source=source) == rate


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ([], 5000.5),
        (["data.source=memory"], 90000.0),
        (["data.shards=/shards"], 6100.0),
        (["data.shards=/shards", "data.source=memory"], 6100.0),
    ],
)
def test_the_way_of_reading_that_the_settings_name(file, tmp_path, monkeypatch, settings, rate):
    """As the command line loads them, with what `plan` presets."""
    config_file = small_experiment.write_config(tmp_path)
    found = []

    def compiled(config, options, batch_size):
        found.append(plan.measured_input(config, options))
        raise ConfigError("nothing is compiled", remedy="")

    monkeypatch.setattr(plan, "_compiled", compiled)
    overrides = [f"--config.{setting}" for setting in ["data.image_size=112", *settings]]
    words = ["plan", f"--config={config_file}", "--topology=local", f"--input_rate={file}"]
    assert main.main([*words, *overrides]) == 2
    assert found == [rate]


@pytest.mark.parametrize("text", ["0", "-3", "nan", "inf"])
def test_no_rate(text):
    with pytest.raises(ConfigError, match=f"--input_rate={text} is no rate"):
        input_rate.read(text, image_size=112, source="files")


def test_what_the_file_lacks(file):
    with pytest.raises(ConfigError, match=r"images of 112, 224 pixels, data\.image_size is 96"):
        input_rate.read(str(file), image_size=96, source="files")
    with pytest.raises(ConfigError, match="no rate of our input from shards"):
        input_rate.read(str(file), image_size=224, source="shards")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "holds no measured rates"),
        (b'{"images_per_second": {"112": 3}}', "holds no measured rates"),
    ],
)
def test_another_file(tmp_path, content, words):
    path = tmp_path / "input.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        input_rate.read(str(path), image_size=112, source="files")


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="is no number and cannot be read"):
        input_rate.read(str(tmp_path / "input.json"), image_size=112, source="files")
