"""Training steps of a small residual network under the controls of fine-tuning."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tiny_network

from mtl_face.config import BackboneConfig, OptimizerConfig
from mtl_face.model.backbones.resnet import ResNet
from mtl_face.tasks import OUTPUT_SIZES, TASKS
from mtl_face.training import sharding, state
from mtl_face.training.optimizer import exponential_by_epoch, inverse_sqrt, make_optimizer
from mtl_face.training.step import make_train_step

MOMENTUM = 0.75


def _backbone(
    stage_sizes: tuple[int, ...], batch_norm: str, frozen_stages: int, width: int
) -> BackboneConfig:
    return BackboneConfig(
        stage_sizes=stage_sizes,
        width=width,
        expansion=2,
        variant="torchvision",
        batch_norm=batch_norm,
        batch_norm_momentum=MOMENTUM,
        frozen_stages=frozen_stages,
        convolution="xla",
    )


class SmallResNet(nn.Module):
    """The real backbone, and a dense layer a task. Called like the real network."""

    stage_sizes: tuple[int, ...] = (1,)
    batch_norm: str = "batch"
    groups: int = 1
    frozen_stages: int = -1
    width: int = 4

    @nn.compact
    def __call__(self, inputs, *, train):
        image_BHWC = inputs["image"]
        map_BHWC = ResNet(
            _backbone(self.stage_sizes, self.batch_norm, self.frozen_stages, self.width),
            self.groups,
            name="backbone",
        )((image_BHWC - 128) / 64, train=train)
        value_BC = map_BHWC.mean(axis=(1, 2))
        return {task: nn.Dense(OUTPUT_SIZES[task], name=f"head_{task}")(value_BC) for task in TASKS}


@functools.cache
def first_variables(stage_sizes: tuple[int, ...] = (1,), width: int = 4) -> Any:
    """What every run starts from, on the host: nothing is zero, statistics are not 0 and 1."""
    image = {
        "image": jax.ShapeDtypeStruct((1, tiny_network.SIZE, tiny_network.SIZE, 3), jnp.float32)
    }
    network: Any = SmallResNet(stage_sizes, width=width)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)
    random = np.random.default_rng(7)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        if path[-1].key in ("scale", "var"):
            return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return random.normal(0, 0.3, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def _compiled(
    batch_norm: str,
    stage_sizes: tuple[int, ...],
    frozen_stages: int,
    groups: int,
    devices: int,
    fsdp: int,
    width: int,
) -> tuple[Any, Any, Any, Any]:
    """(mesh, shardings of the state, first state on the host, compiled step)."""
    network = SmallResNet(stage_sizes, batch_norm, groups, frozen_stages, width)
    optimizer = make_optimizer(
        OptimizerConfig(
            weight_decay=0.1,
            beta1=0.9,
            beta2=0.99,
            epsilon=1e-2,  # large, so that tiny moments don't magnify rounding
            gradient_clip=1.0,
        ),
        {
            "backbone": exponential_by_epoch(1e-2, decay=0.5, steps_per_epoch=10),
            "rest": inverse_sqrt(1e-2, warmup_steps=1),
        },
        backbone=_backbone(stage_sizes, batch_norm, frozen_stages, width),
    )
    mesh = sharding.make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
    variables = first_variables(stage_sizes, width)
    params = {"network": variables["params"], "uncertainty": {}}
    first = state.TrainState(
        step=np.zeros((), np.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(optimizer.init, params)
        ),
        key=jax.random.key(1),
    )
    shardings = sharding.state_shardings(mesh, first)
    step = make_train_step(
        network,
        optimizer,
        mesh,
        shardings,
        augment=tiny_network.plain,
        objective=tiny_network.objective,
    )
    like = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        first,
        shardings,
    )
    return mesh, shardings, first, step.lower(like, _place(0, mesh)).compile()


def _place(index: int, mesh: Any) -> Any:
    return jax.device_put(tiny_network.batch(index), sharding.by_example(mesh))


@functools.cache
def run(
    batch_norm: str = "batch",
    *,
    stage_sizes: tuple[int, ...] = (1,),
    frozen_stages: int = -1,
    groups: int = 8,
    devices: int = 8,
    fsdp: int = 1,
    width: int = 4,
    steps: int = 2,
) -> tuple[Any, Any, str]:
    """Trains.

    Returns:
        The first state on the host; what the steps made, as ((params, statistics, optimizer
        state), numbers of each step); the text of the compiled step.
    """
    mesh, shardings, first, step = _compiled(
        batch_norm, stage_sizes, frozen_stages, groups, devices, fsdp, width
    )
    fresh = dataclasses.replace(first, key=jax.random.key(1))  # the last one was donated
    current, numbers = jax.device_put(fresh, shardings, may_alias=False), []
    for index in range(steps):
        current, row = step(current, _place(index, mesh))
        numbers.append(row)
    last = (current.params["network"], current.batch_stats, current.opt_state)
    return first, (jax.device_get(last), jax.device_get(numbers)), step.as_text()


def by_name(tree: Any) -> dict[str, np.ndarray]:
    """Leaves by their path, parts joined by slashes."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(part.key) for part in path): np.asarray(leaf) for path, leaf in leaves}


def size(tree: Any) -> int:
    """Elements of all arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
