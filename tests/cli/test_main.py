"""Help without heavy imports, and one clear message for each of the user's mistakes."""

import json
import subprocess
import sys

import jax
import pytest
from small_experiment import ROOT, Experiment

from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.errors import ImageError, WorkdirError
from mtl_face.run import datasets
from mtl_face.run import workdir as workdirs

HEAVY = ("jax", "jaxlib", "tensorflow", "flax", "optax", "orbax", "clu", "numpy", "pandas", "scipy")

_RUN_AND_LIST_MODULES = """
import runpy, sys
sys.argv = ["run.py", *sys.argv[1:]]
try:
    runpy.run_path("run.py", run_name="__main__")
except SystemExit as exit:
    print("STATUS", exit.code)
print("HEAVY", *sorted(set(sys.modules) & set({heavy!r})))
"""


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


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


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["settings"]])
def test_help_imports_nothing_heavy(words):
    result = subprocess.run(
        [sys.executable, "-c", _RUN_AND_LIST_MODULES.format(heavy=HEAVY), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *text, status, heavy = result.stdout.splitlines()
    assert status == "STATUS 0"
    assert heavy.split() == ["HEAVY"]
    assert len(text) > 5
    assert result.stderr == ""


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as left:
        main.main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for command in ("train", "evaluate", "export", "prepare", "settings"):
        assert f"\n    {command} " in text


def test_settings_lists_every_field(capsys):
    assert main.main(["settings"]) == 0
    text = capsys.readouterr().out
    for name, field in config_lib.fields():
        assert f"--config.{name}=" in text
        assert field.metadata["meaning"] in text


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["tain", "--config=x.py", "--workdir=x"],
        ["train"],
        ["train", "--config=configs/paper.py"],
        ["train", "--config=configs/paper.py", "--workdir=x", "--wrkdir=y"],
        ["train", "--conf=configs/paper.py", "--work=x"],
    ],
)
def test_wrong_words(words, capsys):
    with pytest.raises(SystemExit) as left:
        main.main(words)
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("usage: ")
    assert captured.out == ""


def test_setting_without_equals_sign(experiment, capsys):
    result = experiment.run(capsys, "train", "--config.seed", "3")
    assert_is_users_error(result, "'seed' has no value", "--config.seed=VALUE")


def test_wrong_setting(experiment, capsys):
    result = experiment.run(capsys, "train", "--config.optimizer.batchsize=3")
    assert_is_users_error(result, "did you mean optimizer.batch_size?")
    assert not experiment.workdir.exists()


def test_config_file_fails(experiment, capsys):
    experiment.config.write_text("\n\nx = 1 / 0\n")
    result = experiment.run(capsys, "train")
    assert_is_users_error(result, f"{experiment.config}, line 3", "ZeroDivisionError")


def test_no_such_config_file(experiment, capsys):
    experiment.config = experiment.config.with_name("smal.py")
    result = experiment.run(capsys, "train")
    assert_is_users_error(result, "no such config file", "small.py?")


def test_data_root_missing(experiment, capsys):
    experiment.data = experiment.folder / "nowhere"
    result = experiment.run(capsys, "train")
    assert_is_users_error(result, experiment.data / "training_set_annotations.txt")


def test_annotation_file_wrong(experiment, capsys):
    annotations = experiment.data / "training_set_annotations.txt"
    lines = annotations.read_text().splitlines()
    lines[3] = lines[3].replace(",", ";")
    annotations.write_text("\n".join(lines) + "\n")
    result = experiment.run(capsys, "train")
    assert_is_users_error(result, f"{annotations}", "4")


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


def test_prepare_names_broken_images(experiment, capsys):
    path = experiment.data / "cropped_aligned" / "validation_0" / "00001.jpg"
    path.write_bytes(path.read_bytes()[:100])
    result = experiment.run(capsys, "prepare")
    assert_is_users_error(result, path, "1 image files of the validation set")


def test_prepare_has_no_workdir(experiment, capsys):
    status, out, err = experiment.run(capsys, "prepare")
    assert (status, err) == (0, "")
    assert "next: python run.py train" in out


def test_batch_does_not_split_over_the_devices(experiment, capsys):
    assert jax.device_count() == 8
    result = experiment.run(capsys, "train", "--config.optimizer.batch_size=12")
    assert_is_users_error(result, "optimizer.batch_size 12", "8 devices", "use 8 or 16")
    result = experiment.run(
        capsys, "train", "--config.optimizer.batch_size=24", "--config.augmentation.mixup_alpha=1"
    )
    assert_is_users_error(result, "optimizer.batch_size 24", "use 16 or 32")
    result = experiment.run(capsys, "train", "--config.evaluation.batch_size=3")
    assert_is_users_error(result, "evaluation.batch_size 3", "use 8")


def test_mesh_does_not_fit_the_devices(experiment, capsys):
    result = experiment.run(capsys, "train", "--config.mesh.data=3")
    assert_is_users_error(result, "a mesh of 3 x 1 does not fit 8 devices")
    result = experiment.run(capsys, "train", "--config.mesh.fsdp=3")
    assert_is_users_error(result, "does not fit 8 devices")


def test_batch_larger_than_the_data_set(experiment, capsys):
    result = experiment.run(capsys, "train", "--config.optimizer.batch_size=64")
    assert_is_users_error(result, "64 is larger than the 40 rows")


def test_a_wrong_setting_does_not_claim_the_workdir(experiment, capsys):
    for batch_size in (64, 12):
        result = experiment.run(capsys, "train", f"--config.optimizer.batch_size={batch_size}")
        assert_is_users_error(result, f"batch_size {batch_size}")


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_workdir_without_run(experiment, capsys, command):
    result = experiment.run(capsys, command)
    assert_is_users_error(result, experiment.workdir, "holds no run", "train first")
    assert not experiment.workdir.exists()


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_workdir_without_checkpoint(experiment, capsys, command):
    config = config_lib.load(experiment.config, [f"data.root={experiment.data}"])
    workdirs.open_for_training(experiment.workdir, config)
    result = experiment.run(capsys, command)
    assert_is_users_error(result, "has no evaluated checkpoint yet", "train first")


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


def test_defect_of_the_program_keeps_its_traceback(experiment, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a defect")

    monkeypatch.setattr(datasets, "load_split", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        main.main(experiment.arguments("prepare"))


def test_interrupt(experiment, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "load_split", interrupted)
    status, _, err = experiment.run(capsys, "prepare")
    assert (status, err) == (130, "interrupted\n")


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

    @pytest.mark.parametrize("content", ["{", "\x00\x01", "[]", "3"])
    def test_config_that_cannot_be_read(self, owned, content):
        (owned.workdir / "config.json").write_text(content)
        with pytest.raises(WorkdirError, match=r"config\.json"):
            workdirs.open_for_training(owned.workdir, self.config(owned))

    def test_checkpoints_without_config(self, owned):
        (owned.workdir / "config.json").unlink()
        with pytest.raises(WorkdirError, match=r"holds checkpoints but no config\.json"):
            workdirs.open_for_training(owned.workdir, self.config(owned))

    def test_nothing_but_the_config_is_left_behind(self, owned):
        workdirs.open_for_training(owned.workdir, self.config(owned))
        assert sorted(path.name for path in owned.workdir.iterdir()) == [
            "checkpoints",
            "config.json",
        ]
