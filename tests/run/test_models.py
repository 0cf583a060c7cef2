"""Places that hold no model, or none yet."""

import pytest
from small_experiment import Experiment, assert_is_users_error

from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.run import workdir as workdirs


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_workdir_without_run(experiment, capsys, command):
    result = experiment.run(capsys, command)
    assert_is_users_error(result, experiment.workdir, "does not exist", "train first")
    assert not experiment.workdir.exists()


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_workdir_without_checkpoint(experiment, capsys, command):
    config = config_lib.load(experiment.config, [f"data.root={experiment.data}"])
    workdirs.open_for_training(experiment.workdir, config)
    result = experiment.run(capsys, command)
    assert_is_users_error(result, "has no evaluated checkpoint yet", "train first")


def test_a_file_that_is_no_export_is_no_model(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("mine, a photo or what not")
    assert main.main(["evaluate", f"--model={path}"]) == 2
    captured = capsys.readouterr()
    problem = "is neither a run nor an export: it begins with the text 'mine, a photo or wha'"
    assert f"{path}: {problem}\n" in captured.err
    assert "-> give the folder of a run, or what `run.py export` wrote" in captured.err
