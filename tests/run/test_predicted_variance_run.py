"""A run with a variance per example and sampled dropout: predictions, scores, export."""

import json

import numpy as np
import pytest
from small_experiment import Experiment

from mtl_face.cli import main
from mtl_face.evaluation import prediction_files

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
