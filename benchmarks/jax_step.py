"""The train step and the prediction of this project as calls to be timed, and a batch for them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.config import Config
from mtl_face.model.convolution import compiler_options
from mtl_face.training import experiment, step

Batch = dict[str, Any]

Way = Callable[..., Any]
"""`(calls=1)`: does the work that many times and returns when all of it is done.

What it returns is of the last call: a train step's loss, a forward pass' outputs by task.
"""


def make_batch(size: int, count: int) -> Batch:
    """A fully labelled batch of noise, uint8 [count, size, size, 3] and float32 labels."""
    rng = np.random.default_rng(0)
    targets = {
        "va": rng.uniform(-1, 1, (count, 2)),
        "au": rng.integers(0, 2, (count, 12)),
        "expr": np.eye(8)[rng.integers(0, 8, count)],
    }
    shapes = {"va": (count,), "au": (count, 12), "expr": (count,)}
    return {
        "image": rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "targets": {task: value.astype(np.float32) for task, value in targets.items()},
        "weights": {task: np.ones(shape, np.float32) for task, shape in shapes.items()},
    }


def ways(settings: Config, batch: Batch) -> dict[str, Way]:
    """The jitted step of `training`, without its augmentation, and the network's prediction."""
    parts = experiment.Experiment(settings, devices=jax.devices()[:1])
    predict = jax.jit(
        lambda variables, image: parts.network.apply(variables, image, train=False),
        compiler_options=compiler_options(jax.default_backend()),
    )
    state = parts.make_state()
    variables = {"params": state.params["network"], "batch_stats": state.batch_stats}
    image = jax.device_put(batch["image"]).astype(jnp.float32)

    def forward(calls: int = 1) -> dict[str, jax.Array]:
        outputs = [predict(variables, image) for _ in range(calls)]
        return jax.block_until_ready(outputs)[-1]

    return {"train step": train_way(parts, batch, as_float), "forward": forward}


def train_way(parts: experiment.Experiment, batch: Batch, augment: step.Augment) -> Way:
    """The jitted step with this augmentation, from random weights on."""
    train_step = step.make_train_step(
        parts.network,
        parts.optimizer,
        parts.mesh,
        parts.state_shardings,
        augment=augment,
        objective=parts.objective,
    )
    state = parts.make_state()
    data = jax.device_put(batch)

    def train(calls: int = 1) -> jax.Array:
        nonlocal state
        for _ in range(calls):
            state, numbers = train_step(state, data)
        jax.block_until_ready(state)
        return numbers["loss"]

    return train


def as_float(key: Any, inputs: Any, targets: Any, weights: Any) -> Any:
    """No augmentation."""
    del key
    return jax.tree.map(lambda array: array.astype(jnp.float32), inputs), targets, weights
