"""Exports evaluate as the run that they come from; what weights have seen goes with them."""

import contextlib
import io
import json
import shutil

import drawn_run
import numpy as np
import pytest
from small_experiment import Experiment

from mtl_face import config as config_lib
from mtl_face import export
from mtl_face.cli import main
from mtl_face.config.schema import ProvenanceConfig
from mtl_face.errors import WeightsError, WorkdirError
from mtl_face.evaluation import prediction_files
from mtl_face.run import export as export_command
from mtl_face.run import provenance as lineage
from mtl_face.run import workdir as workdirs
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.weights import exported, provenance

FORBIDDEN = "warning: weights pre-trained on Aff-Wild2 were used"
FOLDERS = {"orbax": "export", "safetensors": "export_safetensors"}


class Runs:
    """A run on `Aff-Wild2`, its exports, and a run that starts from one of them.

    Nothing here depends on how good they are, so their states are drawn.
    """

    def __init__(self, folder):
        self.experiment = Experiment(folder)
        self.parent = folder / "parent"
        self.child = folder / "child"
        self.said = {}

    def run(self, command, *more, workdir):
        out = io.TextIOWrapper(io.BytesIO())
        with contextlib.redirect_stdout(out):
            assert main.main(self.experiment.arguments(command, *more, workdir=workdir)) == 0
        out.seek(0)
        return out.read()

    def export(self, form):
        return self.parent / FOLDERS[form]

    @property
    def init_from(self):
        return f"model.backbone.init_from={self.export('safetensors')}/model.safetensors"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("exports"))
    drawn_run.write(runs.experiment, runs.parent, "provenance.training_data=Aff-Wild2, own faces")
    runs.said["parent"] = runs.run("evaluate", workdir=runs.parent)
    for form in FOLDERS:
        runs.said[form] = runs.run("export", f"--format={form}", workdir=runs.parent)
    drawn_run.write(runs.experiment, runs.child, runs.init_from)
    return runs


