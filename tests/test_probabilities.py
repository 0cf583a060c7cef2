"""Which probability a network's outputs stand for, and what a table says of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from mtl_face import config as config_lib
from mtl_face import probabilities
from mtl_face.errors import ConfigError
from mtl_face.objective.losses import multi_task_loss
from mtl_face.objective.uncertainty import KINDS, init_uncertainty

TEMPERATURES = {"va": 0.3, "au": 2.0, "expr": 5.0}
OVER_T = {"au": 2.0, "expr": 5.0}
AS_IT_IS = {"au": 1.0, "expr": 1.0}


@pytest.mark.parametrize(
    ("kind", "fitted"), [("fixed", AS_IT_IS), ("learned", AS_IT_IS), ("likelihood", OVER_T)]
)
def test_divisors_of_each_kind(kind, fitted):
    assert probabilities.divisors(kind, TEMPERATURES) == fitted
    assert probabilities.divisors(kind, TEMPERATURES, "paper") == OVER_T
    assert probabilities.statement(kind, TEMPERATURES, "fitted") == {
        "definition": "fitted",
        "divisors": fitted,
    }


def test_an_unknown_definition_is_refused():
    with pytest.raises(ValueError, match="'eq1', expected fitted or paper"):
        probabilities.divisors("fixed", TEMPERATURES, "eq1")
    with pytest.raises(ConfigError, match=r"evaluation\.probability"):
        config_lib.load_values({}, ["evaluation.probability=eq1"], "settings")


@pytest.mark.parametrize(
    ("name", "definition"),
    [("paper", "paper"), ("paper_mixup", "paper"), ("rendered_faces", "fitted")],
)
def test_experiments_of_the_paper_report_its_probabilities(name, definition):
    path = Path(__file__).parents[1] / "configs" / f"{name}.py"
    config = config_lib.load(path, ["data.root=."] if definition == "paper" else [])
    assert config.evaluation.probability == definition


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_is_what_the_loss_compares_with_the_labels(kind):
    """The cross entropies that training minimises are those of the `fitted` probabilities."""
    rng = np.random.default_rng(0)
    outputs = {
        name: rng.normal(0, 3, (16, size)).astype(np.float32)
        for name, size in (("va", 2), ("au", 12), ("expr", 8))
    }
    expression = rng.integers(0, 8, 16)
    targets = {
        "va": outputs["va"],
        "au": rng.integers(0, 2, (16, 12)).astype(np.float32),
        "expr": np.eye(8, dtype=np.float32)[expression],
    }
    weights = {"va": np.ones(16), "au": np.ones((16, 12)), "expr": np.ones(16)}
    learned = init_uncertainty(kind, TEMPERATURES)
    found = multi_task_loss(
        outputs, targets, weights, learned, kind=kind, temperatures=TEMPERATURES
    ).task_loss
    divisors = probabilities.divisors(kind, TEMPERATURES)
    au = special.expit(outputs["au"].astype(float) / divisors["au"])
    expr = special.softmax(outputs["expr"].astype(float) / divisors["expr"], axis=1)
    assert found["au"] == pytest.approx(-stats.bernoulli.logpmf(targets["au"], au).mean(), rel=1e-4)
    assert found["expr"] == pytest.approx(-np.log(expr[np.arange(16), expression]).mean(), rel=1e-4)


def test_what_tables_state():
    old = {"config": {"uncertainty": {"kind": "likelihood"}}, "temperatures": TEMPERATURES}
    assert probabilities.stated(old) == {"definition": "fitted", "divisors": OVER_T}
    paper = probabilities.statement("fixed", TEMPERATURES, "paper")
    assert probabilities.stated({**old, "probability": paper}) == paper
    for unknown in ({}, {"config": {"name": "tiny"}}, {"temperatures": TEMPERATURES}):
        assert probabilities.stated(unknown) is None


def test_light():
    code = "import sys, mtl_face.probabilities\nassert not {'jax', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
