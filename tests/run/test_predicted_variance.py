"""What a network predicts with variances per example, with and without sampled dropout."""

import jax
import numpy as np
import pytest
import small_dataset
import small_experiment

from mtl_face import config as config_lib
from mtl_face.evaluation import scoring
from mtl_face.inference.predictor import Forward, Predictor
from mtl_face.run.evaluate import load_validation
from mtl_face.run.predict import predict_table
from mtl_face.training.experiment import Experiment


def predict(folder, *, temperature):
    """Tables of an untrained network by `sample_dropout`, and the labels."""
    settings = [
        f"data.root={small_dataset.write(folder / 'data')}",
        "data.source=memory",
        "model.va_variance=per_example",
        "model.dropout=0.5",
        "uncertainty.temperatures.va=0.25",
        f"uncertainty.temperatures.au={temperature}",
        f"uncertainty.temperatures.expr={temperature}",
        "evaluation.mc_dropout_samples=4",
    ]
    config = config_lib.load(small_experiment.write_config(folder), settings)
    experiment = Experiment(config)
    state = experiment.make_state()
    predictor = Predictor(
        forward=Forward(config, mesh=experiment.mesh),
        variables={"params": state.params["network"], "batch_stats": state.batch_stats},
        temperatures=experiment.temperatures(state),
        step=0,
    )
    data = load_validation(config, print)
    found = {
        sampled: predict_table(predictor, data, sample_dropout=sampled) for sampled in (False, True)
    }
    table = data.table
    return found, table


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    return predict(tmp_path_factory.mktemp("variance"), temperature=1.0)


def test_one_prediction(predicted):
    found, _ = predicted
    table = found[False]
    assert np.ptp(table.valence_std) > 0
    np.testing.assert_allclose(table.valence_std, 0.5, rtol=0.5)  # the task's, at first
    assert table.valence_epistemic_std is None
    assert table.metadata["temperatures"]["va"] == 0.25
    assert table.metadata["mc_dropout_samples"] == 0


def test_sampled_prediction(predicted):
    found, labels = predicted
    table = found[True]
    assert table.metadata["mc_dropout_samples"] == 4
    assert (table.valence_epistemic_std > 0).all()
    assert (table.au_epistemic_std > 0).all()
    assert (table.valence_std > table.valence_epistemic_std).all()
    assert (table.valence != found[False].valence).any()
    scored = scoring.score(labels, table)["va"]["uncertainty"]
    assert set(scored["coverage"]["arousal"]) == {"50", "80", "95"}
    assert jax.tree.all(jax.tree.map(np.isfinite, scored["nll"]))


def test_a_fixed_temperature_is_no_part_of_a_prediction(predicted, tmp_path):
    """It weighs the task: sampled probabilities are of the logits that the table has."""
    (expected, _), (found, _) = predicted, predict(tmp_path, temperature=5.0)
    assert found[True].metadata["temperatures"]["expr"] == 5.0
    for sampled in (False, True):
        columns = expected[sampled].columns()
        for name, column in found[sampled].columns().items():
            np.testing.assert_array_equal(column, columns[name], err_msg=name)