def evaluate(runs, capsys, *words):
    """(exit status, standard output, standard error) of `evaluate` with these words alone."""
    status = main.main(["evaluate", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def read_json(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("form", FOLDERS)
def test_export_is_read_as_the_checkpoint(runs, form):
    folder = runs.export(form)
    assert f"parameters: {folder}" in runs.said[form]
    assert f"--model={folder}" in runs.said[form]
    variables, card = exported.load(folder)
    before = read_json(runs.parent / "evaluation" / "metrics.json")
    assert card["metrics"] == before
    assert card["step"] == before["checkpoint_step"] == 5
    assert card["config"]["name"] == "small"
    assert card["temperatures"] == {"va": 1.0, "au": 1.0, "expr": 5.0}
    assert card["input"]["size"] == card["input"]["stored_size"] == 32
    assert card["crop"]["size"] == 32
    assert card["crop"]["template"][0] == pytest.approx(
        [(38.2946 + 0.5) * 32 / 112 - 0.5, (51.6963 + 0.5) * 32 / 112 - 0.5], abs=1e-4
    )
    table = prediction_files.read(runs.parent / "evaluation" / "predictions.parquet")
    assert table.metadata["weights_sha256"] == card["weights_sha256"]
    assert card["weights_sha256"] == exported.weights_sha256(variables)


@pytest.mark.parametrize(
    "form", [pytest.param("orbax", marks=pytest.mark.slow), pytest.param("safetensors")]
)
def test_evaluates_without_workdir_and_config(runs, form, tmp_path, capsys):
    """On another machine: nothing but the export and the data."""
    alone = tmp_path / "weights"
    shutil.copytree(runs.export(form), alone)
    path = alone / "model.safetensors" if form == "safetensors" else alone
    output = tmp_path / "results"
    status, out, err = evaluate(
        runs,
        capsys,
        f"--params={path}",
        f"--output={output}",
        f"--config.data.root={runs.experiment.data}",
    )
    assert (status, err) == (0, "")
    assert f"results: {output}" in out
    assert {entry.name for entry in output.iterdir()} == {
        "metrics.json",
        "predictions.parquet",
        "predictions.csv",
        "report.html",
    }
    first = prediction_files.read(runs.parent / "evaluation" / "predictions.parquet")
    second = prediction_files.read(output / "predictions.parquet")
    for name, column in first.columns().items():
        np.testing.assert_array_equal(column, second.columns()[name], err_msg=name)
    before, after = (
        read_json(runs.parent / "evaluation" / "metrics.json"),
        read_json(output / "metrics.json"),
    )
    assert after == before
    assert second.metadata["weights_sha256"] == first.metadata["weights_sha256"]
    for section in ("optimizer", "augmentation", "training"):
        assert second.metadata["config"][section] == first.metadata["config"][section]


class TestParams:
    @pytest.mark.slow
    def test_config_that_fits(self, runs, tmp_path, capsys):
        status, _, err = evaluate(
            runs,
            capsys,
            f"--params={runs.export('safetensors')}",
            f"--output={tmp_path / 'results'}",
            f"--config={runs.experiment.config}",
            f"--config.data.root={runs.experiment.data}",
            "--config.model.dropout=0.0",
        )
        assert (status, err) == (0, "")

    @pytest.mark.parametrize("given", [True, False])
    def test_config_of_another_network(self, runs, tmp_path, capsys, given):
        status, _, err = evaluate(
            runs,
            capsys,
            f"--params={runs.export('orbax')}",
            f"--output={tmp_path / 'results'}",
            *([f"--config={runs.experiment.config}"] if given else []),
            f"--config.data.root={runs.experiment.data}",
            "--config.model.norm=pre",
            "--config.model.head_width=24",
        )
        assert status == 2
        assert "model.norm is 'post' in the export, 'pre' in the config" in err
        assert "model.head_width is 16 in the export, 24 in the config" in err
        assert "-> leave config (--config) out" in err
        assert not (tmp_path / "results").exists()

    def test_card_that_fits_the_settings_but_not_the_arrays(self, runs, tmp_path, capsys):
        """Which no hash sees: the card speaks of another network altogether."""
        variables, card = exported.load(runs.export("safetensors"))
        card["config"]["model"]["head_layers"] = 3
        card["network"] = None
        export.save(tmp_path / "export", variables, card, form="safetensors")
        status, _, err = evaluate(
            runs, capsys, f"--params={tmp_path / 'export'}", f"--output={tmp_path / 'results'}"
        )
        assert status == 2
        assert "params/head_au/" in err
        assert "is absent, the network says float32 [" in err
        assert "\n  -> " in err

    def test_card_of_a_network_that_no_machine_could_build(self, runs, tmp_path, capsys):
        variables, card = exported.load(runs.export("safetensors"))
        card["config"]["model"]["encoder_layers"] = 10**9
        card["network"] = None
        export.save(tmp_path / "export", variables, card, form="safetensors")
        status, _, err = evaluate(
            runs, capsys, f"--params={tmp_path / 'export'}", f"--output={tmp_path / 'results'}"
        )
        assert status == 2
        assert "which is larger than its arrays" in err

    @pytest.mark.slow
    def test_other_size_of_crops_is_said(self, runs, tmp_path, capsys):
        status, out, _ = evaluate(
            runs,
            capsys,
            f"--params={runs.export('orbax')}",
            f"--output={tmp_path / 'results'}",
            "--config.data.image_size=16",
        )
        assert status == 0
        assert "note: it was trained on crops of 32 pixels, these are read at 16" in out

    def test_wrong_words(self, runs, tmp_path, capsys):
        params = f"--params={runs.export('orbax')}"
        for words, problem in [
            ([params], "an export needs an --output"),
            ([params, "--output=x", f"--workdir={runs.parent}"], "is a second model"),
            ([params, "--predictions=x", "--truth=y"], "--model evaluates a run or an export"),
            ([params, "--output=x", "--config.data.rot=y"], "did you mean data.root?"),
            ([f"--params={tmp_path}", "--output=x"], "no export either"),
            (["--config.seed=3"], "no --config was given"),
        ]:
            status, _, err = evaluate(runs, capsys, *words)
            assert status == 2, words
            assert problem in err
            assert "\n  -> " in err

    def test_output_that_is_a_file(self, runs, tmp_path, capsys):
        (tmp_path / "file").write_text("mine")
        status, _, err = evaluate(
            runs, capsys, f"--params={runs.export('orbax')}", f"--output={tmp_path / 'file'}"
        )
        assert status == 2
        assert "cannot be written" in err
        assert (tmp_path / "file").read_text() == "mine"

    @pytest.mark.slow
    def test_settings_of_an_older_version(self, runs, tmp_path, capsys):
        """Those that are gone since are named; those that came since have their defaults."""
        variables, card = exported.load(runs.export("safetensors"))
        del card["config"]["provenance"], card["config"]["evaluation"]["gallery_size"]
        del card["config"]["model"]["backbone"]["init_from"]
        card["config"]["optimizer"]["gone"] = 3  # only training would ask for it
        export.save(tmp_path / "export", variables, card, form="safetensors")
        words = (f"--params={tmp_path / 'export'}", f"--output={tmp_path / 'results'}")
        assert evaluate(runs, capsys, *words)[0] == 0
        card["config"]["model"]["gone"] = 3
        export.save(tmp_path / "export", variables, card, form="safetensors")
        status, _, err = evaluate(runs, capsys, *words)
        assert status == 2
        assert "unknown config field 'model.gone'" in err
        assert str(tmp_path / "export") in err


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_damaged_evaluation(tmp_path, content):
    file = tmp_path / "evaluation" / "metrics.json"
    assert export_command._metrics(tmp_path, 5) is None
    file.parent.mkdir()
    file.write_text(content, encoding="latin1")
    with pytest.raises(WorkdirError, match=r"metrics\.json: cannot be read") as raised:
        export_command._metrics(tmp_path, 5)
    assert raised.value.remedy


def test_an_export_of_an_older_version_is_written_with_what_it_lacked(tmp_path, capsys):
    """The packaged model without its network and mean face gets them back; the arrays stay."""
    variables, card = exported.load(workdirs.bundled()["geometry"])
    old = {name: value for name, value in card.items() if name != "network"}
    old["points"] = {name: old["points"][name] for name in old["points"] if name != "mean_face"}
    export.save(tmp_path / "old", variables, old, form="safetensors")
    assert exported.read_card(tmp_path / "old")["network"] is None
    for model in (str(tmp_path / "old"), "geometry"):
        words = [f"--model={model}", "--format=safetensors", f"--output={tmp_path / 'new'}"]
        assert main.main(["export", *words]) == 0
        found, completed = exported.load(tmp_path / "new")
        assert completed == card
        assert exported.weights_sha256(found) == exported.weights_sha256(variables)


def test_output_named_like_a_file(runs, capsys):
    arguments = ("--format=safetensors", "--output=weights/model.safetensors")
    status, _, err = runs.experiment.run(capsys, "export", *arguments, workdir=runs.parent)
    assert status == 2
    assert "is named like a file" in err


def test_an_output_that_cannot_be_written_is_noticed_first(runs, capsys):
    output = f"--output={runs.experiment.config}/export"
    status, out, err = runs.experiment.run(capsys, "export", output, workdir=runs.parent)
    assert (status, out) == (2, "")
    assert "small.py/export: cannot be written (Not a directory)" in err


class TestProvenance:
    def test_own_training_data(self, runs):
        expected = provenance.record(training_data=["Aff-Wild2", "own faces"])
        assert read_json(runs.parent / "provenance.json") == expected
        assert read_json(runs.parent / "evaluation" / "metrics.json")["provenance"] == expected
        assert exported.read_card(runs.export("orbax"))["provenance"] == expected
        for words in runs.said["parent"], runs.said["orbax"]:
            assert "warning: trained on Aff-Wild2" in words
            assert FORBIDDEN not in words

    def test_inherited_everywhere(self, runs, tmp_path, capsys):
        found = read_json(runs.child / "provenance.json")
        assert found["training_data"] == ["data, in the layout of s-Aff-Wild2"]
        assert found["pretrained_on"] == ["Aff-Wild2", "own faces"]
        assert found["aff_wild2_pretrained"] is True
        source = found["initial_weights"]
        assert source["file"] == "model.safetensors"
        assert len(source["sha256"]) == 64
        assert source["variant"] == "caffe"
        assert source["provenance"] == read_json(runs.parent / "provenance.json")
        with Checkpoints(runs.child / "checkpoints", keep=1, read_only=True) as checkpoints:
            assert checkpoints.read_metadata(5) == {"provenance": found}

        # what the settings say more is added, and takes nothing back
        workdir = tmp_path / "child"
        shutil.copytree(runs.child, workdir)
        more = (f"--config.{runs.init_from}", "--config.provenance.pretrained_on=VGGFace2")
        said = runs.run("evaluate", *more, workdir=workdir)
        assert FORBIDDEN in said
        results = workdir / "evaluation"
        metrics = read_json(results / "metrics.json")
        assert metrics["provenance"] == provenance.amend(
            found, ProvenanceConfig(pretrained_on=("VGGFace2",))
        )
        assert metrics["provenance"]["pretrained_on"] == ["Aff-Wild2", "own faces", "VGGFace2"]
        assert metrics["provenance"]["aff_wild2_pretrained"] is True
        assert metrics["warnings"] == provenance.warnings(metrics["provenance"])
        table = prediction_files.read(results / "predictions.parquet")
        assert provenance.warnings_of_predictions(table.metadata) == metrics["warnings"]
        assert "pre-trained on Aff-Wild2 were used" in (results / "report.html").read_text()

        # and so it is where that file is scored later
        truth = runs.experiment.data / "validation_set_annotations.txt"
        status, out, _ = evaluate(
            runs,
            capsys,
            f"--predictions={results / 'predictions.parquet'}",
            f"--truth={truth}",
            f"--output={tmp_path / 'scores.json'}",
        )
        assert status == 0
        assert FORBIDDEN in out
        scores = read_json(tmp_path / "scores.json")
        assert scores["provenance"] == metrics["provenance"]
        assert scores["warnings"] == metrics["warnings"]

    @pytest.mark.slow
    def test_real_runs(self, runs, tmp_path):
        """`train` says it before the first step, where it goes on, and at the end."""
        short = ("--config.optimizer.epochs=1", "--config.training.evaluate_every_epochs=1")
        words = (f"--config.{runs.init_from}", *short)
        said = runs.run("train", *words, workdir=tmp_path / "run")
        assert said.count(FORBIDDEN) == 2
        assert said.index(FORBIDDEN) < said.index("step 5/5")
        found = read_json(tmp_path / "run" / "provenance.json")
        assert found == read_json(runs.child / "provenance.json")
        with Checkpoints(tmp_path / "run/checkpoints", keep=1, read_only=True) as checkpoints:
            for step in (checkpoints.newest(), checkpoints.best()):
                assert checkpoints.read_metadata(step)["provenance"] == found

    @pytest.mark.slow
    def test_export_of_the_child_and_its_evaluation(self, runs, tmp_path, capsys):
        output = tmp_path / "export"
        said = runs.run(
            "export", f"--config.{runs.init_from}", f"--output={output}", workdir=runs.child
        )
        assert FORBIDDEN in said
        assert exported.read_card(output)["provenance"]["aff_wild2_pretrained"] is True
        words = (f"--params={output}", f"--output={tmp_path / 'results'}")
        status, out, err = evaluate(runs, capsys, *words)
        assert (status, err) == (0, "")
        assert FORBIDDEN in out
        assert read_json(tmp_path / "results" / "metrics.json")["provenance"] == read_json(
            runs.child / "provenance.json"
        )


class TestRecorded:
    """The checkpoint's own record comes before the folder's, and both before the settings."""

    @pytest.fixture
    def config(self, runs):
        return config_lib.load(runs.experiment.config, [f"data.root={runs.experiment.data}"])

    @pytest.fixture
    def copy(self, runs, tmp_path):
        shutil.copytree(runs.child, tmp_path / "child")
        return tmp_path / "child"

    def test_checkpoint_alone(self, runs, config, copy):
        (copy / "provenance.json").unlink()
        found = self.recorded(config, copy)
        assert found == read_json(runs.child / "provenance.json")

    def test_folder_alone(self, runs, config, copy):
        self.forget(copy)
        found = self.recorded(config, copy)
        assert found == read_json(runs.child / "provenance.json")

    def test_neither(self, config, copy):
        """As runs of versions that recorded nothing: they started from random weights."""
        self.forget(copy)
        (copy / "provenance.json").unlink()
        named = ["data, in the layout of s-Aff-Wild2"]
        assert self.recorded(config, copy) == provenance.record(training_data=named)

    @pytest.mark.parametrize("content", ["{", "[]", '{"training_data": []}', "\x00"])
    def test_damaged(self, config, copy, content):
        self.forget(copy)
        (copy / "provenance.json").write_text(content)
        with pytest.raises(WeightsError, match=r"provenance\.json"):
            self.recorded(config, copy)

    def test_settings_raise_the_flag(self, runs, config, copy):
        config = config_lib.load(
            runs.experiment.config,
            [f"data.root={runs.experiment.data}", "provenance.aff_wild2_pretrained=true"],
        )
        self.forget(copy)
        (copy / "provenance.json").unlink()
        assert self.recorded(config, copy)["aff_wild2_pretrained"] is True

    @staticmethod
    def recorded(config, workdir):
        with Checkpoints(workdir / "checkpoints", keep=1, read_only=True) as checkpoints:
            return lineage.recorded(config, workdir, checkpoints, 5)

    @staticmethod
    def forget(workdir):
        """Takes the record out of the checkpoints."""
        for path in workdir.glob("checkpoints/*/_CHECKPOINT_METADATA"):
            metadata = json.loads(path.read_text())
            assert metadata["custom_metadata"]["provenance"]
            path.write_text(json.dumps(metadata | {"custom_metadata": {}}))


def test_names_of_the_data_sets(runs):
    def names(*overrides):
        return lineage.data_sets(
            config_lib.load(
                runs.experiment.config, [f"data.root={runs.experiment.data}", *overrides]
            )
        )

    assert names() == ["data, in the layout of s-Aff-Wild2"]
    for place in ("/data/s-Aff-Wild2", "/data/s_aff_wild2/release"):
        assert names(f"data.root={place}") == ["s-Aff-Wild2"]
    assert names("data.root=/mine/phone") == ["phone, in the layout of s-Aff-Wild2"]
    assert names("data.root=none", "data.shards=/mine/packed") == [
        "packed, in the layout of s-Aff-Wild2"
    ]
    assert names("data.kind=rendered_faces") == ["rendered faces"]
    abaw3 = names("data.kind=abaw3_mtl")
    assert abaw3 == ["data, in the layout of Aff-Wild2 (ABAW 3)"]
    assert names("data.kind=per_video", "data.root=/data/aff-wild2") == ["Aff-Wild2"]
    # what may be Aff-Wild2 is taken for it
    assert provenance.record(training_data=[], pretrained_on=abaw3)["aff_wild2_pretrained"]
    assert names("data.kind=manifest", "data.root=/mine/phone") == ["phone"]
    assert names(
        "data.mixture.affectnet.kind=manifest",
        "data.mixture.affectnet.root=/data/affectnet",
        "data.mixture.challenge.kind=s_aff_wild2",
        "data.mixture.challenge.root=/data/challenge",
        "data.validation=challenge",
    ) == ["affectnet", "challenge, in the layout of s-Aff-Wild2"]
