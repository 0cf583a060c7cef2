"""A trace of a few steps with JAX's profiler, for TensorBoard or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from mtl_face.errors import ConfigError


def parse_steps(text: str) -> tuple[int, int]:
    """`START:COUNT` -> (first step to trace, number of steps); steps count from 1.

    Raises:
        ConfigError: it is nothing of the kind.
    """
    start, _, count = text.partition(":")
    if not (start.isdecimal() and count.isdecimal() and int(start) > 0 and int(count) > 0):
        raise ConfigError(
            f"--profile_steps is {text!r}, expected START:COUNT",
            remedy="--profile_steps=20:5 traces the steps 20 to 24",
        )
    return int(start), int(count)


class StepProfile:
    """Traces a few steps of a run, as the loop comes by.

    The first step of a process compiles: start later.
    """

    def __init__(
        self, folder: Path, steps: tuple[int, int] | None, say: Callable[[str], None]
    ) -> None:
        """Prepares a trace.

        Args:
            folder: where it is written; made if absent.
            steps: number of the first step to trace, from 1, and of steps; None for no trace.
            say: prints a line.
        """
        self._folder = folder
        start, count = steps or (0, 0)
        self._start, self._end = start, start + count
        self._say = say
        self._running = False
        self._missed = steps is not None

    def before(self, step: int) -> None:
        """To be called before step `step`, from 1."""
        if not self._running and self._start <= step < self._end:
            jax.profiler.start_trace(self._folder)
            self._running, self._missed = True, False

    def after(self, step: int, results: Any) -> None:
        """To be called after step `step` with what it returned; ends the trace in due time."""
        if step >= self._end - 1 and self._running:
            jax.block_until_ready(results)  # else the trace would miss what still runs
            self.close()

    def close(self) -> None:
        """Ends a trace that is still running, and says so if there was none to end."""
        if self._missed:
            self._missed = False
            self._say(
                f"no profile: the steps {self._start} to {self._end - 1} were not among those taken"
            )
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            self._say(
                f"profile of steps {self._start} to {self._end - 1}: {self._folder}  "
                f"(tensorboard --logdir={self._folder} shows it, with tensorboard-plugin-profile)"
            )
