"""A run with a variance per example and sampled dropout: predictions, scores, export."""

import dataclasses
import json

import numpy as np
import pytest
from small_experiment import Experiment, assert_is_users_error

from data_pipeline.formats import s_aff_wild2
from mtl_face.cli import main
from mtl_face.evaluation import prediction_files
from mtl_face.run.teachers.pseudo_labels import write_manifest

pytestmark = pytest.mark.slow

SETTINGS = (
    "--config.optimizer.epochs=1",
    "--config.training.evaluate_every_epochs=1",
    "--config.uncertainty.kind=learned",
    "--config.uncertainty.beta_nll=0.5",
    "--config.model.va_variance=per_example",
)
SAMPLED = "--config.evaluation.mc_dropout_samples=4"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    experiment = Experiment(tmp_path_factory.mktemp("variance"))
    assert main.main(experiment.arguments("train", *SETTINGS)) == 0
    return experiment


def read(folder):
    table = prediction_files.read(folder / "predictions.parquet")
    return table, json.loads((folder / "metrics.json").read_text())


def test_predictions_and_scores(trained):
    table, metrics = read(trained.workdir / "evaluation")
    assert np.ptp(table.valence_std) > 0
    assert table.valence_epistemic_std is None
    assert set(metrics["va"]["uncertainty"]["coverage"]["arousal"]) == {"50", "80", "95"}
    assert 0.9 < table.metadata["temperatures"]["va"] < 1.1  # learned, from 1


def test_export_and_its_card(trained, tmp_path):
    before, _ = read(trained.workdir / "evaluation")
    export = tmp_path / "export"
    assert main.main(trained.arguments("export", *SETTINGS, f"--output={export}")) == 0
    card = json.loads((export / "model.json").read_text())
    assert card["tasks"]["va"]["variance"]["output"] == "va_log_variance"
    assert card["tensors"]["params/head_va/dense2/bias"]["shape"] == [4]
    root = f"--config.data.root={trained.data}"
    output = f"--output={tmp_path / 'again'}"
    assert main.main(["evaluate", f"--params={export}", root, output]) == 0
    after, _ = read(tmp_path / "again")
    np.testing.assert_allclose(after.arousal_std, before.arousal_std, rtol=1e-5)


def test_sampled_dropout(trained):
    before, _ = read(trained.workdir / "evaluation")
    assert main.main(trained.arguments("evaluate", *SETTINGS, SAMPLED)) == 0
    table, metrics = read(trained.workdir / "evaluation")
    assert table.metadata["mc_dropout_samples"] == 4
    assert (table.valence_epistemic_std > 0).all()
    assert (table.au_epistemic_std > 0).all()
    assert (table.valence_std > table.valence_epistemic_std).all()
    assert metrics["va"]["uncertainty"]["nll"] is not None
    assert (table.valence != before.valence).any()
    assert main.main(trained.arguments("evaluate", *SETTINGS, SAMPLED)) == 0
    np.testing.assert_array_equal(
        read(trained.workdir / "evaluation")[0].valence_std, table.valence_std
    )


def test_several_annotators(tmp_path, capsys):
    """Their spread is trained on, judged, and demanded where there is none."""
    experiment = Experiment(tmp_path)
    for split, name in (("training", "train"), ("validation", "validation")):
        path = experiment.data / f"{split}_set_annotations.txt"
        root = experiment.data / "cropped_aligned"
        table = s_aff_wild2.read_annotations(path, image_root=root, dataset="small")
        raters = np.random.default_rng(0).uniform(0.1, 0.9, (len(table), 3)).astype(np.float32)
        raters[:, 2] = 3
        raters[np.isnan(table.va).any(axis=1)] = np.nan
        write_manifest(experiment.data / f"{name}.csv", dataclasses.replace(table, raters=raters))
    options = (
        *("--config.data.kind=manifest", "--config.loss.va.spread=1.0"),
        *("--config.augmentation.mixup_alpha=0.3", "--config.optimizer.batch_size=16"),
    )
    result = experiment.run(capsys, "train", *SETTINGS, *options)
    assert_is_users_error(result, "no row of the training set has several annotators")
    options = (*options, "--config.data.soft_labels=true")
    assert main.main(experiment.arguments("train", *SETTINGS, *options)) == 0
    _, metrics = read(experiment.workdir / "evaluation")
    found = metrics["va"]["uncertainty"]["raters"]
    assert found["num_valid"] == metrics["va"]["num_valid"]
    assert -1 < found["rank_correlation"]["valence"] < 1
    assert found["rmse"]["arousal"] > metrics["va"]["rmse"]["arousal"]
    page = (experiment.workdir / "evaluation" / "report.html").read_text()
    assert "rank correlation with the annotators" in page
