"""A training run: the experiment, its data and its folder, put together and set going."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from numpy.typing import NDArray

from mtl_face import files, libraries
from mtl_face.training import history, monitoring, replay, sharding
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.experiment import Experiment
from mtl_face.training.guard import Guard
from mtl_face.training.loop import Cadence, Loop, Scores
from mtl_face.training.processes import distributed
from mtl_face.training.state import TrainState
from mtl_face.training.stop import Stop

# clu's writers import Keras, which takes two seconds, for the sake of a callback.
with libraries.without("tensorboard.plugins.hparams._keras", libraries.NOTHING):
    from clu import metric_writers

LOGS = "logs"
HISTORY = "history.jsonl"
PROFILE = "profile"


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The training examples, as a trainer needs them; its functions take the number of steps taken.

    Attributes:
        steps_per_epoch: not always a whole number.
        batches: gives global batches on the devices, the next step's first.
        rows: gives the rows of the next batch in the training table, int64 [B].
        image: file of each row of the training table, [N].
        numbers: gives further numbers of the next step, for the log.
    """

    steps_per_epoch: Fraction | int
    total_steps: int
    batches: Callable[[int], Iterator[dict[str, Any]]]
    rows: Callable[[int], NDArray[np.int64]]
    image: NDArray[Any]
    numbers: Callable[[int], dict[str, float]] = lambda taken: {}


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Trains an experiment on its data.

    `logs/`, `history.jsonl`, `profile/`, `replay/` and `parameters.txt` are written into the
    workdir. `evaluate` turns a state into scores; `stop` is asked after each step; `lap` is that of
    `Loop`.
    """

    experiment: Experiment
    data: TrainingData
    workdir: Path
    checkpoints: Checkpoints
    evaluate: Callable[[TrainState], Scores]
    stop: Stop
    say: Callable[[str], None]
    lap: Callable[[str], None] = lambda part: None

    def train(
        self, state: TrainState, *, profile_steps: tuple[int, int] | None = None
    ) -> TrainState:
        """Trains until the run is complete, or is asked to stop; the state's arrays are donated.

        `profile_steps` are the number of the first step to trace, from 1, and of steps.

        Returns:
            The last state; it is saved.

        Raises:
            UserError: the training diverged, the input stalled, or the disk refused a write.
        """
        config, settings = self.experiment.config, self.experiment.config.training
        first_step = int(jax.device_get(state.step))
        self._write_overview(state)
        guard = Guard(
            self.experiment.train_step(),
            placement=sharding.replicated(self.experiment.mesh),
            policy=settings.on_bad_step,  # type: ignore[arg-type]
            on_bad=self._keep_evidence,
            say=self.say,
        )
        watch = monitoring.InputWatch(
            self.data.batches(first_step),
            timeout_seconds=settings.input_timeout_s,
            where=distributed.this_host(),
            first_step=first_step,
        )
        tracer = monitoring.StepProfile(
            self.workdir / PROFILE,
            profile_steps if distributed.is_writer() else None,
            self.say,
        )
        if distributed.is_writer():
            history.forget_events_after(self.workdir / LOGS, first_step)
        writer = metric_writers.create_default_writer(
            str(self.workdir / LOGS),
            just_logging=not distributed.is_writer(),
            asynchronous=False,
        )
        warn = distributed.warn if settings.on_save_failure == "continue" else None
        loop = Loop(
            cadence=Cadence(
                total_steps=self.data.total_steps,
                steps_per_epoch=float(self.data.steps_per_epoch),
                examples_per_step=config.optimizer.batch_size,
                log_every=settings.log_every_steps,
                evaluate_every=math.ceil(
                    settings.evaluate_every_epochs * self.data.steps_per_epoch
                ),
                checkpoint_every=settings.checkpoint_every_steps,
            ),
            train_step=self._observed(guard, tracer, first_step),
            batches=watch,
            evaluate=self.evaluate,
            learning_rates=self.experiment.learning_rates,
            checkpoints=self.checkpoints,
            history=history.History(
                self.workdir / HISTORY,
                after_step=first_step,
                write=distributed.is_writer(),
                warn=warn,
            ),
            write_scalars=history.scalar_writer(writer, self.workdir / LOGS, warn=warn),
            say=self.say,
            stop=self.stop,
            settle=guard.settle,
            input_seconds=lambda: watch.waited_seconds,
            gauges=monitoring.memory,
            lap=self.lap,
        )
        state = loop.run(state)
        tracer.close()
        writer.close()
        return state

    def _observed(
        self, guard: Guard, tracer: monitoring.StepProfile, first_step: int
    ) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
        """The guarded step, traced, with the numbers of the data among its own."""
        steps = itertools.count(first_step)

        def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
            taken = next(steps)
            tracer.before(taken + 1)
            state, numbers = guard(state, batch)
            tracer.after(taken + 1, numbers)
            return state, numbers | self.data.numbers(taken)

        return step

    def _keep_evidence(
        self, taken: int, state: TrainState, batch: dict, numbers: dict[str, float]
    ) -> str:
        rows, config = self.data.rows(taken), self.experiment.config
        note = {
            "seed": config.seed,
            "policy": config.training.on_bad_step,
            "numbers": numbers,
            "rows": rows.tolist(),
            "images": self.data.image[rows].tolist(),
        }
        folder = self.workdir / replay.FOLDER
        return replay.write(folder, state, batch, note, mesh=self.experiment.mesh)

    def _write_overview(self, state: TrainState) -> None:
        """Names, shapes and sizes of the parameters, in `parameters.txt`."""
        sizes = [leaf.size for leaf in jax.tree.leaves(state.params)]
        trains = jax.tree.leaves(self.experiment.trains(state.params))
        trained = sum(size for size, learns in zip(sizes, trains, strict=True) if learns)
        of_them = f", of which {trained:,} train" if trained < sum(sizes) else ""
        self.say(f"parameters: {sum(sizes):,}{of_them}")
        if distributed.is_writer():
            text = parameter_overview.get_parameter_overview(state.params, include_stats=False)
            files.write_text(self.workdir / "parameters.txt", text + "\n")
