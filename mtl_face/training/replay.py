"""A bad step, kept so that it can be taken again, and taken apart to find its first bad number.

WORKDIR/replay/STEP.npz      the batch as the devices had it
WORKDIR/replay/STEP.json     rows, files, seed, key, what the step reported
WORKDIR/replay/states/       the state before the step, of the newest few (orbax)

STEP is the number of the bad step, from 1.

Dimension letters: B batch.
"""

import dataclasses
import json
import operator
import socket
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from numpy.typing import NDArray

from mtl_face import files
from mtl_face.errors import WorkdirError
from mtl_face.training import sharding
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.guard import gradient_norms
from mtl_face.training.state import TrainState
from mtl_face.training.step import Augment, Objective, apply_training, inputs_of, step_keys

FOLDER = "replay"
STATES = "states"

_STATES_KEPT = 3


@dataclasses.dataclass(frozen=True)
class Dump:
    """A bad step, read from its files.

    Attributes:
        step: number of the bad step, from 1.
        batch: nested dict of arrays: what the network takes (`mtl_face.inputs`), `targets` and
            `weights` by task.
        images: file of each example, [B].
        note: the content of the .json file.
    """

    path: Path
    step: int
    batch: dict[str, Any]
    images: Sequence[str]
    note: dict[str, Any]


def write(
    folder: Path,
    state: TrainState,
    batch: dict[str, Any],
    note: dict[str, Any],
    *,
    mesh: jax.sharding.Mesh,
) -> str:
    """Writes a dump into WORKDIR/replay, made if absent; every process must call.

    `state` is the one that the bad step began with, `batch` its global batch, on the devices.
    `note` holds what else goes into the .json: `seed`, `policy` (what is done about the step),
    `numbers`, `rows` of the batch in the training table and `images`, their files.

    Returns where the dump lies, as a part of a sentence; or why it could not be written, which is
    no reason to end a run.
    """
    taken = int(jax.device_get(state.step))
    path = folder / f"{taken + 1}.npz"
    whole = sharding.whole(batch, mesh)
    key = np.asarray(jax.random.key_data(state.key)).tolist()
    problem: WorkdirError | None = None
    if jax.process_index() == 0:
        arrays = {"rows": np.array(note["rows"]), **traverse_util.flatten_dict(whole, sep="/")}
        numbers = {
            name: value if np.isfinite(value) else str(value)
            for name, value in note["numbers"].items()
        }
        note = note | {"numbers": numbers, "key": key, "host": socket.gethostname()}
        try:
            with files.replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            files.write_json(path.with_suffix(".json"), {"step": taken + 1, **note}, indent=1)
        except WorkdirError as error:
            problem = error  # reported below: all processes save the state together
    try:
        with Checkpoints(folder / STATES, keep=_STATES_KEPT) as states:
            states.save(taken, state, replace=True)
    except WorkdirError as error:
        problem = problem or error
    if problem is not None:
        return f"its batch could not be kept ({problem.path}: {problem.problem})"
    return f"its batch is in {path}, which run.py replay --dump looks into"


def read(path: Path) -> Dump:
    """Reads a dump from its .npz file, or the .json beside it; WorkdirError if it is none."""
    path = path.expanduser().resolve()
    try:
        path = path.with_suffix(".npz")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        note = json.loads(path.with_suffix(".json").read_text())
        step, images = int(note["step"]), [str(image) for image in note["images"]]
        if absent := {"seed", "host", "numbers", "key"} - note.keys():
            raise ValueError(f"{path.with_suffix('.json').name} lacks {min(absent)}")
        arrays.pop("rows", None)
        batch = traverse_util.unflatten_dict(arrays, sep="/")
        sizes = {len(array) for array in inputs_of(batch).values()}
        if {"targets", "weights"} - batch.keys() or sizes != {len(images)}:
            raise ValueError("it holds no batch")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise WorkdirError(
            f"is no dump of a step: {files.reason(error)}",
            path=getattr(error, "filename", None) or path,
            remedy="give --dump=WORKDIR/replay/STEP.npz, with STEP.json beside it",
        ) from error
    return Dump(path, step, batch, images, note)


