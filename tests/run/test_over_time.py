"""A network over time from the command line: trained on tokens, killed, gone on with, evaluated."""

import dataclasses
import shutil

import drawn_run
import jax
import numpy as np
import pytest
from small_experiment import Experiment, assert_is_users_error

import mtl_face
from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.errors import ConfigError, WeightsError
from mtl_face.evaluation import prediction_files
from mtl_face.inference.predictor import Forward, Predictor
from mtl_face.run import datasets, models, provenance
from mtl_face.run.inputs.over_time import Windowed, find_inputs
from mtl_face.run.predict import predict_table
from mtl_face.training import experiment as experiments

pytestmark = pytest.mark.slow

TEMPORAL = (
    *("temporal.kind=convolution", "temporal.window=4", "temporal.layers=1", "temporal.width=8"),
    *("optimizer.batch_size=8", "optimizer.epochs=2", "training.evaluate_every_epochs=1"),
    "evaluation.batch_size=8",
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A network of frames whose weights are drawn, in `run`, and its data."""
    experiment = Experiment(tmp_path_factory.mktemp("over_time"))
    drawn_run.write(experiment, experiment.workdir)
    return experiment


def settings(experiment, *more, frames=None):
    named = (*TEMPORAL, f"temporal.frame_model={frames or experiment.workdir}", *more)
    return config_lib.load(experiment.config, [f"data.root={experiment.data}", *named])


@pytest.fixture(scope="module")
def trained(experiment):
    result = mtl_face.train(settings(experiment), experiment.folder / "temporal", say=print)
    return result.workdir, result


def arrays_of(workdir):
    return jax.device_get(models.load(workdir).variables)


def test_it_answers_every_row_and_keeps_what_it_read(experiment, trained):
    workdir, result = trained
    assert result.step == 4  # 16 windows of 4 rows, twice
    table = prediction_files.read(workdir / "evaluation" / "predictions.parquet")
    assert len(table) == 19
    assert np.isfinite(table.va).all()
    recorded = models.load(workdir).origin["provenance"]["initial_weights"]
    assert recorded["sha256"] == models.load(experiment.workdir).origin["weights_sha256"]


def test_before_training_its_answers_are_those_of_the_frames(experiment):
    config = settings(experiment)
    assembled = experiments.Experiment(config)
    state = assembled.make_state()
    predictor = Predictor(
        Forward(config, mesh=assembled.mesh),
        {"params": state.params["network"], "batch_stats": state.batch_stats},
        assembled.temperatures(state),
        step=0,
    )
    truth = datasets.load_split(config.data, "validation", print)
    found = predict_table(predictor, find_inputs(config, truth, print, predictor=predictor))
    frames = models.load(experiment.workdir)
    own = predict_table(frames, find_inputs(frames.config, truth, print, predictor=frames))
    # Answers beside tokens are those of another program than answers alone: they round differently.
    for task in ("va", "au", "expr"):
        np.testing.assert_allclose(found.values(task), own.values(task), rtol=1e-6, atol=1e-6)


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    experiment, trained, tmp_path, monkeypatch
):
    workdir = tmp_path / "stopped"
    config = settings(experiment, "training.checkpoint_every_steps=1")

    class KilledError(Exception):
        pass

    whole = Windowed.train_batches

    def two_batches(self, *arguments, start_step, **options):
        for number, batch in enumerate(whole(self, *arguments, start_step=start_step, **options)):
            if start_step + number == 3:
                raise KilledError
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(Windowed, "train_batches", two_batches)
        with pytest.raises(KilledError):
            mtl_face.train(config, workdir, say=print)
    again = mtl_face.train(config, workdir, say=print)
    assert again.step == 4
    jax.tree.map(np.testing.assert_array_equal, arrays_of(workdir), arrays_of(trained[0]))


def test_four_tokens_of_each_frame(experiment, trained, tmp_path):
    """Trained, evaluated by the run's own settings, and refused under others."""
    config = settings(experiment, "temporal.tokens=task+patches", "optimizer.epochs=1")
    workdir = mtl_face.train(config, tmp_path / "four", say=print).workdir
    predictor = models.load(workdir)
    read = predictor.variables["params"]["read"]["kernel"]
    assert len(read) == len(models.load(trained[0]).variables["params"]["read"]["kernel"]) + 16
    truth = datasets.load_split(config.data, "validation", print)
    rows = find_inputs(config, truth, print, predictor=predictor)
    table = predict_table(predictor, rows)
    kept = prediction_files.read(workdir / "evaluation" / "predictions.parquet")
    np.testing.assert_allclose(table.va, kept.va, atol=1e-6)
    token_N4D = np.array(rows.arrays["tokens"])
    token_N4D[:, 3] = np.flip(token_N4D[:, 3], axis=1)
    other = dataclasses.replace(rows, arrays={**rows.arrays, "tokens": token_N4D})
    assert np.abs(predict_table(predictor, other).va - kept.va).max() > 0
    three = settings(experiment)
    with pytest.raises(WeightsError, match=r"trained on temporal\.tokens=task\+patches"):
        find_inputs(three, truth, print, predictor=predictor)
    with pytest.raises(WeightsError, match=r"trained on temporal\.tokens=task, and"):
        find_inputs(config, truth, print, predictor=models.load(trained[0]))


def test_variances_from_features_are_corrected_too(experiment, tmp_path):
    varies = "model.va_variance=from_features"
    frames = tmp_path / "frames"
    drawn_run.write(experiment, frames, varies)
    learned = ("uncertainty.kind=learned", "uncertainty.beta_nll=0.5", "optimizer.epochs=1")
    config = settings(experiment, varies, *learned, frames=frames)
    workdir = mtl_face.train(config, tmp_path / "temporal", say=print).workdir
    table = prediction_files.read(workdir / "evaluation" / "predictions.parquet")
    assert np.ptp(table.valence_std) > 0
    correction = models.load(workdir).variables["params"]["correction"]["bias"]
    assert len(correction) == 24


def test_the_tokens_of_other_weights_are_refused(trained, monkeypatch):
    changed = {"initial_weights": {"sha256": "1" * 64, "file": "other"}}
    monkeypatch.setattr(provenance, "recorded", lambda *_: changed)
    with pytest.raises(WeightsError, match="is not the network of frames") as caught:
        models.load(trained[0])
    assert "which was other" in caught.value.remedy


def test_what_it_is_not_for_is_said(experiment, tmp_path):
    config = config_lib.load(experiment.config, [f"data.root={experiment.data}", *TEMPORAL])
    with pytest.raises(ConfigError, match="names no network"):
        mtl_face.train(config, tmp_path / "none", say=print)
    with pytest.raises(ConfigError, match=r"model\.embed_dim is 32, and the network"):
        mtl_face.train(settings(experiment, "model.embed_dim=32"), tmp_path / "wide", say=print)
    for wrong in ("augmentation.mixup_alpha=1", "data.sampling=weighted", "temporal.width=9"):
        with pytest.raises(ConfigError, match=r"temporal|windows"):
            settings(experiment, wrong)


def test_the_commands(experiment, trained, tmp_path, capsys):
    workdir, _ = trained
    moved = tmp_path / "moved"
    shutil.copytree(experiment.workdir, moved)
    status = main.main(["evaluate", f"--model={workdir}", f"--config.temporal.frame_model={moved}"])
    assert status == 0, capsys.readouterr().err
    capsys.readouterr()
    result = main.main(["features", f"--model={workdir}"]), *capsys.readouterr()
    assert_is_users_error(result, "a network over time")
