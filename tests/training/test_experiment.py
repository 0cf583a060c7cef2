"""From settings to parts, and the real network's step on one device and on eight."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_face import config as config_lib
from mtl_face.config.schema import MeshConfig
from mtl_face.inference.predictor import Forward
from mtl_face.model.network import MtlFace
from mtl_face.objective import losses, uncertainty
from mtl_face.objective.class_weights import ClassCounts
from mtl_face.objective.task_errors import AuError, ExprError
from mtl_face.tasks import OUTPUT_SIZES, TASKS
from mtl_face.training import sharding
from mtl_face.training.experiment import Experiment
from mtl_face.training.step import inputs_of

SIZE, BATCH = 32, 16

COLLECTIVE = re.compile(
    r"\b(all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(?:-start)?\("
)


def make_config(**changes):
    values = {
        "data": {"root": "/data", "image_size": SIZE},
        "model": {
            "input_size": SIZE,
            "input_mean": (128.0, 128.0, 128.0),
            "input_std": (64.0, 64.0, 64.0),
            "backbone": {"stage_sizes": (1,), "width": 8, "expansion": 2},
            "embed_dim": 16,
            "num_heads": 4,
            "encoder_layers": 1,
            "decoder_modules": 1,
            "head_layers": 2,
            "head_width": 16,
        },
        "augmentation": {"mixup_alpha": 0.4},
        "optimizer": {"batch_size": BATCH},
    }
    return config_lib.validate(values | changes)


def make_batch(seed):
    """A global batch of which the first device's share has no label, and others few."""
    random = np.random.default_rng(seed)
    weights = {
        "va": random.integers(0, 2, BATCH),
        "au": random.integers(0, 2, (BATCH, 12)),
        "expr": random.integers(0, 2, BATCH),
    }
    for weight in weights.values():
        weight[:4] = 0
    targets = {
        "va": random.uniform(-1, 1, (BATCH, 2)),
        "au": random.integers(0, 2, (BATCH, 12)),
        "expr": np.eye(8)[random.integers(0, 8, BATCH)],
    }
    targets["va"][weights["va"] == 0] = np.nan
    return {
        "image": random.integers(0, 256, (BATCH, SIZE, SIZE, 3)).astype(np.uint8),
        "targets": {name: value.astype(np.float32) for name, value in targets.items()},
        "weights": {name: value.astype(np.float32) for name, value in weights.items()},
    }


@functools.cache
def ten_steps(data, fsdp):
    """(numbers of ten steps, last state, text of the compiled step), with plain SGD.

    Adam divides by tiny moments, which magnifies rounding beyond any fixed tolerance.
    """
    config = dataclasses.replace(make_config(), seed=5, mesh=MeshConfig(data=data, fsdp=fsdp))
    experiment = Experiment(config, devices=jax.devices()[: data * fsdp])
    experiment.optimizer = optax.sgd(0.05, momentum=0.9)
    step, free = experiment.train_step(), np.float32(0)
    state, rows, compiled = experiment.make_state(), [], None
    for index in range(10):
        batch = jax.device_put(make_batch(index), sharding.by_example(experiment.mesh))
        if compiled is None:
            compiled = step.lower(state, batch, free).compile()
        state, numbers = compiled(state, batch, free)
        rows.append(numbers)
    return jax.device_get(rows), jax.device_get((state.params, state.batch_stats)), compiled


@pytest.mark.slow
@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (4, 2)])
def test_real_network_on_one_and_on_eight_devices(data, fsdp):
    """With everything on: augmentation, MixUp, dropout, batch norms, uneven masks."""
    expected_rows, expected, _ = ten_steps(1, 1)
    rows, found, compiled = ten_steps(data, fsdp)
    for row, other in zip(rows, expected_rows, strict=True):
        assert row.keys() == other.keys()
        assert {"loss", "gradient_norm", *TASKS} <= row.keys()
        for name, value in row.items():
            np.testing.assert_allclose(value, other[name], rtol=2e-4, err_msg=name)
    np.testing.assert_allclose(
        [row["loss"] for row in rows], [row["loss"] for row in expected_rows], rtol=2e-5
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found, expected
    )
    if fsdp == 1:
        assert set(COLLECTIVE.findall(compiled.as_text())) == {"all-reduce"}


