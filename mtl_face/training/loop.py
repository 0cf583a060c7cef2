"""The loop: steps, progress, evaluations, checkpoints, and leaving in good order."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from mtl_face.errors import UserError
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.history import History
from mtl_face.training.state import TrainState
from mtl_face.training.step import mean_numbers
from mtl_face.training.stop import Stop

Scores = dict[str, float]
"""Numbers of an evaluation by log name; `score` is what the best checkpoint is chosen by."""


def train(
    state: TrainState,
    *,
    train_step: Callable[[TrainState, dict], tuple[TrainState, dict[str, jax.Array]]],
    batches: Iterator[dict],
    total_steps: int,
    steps_per_epoch: float,
    examples_per_step: int,
    log_every: int,
    evaluate_every: int,
    checkpoint_every: int,
    evaluate: Callable[[TrainState], Scores],
    learning_rates: dict[str, Callable[[Any], Any]],
    checkpoints: Checkpoints,
    history: History,
    write_scalars: Callable[[int, dict[str, float]], None],
    say: Callable[[str], None],
    stop: Stop,
    settle: Callable[[TrainState], TrainState] = lambda state: state,
    input_seconds: Callable[[], float] = lambda: 0.0,
    gauges: Callable[[], dict[str, float]] = dict,
) -> TrainState:
    """Trains until `total_steps`, or until asked to stop.

    Args:
        state: where to start; its arrays are donated to the first step.
        train_step: `(state, batch) -> (state, numbers)`; `loss` and `gradient_norm` among them.
        batches: global batches, the first for the step that comes next.
        total_steps: steps of the whole run.
        steps_per_epoch: steps of an epoch, not always a whole number.
        examples_per_step: examples of a global batch.
        log_every: steps between two lines of progress, besides those at checkpoints: so the means
            of a row never reach over a step that a run may go on from.
        evaluate_every: steps between two evaluations; the last step is always evaluated.
        checkpoint_every: steps between two checkpoints, besides those at evaluations.
        evaluate: state -> scores.
        learning_rates: schedules by group, for the log.
        checkpoints: where states go.
        history: where the learning curves go.
        write_scalars: `(step, numbers)`, to TensorBoard.
        say: prints a line of progress.
        stop: asked after each step.
        settle: called on a state before it is reported, scored or saved; see `guard.Guard`.
        input_seconds: time waited for batches so far.
        gauges: further numbers for the log, by log name.

    Returns:
        The last state. `stop.requested` tells whether it came early; it is saved either way.

    Raises:
        UserError: if the loss or the gradient is no longer finite; nothing of it was saved.
    """
    step = first_step = int(jax.device_get(state.step))
    pending: list[dict[str, jax.Array]] = []
    meter = _Meter(step, total_steps, examples_per_step, input_seconds)
    leaving = stop.requested
    while step < total_steps and not leaving:
        batch = next(batches)
        with jax.transfer_guard("disallow"):  # a hidden transfer a step costs more than the step
            state, numbers = train_step(state, batch)
        step += 1
        pending.append(numbers)
        leaving = stop.requested  # asked once: a signal that comes later waits for the next step
        evaluates = step % evaluate_every == 0 or step == total_steps
        saves = evaluates or step % checkpoint_every == 0 or leaving
        if step % log_every == 0 or saves:
            state = settle(state)
            means = mean_numbers(jax.device_get(pending))
            pending = []
            speed = meter.lap(step) | gauges()
            _check_finite(step, means)
            rates = {f"learning_rate/{k}": float(f(step - 1)) for k, f in learning_rates.items()}
            row = {f"train/{name}": value for name, value in means.items()} | rates
            history.append({"step": step, "epoch": step / steps_per_epoch, **row, **speed})
            write_scalars(step, row | speed)
            say(_progress_line(step, total_steps, steps_per_epoch, means, meter))
        elif step == first_step + 1:
            jax.block_until_ready(numbers)
            meter.restart(step)  # compiling is no measure of speed
        if evaluates:
            with meter.paused():
                scores = evaluate(state)
                row = {f"validation/{name}": value for name, value in scores.items()}
                history.append({"step": step, "epoch": step / steps_per_epoch, **row})
                write_scalars(step, row)
                say(
                    f"step {step}: validation "
                    + " ".join(f"{name} {value:.4f}" for name, value in scores.items())
                )
                checkpoints.save(step, state, score=scores["score"])
        elif saves:
            with meter.paused():
                checkpoints.save(step, state)
    checkpoints.wait()
    return state


def _check_finite(step: int, means: dict[str, float]) -> None:
    """Asked before every save.

    A gradient that is not finite spoils the state, though the loss of its step is still sound.
    """
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(means.get(name, 0.0)):
            raise UserError(
                f"the {name.replace('_', ' ')} is {means[name]} by step {step}",
                remedy="lower optimizer.learning_rate and optimizer.backbone_learning_rate, or set "
                "optimizer.gradient_clip=1.0; the last checkpoint is older and sound",
            )


def _progress_line(
    step: int, total: int, steps_per_epoch: float, means: dict[str, float], meter: "_Meter"
) -> str:
    losses = " ".join(
        f"{name} {means[name]:.4f}" for name in ("loss", "va", "au", "expr") if name in means
    )
    return (
        f"step {step}/{total} (epoch {step / steps_per_epoch:.2f}) {losses} | "
        f"{meter.steps_per_second:.2f} steps/s, {meter.images_per_second:.0f} images/s, "
        f"ETA {_clock(meter.seconds_left(step))}"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Meter:
    """Speed since the last lap, and the time left; evaluations and saves don't count as steps."""

    def __init__(
        self, step: int, total: int, examples_per_step: int, input_seconds: Callable[[], float]
    ) -> None:
        self._total = total
        self._examples = examples_per_step
        self._input_seconds = input_seconds
        self.steps_per_second = 0.0
        self.restart(step)

    @property
    def images_per_second(self) -> float:
        return self.steps_per_second * self._examples

    def restart(self, step: int) -> None:
        self._lap_step, self._lap_start, self._pause = step, time.perf_counter(), 0.0
        self._lap_input = self._input_seconds()

    def lap(self, step: int) -> dict[str, float]:
        elapsed = time.perf_counter() - self._lap_start - self._pause
        self.steps_per_second = (step - self._lap_step) / max(elapsed, 1e-9)
        waited = self._input_seconds() - self._lap_input
        self.restart(step)
        return {
            "speed/steps_per_second": self.steps_per_second,
            "speed/images_per_second": self.images_per_second,
            "speed/input_wait_share": min(waited / max(elapsed, 1e-9), 1.0),
        }

    def seconds_left(self, step: int) -> float:
        return (self._total - step) / max(self.steps_per_second, 1e-9)

    def paused(self) -> "_Pause":
        return _Pause(self)

    def add_pause(self, seconds: float) -> None:
        self._pause += seconds


class _Pause:
    def __init__(self, meter: _Meter) -> None:
        self._meter = meter

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self._meter.add_pause(time.perf_counter() - self._start)
