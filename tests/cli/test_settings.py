"""The list of all settings."""

from mtl_face import config as config_lib
from mtl_face.cli import main


def test_settings_lists_every_field(capsys):
    assert main.main(["settings"]) == 0
    text = capsys.readouterr().out
    for name, field in config_lib.fields():
        assert f"--config.{name}=" in text
        assert field.metadata["meaning"] in text.replace("--config.", "")


def test_settings_of_an_experiment(capsys):
    mixture = ["--config.data.mixture.own.kind=manifest", "--config.data.validation=own"]
    assert main.main(["settings", "--config=rendered_faces", *mixture]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("--config.augmentation.zoom=[0.95, 1.05] ") for line in lines)
    assert "--config.data.mixture.own.kind=manifest" in lines
