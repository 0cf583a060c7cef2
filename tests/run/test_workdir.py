"""The folder of a run: to which settings it belongs, and where there can be none."""

import json
import os

import pytest
from small_experiment import Experiment, assert_is_users_error

from mtl_face import config as config_lib
from mtl_face.cli.main import main
from mtl_face.errors import WorkdirError
from mtl_face.run import workdir as workdirs
from mtl_face.training import metadata


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


@pytest.mark.parametrize("command", ["train", "evaluate", "export"])
def test_workdir_is_a_file(experiment, capsys, command):
    experiment.workdir.write_text("mine")
    result = experiment.run(capsys, command)
    assert_is_users_error(result, experiment.workdir)
    assert experiment.workdir.read_text() == "mine"


def test_workdir_below_a_file(experiment, capsys):
    (experiment.folder / "file").write_text("mine")
    result = experiment.run(capsys, "train", workdir=experiment.folder / "file" / "run")
    assert_is_users_error(result, experiment.folder / "file" / "run", "Not a directory")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.json", "{}", "holds an export, and no run"),
        ("config.json", '{"theirs": 1}', "holds a config.json that is not of a run"),
        ("config.json", "[", "config.json"),
    ],
)
def test_a_folder_of_something_else(experiment, capsys, name, content, words):
    """Nothing is written over, nor taken away afterwards."""
    experiment.workdir.mkdir()
    (experiment.workdir / name).write_text(content)
    assert_is_users_error(experiment.run(capsys, "train"), words, "--workdir")
    assert {path.name: path.read_text() for path in experiment.workdir.iterdir()} == {name: content}


@pytest.mark.parametrize(
    ("settings", "weights", "words"),
    [
        ('{"architectures": ["ViTModel"]}', "model.safetensors", "another program (ViTModel)"),
        ('{"architecture": "vit_small"}', "pytorch_model.bin", "another program (vit_small)"),
        ('{"architectures": []}', "model.safetensors", "its config.json is not of a run"),
    ],
)
def test_published_weights_are_no_model(tmp_path, capsys, settings, weights, words):
    """Every command that takes --model says what the folder is and where its weights help."""
    (tmp_path / "config.json").write_text(settings)
    (tmp_path / weights).write_bytes(b"")
    for command in (
        ["export", "--output=o"],
        ["evaluate"],
        ["predict", "photo.jpg"],
        ["calibrate"],
        ["serve", "--port=0"],
        ["evaluate", "--config=geometry"],
    ):
        status = main([*command, f"--model={tmp_path}"])
        assert_is_users_error(
            (status, *capsys.readouterr()), "holds weights", words, f"run.py weights {tmp_path}"
        )


def test_another_training_is_under_way(experiment, capsys):
    """Nothing of it is touched, not even by a command whose settings fit."""
    with workdirs.locked(experiment.workdir, print):
        before = sorted(experiment.workdir.iterdir())
        result = experiment.run(capsys, "train")
        assert_is_users_error(
            result, f"{experiment.workdir}: is in use by process {os.getpid()} on ", "--workdir"
        )
        assert sorted(experiment.workdir.iterdir()) == before
    assert list(experiment.workdir.iterdir()) == []


def test_a_refused_command_leaves_no_lock(experiment, capsys):
    result = experiment.run(capsys, "train", "--config.optimizer.batch_size=64")
    assert_is_users_error(result, "64 is larger than the 40 rows")
    assert list(experiment.workdir.iterdir()) == []


