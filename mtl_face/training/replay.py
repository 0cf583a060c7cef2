"""A bad step's batch, its rows and its seeds, kept so that the step can be taken again.

WORKDIR/replay/STEP.npz      the batch as the devices had it
WORKDIR/replay/STEP.json     rows, files, seed, key, what the step reported
WORKDIR/replay/states/       the state before the step, of the newest few (orbax)

STEP is the number of the bad step, from 1.
"""

import dataclasses
import json
import os
import socket
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from numpy.typing import NDArray

from mtl_face.errors import WorkdirError
from mtl_face.training import sharding
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.state import TrainState

FOLDER = "replay"
STATES = "states"

_STATES_KEPT = 3


@dataclasses.dataclass(frozen=True)
class Dump:
    """A bad step.

    Attributes:
        path: the .npz file.
        step: number of the bad step, from 1.
        batch: nested dict of arrays: `image` uint8 [B, S, S, 3], `targets` and `weights` by task.
        images: file of each example, [B].
        note: all that the .json file says.
    """

    path: Path
    step: int
    batch: dict[str, Any]
    images: Sequence[str]
    note: dict[str, Any]


def write(
    folder: Path,
    *,
    taken: int,
    state: TrainState,
    batch: dict[str, Any],
    numbers: dict[str, float],
    rows: NDArray[np.int64],
    images: Sequence[str],
    seed: int,
    policy: str,
    mesh: jax.sharding.Mesh,
) -> str:
    """Writes a dump; every process must call.

    Args:
        folder: WORKDIR/replay; made if absent.
        taken: steps taken before the bad one.
        state: the state that it began with.
        batch: its global batch, on the devices.
        numbers: what it reported.
        rows: rows of the batch in the training table, [B].
        images: their files, [B].
        seed: of the run.
        policy: what is done about it, for the record.
        mesh: the devices.

    Returns:
        Where it lies, as a part of a sentence; or why it could not be written, which is no reason
        to end a run.
    """
    name = f"{taken + 1}"
    whole = sharding.whole(batch, mesh)
    key = np.asarray(jax.random.key_data(state.key)).tolist()
    problem: Exception | None = None
    if jax.process_index() == 0:
        arrays = {"rows": rows, **traverse_util.flatten_dict(whole, sep="/")}
        note = {
            "step": taken + 1,
            "seed": seed,
            "key": key,
            "policy": policy,
            "host": socket.gethostname(),
            "numbers": {key: _as_json(value) for key, value in numbers.items()},
            "rows": rows.tolist(),
            "images": list(images),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _replacing(folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            with _replacing(folder / f"{name}.json") as temporary:
                temporary.write_text(json.dumps(note, indent=1) + "\n")
        except OSError as error:
            problem = error  # told below: the other processes save the state, and wait for this one
    try:
        with Checkpoints(folder / STATES, keep=_STATES_KEPT) as states:
            states.save(taken, state, replace=True)
    except (OSError, WorkdirError) as error:
        problem = problem or error
    if problem is not None:
        return f"its batch could not be kept ({problem})"
    return f"its batch is in {folder / name}.npz, which run.py replay --dump looks into"


def read(path: Path) -> Dump:
    """Reads a dump.

    Args:
        path: the .npz file, or the .json beside it.

    Raises:
        WorkdirError: if it is none.
    """
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
        if {"image", "targets", "weights"} - batch.keys() or len(images) != len(batch["image"]):
            raise ValueError("it holds no batch")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise WorkdirError(
            f"is no dump of a step: {error}",
            path=path,
            remedy="give --dump=WORKDIR/replay/STEP.npz, with STEP.json beside it",
        ) from error
    return Dump(path, step, batch, images, note)


def _as_json(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)


class _replacing:  # noqa: N801, reads as a verb
    """A temporary path that takes the place of a file when all went well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Path:
        return self._temporary

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            os.replace(self._temporary, self._path)
        else:
            self._temporary.unlink(missing_ok=True)
