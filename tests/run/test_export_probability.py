"""A stranger with an export's card, NumPy and the network's outputs gets what was scored."""

import copy
import dataclasses

import drawn_run
import jax
import numpy as np
import pytest
from small_experiment import Experiment

from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.evaluation import scoring
from mtl_face.inference.predictor import Forward
from mtl_face.run import datasets, models
from mtl_face.run.inputs.pixels import find_pixels
from mtl_face.run.predict import predict_table
from mtl_face.training.experiment import Experiment as TrainExperiment
from mtl_face.weights import exported

KINDS = ("fixed", *(pytest.param(k, marks=pytest.mark.slow) for k in ("learned", "likelihood")))
BATCH = 8


class Runs:
    """Drawn runs of each kind, whose evaluations share one compiled network."""

    def __init__(self, folder):
        self.folder = folder
        self.experiment = Experiment(folder)
        config = self.config("fixed", "fitted")
        self.forward = Forward(config, mesh=TrainExperiment(config).mesh)
        table = datasets.load_split(config.data, "validation", print)
        self.data = find_pixels(config, table, print)

    def config(self, kind, definition):
        settings = [f"data.root={self.experiment.data}", "data.source=memory"]
        settings += [f"uncertainty.kind={kind}", f"evaluation.probability={definition}"]
        return config_lib.load(self.experiment.config, settings)

    def evaluate(self, kind, definition):
        """The table, its scores, and the raw outputs of the network."""
        if not (self.folder / kind).exists():
            drawn_run.write(self.experiment, self.folder / kind, f"uncertainty.kind={kind}")
        config = self.config(kind, definition)
        predictor = models.open_run(self.folder / kind, config, lambda line: None)
        forward = copy.copy(self.forward)  # compiled once
        forward.config = config
        table = predict_table(dataclasses.replace(predictor, forward=forward), self.data)
        labels, image_NSSC = self.data.table, self.data.source
        rows = np.resize(np.arange(len(labels), dtype=np.int32), (-(-len(labels) // BATCH), BATCH))
        variables = predictor.variables
        parts = [
            jax.device_get(
                self.forward.plain(
                    variables["params"], variables["batch_stats"], {"image": image_NSSC[some]}, some
                )
            )
            for some in rows
        ]
        raw = {
            task: np.concatenate([part[task] for part in parts])[: len(labels)].astype(float)
            for task in ("au", "expr")
        }
        return table, scoring.score(labels, table), raw

    def card(self, kind, definition):
        output = self.folder / f"{kind}_{definition}"
        words = [
            f"--config.uncertainty.kind={kind}",
            f"--config.evaluation.probability={definition}",
        ]
        words += ["--format=safetensors", f"--output={output}"]
        given = self.experiment.arguments("export", *words, workdir=self.folder / kind)
        assert main.main(given) == 0
        return exported.read_card(output)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("definition", ["fitted", "paper"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_card_alone_gives_the_probabilities_that_were_scored(runs, kind, definition):
    table, scores, raw = runs.evaluate(kind, definition)
    card = runs.card(kind, definition)
    assert card["tasks"]["au"]["reading"].startswith("probability: sigmoid(logit / divisor)")
    assert card["tasks"]["expr"]["reading"].startswith("probabilities: softmax(logits / divisor)")
    divisors = card["probability"]["divisors"]
    au_NA = 1.0 / (1.0 + np.exp(-raw["au"] / divisors["au"]))
    power_NE = np.exp(raw["expr"] / divisors["expr"])
    expr_NE = power_NE / power_NE.sum(axis=1, keepdims=True)

    labels = runs.data.table
    there_NA = ~np.isnan(labels.au)
    told_NA = np.where(labels.au == 1, au_NA, 1.0 - au_NA)[there_NA]
    assert scores["au"]["uncertainty"]["nll"] == pytest.approx(-np.log(told_NA).mean(), rel=1e-6)
    there = np.flatnonzero(labels.expression >= 0)
    told_N = expr_NE[there, labels.expression[there]]
    assert scores["expr"]["uncertainty"]["nll"] == pytest.approx(-np.log(told_N).mean(), rel=1e-6)

    assert card["probability"]["definition"] == definition
    assert table.metadata["probability"] == card["probability"]
    divided = definition == "paper" or kind == "likelihood"
    assert (divisors["expr"] != 1.0) == divided
    np.testing.assert_array_equal(table.au, au_NA > 0.5)
    np.testing.assert_array_equal(table.expression, raw["expr"].argmax(axis=1))