class TestWorkdirOwner:
    """A folder with checkpoints belongs to the settings that it was made with."""

    @pytest.fixture
    def owned(self, experiment):
        config = self.config(experiment)
        workdirs.open_for_training(experiment.workdir, config)
        (experiment.workdir / workdirs.CHECKPOINTS / "0").mkdir(parents=True)
        return experiment

    @staticmethod
    def config(experiment, *overrides):
        return config_lib.load(experiment.config, [f"data.root={experiment.data}", *overrides])

    @pytest.mark.parametrize(
        "override",
        [
            "data.root=/elsewhere",
            "data.shards=/elsewhere",
            "data.source=memory",
            "data.image_folder=moved",
            "data.train_annotations=moved.txt",
            "evaluation.batch_size=16",
            "evaluation.checkpoint=last",
            "evaluation.gallery_size=3",
            "training.log_every_steps=7",
            "data.rendered_faces.workers=3",
        ],
    )
    def test_settings_that_may_differ(self, owned, override):
        config = self.config(owned, override)
        assert workdirs.open_for_training(owned.workdir, config) == owned.workdir
        assert workdirs.open_for_reading(owned.workdir, config) == owned.workdir

    @pytest.mark.parametrize("open_", [workdirs.open_for_training, workdirs.open_for_reading])
    def test_settings_that_may_not(self, owned, open_):
        config = self.config(owned, "seed=3", "optimizer.learning_rate=0.5")
        before = (owned.workdir / "config.json").read_bytes()
        with pytest.raises(WorkdirError) as raised:
            open_(owned.workdir, config)
        message = str(raised.value)
        assert str(owned.workdir) in message
        assert "seed was 0, is 3" in message
        assert "optimizer.learning_rate was 0.001, is 0.5" in message
        assert "batch_size" not in message
        assert (owned.workdir / "config.json").read_bytes() == before

    def test_more_epochs(self, owned):
        """May be trained; they count for whoever reads the run once its training went on."""
        longer = self.config(owned, "optimizer.epochs=9")
        assert workdirs.open_for_training(owned.workdir, longer) == owned.workdir
        with pytest.raises(WorkdirError, match=r"optimizer\.epochs was 4, is 9"):
            workdirs.open_for_reading(owned.workdir, longer)
        assert workdirs.lengthen(owned.workdir, self.config(owned)) is None
        assert workdirs.lengthen(owned.workdir, longer) == 4
        assert workdirs.open_for_reading(owned.workdir, longer) == owned.workdir
        assert workdirs.lengthen(owned.workdir, longer) is None
        with pytest.raises(WorkdirError, match=r"optimizer\.epochs was 9, is 4"):
            workdirs.open_for_training(owned.workdir, self.config(owned))

    def test_tuples_and_nothing_compare_as_what_they_are(self, owned):
        config = self.config(owned, "model.backbone.stage_sizes=1,", "augmentation.zoom=0.9,1.1")
        workdirs.open_for_training(owned.workdir, config)
        with pytest.raises(WorkdirError, match="stage_sizes was"):
            workdirs.open_for_training(
                owned.workdir, self.config(owned, "model.backbone.stage_sizes=1,1")
            )

    def test_a_setting_of_another_version(self, owned):
        path = owned.workdir / "config.json"
        saved = json.loads(path.read_text())
        saved["optimizer"]["momentum"] = 0.5
        path.write_text(json.dumps(saved))
        with pytest.raises(WorkdirError, match=r"optimizer\.momentum was 0\.5, is None"):
            workdirs.open_for_training(owned.workdir, self.config(owned))

    def test_a_setting_that_the_runs_version_did_not_know(self, owned):
        path = owned.workdir / "config.json"
        saved = json.loads(path.read_text())
        del saved["model"]["backbone"]["frozen_stages"]
        path.write_text(json.dumps(saved))
        workdirs.open_for_training(owned.workdir, self.config(owned))
        with pytest.raises(WorkdirError, match=r"frozen_stages was -1, is 0"):
            workdirs.open_for_training(
                owned.workdir, self.config(owned, "model.backbone.frozen_stages=0")
            )

    @pytest.mark.parametrize("content", ["{", "\x00\x01", "[]", "3", "", "[" * 100_000])
    def test_config_that_cannot_be_read(self, owned, content):
        """Of a run whose checkpoints do not have it either: the message tells the way back."""
        (owned.workdir / "config.json").write_text(content)
        with pytest.raises(WorkdirError, match=r"config\.json: cannot be read") as raised:
            workdirs.open_for_training(owned.workdir, self.config(owned))
        assert "give its command another --workdir" in raised.value.remedy

    def test_checkpoints_without_config(self, owned):
        (owned.workdir / "config.json").unlink()
        for open_ in (workdirs.open_for_training, workdirs.open_for_reading):
            with pytest.raises(WorkdirError, match=r"holds checkpoints but no config\.json"):
                open_(owned.workdir, self.config(owned))

    @staticmethod
    def keep(experiment, settings):
        """Writes a checkpoint that has the settings of its run."""
        step = experiment.workdir / workdirs.CHECKPOINTS / "3"
        step.mkdir()
        kept = metadata.seal({metadata.SETTINGS: settings})
        (step / "_CHECKPOINT_METADATA").write_text(json.dumps({"custom_metadata": kept}))

    def test_a_config_that_was_changed(self, owned):
        path = owned.workdir / "config.json"
        settings = json.loads(path.read_text())
        self.keep(owned, settings)
        path.write_text(json.dumps(settings | {"seed": 5}))
        with pytest.raises(WorkdirError, match="seed was 5, is 0") as raised:
            workdirs.open_for_training(owned.workdir, self.config(owned))
        assert "remove that file" in raised.value.remedy
        with pytest.raises(WorkdirError, match="seed was 5, is 3") as raised:
            workdirs.open_for_training(owned.workdir, self.config(owned, "seed=3"))
        assert "remove that file" not in raised.value.remedy
        path.unlink()
        workdirs.open_for_training(owned.workdir, self.config(owned))

    @pytest.mark.parametrize("content", [None, "", "{", "[]"])
    def test_settings_that_a_checkpoint_has(self, owned, content):
        path = owned.workdir / "config.json"
        whole = path.read_text()
        self.keep(owned, json.loads(whole))
        checkpoints = owned.workdir / workdirs.CHECKPOINTS
        (checkpoints / "12").mkdir()  # the newest is damaged too
        (checkpoints / "12" / "_CHECKPOINT_METADATA").write_text("{")
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        config = self.config(owned)
        assert workdirs.open_for_reading(owned.workdir, config) == owned.workdir
        assert workdirs.own_config(owned.workdir) == config
        with pytest.raises(WorkdirError, match="seed was 0, is 3"):
            workdirs.open_for_training(owned.workdir, self.config(owned, "seed=3"))
        said = []
        workdirs.open_for_training(owned.workdir, config, said.append)
        (line,) = said
        assert line.startswith(f"warning: {path} ")
        assert line.endswith("; written again from checkpoints")
        assert path.read_text() == whole
        workdirs.open_for_training(owned.workdir, config, said.append)
        assert len(said) == 1

    def test_nothing_but_the_config_is_left_behind(self, owned):
        workdirs.open_for_training(owned.workdir, self.config(owned))
        assert sorted(path.name for path in owned.workdir.iterdir()) == [
            "checkpoints",
            "config.json",
        ]


def test_an_evaluation_of_other_rows_has_a_folder_of_its_own():
    name = workdirs.evaluation_folder
    assert name("validation", None) == "evaluation"
    assert name("train", None) == "evaluation_train"
    assert name("validation", "/data/my set/labels.csv") == "evaluation_labels.csv"
    assert name("train", "/data/my set") == "evaluation_my_set_train"
