"""What a run watches while it trains: the wait for its input, its memory, a trace of its steps."""

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import psutil

from mtl_face.errors import ConfigError, UserError

_MIB = 2**20


class InputWatch:
    """Iterates over batches, sums the waiting (`waited_seconds`), gives up after a time-out."""

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        timeout_seconds: float,
        where: str,
        first_step: int = 0,
        unit: str = "step",
    ) -> None:
        """Wraps batches; none is asked for yet.

        With a time-out each batch is fetched in a thread: what hangs there cannot be interrupted,
        only left behind. A time-out of 0 waits for any length. `where` (host and process) and
        `unit` (what a batch is for) stand in the message; `first_step` is the number of steps
        taken before the first batch.
        """
        self.waited_seconds = 0.0
        self._timeout = timeout_seconds
        self._where = where
        self._step = first_step
        self._unit = unit
        self._source = iter(batches)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next batch; UserError, which names the host and the step, if none came in time."""
        begin = time.perf_counter()
        try:
            batch = next(self._source) if self._timeout <= 0 else self._fetched()
        finally:
            self.waited_seconds += time.perf_counter() - begin
        self._step += 1
        return batch

    def _fetched(self) -> Any:
        fetched: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def fetch() -> None:
            try:
                fetched.set_result(next(self._source))
            except BaseException as error:  # handed over, not handled: StopIteration too
                fetched.set_exception(error)

        # A pool's threads would be waited for when the program ends.
        threading.Thread(target=fetch, name="input", daemon=True).start()
        concurrent.futures.wait([fetched], self._timeout)
        if not fetched.done():
            raise UserError(
                f"the input has stalled on {self._where}: no batch for {self._unit} "
                f"{self._step + 1} in {self._timeout:g} s",
                remedy="see whether that host still reads the folder of data.root; then run the "
                "same command again: it goes on from the last checkpoint "
                "(training.input_timeout_s sets the time)",
            )
        return fetched.result()


def memory() -> dict[str, float]:
    """Memory in use, in MiB.

    `memory/host_mib` is what this process holds of the host's memory; `memory/device_mib` and
    `memory/device_peak_mib` are in use now and at most so far, of the local device that has used
    most, where the devices report it (a CPU does not).
    """
    numbers = {"memory/host_mib": psutil.Process().memory_info().rss / _MIB}
    reports = [device.memory_stats() for device in jax.local_devices()]
    for name, key in (
        ("memory/device_mib", "bytes_in_use"),
        ("memory/device_peak_mib", "peak_bytes_in_use"),
    ):
        values = [report[key] for report in reports if report and key in report]
        if values:
            numbers[name] = max(values) / _MIB
    return numbers


def parse_steps(text: str) -> tuple[int, int]:
    """`START:COUNT` -> (first step, from 1, number of steps); ConfigError for another form."""
    start, _, count = text.partition(":")
    if not (start.isdecimal() and count.isdecimal() and int(start) > 0 and int(count) > 0):
        raise ConfigError(
            f"--profile_steps is {text!r}, expected START:COUNT",
            remedy="--profile_steps=20:5 traces the steps 20 to 24",
        )
    return int(start), int(count)


class StepProfile:
    """Traces a few steps of a run with JAX's profiler, for TensorBoard or Perfetto.

    The first step of a process compiles: start later.
    """

    def __init__(
        self, folder: Path, steps: tuple[int, int] | None, say: Callable[[str], None]
    ) -> None:
        """Prepares a trace into a folder, made if absent.

        `steps` are the number of the first step to trace, from 1, and of steps; None for no trace.
        """
        self._folder = folder
        start, count = steps or (0, 0)
        self._steps = range(start, start + count)
        self._say = say
        self._running = False
        self._missed = steps is not None

    def before(self, step: int) -> None:
        """To be called before step `step`, from 1."""
        if not self._running and step in self._steps:
            jax.profiler.start_trace(self._folder)
            self._running, self._missed = True, False

    def after(self, step: int, results: Any) -> None:
        """To be called after step `step` with what it returned; ends the trace in due time."""
        if self._running and step >= self._steps[-1]:
            jax.block_until_ready(results)  # else the trace would miss what still runs
            self.close()

    def close(self) -> None:
        """Ends a trace that is still running; reports one that never began."""
        traced = f"steps {self._steps.start} to {self._steps.stop - 1}"
        if self._missed:
            self._missed = False
            self._say(f"no profile: the {traced} were not among those taken")
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            self._say(
                f"profile of {traced}: {self._folder}  "
                f"(tensorboard --logdir={self._folder} shows it, with tensorboard-plugin-profile)"
            )
