"""Places that hold no model, or none yet."""

import json

import drawn_run
import pytest
from small_experiment import Experiment, assert_is_users_error

from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.run import export, models
from mtl_face.run import workdir as workdirs
from mtl_face.weights import exported


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


def test_a_run_that_was_not_evaluated_yet(experiment, capsys):
    drawn_run.write(experiment, experiment.workdir, score=None)
    output = f"--output={experiment.folder / 'out'}"
    result = experiment.run(capsys, "export", output)
    remedy = "take its newest checkpoint: --config.evaluation.checkpoint=last"
    assert_is_users_error(result, "has no evaluated checkpoint yet", remedy)
    status, _, err = experiment.run(capsys, "export", output, "--config.evaluation.checkpoint=last")
    assert (status, err) == (0, "")


def test_a_file_that_is_no_export_is_no_model(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("mine, a photo or what not")
    assert main.main(["evaluate", f"--model={path}"]) == 2
    captured = capsys.readouterr()
    problem = "is neither a run nor an export: it begins with the text 'mine, a photo or wha'"
    assert f"{path}: {problem}\n" in captured.err
    assert "-> give the folder of a run, or what `run.py export` wrote" in captured.err


LABELS = {"va": 0, "au": 9, "expr": 7, "per_au": {"au1": 9, "au2": 0, "au4": 9}}
UNTRAINED = [
    "warning: the network was trained without a label of va: its outputs for that are left out",
    "warning: the network was trained without a label of au2: its outputs for these action units "
    "mean nothing",
]


def test_labels_that_training_saw_go_from_the_checkpoint_to_the_export(experiment):
    drawn_run.write(experiment, experiment.workdir, labels=LABELS)
    config = workdirs.own_config(experiment.workdir)
    said = []
    run = models.open_model(experiment.workdir, config, said.append)
    assert run.origin["training"]["labels"] == LABELS
    assert said[1:] == UNTRAINED
    said.clear()
    folder = export.export(experiment.workdir, form="safetensors", say=said.append)
    assert exported.read_card(folder)["training"] == run.origin["training"]
    assert said[1:3] == UNTRAINED
    said.clear()
    again = models.open_model(folder, workdirs.own_config(folder), said.append)
    assert again.origin["training"] == run.origin["training"]
    assert said[1:] == UNTRAINED


def test_what_older_versions_did_not_count_is_not_untrained(experiment):
    drawn_run.write(experiment, experiment.workdir)
    said = []
    run = models.open_model(
        experiment.workdir, workdirs.own_config(experiment.workdir), said.append
    )
    assert "training" not in run.origin
    assert said == ["best checkpoint, step 5"]


def test_how_the_checkpoint_was_chosen_is_stated(experiment):
    drawn_run.write(experiment, experiment.workdir)
    rows = [{"step": 5, "validation/score": 0.5}, {"step": 10, "validation/score": 0.25}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (experiment.workdir / "history.jsonl").write_text(lines)
    config = workdirs.own_config(experiment.workdir)
    chosen = models.open_model(experiment.workdir, config, print).origin["training"]["selection"]
    assert (chosen["looks"], chosen["step"], chosen["last_step"]) == (2, 5, 10)
    folder = export.export(experiment.workdir, form="safetensors", say=lambda line: None)
    assert exported.read_card(folder)["training"] == {"selection": chosen}
    config = workdirs.own_config(experiment.workdir, ["evaluation.checkpoint=last"])
    assert "training" not in models.open_model(experiment.workdir, config, print).origin
