"""An experiment that trains in a second, and the command line in this process."""

import textwrap
from pathlib import Path

import pytest
import small_dataset

from mtl_face.cli import main

ROOT = Path(__file__).parents[1]

STEPS = 20
STEPS_PER_EPOCH = 5

_CONFIG = """\
    from mtl_face import config


    def get_config():
        settings = config.default()
        settings.name = "small"
        settings.data.image_size = 32
        model = settings.model
        model.input_size = 32
        model.input_mean = (128.0, 128.0, 128.0)
        model.input_std = (64.0, 64.0, 64.0)
        model.backbone.stage_sizes = (1,)
        model.backbone.width = 8
        model.backbone.expansion = 2
        model.embed_dim = 16
        model.num_heads = 4
        model.encoder_layers = 1
        model.decoder_modules = 1
        model.head_layers = 2
        model.head_width = 16
        settings.optimizer.batch_size = 8
        settings.optimizer.epochs = 4
        settings.optimizer.learning_rate = 1e-3
        settings.optimizer.backbone_learning_rate = 1e-3
        settings.training.log_every_steps = 2
        settings.training.evaluate_every_epochs = 2.0
        settings.training.checkpoint_every_steps = 3
        settings.evaluation.batch_size = 8
        return settings
    """


def write_config(folder: Path) -> Path:
    """A config file for the small data set: 20 steps in 4 epochs of batches of 8."""
    path = folder / "small.py"
    path.write_text(textwrap.dedent(_CONFIG))
    return path


class Experiment:
    """A config file and a data set in a folder, and commands on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = small_dataset.write(folder / "data")
        self.config = write_config(folder)
        self.workdir = folder / "run"

    def arguments(self, command: str, *more: str, workdir: Path | None = None) -> list[str]:
        given = [command, f"--config={self.config}", f"--config.data.root={self.data}"]
        if command != "prepare":
            given.append(f"--workdir={workdir or self.workdir}")
        return [*given, *more]

    def run(
        self, capsys: pytest.CaptureFixture[str], command: str, *more: str, **options: Path
    ) -> tuple[int, str, str]:
        """Runs a command in this process; (exit status, standard output, standard error)."""
        status = main.main(self.arguments(command, *more, **options))
        captured = capsys.readouterr()
        return status, captured.out, captured.err


def assert_is_users_error(result, *parts):
    """Exit status 2 and one message, in which all parts occur, with no traceback."""
    status, _, err = result
    assert status == 2, err
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert "\n  -> " in err  # a remedy
    for part in parts:
        assert str(part) in err
