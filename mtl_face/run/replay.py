"""`run.py replay`: takes a bad step again, and tells where its first bad number appears."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtl_face import config as config_lib
from mtl_face.errors import ConfigError, WorkdirError
from mtl_face.run import workdir as workdirs
from mtl_face.tasks import TASKS
from mtl_face.training import guard, replay, sharding
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.experiment import Experiment
from mtl_face.training.replay import Diagnosis, Place, diagnose
from mtl_face.training.state import TrainState

_SHOWN = 8
"""Examples and places listed at most."""


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Takes the step again, whole and then apart, and prints what is found.

    Args:
        config: the settings of the run.
        options: `workdir`, `dump`.

    Returns:
        Exit status 0.

    Raises:
        WorkdirError: the dump or the state before the step cannot be read.
    """
    say = print
    workdir = workdirs.open_for_reading(options.workdir, config)
    dump = replay.read(options.dump)
    session = Experiment(config)
    _check_devices(session, dump)
    state = _state_before(session, workdir, dump)
    say(f"step {dump.step} of seed {dump.note['seed']}, refused on {dump.note['host']}")
    _compare_key(state, dump)
    batch = jax.device_put(dump.batch, sharding.by_example(session.mesh))
    # Without rematerialisation, inside of which no value could be looked at.
    plain = Experiment(
        dataclasses.replace(config, model=dataclasses.replace(config.model, remat="none"))
    )
    found = diagnose(plain.network, state, batch, augment=plain.augment, objective=plain.objective)
    step = session.train_step()
    free = jax.device_put(np.float32(0), sharding.replicated(session.mesh))
    _, numbers = step(state, batch, free)
    again = {name: float(value) for name, value in jax.device_get(numbers).items()}
    say(f"taken again it is {'refused again' if again[guard.HELD] else 'SOUND'}:")
    for line in _numbers(again, dump.note["numbers"]):
        say("  " + line)
    for line in _findings(found, dump, mixed=config.augmentation.mixup_alpha > 0):
        say(line)
    say(f"its images: {dump.path.with_suffix('.json')}; its batch: {dump.path}")
    say(
        "next: look at these images and labels, or train again with training.on_bad_step=skip, "
        "optimizer.gradient_clip=1.0 or a lower rate"
    )
    return 0


def _state_before(session: Experiment, workdir: Path, dump: replay.Dump) -> TrainState:
    """From replay/states, else from a checkpoint of the run at that step."""
    taken = dump.step - 1
    for folder in (dump.path.parent / replay.STATES, workdir / workdirs.CHECKPOINTS):
        if (folder / str(taken)).is_dir():
            with Checkpoints(folder, keep=1, read_only=True) as checkpoints:
                return checkpoints.restore(taken, session.state_like)
    raise WorkdirError(
        f"has no state of {taken} steps, the one before the bad step",
        path=dump.path.parent / replay.STATES,
        remedy="only the states of the newest bad steps are kept: choose one of those",
    )


def _check_devices(session: Experiment, dump: replay.Dump) -> None:
    try:
        sharding.check_batch(
            len(dump.images),
            session.mesh,
            name="its batch of",
            microbatches=session.config.optimizer.accumulation_steps,
        )
    except ConfigError as error:
        raise WorkdirError(
            error.problem,
            path=dump.path,
            remedy="replay it on as many devices as the run had, or on one",
        ) from error


def _compare_key(state: TrainState, dump: replay.Dump) -> None:
    if np.asarray(jax.random.key_data(state.key)).tolist() != dump.note["key"]:
        raise WorkdirError(
            "was written by another run than the state before its step",
            path=dump.path,
            remedy="give the --dump and the --workdir of one run",
        )


def _numbers(again: dict[str, float], then: dict[str, Any]) -> list[str]:
    """A line for each number, with what it was in the run where that differs."""
    lines = []
    for name, value in again.items():
        if name == guard.HELD or name.endswith("_weight"):
            continue
        before = float(then.get(name, "nan"))
        same = before == value or (np.isnan(before) and np.isnan(value))
        label = (
            f"loss of {name}" if name in TASKS else name.replace("gradient_norm", "gradient norm")
        )
        lines.append(f"{label:28} {value:.6g}" + ("" if same else f"  (in the run {before:.6g})"))
    return lines


def _findings(found: Diagnosis, dump: replay.Dump, *, mixed: bool) -> list[str]:
    name_of = _names(dump, mixed=mixed)
    first = found.first_bad
    if first is None:
        loss_B = found.example_loss["loss"]
        order_B = np.argsort(-loss_B)[:_SHOWN]
        lines = ["every value is finite. The examples with the largest losses:"]
        lines += [f"  {loss_B[i]:.6g}  {name_of(int(i))}" for i in order_B]
        largest = sorted(found.places, key=lambda place: -place.largest)[:_SHOWN]
        return [
            *lines,
            "the largest magnitudes:",
            *(f"  {place.largest:.4g}  {place.name}" for place in largest),
        ]
    lines = [f"the first value that is not finite: {_words(first)}"]
    before = found.places[: found.places.index(first)]
    lines += [f"  just before it: {_words(place)}" for place in before[-2:]]
    if first.bad_B is not None:
        bad = np.flatnonzero(first.bad_B)
        lines.append(f"  its examples ({len(bad)} of {len(first.bad_B)}):")
        lines += [f"    {name_of(int(i))}" for i in bad[:_SHOWN]]
        lines += ["    ..."] if len(bad) > _SHOWN else []
    later = [place.name for place in found.places if place.bad and place is not first]
    lines.append(f"  {len(later)} later values are not finite either")
    return lines


def _names(dump: replay.Dump, *, mixed: bool) -> Callable[[int], str]:
    """Example -> its image, and the one that MixUp blends it with: its neighbour."""

    def name_of(index: int) -> str:
        blended = f", blended with {dump.images[index ^ 1]}" if mixed else ""
        return f"{dump.images[index]} (example {index}{blended})"

    return name_of


def _words(place: Place) -> str:
    return f"{place.name}: {place.bad} of {place.size} bad, the rest up to {place.largest:.4g}"
