"""The multi-task loss against a loop in float64, against PyTorch, and with every mask."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.objective import losses, uncertainty
from mtl_face.tasks import TASKS

TEMPERATURES = {"va": 0.7, "au": 1.5, "expr": 5.0}
SETTINGS = settings(deadline=None, derandomize=True, max_examples=60)
BATCH = 6


def multi_task_loss(*arguments: Any, **options: Any) -> Any:
    return losses.multi_task_loss(*arguments, **options)


def make_outputs(rng, scale=2.0, batch=BATCH) -> dict[str, np.ndarray]:
    sizes = {"va": 2, "au": 12, "expr": 8}
    return {t: rng.normal(0, scale, (batch, n)).astype(np.float32) for t, n in sizes.items()}


def make_targets(rng, batch=BATCH) -> dict[str, np.ndarray]:
    """Soft targets, such as MixUp makes."""
    return {
        "va": rng.uniform(-1, 1, (batch, 2)).astype(np.float32),
        "au": rng.uniform(0, 1, (batch, 12)).astype(np.float32),
        "expr": rng.dirichlet(np.ones(8), batch).astype(np.float32),
    }


def make_weights(rng, batch=BATCH, *, fractional=False) -> dict[str, np.ndarray]:
    shapes = {"va": (batch,), "au": (batch, 12), "expr": (batch,)}
    weights = {}
    for task, shape in shapes.items():
        present = rng.integers(0, 2, shape)
        share = rng.uniform(0.01, 1, shape) if fractional else 1.0
        weights[task] = (present * share).astype(np.float32)
    weights["au"] *= rng.integers(0, 2, (batch, 1))  # often no AU at all
    return weights


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def reference(outputs, targets, weights, temperatures, kind) -> tuple[float, dict, dict]:
    """The docstring's formula, one example and one label at a time, in Python's floats."""
    numerator = denominator = 0.0
    sums, counts = dict.fromkeys(TASKS, 0.0), dict.fromkeys(TASKS, 0.0)
    t_va, t_au, t_expr = (temperatures[task] for task in TASKS)
    tempered = kind == "likelihood"
    for i in range(len(outputs["va"])):
        errors: dict[str, float] = {}
        shares: dict[str, float] = {}
        if weights["va"][i] > 0:
            shares["va"] = float(weights["va"][i])
            pairs = zip(outputs["va"][i], targets["va"][i], strict=True)
            errors["va"] = sum((float(y) - float(t)) ** 2 for y, t in pairs) / 2
        labelled = [k for k in range(12) if weights["au"][i, k] > 0]
        if labelled:
            shares["au"] = max(float(weights["au"][i, k]) for k in labelled)
            total = weight = 0.0
            for k in labelled:
                logit = float(outputs["au"][i, k]) / (t_au if tempered else 1.0)
                t = float(targets["au"][i, k])
                w = float(weights["au"][i, k])
                total += w * (t * softplus(-logit) + (1 - t) * softplus(logit))
                weight += w
            errors["au"] = total / weight
        if weights["expr"][i] > 0:
            shares["expr"] = float(weights["expr"][i])
            u = [float(v) / (t_expr if tempered else 1.0) for v in outputs["expr"][i]]
            log_sum = max(u) + math.log(sum(math.exp(v - max(u)) for v in u))
            errors["expr"] = sum(
                float(t) * (log_sum - v) for t, v in zip(targets["expr"][i], u, strict=True)
            )
        formulas = {
            "fixed": {
                "va": lambda e: e / (2 * t_va),
                "au": lambda e: e / (2 * t_au),
                "expr": lambda e: e / t_expr,
            },
            "learned": {
                "va": lambda e: e / (2 * t_va) + math.log(math.sqrt(t_va)),
                "au": lambda e: e / (2 * t_au) + math.log(math.sqrt(t_au)),
                "expr": lambda e: e / t_expr + math.log(math.sqrt(t_expr)),
            },
            "likelihood": {
                # Minus the logarithm of the Gaussian density, a value's mean of two.
                "va": lambda e: e / (2 * t_va) + math.log(math.sqrt(2 * math.pi * t_va)),
                "au": lambda e: e,
                "expr": lambda e: e,
            },
        }[kind]
        for task, error in errors.items():
            sums[task] += shares[task] * error
            counts[task] += shares[task]
        if shares:
            mean = sum(shares[t] * formulas[t](errors[t]) for t in shares) / sum(shares.values())
            numerator += max(shares.values()) * mean
            denominator += max(shares.values())
    total = numerator / denominator if denominator else 0.0
    means = {task: sums[task] / counts[task] if counts[task] else 0.0 for task in TASKS}
    return total, means, counts


def learned_parameters(kind: str) -> dict[str, jax.Array]:
    return {} if kind == "fixed" else uncertainty.init_uncertainty(kind, TEMPERATURES)


@jax.jit
def fixed_loss(outputs, targets, weights):
    return multi_task_loss(outputs, targets, weights, temperatures=TEMPERATURES)


def value_and_gradients(kind: str) -> Any:
    def total(outputs, learned, targets, weights):
        result = multi_task_loss(
            outputs, targets, weights, learned, kind=kind, temperatures=TEMPERATURES
        )
        return result.total, result

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


STEPS = {kind: value_and_gradients(kind) for kind in uncertainty.KINDS}


@pytest.mark.parametrize("fractional", [False, True])
@pytest.mark.parametrize("kind", uncertainty.KINDS)
def test_equals_a_loop_over_labels(kind, fractional):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        outputs, targets = make_outputs(rng), make_targets(rng)
        weights = make_weights(rng, fractional=fractional)
        (total, result), _ = STEPS[kind](outputs, learned_parameters(kind), targets, weights)
        expected, means, counts = reference(outputs, targets, weights, TEMPERATURES, kind)
        assert float(total) == pytest.approx(expected, rel=2e-5, abs=2e-6)
        for task in TASKS:
            assert float(result.task_loss[task]) == pytest.approx(means[task], rel=2e-5, abs=1e-6)
            assert float(result.task_weight[task]) == pytest.approx(counts[task], rel=1e-6)


@pytest.mark.parametrize("kind", uncertainty.KINDS)
def test_equals_pytorch_in_value_and_gradient(kind):
    rng = np.random.default_rng(7)
    outputs, targets = make_outputs(rng), make_targets(rng)
    every = {"va": np.ones(BATCH), "au": np.ones((BATCH, 12)), "expr": np.ones(BATCH)}
    weights = {task: value.astype(np.float32) for task, value in every.items()}
    (total, result), (gradients, learned_gradients) = STEPS[kind](
        outputs, learned_parameters(kind), targets, weights
    )

    functional = torch.nn.functional
    y: Any = {
        t: torch.tensor(v, dtype=torch.float64, requires_grad=True) for t, v in outputs.items()
    }
    goal = {t: torch.tensor(v, dtype=torch.float64) for t, v in targets.items()}
    log_t: Any = {
        t: torch.tensor(math.log(v), dtype=torch.float64, requires_grad=True)
        for t, v in TEMPERATURES.items()
    }
    temperature = {t: torch.exp(v) for t, v in log_t.items()}
    divisor = temperature if kind == "likelihood" else dict.fromkeys(TASKS, 1.0)
    mse = functional.mse_loss(y["va"], goal["va"])
    bce = functional.binary_cross_entropy_with_logits(y["au"] / divisor["au"], goal["au"])
    cce = functional.cross_entropy(y["expr"] / divisor["expr"], goal["expr"])
    if kind == "likelihood":
        variance = temperature["va"].expand_as(goal["va"])
        parts = [functional.gaussian_nll_loss(y["va"], goal["va"], variance, full=True), bce, cce]
    else:
        parts = [
            mse / (2 * temperature["va"]),
            bce / (2 * temperature["au"]),
            cce / temperature["expr"],
        ]
        if kind == "learned":
            parts = [part + log_t[t] / 2 for part, t in zip(parts, TASKS, strict=True)]
    expected: Any = sum(parts) / 3
    expected.backward()

    assert float(total) == pytest.approx(expected.item(), rel=1e-5)
    for task, error in zip(TASKS, (mse, bce, cce), strict=True):
        assert float(result.task_loss[task]) == pytest.approx(error.item(), rel=1e-5)
        np.testing.assert_allclose(gradients[task], y[task].grad.numpy(), rtol=2e-5, atol=1e-8)
        if kind != "fixed":
            assert float(learned_gradients[task]) == pytest.approx(
                log_t[task].grad.item(), rel=1e-4, abs=1e-6
            )


@st.composite
def masks(draw) -> dict[str, np.ndarray]:
    """Masks in which examples, and now and then the whole batch, miss everything."""
    absent = draw(st.lists(st.booleans(), min_size=BATCH, max_size=BATCH))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = make_weights(rng, fractional=draw(st.booleans()))
    for task in TASKS:
        weights[task][np.asarray(absent)] = 0
    return weights


@SETTINGS
@given(
    weights=masks(),
    kind=st.sampled_from(uncertainty.KINDS),
    marker=st.sampled_from([math.nan, -5.0, -1.0]),
)
def test_missing_targets_never_matter(weights, kind, marker):
    rng = np.random.default_rng(0)
    outputs, clean = make_outputs(rng), make_targets(rng)
    dirty = {}
    for task in TASKS:
        present = weights[task] > 0
        present = present if task == "au" else present[:, None]
        dirty[task] = np.where(present, clean[task], np.float32(marker))
        clean[task] = np.where(present, clean[task], np.float32(0))
    learned = learned_parameters(kind)
    with_clean = STEPS[kind](outputs, learned, clean, weights)
    with_dirty = STEPS[kind](outputs, learned, dirty, weights)
    for expected, got in zip(jax.tree.leaves(with_clean), jax.tree.leaves(with_dirty), strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_array_equal(expected, got)

    (total, _), (gradients, learned_gradients) = with_dirty
    for task in TASKS:
        present = weights[task] > 0
        np.testing.assert_array_equal(np.asarray(gradients[task])[~present], 0)
    if not any((weights[task] > 0).any() for task in TASKS):
        assert float(total) == 0
        assert all(float(leaf) == 0 for leaf in jax.tree.leaves(learned_gradients))


@SETTINGS
@given(weights=masks(), seed=st.integers(0, 1000))
def test_an_unlabelled_example_adds_nothing(weights, seed):
    rng = np.random.default_rng(seed)
    outputs, targets = make_outputs(rng), make_targets(rng)
    labelled = np.zeros(BATCH, bool)
    for task in TASKS:
        labelled |= (weights[task].reshape(BATCH, -1) > 0).any(axis=1)

    def cut(tree):
        return {task: value[labelled] for task, value in tree.items()}

    whole = fixed_loss(outputs, targets, weights)
    if labelled.any():
        kept = fixed_loss(cut(outputs), cut(targets), cut(weights))
        assert float(whole.total) == pytest.approx(float(kept.total), rel=1e-5)


def test_nothing_labelled_is_zero_with_zero_gradients():
    rng = np.random.default_rng(3)
    outputs = make_outputs(rng, scale=1e4)
    targets = {task: np.full_like(value, np.nan) for task, value in outputs.items()}
    weights = {task: np.zeros_like(value) for task, value in make_weights(rng).items()}
    for kind in uncertainty.KINDS:
        result, gradients = STEPS[kind](outputs, learned_parameters(kind), targets, weights)
        for leaf in jax.tree.leaves((result, gradients)):
            np.testing.assert_array_equal(leaf, 0)


def test_each_example_contributes_the_same_however_many_its_labels():
    one = {"va": np.zeros((1, 2)), "au": np.zeros((1, 12)), "expr": np.zeros((1, 8))}
    targets = {"va": np.full((1, 2), 2.0), "au": np.ones((1, 12)), "expr": np.eye(8)[:1]}

    def loss(va, au, expr):
        weights = {
            "va": np.array([va], np.float32),
            "au": np.array([au], np.float32),
            "expr": np.array([expr], np.float32),
        }
        arrays = jax.tree.map(jnp.float32, (one, targets))
        result = multi_task_loss(*arrays, weights, temperatures={"va": 1, "au": 1, "expr": 5})
        return float(result.total)

    none, all_au, first_au = [0] * 12, [1] * 12, [1] + [0] * 11
    mse, bce, cce = 4 / 2, math.log(2) / 2, math.log(8) / 5
    assert loss(1, none, 0) == pytest.approx(mse)
    assert loss(0, all_au, 0) == loss(0, first_au, 0) == pytest.approx(bce)
    assert loss(1, first_au, 0) == pytest.approx((mse + bce) / 2)
    assert loss(1, all_au, 1) == pytest.approx((mse + bce + cce) / 3)
    assert loss(1, all_au, 0) == pytest.approx((mse + bce) / 2)


@SETTINGS
@given(share=st.floats(0.01, 1.0), seed=st.integers(0, 100))
def test_a_mixed_example_counts_at_its_share(share, seed):
    """Mixed with an unlabelled one, an example keeps its loss and has `share` of the weight."""
    rng = np.random.default_rng(seed)
    outputs, targets = make_outputs(rng, batch=2), make_targets(rng, batch=2)
    weights = make_weights(rng, batch=2)
    weights["va"][:] = 1

    def alone(index):
        parts = [
            {task: value[index : index + 1] for task, value in tree.items()}
            for tree in (outputs, targets, weights)
        ]
        return float(multi_task_loss(*parts, temperatures=TEMPERATURES).total)

    mixed = {task: value.copy() for task, value in weights.items()}
    for task in TASKS:
        mixed[task][0] *= np.float32(share)
    total = multi_task_loss(outputs, targets, mixed, temperatures=TEMPERATURES).total
    expected = (share * alone(0) + alone(1)) / (share + 1)
    assert float(total) == pytest.approx(expected, rel=1e-4)


@SETTINGS
@given(seed=st.integers(0, 1000))
def test_a_label_fades_out_continuously(seed):
    """A weight of 1e-6 is as good as none, and 1 - 1e-6 as good as 1."""
    rng = np.random.default_rng(seed)
    outputs, targets = make_outputs(rng), make_targets(rng)
    weights = make_weights(rng)
    weights["va"][0] = 1  # the batch keeps a label
    almost = {
        task: np.where(w > 0, 1 - 1e-6, 1e-6).astype(np.float32) for task, w in weights.items()
    }
    assert float(fixed_loss(outputs, targets, almost).total) == pytest.approx(
        float(fixed_loss(outputs, targets, weights).total), rel=1e-3, abs=1e-4
    )


def test_full_mixup_is_the_mixture_of_both_losses():
    rng = np.random.default_rng(5)
    outputs, first, second = make_outputs(rng), make_targets(rng), make_targets(rng)
    weights = {task: np.ones_like(value) for task, value in make_weights(rng).items()}
    share = np.float32(0.3)
    mixed = {t: share * first[t] + (1 - share) * second[t] for t in TASKS}
    got = fixed_loss(outputs, mixed, weights).task_loss
    one, two = (fixed_loss(outputs, goal, weights).task_loss for goal in (first, second))
    for task in ("au", "expr"):  # cross entropies are linear in the target
        expected = share * one[task] + (1 - share) * two[task]
        assert float(got[task]) == pytest.approx(float(expected), rel=1e-5)


def test_extreme_logits_stay_finite():
    rng = np.random.default_rng(9)
    outputs = {task: 1e6 * np.sign(v) for task, v in make_outputs(rng).items()}
    weights = {task: np.ones_like(value) for task, value in make_weights(rng).items()}
    for kind in uncertainty.KINDS:
        result = STEPS[kind](outputs, learned_parameters(kind), make_targets(rng), weights)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


def test_the_batch_is_global_whatever_the_devices():
    rng = np.random.default_rng(11)
    outputs, targets = make_outputs(rng, batch=16), make_targets(rng, batch=16)
    weights = make_weights(rng, batch=16)
    for task in TASKS:
        weights[task][:5] = 0  # whole devices without a label
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = jax.device_put((outputs, targets, weights), place)
    assert float(fixed_loss(*spread).total) == pytest.approx(
        float(fixed_loss(outputs, targets, weights).total), rel=1e-6
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_wrong_shape_is_named(task):
    rng = np.random.default_rng(0)
    outputs, targets, weights = make_outputs(rng), make_targets(rng), make_weights(rng)
    weights[task] = np.ones((BATCH, 1), np.float32)
    with pytest.raises(ValueError, match=f"weight of {task}"):
        multi_task_loss(outputs, targets, weights, temperatures=TEMPERATURES)
    outputs[task] = outputs[task][:, :1]
    with pytest.raises(ValueError, match=f"output of {task}"):
        multi_task_loss(outputs, targets, weights, temperatures=TEMPERATURES)
