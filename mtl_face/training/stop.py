"""Leaving a run in good order when the system or the user asks."""

import collections
import signal
import threading
from collections.abc import Callable
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.training import sharding


class StopRequest:
    """Notes SIGTERM and SIGINT, so that the loop can save before it leaves.

    A context manager: the old handlers come back at its end. A second SIGINT interrupts at once.
    Outside of the main thread, where Python has no signals, it notes nothing.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        """`check` is called at each question; what it raises ends the run."""
        self.check = check
        self.signal: signal.Signals | None = None
        self._old: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._old.items():
            # None stands for one that was not set from Python, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    @property
    def requested(self) -> bool:
        """Whether to leave after this step."""
        self.check()
        return self.signal is not None

    def conclude(self) -> signal.Signals | None:
        """The signal that was noted, if any."""
        return self.signal

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


class AgreedStop:
    """A stop of several processes at the same step, whichever of them got the signal.

    Each question lets the devices find the largest signal number of all processes, in a tiny
    program of its own, and gives the answer of the question before, which has been computed
    meanwhile: so no step waits for it.
    """

    def __init__(self, own: StopRequest, mesh: jax.sharding.Mesh) -> None:
        """Prepares to ask on the devices of all processes; every process must."""
        self.signal: signal.Signals | None = None
        self._own = own
        self._count = len(mesh.local_devices)
        self._placement = sharding.by_example(mesh)
        self._largest = jax.jit(jnp.max, out_shardings=sharding.replicated(mesh))
        self._calm = self._place(0)
        self._underway: collections.deque[jax.Array] = collections.deque()
        self._asked = False

    @property
    def requested(self) -> bool:
        """Whether all are to leave after this step; every process must ask equally often."""
        self._own.check()
        if self.signal is None:
            own = self._own.signal
            flags = self._calm if own is None else self._place(int(own))
            self._underway.append(self._largest(flags))
            if len(self._underway) > 1 or not self._asked:
                self._look()
            self._asked = True
        return self.signal is not None

    def conclude(self) -> signal.Signals | None:
        """The signal that all have heard of by now, the last question included."""
        while self._underway and self.signal is None:
            self._look()
        return self.signal

    def _look(self) -> None:
        number = int(jax.device_get(self._underway.popleft()))
        self.signal = signal.Signals(number) if number else None

    def _place(self, number: int) -> jax.Array:
        return jax.make_array_from_process_local_data(
            self._placement, np.full(self._count, number, np.int32)
        )


Stop = StopRequest | AgreedStop
"""What a loop asks after each step whether to leave."""
