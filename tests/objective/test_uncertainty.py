"""Where learned temperatures settle, what predictions are, and what is refused."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

from mtl_face import config
from mtl_face.errors import ConfigError
from mtl_face.objective import losses, uncertainty
from mtl_face.tasks import TASKS

BATCH = 64
ONES = {"va": 1.0, "au": 1.0, "expr": 1.0}


def multi_task_loss(*arguments: Any, **options: Any) -> Any:
    return losses.multi_task_loss(*arguments, **options)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    outputs = {
        "va": rng.normal(0, 0.5, (BATCH, 2)),
        "au": rng.normal(0, 4, (BATCH, 12)),
        "expr": rng.normal(0, 4, (BATCH, 8)),
    }
    targets = {
        "va": rng.uniform(-1, 1, (BATCH, 2)),
        "au": rng.uniform(size=(BATCH, 12)) < special.expit(outputs["au"] / 3),
        "expr": np.eye(8)[[rng.choice(8, p=special.softmax(u / 2)) for u in outputs["expr"]]],
    }
    return jax.tree.map(lambda x: np.asarray(x, np.float32), (outputs, targets))


def labelled(*tasks: str) -> dict[str, np.ndarray]:
    """Weights that label all examples in these tasks, and none in the others."""
    shapes = {"va": (BATCH,), "au": (BATCH, 12), "expr": (BATCH,)}
    return {t: np.full(shape, t in tasks, np.float32) for t, shape in shapes.items()}


def minimise(kind, batch, weights):
    """Roots of the slope along each log temperature; the others do not enter it."""

    @jax.jit
    def gradient(log_temperatures):
        def total(learned):
            return multi_task_loss(*batch, weights, learned, kind=kind, temperatures=ONES).total

        return jax.grad(total)(log_temperatures)

    found = {}
    for task in TASKS:
        if not weights[task].any():
            continue

        def slope(value, task=task):
            start = {t: jnp.float32(0.0) for t in TASKS}
            return float(gradient(start | {task: jnp.float32(value)})[task])

        found[task] = optimize.brentq(slope, -6, 6, xtol=1e-6)
    return found


def test_learned_temperature_settles_at_the_mean_error(batch):
    weights = labelled(*TASKS)
    means = multi_task_loss(*batch, weights, temperatures=ONES).task_loss
    found = minimise("learned", batch, weights)
    assert found["va"] == pytest.approx(math.log(means["va"]), abs=1e-4)
    assert found["au"] == pytest.approx(math.log(means["au"]), abs=1e-4)
    assert found["expr"] == pytest.approx(math.log(2 * means["expr"]), abs=1e-4)


def test_likelihood_settles_at_the_maximum_likelihood(batch):
    outputs, targets = batch
    found = minimise("likelihood", batch, labelled(*TASKS))
    variance = np.mean(np.square(outputs["va"].astype(float) - targets["va"]))
    assert found["va"] == pytest.approx(math.log(variance), abs=1e-4)

    def au_likelihood(log_temperature):
        logit = outputs["au"].astype(float) / math.exp(log_temperature)
        return -np.sum(stats.bernoulli.logpmf(targets["au"], special.expit(logit)))

    def expr_likelihood(log_temperature):
        logit = outputs["expr"].astype(float) / math.exp(log_temperature)
        return -np.sum(targets["expr"] * special.log_softmax(logit, axis=1))

    for task, likelihood in (("au", au_likelihood), ("expr", expr_likelihood)):
        best = optimize.minimize_scalar(likelihood, bounds=(-3, 3), method="bounded")
        assert found[task] == pytest.approx(best.x, abs=1e-3)
    # The labels were drawn at temperatures 3 and 2.
    assert math.exp(found["au"]) == pytest.approx(3, rel=0.15)
    assert math.exp(found["expr"]) == pytest.approx(2, rel=0.4)


def test_likelihood_is_the_density_of_the_labels(batch):
    outputs, targets = batch
    temperatures = {"va": 0.3, "au": 2.0, "expr": 4.0}
    probability = special.expit(outputs["au"].astype(float) / 2.0)
    expression = special.softmax(outputs["expr"].astype(float) / 4.0, axis=1)
    expected = {
        "va": -stats.norm.logpdf(targets["va"], outputs["va"], math.sqrt(0.3)).mean(),
        "au": -stats.bernoulli.logpmf(targets["au"], probability).mean(),
        "expr": -np.log((expression * targets["expr"]).sum(-1)).mean(),
    }
    for task in TASKS:
        total = multi_task_loss(
            *batch, labelled(task), kind="likelihood", temperatures=temperatures
        ).total
        assert float(total) == pytest.approx(expected[task], rel=1e-4)


@pytest.mark.parametrize("kind", ["learned", "likelihood"])
def test_a_task_without_labels_leaves_its_temperature_alone(kind, batch):
    def total(learned):
        return multi_task_loss(*batch, labelled("au"), learned, kind=kind, temperatures=ONES).total

    gradient = jax.grad(total)(uncertainty.init_uncertainty(kind, ONES))
    assert float(gradient["va"]) == float(gradient["expr"]) == 0
    assert float(gradient["au"]) != 0


def test_learning_starts_at_the_papers_weights(batch):
    """The first gradient of the outputs is that of the fixed loss."""
    paper = {"va": 1.0, "au": 1.0, "expr": 5.0}
    outputs, targets = batch

    def gradient(kind):
        learned = uncertainty.init_uncertainty(kind, paper)

        def total(values):
            return multi_task_loss(
                values, targets, labelled(*TASKS), learned, kind=kind, temperatures=paper
            ).total

        return jax.grad(total)(outputs)

    fixed, learned = gradient("fixed"), gradient("learned")
    for task in TASKS:
        np.testing.assert_allclose(learned[task], fixed[task], rtol=1e-5, atol=1e-9)


def test_parameters_of_each_kind():
    paper = {"va": 1.0, "au": 1.0, "expr": 5.0}
    assert uncertainty.init_uncertainty("fixed", paper) == {}
    for kind in ("learned", "likelihood"):
        learned = uncertainty.init_uncertainty(kind, paper)
        assert list(learned) == list(TASKS)
        assert all(value.dtype == jnp.float32 and value.shape == () for value in learned.values())
        current = uncertainty.resolve_temperatures(ONES, learned)
        assert {t: float(v) for t, v in current.items()} == pytest.approx(paper, rel=1e-6)
    constant = uncertainty.resolve_temperatures(paper)
    assert {t: float(v) for t, v in constant.items()} == paper


def test_mistakes_are_named(batch):
    with pytest.raises(ValueError, match="'free' is not one of fixed, learned, likelihood"):
        uncertainty.init_uncertainty("free", ONES)
    for wrong in (0.0, math.nan):  # which the settings refuse, for all that follows
        with pytest.raises(ConfigError, match=r"uncertainty\.temperatures\.au"):
            config.validate({"uncertainty": {"temperatures": {"au": wrong}}}, reads_data=False)
    learned = uncertainty.init_uncertainty("learned", ONES)
    for kind, given in (("fixed", learned), ("learned", {}), ("likelihood", {"au": learned["au"]})):
        with pytest.raises(ValueError, match=f"{kind} uncertainty does not go with"):
            multi_task_loss(*batch, labelled("au"), given, kind=kind, temperatures=ONES)
