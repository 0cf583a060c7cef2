"""One optimisation step and one prediction step, jitted over a mesh.

Nothing here knows of files, TensorFlow or the command line. Under `jax.jit` with NamedSharding the
shapes are global: a sum over the batch is a sum over all devices and processes, so the loss, its
masks and the batch norms' statistics mean the same on one device as on a thousand.
"""

import contextlib
import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mtl_face.inputs import is_input
from mtl_face.model.convolution import compiler_options
from mtl_face.training import accumulation, average, guard, sharding, wide_gradients
from mtl_face.training.state import TrainState

Augment = Callable[[jax.Array, dict, dict, dict], tuple[dict, dict, dict]]
"""(key, inputs, targets, weights) -> what the network takes of it, float32, targets, weights."""

Objective = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
"""(outputs, targets, weights, uncertainty parameters) -> loss [], numbers to log; with what
`StepOptions.couple` gives as one argument more."""

Couple = Callable[[dict, dict, dict], Any]
"""(outputs, targets, weights) of a whole batch -> what the objective of a part must know of it, as
arrays [B, ...]."""


_COUPLED = "coupled"


def step_keys(state: TrainState) -> tuple[jax.Array, jax.Array]:
    """Keys of the augmentation and of the dropout of the step that comes next."""
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    return augment_key, dropout_key


def inputs_of(batch: dict[str, Any]) -> dict[str, jax.Array]:
    """The arrays of a batch that go into the network."""
    return {name: array for name, array in batch.items() if is_input(name)}


def apply_training(
    network: nn.Module,
    params: Any,
    batch_stats: Any,
    inputs: dict[str, jax.Array],
    dropout_key: jax.Array,
) -> tuple[Any, Any]:
    """The network's outputs in training, and the new running statistics."""
    outputs, updated = network.apply(
        {"params": params, "batch_stats": batch_stats},
        inputs,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": dropout_key},
    )
    return outputs, updated.get("batch_stats", {})


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step is taken.

    Attributes:
        loss_limit: None takes every step, whatever comes out. A number makes a step that keeps
            the old state where the new one would be bad, see `guard.hold_bad_steps`.
        microbatches: parts in which the batch goes through the network, one after the other, see
            `accumulation`; the augmentation is that of the whole batch. The objective's numbers
            must then hold `accumulation.EXAMPLE_WEIGHT`.
        couple: of an objective that is no sum over examples, used where microbatches are several:
            they then go through the network once more before, without a gradient.
        temperature_floor: what learned temperatures do not fall below; 0: none.
        wide: whether gradients are summed in float32 where the network computes in a narrower
            type, see `wide_gradients`; False: in that type.
        ema_decay: that of the averages of an `average.AveragedState`.
        network_params: the network's parameters from `TrainState.params`.
    """

    loss_limit: float | None = None
    microbatches: int = 1
    couple: Couple | None = None
    temperature_floor: float = 0.0
    wide: bool = True
    ema_decay: float = 0.0
    network_params: Callable[[Any], Any] = operator.itemgetter("network")


def make_train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    state_shardings: Any,
    *,
    augment: Augment,
    objective: Objective,
    options: StepOptions = StepOptions(),
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the step, over state, batch and shardings (pytrees) that lie on the mesh.

    Returns:
        Jitted `(state, batch) -> (state, numbers)`; with `loss_limit`, `(state, batch, held)`.
        The given state is donated. `batch` holds what the network takes, as `image` uint8
        [B, S, S, 3] (see `mtl_face.inputs`), and `targets` and `weights` by task. `numbers` are
        float32 scalars: `loss`, `gradient_norm`, `gradient_norm/BLOCK` and the objective's.
    """
    platform = mesh.devices.flat[0].platform
    gpus = mesh if platform == "gpu" else None

    def apply(params: Any, batch_stats: Any, batch: dict, key: jax.Array) -> tuple[Any, Any]:
        sums = (
            nn.intercept_methods(functools.partial(wide_gradients.intercept, gpus=gpus))
            if options.wide
            else contextlib.nullcontext()
        )
        with sums:
            network_params = options.network_params(params)
            return apply_training(network, network_params, batch_stats, inputs_of(batch), key)

    def loss_of(
        params: Any, batch_stats: Any, batch: dict, dropout_key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        outputs, new_stats = apply(params, batch_stats, batch, dropout_key)
        coupled = (batch[_COUPLED],) if _COUPLED in batch else ()
        loss, numbers = objective(
            outputs, batch["targets"], batch["weights"], params["uncertainty"], *coupled
        )
        return loss, (new_stats, numbers)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, dict[str, jax.Array]]:
        augment_key, dropout_key = step_keys(state)
        inputs, targets, weights = augment(
            augment_key, inputs_of(batch), batch["targets"], batch["weights"]
        )
        augmented = {**inputs, "targets": targets, "weights": weights}
        if options.microbatches == 1:
            gradient = jax.value_and_grad(loss_of, has_aux=True)
            outcome = gradient(state.params, state.batch_stats, augmented, dropout_key)
        else:
            if options.couple is not None:
                outputs = accumulation.outputs_of(
                    lambda *arguments: apply(*arguments)[0],
                    state.params,
                    state.batch_stats,
                    augmented,
                    dropout_key,
                    count=options.microbatches,
                    mesh=mesh,
                )
                augmented[_COUPLED] = options.couple(outputs, targets, weights)
            outcome = accumulation.accumulate(
                loss_of,
                state.params,
                state.batch_stats,
                augmented,
                dropout_key,
                count=options.microbatches,
                placements=state_shardings.params,
            )
        (loss, (batch_stats, numbers)), gradients = outcome
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if options.temperature_floor:
            params = {**params, "uncertainty": _floored(params, options.temperature_floor)}
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        if isinstance(new_state, average.AveragedState):
            new_state = average.updated(new_state, options.ema_decay)
        return new_state, {"loss": loss, **guard.gradient_norms(gradients), **numbers}

    whole = sharding.replicated(mesh)
    taken: Callable[..., Any] = step
    placements: tuple[Any, ...] = (state_shardings, sharding.by_example(mesh))
    if options.loss_limit is not None:
        taken = guard.hold_bad_steps(step, loss_limit=options.loss_limit)
        placements += (whole,)
    return jax.jit(
        taken,
        in_shardings=placements,
        out_shardings=(state_shardings, whole),
        donate_argnums=0,
        compiler_options=compiler_options(platform),
    )


def _floored(params: Any, floor: float) -> Any:
    """Logarithms of the learned temperatures, none below that of the floor."""
    return jax.tree.map(lambda leaf: jnp.maximum(leaf, math.log(floor)), params["uncertainty"])


def mean_numbers(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over steps of what the steps report; its rows lie on the host.

    A number `NAME` with a companion `NAME_weight` is averaged by that weight (a task's loss over
    the labels seen), and left out where that weight is 0; all others plainly. The companions are
    left out.
    Rows with a `bad` that is not 0 are only counted, as `bad_steps`.
    """
    sound = [row for row in rows if not row.get(guard.BAD)]
    means: dict[str, float] = {}
    if len(sound) < len(rows):
        means["bad_steps"] = float(len(rows) - len(sound))
        rows = sound
    for name in rows[0] if rows else ():
        if name == guard.BAD or name.endswith("_weight"):
            continue
        values = [float(row[name]) for row in rows]
        weights = [float(row.get(f"{name}_weight", 1.0)) for row in rows]
        total = sum(weights)
        if total > 0:
            weighted = sum(v * w for v, w in zip(values, weights, strict=True) if w > 0)
            means[name] = weighted / total
    return means
