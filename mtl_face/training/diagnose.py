"""Takes a step apart: every intermediate value in the order of computation, and what is bad in it.

Dimension letters: B batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_face.training import health
from mtl_face.training.state import TrainState
from mtl_face.training.step import Augment, Objective, step_keys


@dataclasses.dataclass(frozen=True)
class Place:
    """A value of the computation.

    Attributes:
        name: what it is.
        size: number of elements.
        bad: how many of them are not finite.
        largest: largest magnitude of the others.
        bad_B: bool [B], the examples that they belong to; None if its first axis is no batch.
    """

    name: str
    size: int
    bad: int
    largest: float
    bad_B: NDArray[np.bool_] | None


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A step, taken apart.

    Attributes:
        places: values in the order of computation: state, input, modules, outputs, losses, and
            then the gradients, from the output back.
        numbers: `loss`, the objective's numbers, `gradient_norm` and `gradient_norm/BLOCK`.
        example_loss: the objective's numbers of each example alone, float32 [B] by name.
    """

    places: list[Place]
    numbers: dict[str, float]
    example_loss: dict[str, NDArray[np.float32]]

    @property
    def first_bad(self) -> Place | None:
        """The first value that is not finite."""
        return next((place for place in self.places if place.bad), None)


def diagnose(
    network: nn.Module,
    state: TrainState,
    batch: dict[str, Any],
    *,
    augment: Augment,
    objective: Objective,
) -> Diagnosis:
    """Takes a training step's computation apart, with the random draws that it had.

    Args:
        network: the network.
        state: the state before the step.
        batch: global batch on the devices, as for the train step.
        augment: as for the train step.
        objective: as for the train step.

    Returns:
        What was found. The values are those of another compiled program than the step's: they can
        differ in the last bits.
    """
    size = len(batch["image"])
    names: list[str] = []

    def look(name: str, value: jax.Array) -> tuple[str, dict[str, jax.Array]]:
        finite = jnp.isfinite(value)
        seen = {
            "bad": jnp.sum(~finite),
            "largest": jnp.max(jnp.where(finite, jnp.abs(value), 0), initial=0),
        }
        if value.ndim > 0 and value.shape[0] == size:
            seen["bad_B"] = jnp.any(~finite.reshape(size, -1), axis=1)
        return f"{name} {list(value.shape)}", seen

    @jax.jit
    def compute(state: TrainState, batch: dict[str, Any]) -> Any:
        found: list[tuple[str, dict[str, jax.Array]]] = []
        for part in ("params", "batch_stats"):
            for path, leaf in jax.tree_util.tree_flatten_with_path(getattr(state, part))[0]:
                found.append(look(f"{part}/{_slashed(path)} before the step", leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(state.opt_state)[0]:
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                found.append(look(f"optimizer's {_slashed(path)} before the step", leaf))
        augment_key, dropout_key = step_keys(state)
        image_BHWC, targets, weights = augment(
            augment_key, batch["image"], batch["targets"], batch["weights"]
        )
        found.append(look("input image, augmented", image_BHWC))
        found += [look(f"target of {task}", target) for task, target in targets.items()]

        def loss_of(params: Any) -> Any:
            inside: list[tuple[str, dict[str, jax.Array]]] = []

            def watch(call: Callable, arguments: Any, options: Any, context: Any) -> Any:
                value = call(*arguments, **options)
                if context.method_name == "__call__" and context.module.path:
                    name = "output of " + "/".join(context.module.path)
                    for leaf in jax.tree.leaves(value):
                        if jnp.issubdtype(leaf.dtype, jnp.floating):
                            inside.append(look(name, leaf))
                return value

            with nn.intercept_methods(watch):
                outputs, updated = network.apply(
                    {"params": params["network"], "batch_stats": state.batch_stats},
                    image_BHWC,
                    train=True,
                    mutable=["batch_stats"],
                    rngs={"dropout": dropout_key},
                )
            inside += [
                look(f"new batch_stats/{_slashed(path)}", leaf)
                for path, leaf in jax.tree_util.tree_flatten_with_path(updated["batch_stats"])[0]
            ]
            loss, numbers = objective(outputs, targets, weights, params["uncertainty"])
            names.extend(name for name, _ in inside)
            return loss, ([seen for _, seen in inside], outputs, numbers)

        (loss, (inside, outputs, numbers)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        count = len(inside)
        found += list(zip(names[-count:], inside, strict=True))

        def alone(*example: dict) -> dict[str, jax.Array]:
            outputs, targets, weights = (
                {name: leaf[None] for name, leaf in part.items()} for part in example
            )
            total, parts = objective(outputs, targets, weights, state.params["uncertainty"])
            return {"loss": total, **parts}

        example_loss = jax.vmap(alone)(outputs, targets, weights)
        found += [look(f"loss of {name} by example", value) for name, value in example_loss.items()]
        found.append(look("loss", loss))
        for path, leaf in reversed(jax.tree_util.tree_flatten_with_path(gradients)[0]):
            found.append(look(f"gradient of {_slashed(path)}", leaf))
        names[:] = [name for name, _ in found]
        numbers = {"loss": loss, **health.gradient_norms(gradients), **numbers}
        return [seen for _, seen in found], numbers, example_loss

    seen, numbers, example_loss = jax.device_get(compute(state, batch))
    places = [
        Place(name, _size(name), int(one["bad"]), float(one["largest"]), one.get("bad_B"))
        for name, one in zip(names, seen, strict=True)
    ]
    return Diagnosis(places, {k: float(v) for k, v in numbers.items()}, example_loss)


def _slashed(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _size(name: str) -> int:
    """Number of elements, from the shape at the end of a name."""
    shape = name[name.rindex("[") + 1 : -1]
    return int(np.prod([int(length) for length in shape.split(",")])) if shape else 1
