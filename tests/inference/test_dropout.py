"""Monte Carlo dropout against a loop by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_face.evaluation import ensemble
from mtl_face.inference.dropout import (
    EPISTEMIC,
    combine_samples,
    make_dropout_step,
    sample_keys,
)
from mtl_face.inference.predictor import output_sizes, predict_rows, table_columns
from mtl_face.tables import PredictionTable
from mtl_face.tasks import OUTPUT_SIZES, VA_LOG_VARIANCE
from mtl_face.training import sharding

SAMPLES, BATCH = 5, 8
TEMPERATURES = {"va": 0.2, "au": 1.5, "expr": 3.0}


class Network(nn.Module):
    """Called like the real network: dropout, then a head of each task, and variances."""

    @nn.compact
    def __call__(self, inputs, *, train, sample_dropout=False):
        image_BHWC = inputs["image"]
        value = nn.Dense(64)(image_BHWC.reshape(len(image_BHWC), -1) / 255)
        value = nn.Dropout(0.3, deterministic=not (train or sample_dropout))(nn.relu(value))
        outputs = {task: nn.Dense(size)(value) for task, size in OUTPUT_SIZES.items()}
        return outputs | {VA_LOG_VARIANCE: nn.Dense(2)(value)}


NETWORK = Network()


def prepare(inputs):
    return {"image": inputs["image"].astype(jnp.float32)}


@pytest.fixture(scope="module")
def images():
    return {"image": np.random.default_rng(0).integers(0, 256, (BATCH, 4, 4, 3)).astype(np.uint8)}


@pytest.fixture(scope="module")
def variables(images):
    """Parameters, and no running statistics."""
    return NETWORK.init(jax.random.key(0), prepare(images), train=False)["params"], {}


def sampled(variables, images, seed=0, index=None, **options):
    step = make_dropout_step(NETWORK, prepare=prepare, samples=SAMPLES, seed=seed, **options)
    index = np.arange(BATCH, dtype=np.int32) if index is None else index
    divisors = {name: jnp.float32(value) for name, value in TEMPERATURES.items()}
    return jax.device_get(step(*variables, images, index, divisors=divisors))


@pytest.fixture(scope="module")
def found(variables, images):
    return sampled(variables, images)


def table_of(outputs, divisors):
    columns = table_columns(outputs, kind="fixed", temperatures=TEMPERATURES, divisors=divisors)
    names = np.array([f"v/{i}.jpg" for i in range(BATCH)])
    keys = {"dataset": np.full(BATCH, "d"), "video": np.full(BATCH, "v")}
    return PredictionTable(frame=np.arange(BATCH), image=names, **keys, **columns)


@pytest.mark.parametrize("divisors", [TEMPERATURES, dict.fromkeys(TEMPERATURES, 1.0)])
def test_samples_are_averaged_as_an_ensemble(variables, images, divisors):
    """A loop over the samples, each a table of its own, against the one step."""
    params, batch_stats = variables
    loop = jax.jit(
        lambda key: NETWORK.apply(
            {"params": params, "batch_stats": batch_stats},
            prepare(images),
            train=False,
            sample_dropout=True,
            rngs={"dropout": key},
        )
    )
    each = [jax.device_get(loop(key)) for key in sample_keys(0, 0, SAMPLES)]
    assert np.std([outputs["va"] for outputs in each], axis=0).min() > 1e-4
    expected = ensemble.combine(
        [table_of(outputs, divisors) for outputs in each], names=[str(i) for i in range(SAMPLES)]
    )
    step = make_dropout_step(NETWORK, prepare=prepare, samples=SAMPLES, seed=0)
    scale = {name: jnp.float32(value) for name, value in divisors.items()}
    outputs = jax.device_get(step(*variables, images, np.arange(BATCH), divisors=scale))
    mean = table_of({k: v for k, v in outputs.items() if k != "index"}, divisors)
    for name, column in expected.columns().items():
        if name not in ("dataset", "video", "image"):
            np.testing.assert_allclose(
                mean.columns()[name], column, rtol=2e-3, atol=2e-5, err_msg=name
            )
    aleatoric = np.sqrt(mean.valence_std**2 - mean.valence_epistemic_std**2)
    own = np.mean([T_exp(outputs)[:, 0] for outputs in each], axis=0)
    np.testing.assert_allclose(aleatoric, np.sqrt(own), rtol=1e-4)


def T_exp(outputs):  # noqa: N802
    return TEMPERATURES["va"] * np.exp(outputs[VA_LOG_VARIANCE])


def test_the_seed_decides(variables, images, found):
    again = sampled(variables, images)
    for name, value in found.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    other = sampled(variables, images, seed=1)
    assert (other["va"] != found["va"]).all()
    elsewhere = sampled(variables, images, index=np.arange(BATCH, dtype=np.int32) + 64)
    assert (elsewhere["va"] != found["va"]).all()


def test_on_eight_devices(variables, images, found):
    mesh = sharding.make_mesh(data=8, fsdp=1)
    placed = jax.device_put(images, sharding.by_example(mesh))
    other = sampled(variables, placed, out_shardings=sharding.replicated(mesh))
    for name, value in found.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_rows_of_a_whole_table(variables, images, found):
    step = make_dropout_step(NETWORK, prepare=prepare, samples=SAMPLES, seed=0)
    scale = {name: jnp.float32(value) for name, value in TEMPERATURES.items()}
    batch = {**images, "index": np.arange(BATCH, dtype=np.int32)}
    sizes = output_sizes(va_variance=True, sampled=True)
    rows = predict_rows(
        functools.partial(step, divisors=scale),
        *variables,
        iter([batch]),
        num_rows=BATCH,
        sizes=sizes,
    )
    assert rows.keys() == {*OUTPUT_SIZES, VA_LOG_VARIANCE, *EPISTEMIC.values()}
    for name, value in rows.items():
        assert value.shape == (BATCH, sizes[name])
        np.testing.assert_array_equal(value, found[name])


def test_sure_samples_stay_finite():
    """Probabilities that are 0 and 1 in float32 keep their logits."""
    outputs = {
        "va": np.zeros((2, 1, 2), np.float32),
        "au": np.full((2, 1, 12), 300.0, np.float32),
        "expr": np.tile(np.array([300.0] + [0.0] * 7, np.float32), (2, 1, 1)),
    }
    mean = jax.jit(combine_samples)(outputs, dict.fromkeys(TEMPERATURES, 1.0))
    np.testing.assert_allclose(mean["au"], 300.0)
    np.testing.assert_allclose(mean["expr"][0, 0] - mean["expr"][0, 1], 300.0)
    assert (np.asarray(mean[EPISTEMIC["au"]]) == 0).all()
