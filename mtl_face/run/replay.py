"""Takes a bad step of a run again: whole, and apart."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from mtl_face.config import Config
from mtl_face.errors import ConfigError, WorkdirError
from mtl_face.run import Say
from mtl_face.run import workdir as workdirs
from mtl_face.training import guard, replay, sharding
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.experiment import Experiment
from mtl_face.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Replayed:
    """A bad step, taken again: whether it was refused again, and the numbers reported this time."""

    dump: replay.Dump
    refused: bool
    numbers: dict[str, float]
    diagnosis: replay.Diagnosis


def take_again(config: Config, workdir: Path, dump_file: Path, *, say: Say) -> Replayed:
    """Takes the step of WORKDIR/replay/STEP.npz again on the devices of this machine.

    Raises:
        WorkdirError: the dump or the state before the step cannot be read, they are of two runs, or
            the batch does not split over these devices.
    """
    workdir = workdirs.open_for_reading(workdir, config)
    dump = replay.read(dump_file)
    experiment = Experiment(config)
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
        dataclasses.replace(config, model=dataclasses.replace(config.model, remat="none"))
    )
    found = replay.diagnose(
        plain.network, state, batch, augment=plain.augment, objective=plain.objective
    )
    free = jax.device_put(np.float32(0), sharding.replicated(experiment.mesh))
    _, reported = experiment.train_step()(state, batch, free)
    numbers = {name: float(value) for name, value in jax.device_get(reported).items()}
    return Replayed(dump, numbers.pop(guard.HELD) != 0, numbers, found)


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
