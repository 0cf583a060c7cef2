"""The list of all settings."""

from mtl_face import config as config_lib
from mtl_face.cli import main


def test_settings_lists_every_field(capsys):
    assert main.main(["settings"]) == 0
    text = capsys.readouterr().out
    for name, field in config_lib.fields():
        assert f"--config.{name}=" in text
        assert field.metadata["meaning"] in text
