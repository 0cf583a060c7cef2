"""A network that compiles in a second, with all that a step meets: batch norm, dropout, groups."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.config import AugmentationConfig
from mtl_face.objective import augment, losses, mixup, resample
from mtl_face.tasks import OUTPUT_SIZES, TASKS
from mtl_face.training import state

SIZE = 8
BATCH = 16
TEMPERATURES = {"va": 1.0, "au": 1.0, "expr": 5.0}


class TinyNetwork(nn.Module):
    """Called like the real network of images. The kernel of `hidden` is large enough to split."""

    dropout: float = 0.1

    @nn.compact
    def __call__(self, inputs, *, train):
        image_BHWC = inputs["image"]
        value = nn.Conv(16, (3, 3), strides=(2, 2), name="backbone")((image_BHWC - 128) / 64)
        value = nn.BatchNorm(use_running_average=not train, name="norm")(value)
        value = nn.Dense(128, name="hidden")(nn.relu(value).reshape(len(value), -1))
        value = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(value))
        return {task: nn.Dense(OUTPUT_SIZES[task], name=f"head_{task}")(value) for task in TASKS}


def initial(network, optimizer, uncertainty=()):
    """A state at step 0 as a function of its seed."""
    inputs = {"image": jnp.zeros((1, SIZE, SIZE, 3))}
    return functools.partial(
        state.initial_state, network, optimizer, inputs=inputs, uncertainty=dict(uncertainty)
    )


def make_state(network, optimizer, mesh, uncertainty=()):
    """A state at step 0 on the devices."""
    begin = initial(network, optimizer, uncertainty)
    return state.make_state(begin, state.abstract_state(begin, mesh), seed=3)


def batch(seed=0, size=BATCH, *, labels=None):
    """A global batch on the host, with labels missing unevenly (or `labels` of each kind)."""
    random = np.random.default_rng(seed)
    weights = {
        "va": random.integers(0, 2, size),
        "au": random.integers(0, 2, (size, 12)),
        "expr": random.integers(0, 2, size),
    }
    # Uneven over the devices: of eight shares of a batch, the first three have no label at all.
    for weight in weights.values():
        weight[: size * 3 // 8] = 0
        if labels is not None:
            weight[:] = labels
    targets = {
        "va": random.uniform(-1, 1, (size, 2)),
        "au": random.integers(0, 2, (size, 12)),
        "expr": np.eye(8)[random.integers(0, 8, size)],
    }
    targets["va"][weights["va"] == 0] = np.nan
    return {
        "image": random.integers(0, 256, (size, SIZE, SIZE, 3)).astype(np.uint8),
        "targets": {name: value.astype(np.float32) for name, value in targets.items()},
        "weights": {name: value.astype(np.float32) for name, value in weights.items()},
    }


def plain(key, inputs, targets, weights):
    """No augmentation."""
    del key
    return as_float(inputs), targets, weights


def as_float(inputs):
    """Images as the network takes them."""
    return {"image": inputs["image"].astype(np.float32)}


def augment_and_mix(key, inputs, targets, weights):
    """All of the augmentation."""
    image_BHWC = inputs["image"]
    geometry_key, mixup_key = jax.random.split(key)
    transform_B23 = augment.draw_transforms(
        geometry_key,
        len(image_BHWC),
        AugmentationConfig(),
        stored_size=SIZE,
        input_size=SIZE,
    )
    image_BHWC = resample.resample(image_BHWC, transform_B23, input_size=SIZE, method="gather")
    return mixup.mixup(mixup_key, {"image": image_BHWC}, targets, weights, alpha=0.4)


def objective(outputs, targets, weights, learned):
    """The paper's loss, or the learned one."""
    result = losses.multi_task_loss(
        outputs,
        targets,
        weights,
        learned or None,
        kind="learned" if learned else "fixed",
        temperatures=TEMPERATURES,
    )
    return result.total, {"va": result.task_loss["va"], "va_weight": result.task_weight["va"]}
