"""How long a run waits for its input, and a word from the host whose input has stopped coming."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from mtl_face.errors import UserError


class InputWatch:
    """Iterates over batches, measures the waiting, and gives up after a time-out.

    Attributes:
        waited_seconds: total time that the caller has waited for batches.
    """

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

        Args:
            batches: an iterable, which is gone through in a thread of its own: what it is stuck in
                cannot be interrupted, only left behind.
            timeout_seconds: longest wait for one batch; 0 for any length.
            where: the host and process, for the message.
            first_step: number of steps taken before the first batch.
            unit: what a batch is for, in the message.
        """
        self.waited_seconds = 0.0
        self._timeout = timeout_seconds
        self._where = where
        self._step = first_step
        self._unit = unit
        self._ended = False
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._source = iter(batches)
        if timeout_seconds > 0:
            # Only asked for what is wanted now, so a batch more is never held in memory.
            threading.Thread(target=self._serve, name="input", daemon=True).start()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            UserError: none came in time; the message names the host and the step.
            Exception: whatever the batches raise.
        """
        if self._ended:
            raise StopIteration
        begin = time.perf_counter()
        try:
            if self._timeout <= 0:
                batch = next(self._source)
            else:
                self._asked.put(None)
                batch = self._answer()
        finally:
            self.waited_seconds += time.perf_counter() - begin
        self._step += 1
        return batch

    def _answer(self) -> Any:
        try:
            kind, value = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise UserError(
                f"the input has stalled on {self._where}: no batch for {self._unit} "
                f"{self._step + 1} in {self._timeout:g} s",
                remedy="see whether that host still reads the folder of data.root; then run the "
                "same command again: it goes on from the last checkpoint "
                "(training.input_timeout_s sets the time)",
            ) from None
        if kind == "raised":
            self._ended = True  # and so has the thread
            raise value
        return value

    def _serve(self) -> None:
        while True:
            self._asked.get()
            try:
                answer = ("batch", next(self._source))
            except BaseException as error:  # handed over, not handled: StopIteration too
                self._answers.put(("raised", error))
                return
            self._answers.put(answer)