@dataclasses.dataclass(frozen=True)
class Place:
    """A value of the computation.

    Attributes:
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
    network_params: Callable[[Any], Any] = operator.itemgetter("network"),
) -> Diagnosis:
    """Takes a training step's computation apart, with the random draws that it had.

    The values are those of another compiled program than the step's: they can differ in the last
    bits. `network` is without rematerialisation, inside of which nothing can be seen; the state is
    the one before the step; all else is as for the train step and its `StepOptions`.
    """
    size = len(next(iter(inputs_of(batch).values())))
    labels: list[tuple[str, int]] = []

    def look(text: str, tree: Any) -> list[tuple[tuple[str, int], dict[str, jax.Array]]]:
        """(name, size) and what is seen of each array of floating point, `{}` its path."""
        found = []
        for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if not jnp.issubdtype(value.dtype, jnp.floating):
                continue
            finite = jnp.isfinite(value)
            seen = {
                "bad": jnp.sum(~finite),
                "largest": jnp.max(jnp.where(finite, jnp.abs(value), 0), initial=0),
            }
            if value.ndim > 0 and value.shape[0] == size:
                seen["bad_B"] = jnp.any(~finite.reshape(size, -1), axis=1)
            name = text.format(jax.tree_util.keystr(path, simple=True, separator="/"))
            found.append(((f"{name} {list(value.shape)}", value.size), seen))
        return found

    @jax.jit
    def compute(state: TrainState, batch: dict[str, Any]) -> Any:
        augment_key, dropout_key = step_keys(state)
        inputs, targets, weights = augment(
            augment_key, inputs_of(batch), batch["targets"], batch["weights"]
        )
        found = [
            *look("params/{} before the step", state.params),
            *look("batch_stats/{} before the step", state.batch_stats),
            *look("optimizer's {} before the step", state.opt_state),
            *look("input {}, augmented", inputs),
            *look("target of {}", targets),
        ]

        def loss_of(params: Any) -> Any:
            inside = []

            def watch(call: Callable, arguments: Any, options: Any, context: Any) -> Any:
                value = call(*arguments, **options)
                if context.method_name == "__call__" and context.module.path:
                    inside.extend(look("output of " + "/".join(context.module.path), value))
                return value

            with nn.intercept_methods(watch):
                outputs, new_stats = apply_training(
                    network, network_params(params), state.batch_stats, inputs, dropout_key
                )
            inside += look("new batch_stats/{}", new_stats)
            loss, numbers = objective(outputs, targets, weights, params["uncertainty"])
            labels.extend(label for label, _ in inside)
            return loss, ([seen for _, seen in inside], outputs, numbers)

        (loss, (inside, outputs, numbers)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        found += zip(labels[-len(inside) :], inside, strict=True)

        def alone(*example: dict) -> dict[str, jax.Array]:
            outputs, targets, weights = (
                {name: leaf[None] for name, leaf in part.items()} for part in example
            )
            total, parts = objective(outputs, targets, weights, state.params["uncertainty"])
            return {"loss": total, **parts}

        example_loss = jax.vmap(alone)(outputs, targets, weights)
        found += look("loss of {} by example", example_loss) + look("loss", loss)
        found += reversed(look("gradient of {}", gradients))
        labels[:] = [label for label, _ in found]
        numbers = {"loss": loss, **gradient_norms(gradients), **numbers}
        return [seen for _, seen in found], numbers, example_loss

    seen, numbers, example_loss = jax.device_get(compute(state, batch))
    places = [
        Place(*label, int(one["bad"]), float(one["largest"]), one.get("bad_B"))
        for label, one in zip(labels, seen, strict=True)
    ]
    return Diagnosis(places, {k: float(v) for k, v in numbers.items()}, example_loss)
