"""A floor of learned temperatures: a task that is learnt perfectly does not starve the others."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_network
from test_step import place

from mtl_face.objective import losses
from mtl_face.tasks import OUTPUT_SIZES, TASKS
from mtl_face.training import sharding, state, step

STEPS, SIZE, FLOOR = 600, 32, 0.1


class Network(nn.Module):
    """Four shared features, and a head for each task."""

    @nn.compact
    def __call__(self, inputs, *, train):
        del train
        value = jnp.mean(inputs["image"], axis=(1, 2)) / 255 - 0.5
        value = nn.Dense(4, name="backbone")(value)
        return {task: nn.Dense(OUTPUT_SIZES[task], name=f"head_{task}")(value) for task in TASKS}


def objective(outputs, targets, weights, learned):
    result = losses.multi_task_loss(
        outputs, targets, weights, learned, kind="learned", temperatures={}
    )
    return result.total, {"va": result.task_loss["va"], "au": result.task_loss["au"]}


def trained(floor):
    """Numbers of each step; all action units are absent, valence and arousal follow the image."""
    optimizer = optax.sgd(0.2)
    mesh = sharding.make_mesh(data=1, fsdp=1, devices=jax.devices()[:1])
    begin = tiny_network.initial(Network(), optimizer, {task: jnp.zeros(()) for task in TASKS})
    like = state.abstract_state(begin, mesh)
    train_step = step.make_train_step(
        Network(),
        optimizer,
        mesh,
        jax.tree.map(lambda leaf: leaf.sharding, like),
        augment=tiny_network.plain,
        objective=objective,
        options=step.StepOptions(temperature_floor=floor),
    )
    current = state.make_state(begin, like, seed=3)
    batch = tiny_network.batch(0, SIZE, labels=1)
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (SIZE, 1, 1, 3))
    batch["image"][:] = colour
    batch["targets"]["va"] = ((colour[:, 0, 0, :2] / 255 - 0.5) * 1.6).astype(np.float32)
    batch["targets"]["au"][:] = 0
    batch["weights"]["expr"][:] = 0
    placed = place(batch, mesh)
    for _ in range(STEPS):
        current, numbers = train_step(current, placed)
    temperatures = {t: float(jnp.exp(v)) for t, v in current.params["uncertainty"].items()}
    return jax.device_get(numbers), temperatures


def test_the_others_learn_beside_a_task_that_has_nothing_to_learn():
    free, free_temperatures = trained(0.0)
    held, held_temperatures = trained(FLOOR)
    assert free_temperatures["au"] < FLOOR / 100
    assert float(free["va"]) > 0.1  # that of a constant: nothing was learnt
    assert float(held["va"]) < 0.02
    assert float(held["au"]) < 0.15
    assert held_temperatures["au"] == pytest.approx(FLOOR)
    assert min(held_temperatures.values()) >= FLOOR * (1 - 1e-6)