def test_paper_preset_has_the_papers_size():
    config = config_lib.validate({"data": {"root": "/data"}})
    network = MtlFace(config.model)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    outputs, variables = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=False), image
    )
    assert {task: outputs[task].shape for task in TASKS} == {
        task: (1, size) for task, size in OUTPUT_SIZES.items()
    }
    shapes = variables["params"]
    assert shapes["projection"]["kernel"].shape == (2048, 768)
    assert sum(name.startswith("layer") for name in shapes["encoder"]) == 2
    assert {"dense1", "dense2", "dense3", "dense4"} == set(shapes["head_va"])


@pytest.mark.parametrize("kind", uncertainty.KINDS)
def test_objective_reports_each_task(kind):
    config = make_config(uncertainty={"kind": kind, "temperatures": {"expr": 2.0}})
    experiment = Experiment(config)
    learned = experiment.make_state().params["uncertainty"]
    assert bool(learned) == (kind != "fixed")
    random = np.random.default_rng(0)
    outputs = {
        task: jnp.asarray(random.normal(size=(BATCH, size)), jnp.float32)
        for task, size in OUTPUT_SIZES.items()
    }
    batch = make_batch(0)
    loss, numbers = experiment.objective(outputs, batch["targets"], batch["weights"], learned)
    assert np.isfinite(loss)
    for task in TASKS:
        weight = batch["weights"][task]
        labelled = weight.max(-1) if task == "au" else weight
        assert float(numbers[f"{task}_weight"]) == labelled.sum()
        assert np.isfinite(numbers[task])
    temperatures = {name: float(value) for name, value in numbers.items() if "temperature" in name}
    if kind == "fixed":
        assert temperatures == {}
    else:
        assert temperatures == pytest.approx(
            {"temperature_va": 1.0, "temperature_au": 1.0, "temperature_expr": 2.0}
        )


def test_temperatures_weigh_the_tasks():
    """The paper's loss: doubling T_e halves the share of the expressions."""
    batch = make_batch(0)
    batch["weights"]["va"][:] = 0
    batch["weights"]["au"][:] = 0
    outputs = {task: jnp.ones((BATCH, size)) for task, size in OUTPUT_SIZES.items()}
    losses = [
        float(
            Experiment(make_config(uncertainty={"temperatures": {"expr": expr}})).objective(
                outputs, batch["targets"], batch["weights"], {}
            )[0]
        )
        for expr in (2.0, 4.0)
    ]
    assert losses[0] == pytest.approx(2 * losses[1])
    assert losses[1] == pytest.approx(np.log(8) / 4)


def test_settings_of_the_loss_reach_it():
    """Each option against the loss that is given the same numbers by hand."""
    counts = ClassCounts((1.0,) * 4 + (2.0,) * 4, (1.0,) * 12, (5.0,) * 12)
    settings = {
        "va": {"ccc": 0.5},
        "au": {
            "positive_weights": "inverse",
            "gamma_positive": 1.0,
            "gamma_negative": 2.0,
            "margin": 0.05,
            "label_smoothing": 0.1,
        },
        "expr": {"class_weights": "inverse", "gamma": 2.0, "label_smoothing": 0.2},
    }
    batch = make_batch(0)
    random = np.random.default_rng(0)
    outputs = {
        task: jnp.asarray(random.normal(size=(BATCH, size)), jnp.float32)
        for task, size in OUTPUT_SIZES.items()
    }
    arguments = (outputs, batch["targets"], batch["weights"])
    config = make_config(loss=settings)
    found = Experiment(config, class_counts=counts).objective(*arguments, {})[0]
    expected = losses.multi_task_loss(
        *arguments,
        temperatures={"va": 1.0, "au": 1.0, "expr": 5.0},
        options=losses.LossOptions(
            va_ccc=0.5,
            au=AuError(1.0, 2.0, 0.05, 0.1, (4.0,) * 12),
            expr=ExprError(2.0, 0.2, (1.5,) * 4 + (0.75,) * 4),
        ),
    )
    assert float(found) == pytest.approx(float(expected.total), rel=1e-6)
    plain = losses.multi_task_loss(*arguments, temperatures={"va": 1.0, "au": 1.0, "expr": 5.0})
    assert abs(float(plain.total) / float(found) - 1) > 0.05
    assert float(Experiment(make_config()).objective(*arguments, {})[0]) == float(plain.total)
    with pytest.raises(ValueError, match="counts"):
        Experiment(config).objective(*arguments, {})


