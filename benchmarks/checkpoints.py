"""What checkpoints cost: the training loop's wait for a save, bytes on disk, seconds of a restore.

    python -m benchmarks.checkpoints --output=docs/benchmarks/checkpoints.json
    python -m benchmarks.checkpoints --experiment=rendered_faces --folder=/mnt/disk

The state is that of the experiment, optimizer included. A round takes some steps, saves, and takes
as many steps again, during which the save is written in the background; the loop loses the time of
the call and what the second steps take longer. It is given as a share of the step interval, the
`training.checkpoint_every_steps` steps between two saves. A batch smaller than the experiment's
makes the interval shorter and the share larger. The raw ways write and read the same bytes as one
file. Reads find the files in the page cache, and no way waits for the disk itself (fsync).
"""

import argparse
import functools
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mtl_face
from benchmarks import comparison, jax_step
from mtl_face.run import environment
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.experiment import Experiment
from mtl_face.training.sharding import replicated
from mtl_face.training.state import TrainState

GOAL = 0.05
"""Largest share of a step interval that a save may take from the loop."""


def main() -> None:
    """Prints one table for each question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=5)
    parser.add_argument("--experiment", default="paper", help="whose state and step")
    parser.add_argument("--batch-size", type=int, default=8, help="examples of a step")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's")
    options = parser.parse_args()
    environment.restart_with_huge_pages()
    environment.keep_freed_memory()  # as `run.py train` on a processor
    settings = mtl_face.load_config(options.experiment, **{"data.root": "."})
    parts = Experiment(settings, devices=jax.devices()[:1])
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as name,
        Checkpoints(
            Path(name) / "checkpoints", keep=settings.training.keep_checkpoints
        ) as checkpoints,
    ):
        loop = Loop(parts, checkpoints, options.batch_size)
        raw = Path(name) / "raw"
        groups = [
            *stalls(loop, options.rounds),
            write_times(loop, raw, options.rounds),
            size(loop.state, Path(name) / "checkpoints" / str(loop.saved)),
            restore_times(loop, raw, options.rounds),
        ]
        title = f"Checkpoints of {options.experiment}, {megabytes(loop.state):,.0f} MB of state"
        comparison.report(title, groups, options.output)


class Loop:
    """The train step with its state, and its saves."""

    def __init__(self, parts: Experiment, checkpoints: Checkpoints, batch_size: int) -> None:
        self.checkpoints = checkpoints
        self.like = parts.state_like
        self.interval_steps = parts.config.training.checkpoint_every_steps
        self.state: TrainState = parts.make_state()
        self.saved = 0
        self.batch_size = batch_size
        batch = jax_step.make_batch(parts.config.data.image_size, batch_size)
        self._batch = jax.device_put(batch)
        self._held = jax.device_put(np.float32(0), replicated(parts.mesh))
        self._step = parts.train_step()

    def train(self, steps: int) -> float:
        """Takes steps; seconds."""
        start = time.perf_counter()
        for _ in range(steps):
            self.state, _ = self._step(self.state, self._batch, self._held)
        jax.block_until_ready(self.state)
        return time.perf_counter() - start

    def save(self) -> float:
        """Starts to save; seconds until training can go on."""
        self.saved += 1
        start = time.perf_counter()
        self.checkpoints.save(self.saved, self.state)
        return time.perf_counter() - start


def stalls(loop: Loop, rounds: int) -> list[comparison.Group]:
    """A step interval without and with its save, and what of the save holds up the loop."""
    loop.train(2)
    step = loop.train(1)
    start = time.perf_counter()
    loop.save()
    loop.checkpoints.wait()
    steps = math.ceil(2 * (time.perf_counter() - start) / step)  # the write ends among them
    alone, slower, copy, call = [], [], [], []
    for _ in range(rounds):
        alone.append(loop.train(steps))
        start = time.perf_counter()
        copies = [array.copy() for array in arrays(loop.state)]
        copy.append(time.perf_counter() - start)
        del copies
        call.append(loop.save())
        start = time.perf_counter()
        loop.train(steps)
        loop.checkpoints.wait()
        slower.append(time.perf_counter() - start - alone[-1])
    intervals = [seconds * loop.interval_steps / steps for seconds in alone]
    lost = [first + second for first, second in zip(call, slower, strict=True)]
    shares = [own / interval for own, interval in zip(lost, intervals, strict=True)]
    share = comparison.spread([100 * each for each in shares])
    print(f"a save takes {share} % of a step interval; goal: below {100 * GOAL:g} %")
    print(f"slow-down of the {steps} steps after it: {comparison.spread(slower)} s", flush=True)
    name = f"Step interval, {loop.interval_steps} steps of batch {loop.batch_size}"
    disturbed = [interval + own for interval, own in zip(intervals, lost, strict=True)]
    return [
        comparison.Group(
            f"{name}: a save takes {share} %",
            "without a save",
            "s",
            {"without a save": intervals, "with a save": disturbed},
        ),
        comparison.Group(
            "Stall by the call that saves",
            "a copy in memory",
            "s",
            {"a copy in memory": copy, "Checkpoints.save": call},
        ),
    ]


def write_times(loop: Loop, raw: Path, rounds: int) -> comparison.Group:
    """A save with nothing beside it, from the call until all is written, and a raw write."""

    def save() -> None:
        loop.save()
        loop.checkpoints.wait()

    ways: dict[str, Callable[[], object]] = {
        "file.write of the same bytes": functools.partial(write_raw, loop.state, raw),
        "Checkpoints.save until written": save,
    }
    seconds = comparison.time_in_turn(ways, rounds=rounds)
    return comparison.Group("Writing", next(iter(ways)), "s", seconds)


def size(state: TrainState, folder: Path) -> comparison.Group:
    """Bytes of a state and of its folder."""
    on_disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    found = {"the state's arrays": [megabytes(state)], "on disk": [on_disk]}
    return comparison.Group("Size", "the state's arrays", "MB", found)


def restore_times(loop: Loop, raw: Path, rounds: int) -> comparison.Group:
    """A restore, which checks the bits, and raw reads."""
    restore = functools.partial(loop.checkpoints.restore, loop.saved, loop.like)
    ways: dict[str, Callable[[], object]] = {
        "np.fromfile": functools.partial(np.fromfile, raw, np.uint8),
        "file.read": raw.read_bytes,
        "Checkpoints.restore": lambda: jax.block_until_ready(restore()),
    }
    seconds = comparison.time_in_turn(ways, rounds=rounds)
    return comparison.Group("Restoring", "np.fromfile", "s", seconds)


def write_raw(state: Any, path: Path) -> None:
    """All arrays of a state, one after the other."""
    with path.open("wb") as file:
        for array in arrays(state):
            file.write(np.ascontiguousarray(array).data)


def arrays(state: Any) -> list[np.ndarray]:
    """The leaves of a state, random keys as their numbers."""
    leaves = jax.tree.leaves(state)
    return jax.device_get(
        [
            jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
            for leaf in leaves
        ]
    )


def megabytes(state: Any) -> float:
    """Size of a state's arrays."""
    return sum(array.nbytes for array in arrays(state)) / 1e6


if __name__ == "__main__":
    main()
