"""The loop: steps, progress, evaluations, checkpoints, and leaving in good order."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from mtl_face import libraries
from mtl_face.training import history as histories
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.history import History
from mtl_face.training.state import TrainState
from mtl_face.training.step import mean_numbers
from mtl_face.training.stop import Stop

FIRST_STEP = "first step"
"""The last part of a start, see `Loop.lap`."""

Scores = dict[str, float]
"""Numbers of an evaluation by log name; `score` is what the best checkpoint is chosen by."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cadence:
    """When what happens, in steps.

    Attributes:
        steps_per_epoch: not always a whole number.
        examples_per_step: examples of a global batch.
        log_every: steps between two lines of progress, besides those at checkpoints: so the means
            of a row never reach over a step that a run may go on from.
        evaluate_every: steps between two evaluations; the last step is always evaluated.
        checkpoint_every: steps between two checkpoints, besides those at evaluations.
    """

    total_steps: int
    steps_per_epoch: float
    examples_per_step: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """Takes steps until the run is complete or is asked to stop.

    Attributes:
        train_step: `(state, batch) -> (state, numbers)`; `loss` and `gradient_norm` among them.
        batches: global batches, the first for the step that comes next.
        learning_rates: schedules by group, for the log.
        write_scalars: `(step, numbers)`, to TensorBoard.
        stop: asked after each step.
        settle: called on a state before it is reported, scored or saved; see `guard.Guard`.
        input_seconds: time waited for batches so far.
        gauges: further numbers for the log, by log name.
        lap: called when a part of the start ends, with its name: "input", "compile" and
            `FIRST_STEP`.
    """

    cadence: Cadence
    train_step: Callable[[TrainState, dict], tuple[TrainState, dict[str, jax.Array]]]
    batches: Iterator[dict]
    evaluate: Callable[[TrainState], Scores]
    learning_rates: dict[str, Callable[[Any], Any]]
    checkpoints: Checkpoints
    history: History
    write_scalars: Callable[[int, dict[str, float]], None]
    say: Callable[[str], None]
    stop: Stop
    settle: Callable[[TrainState], TrainState] = lambda state: state
    input_seconds: Callable[[], float] = lambda: 0.0
    gauges: Callable[[], dict[str, float]] = dict
    lap: Callable[[str], None] = lambda part: None

    def run(self, state: TrainState) -> TrainState:
        """Trains from a state, whose arrays are donated to the first step.

        Returns the last state, which is saved; `stop.requested` tells whether it came early.
        """
        cadence = self.cadence
        step = first_step = int(jax.device_get(state.step))
        pending: list[dict[str, jax.Array]] = []
        meter = _Meter(step, cadence, self.input_seconds)
        leaving = self.stop.requested
        while step < cadence.total_steps and not leaving:
            batch = next(self.batches)
            if step == first_step:
                self.lap("input")
            # what tracing makes stays
            traced = libraries.no_collector() if step == first_step else contextlib.nullcontext()
            # a hidden transfer a step costs more than the step
            with traced, jax.transfer_guard("disallow"):
                state, numbers = self.train_step(state, batch)
            step += 1
            pending.append(numbers)
            if step == first_step + 1:
                self.lap("compile")
                jax.block_until_ready(numbers)
                self.lap(FIRST_STEP)
            # asked once: a signal that comes later waits for the next step
            leaving = self.stop.requested
            evaluates = step % cadence.evaluate_every == 0 or step == cadence.total_steps
            saves = evaluates or step % cadence.checkpoint_every == 0 or leaving
            if step % cadence.log_every == 0 or saves:
                state = self.settle(state)
                self._report(step, mean_numbers(jax.device_get(pending)), meter)
                pending = []
            elif step == first_step + 1:
                meter.restart(step)  # compiling is no measure of speed
            if saves:
                with meter.paused():
                    score = self._score(step, state) if evaluates else None
                    self.checkpoints.save(step, state, score=score)
        self.checkpoints.wait()
        return state

    def _report(self, step: int, means: dict[str, float], meter: "_Meter") -> None:
        """Writes the means of the last steps."""
        speed = meter.lap(step) | self.gauges()
        rates = {
            f"learning_rate/{name}": float(rate(step - 1))
            for name, rate in self.learning_rates.items()
        }
        row = {f"train/{name}": value for name, value in means.items()} | rates | speed
        self._log(step, row)
        losses = " ".join(
            f"{name} {means[name]:.4f}" for name in ("loss", "va", "au", "expr") if name in means
        )
        self.say(
            f"step {step}/{self.cadence.total_steps} "
            f"(epoch {step / self.cadence.steps_per_epoch:.2f}) {losses} | {meter.words(step)}"
        )

    def _score(self, step: int, state: TrainState) -> float:
        scores = self.evaluate(state)
        self._log(step, {f"validation/{name}": value for name, value in scores.items()})
        criterion = f" ({histories.criterion(scores)})" if "p" not in scores else ""
        listed = " ".join(
            f"{name} {value:.4f}{criterion if name == 'score' else ''}"
            for name, value in scores.items()
        )
        self.say(f"step {step}: validation {listed}")
        return scores["score"]

    def _log(self, step: int, row: dict[str, float]) -> None:
        self.history.append({"step": step, "epoch": step / self.cadence.steps_per_epoch, **row})
        self.write_scalars(step, row)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Meter:
    """Speed since the last lap, and the time left; evaluations and saves don't count as steps."""

    def __init__(self, step: int, cadence: Cadence, input_seconds: Callable[[], float]) -> None:
        self._cadence = cadence
        self._input_seconds = input_seconds
        self._steps_per_second = 0.0
        self.restart(step)

    def restart(self, step: int) -> None:
        self._lap_step, self._lap_start, self._pause = step, time.perf_counter(), 0.0
        self._lap_input = self._input_seconds()

    def lap(self, step: int) -> dict[str, float]:
        elapsed = max(time.perf_counter() - self._lap_start - self._pause, 1e-9)
        self._steps_per_second = (step - self._lap_step) / elapsed
        waited = self._input_seconds() - self._lap_input
        self.restart(step)
        return {
            "speed/steps_per_second": self._steps_per_second,
            "speed/images_per_second": self._steps_per_second * self._cadence.examples_per_step,
            "speed/input_wait_share": min(waited / elapsed, 1.0),
        }

    def words(self, step: int) -> str:
        left = (self._cadence.total_steps - step) / max(self._steps_per_second, 1e-9)
        images = self._steps_per_second * self._cadence.examples_per_step
        return f"{self._steps_per_second:.2f} steps/s, {images:.0f} images/s, ETA {_clock(left)}"

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._pause += time.perf_counter() - start