def test_schedules_count_in_epochs():
    config = make_config(
        optimizer={
            "epochs": 4,
            "warmup_epochs": 2.0,
            "learning_rate": 1.0,
            "backbone_learning_rate": 0.5,
            "backbone_decay": 0.5,
        }
    )
    rates = Experiment(config, steps_per_epoch=10).learning_rates
    assert [float(rates["rest"](step)) for step in (0, 19, 79)] == pytest.approx([0.05, 1.0, 0.5])
    assert [float(rates["backbone"](step)) for step in (0, 9, 10, 25)] == pytest.approx(
        [0.5, 0.5, 0.25, 0.125]
    )


def test_cosine_schedules():
    config = make_config(
        optimizer={
            "epochs": 4,
            "warmup_epochs": 2.0,
            "learning_rate": 1.0,
            "schedule": "cosine",
            "backbone_learning_rate": 0.5,
            "backbone_schedule": "cosine",
        }
    )
    rates = Experiment(config, steps_per_epoch=10).learning_rates
    for name, peak in (("rest", 1.0), ("backbone", 0.5)):
        values = [float(rates[name](step)) for step in (10, 20, 30, 40)]
        assert values == pytest.approx([peak / 2, peak, peak / 2, 0.0], abs=1e-6)


def test_preparation_is_the_resize_alone():
    config = make_config(model={"input_size": 64, "embed_dim": 16, "num_heads": 4})
    image = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    prepared = jax.jit(Forward(config).prepare)({"image": image})["image"]
    assert prepared.shape == (2, 64, 64, 3)
    assert prepared.dtype == jnp.float32
    # Doubling by bilinear sampling keeps the mean, away from the edge's share.
    np.testing.assert_allclose(
        np.asarray(prepared)[:, 2:-2].mean(), image[:, 1:-1].mean(), rtol=0.01
    )


def test_augmentation_without_anything_is_the_preparation():
    config = make_config(
        augmentation={
            "rotation_degrees": 0.0,
            "translation": 0.0,
            "zoom": (1.0, 1.0),
            "flip": False,
            "mixup_alpha": 0.0,
        }
    )
    batch = make_batch(0)
    inputs = inputs_of(batch)
    found, targets, weights = jax.jit(Experiment(config).augment)(
        jax.random.key(0), inputs, batch["targets"], batch["weights"]
    )
    image = found["image"]
    np.testing.assert_allclose(image, Forward(config).prepare(inputs)["image"], atol=1e-3)
    np.testing.assert_allclose(image, batch["image"], atol=1e-3)
    for task in TASKS:
        np.testing.assert_array_equal(targets[task], batch["targets"][task])
        np.testing.assert_array_equal(weights[task], batch["weights"][task])


def test_annotators_spread_goes_from_the_batch_into_the_loss():
    """Through augmentation and MixUp; alone it changes nothing."""
    spread = {"loss": {"va": {"spread": 1.0}}}
    model = {**dataclasses.asdict(make_config().model), "va_variance": "per_example"}
    with_it, without = (
        Experiment(make_config(model=model, **changes), devices=jax.devices()[:1])
        for changes in (spread, {})
    )
    batch = make_batch(3)
    variance = np.abs(make_batch(4)["targets"]["va"])
    batch["targets"]["va_rater_variance"] = np.nan_to_num(variance, nan=0.1)
    random = np.random.default_rng(5)
    outputs = {task: random.normal(size=(BATCH, size)) for task, size in OUTPUT_SIZES.items()}
    outputs["va_log_variance"] = random.normal(size=(BATCH, 2))
    outputs = {name: np.float32(array) for name, array in outputs.items()}

    def loss(experiment):
        def of_batch(batch):
            _, targets, weights = experiment.augment(
                jax.random.key(0), inputs_of(batch), batch["targets"], batch["weights"]
            )
            return experiment.objective(outputs, targets, weights, {})[0], (targets, weights)

        return jax.jit(of_batch)(batch)

    found, (targets, weights) = loss(with_it)
    expected, _ = loss(without)
    temperature = with_it.config.uncertainty.temperatures.va
    weight = {task: np.asarray(value, float) for task, value in weights.items()}
    weight["au"] = weight["au"].max(axis=1)
    by_task = np.stack([weight[task] for task in TASKS], axis=1)
    share = by_task.max(axis=1) * by_task[:, 0] / np.maximum(by_task.sum(axis=1), 1e-9)
    ratio = np.asarray(targets["va_rater_variance"]) / np.exp(outputs["va_log_variance"])
    added = ratio.mean(axis=1) / (2 * temperature)
    difference = np.sum(share * added) / by_task.max(axis=1).sum()
    assert difference > 0.01
    assert float(found - expected) == pytest.approx(difference, rel=1e-3)
