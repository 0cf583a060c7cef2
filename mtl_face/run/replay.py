"""Takes a bad step of a run again: whole, and apart."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtl_face.config import Config
from mtl_face.errors import ConfigError, WorkdirError, shortened
from mtl_face.run import Say, models
from mtl_face.run import workdir as workdirs
from mtl_face.run.train import recorded_counts
from mtl_face.tasks import TASKS
from mtl_face.training import guard, replay, sharding
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.experiment import Experiment, counts_classes
from mtl_face.training.state import TrainState

_SHOWN = 8
"""Examples and places listed at most."""


def take_again(config: Config, workdir: Path, dump_file: Path, *, say: Say) -> Path:
    """Takes the step of WORKDIR/replay/STEP.npz again on the devices of this machine.

    Says whether it is refused again, its numbers, and where the first bad one appears. Returns the
    absolute path of the dump.

    Raises:
        WorkdirError: the dump or the state before the step cannot be read, they are of two runs, or
            the batch does not split over these devices.
    """
    models.require_of_frames(config, "replay takes steps of")
    workdir = workdirs.open_for_reading(workdir, config)
    dump = replay.read(dump_file)
    counts = recorded_counts(workdir)
    if counts is None and counts_classes(config):
        raise WorkdirError(
            "has no checkpoint that says how often training shows each class, by which its loss "
            "weighs them",
            path=workdir / workdirs.CHECKPOINTS,
            remedy="restore a checkpoint of the run",
        )
    experiment = Experiment(config, class_counts=counts)
    try:
        sharding.check_batch(
            len(dump.images),
            experiment.mesh,
            name="its batch of",
            microbatches=config.optimizer.accumulation_steps,
        )
    except ConfigError as error:
        raise WorkdirError(
            error.problem,
            path=dump.path,
            remedy="replay it on as many devices as the run had, or on one",
        ) from error
    state = _state_before(experiment, workdir, dump)
    say(f"step {dump.step} of seed {dump.note['seed']}, refused on {dump.note['host']}")
    if np.asarray(jax.random.key_data(state.key)).tolist() != dump.note["key"]:
        raise WorkdirError(
            "was written by another run than the state before its step",
            path=dump.path,
            remedy="give the --dump and the --workdir of one run",
        )
    batch = jax.device_put(dump.batch, sharding.by_example(experiment.mesh))
    plain = Experiment(
        dataclasses.replace(config, model=dataclasses.replace(config.model, remat="none")),
        class_counts=counts,
    )
    found = replay.diagnose(
        plain.network,
        state,
        batch,
        augment=plain.augment,
        objective=plain.objective,
        network_params=plain.network_params,
    )
    free = jax.device_put(np.float32(0), sharding.replicated(experiment.mesh))
    _, reported = experiment.train_step()(state, batch, free)
    numbers = {name: float(value) for name, value in jax.device_get(reported).items()}
    say(f"taken again it is {'refused again' if numbers.pop(guard.HELD) else 'SOUND'}:")

    def name_of(example: int) -> str:
        """Its image, and the one that MixUp blends it with: its neighbour."""
        mixed = config.augmentation.mixup_alpha > 0
        blended = f", blended with {dump.images[example ^ 1]}" if mixed else ""
        return f"{dump.images[example]} (example {example}{blended})"

    for line in (*_numbers(numbers, dump.note["numbers"]), *_findings(found, name_of)):
        say(line)
    return dump.path


def _state_before(experiment: Experiment, workdir: Path, dump: replay.Dump) -> TrainState:
    """From replay/states, else from a checkpoint of the run at that step."""
    taken = dump.step - 1
    for folder in (dump.path.parent / replay.STATES, workdir / workdirs.CHECKPOINTS):
        if (folder / str(taken)).is_dir():
            with Checkpoints(folder, keep=1, read_only=True) as checkpoints:
                return checkpoints.restore(taken, experiment.state_like)
    raise WorkdirError(
        f"has no state of {taken} steps, the one before the bad step",
        path=dump.path.parent / replay.STATES,
        remedy="only the states of the newest bad steps are kept: choose one of those",
    )


def _numbers(again: dict[str, float], then: dict[str, Any]) -> list[str]:
    """A line for each number, with what it was in the run where that differs."""
    lines = []
    for name, value in again.items():
        if name.endswith("_weight"):
            continue
        before = float(then.get(name, "nan"))
        same = before == value or (math.isnan(before) and math.isnan(value))
        label = (
            f"loss of {name}" if name in TASKS else name.replace("gradient_norm", "gradient norm")
        )
        digits = 6 if same else 9  # of float32, nine tell any two apart
        other = "" if same else f"  (in the run {before:.{digits}g})"
        lines.append(f"  {label:28} {value:.{digits}g}{other}")
    return lines


def _findings(found: replay.Diagnosis, name_of: Callable[[int], str]) -> list[str]:
    first = found.first_bad
    if first is None:
        losses = found.example_loss["loss"].tolist()
        worst = sorted(range(len(losses)), key=lambda example: -losses[example])[:_SHOWN]
        largest = sorted(found.places, key=lambda place: -place.largest)[:_SHOWN]
        return [
            "every value is finite. The examples with the largest losses:",
            *(f"  {losses[example]:.6g}  {name_of(example)}" for example in worst),
            "the largest magnitudes:",
            *(f"  {place.largest:.4g}  {place.name}" for place in largest),
        ]
    lines = [f"the first value that is not finite: {_words(first)}"]
    before = found.places[: found.places.index(first)]
    lines += [f"  just before it: {_words(place)}" for place in before[-2:]]
    if first.bad_B is not None:
        bad = first.bad_B.nonzero()[0].tolist()
        lines.append(f"  its examples ({len(bad)} of {len(first.bad_B)}):")
        lines += [f"    {line}" for line in shortened(bad, _SHOWN, name_of)]
    later = [place.name for place in found.places if place.bad and place is not first]
    lines.append(f"  {len(later)} later values are not finite either")
    return lines


def _words(place: Any) -> str:
    return f"{place.name}: {place.bad} of {place.size} bad, the rest up to {place.largest:.4g}"
