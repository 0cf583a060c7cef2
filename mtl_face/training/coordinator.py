"""JAX's coordination service of several processes, in a process of its own.

JAX aborts every process as soon as the service is gone. Apart from process 0 it outlives that by a
moment, so that the others can say whose end it was.
"""

import contextlib
import functools
import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

LINGERS = 5.0
"""Seconds that the service goes on, and holds its port, without the process that started it."""

_READY = "ready\n"
_END = "end\n"


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Within the block `jax.distributed.initialize` starts its service in a process of its own."""
    from jax._src import distributed  # the service's own process does without JAX

    module = distributed._jax
    start = module.get_distributed_runtime_service
    module.get_distributed_runtime_service = functools.partial(_Service, module.__name__)
    try:
        yield
    finally:
        module.get_distributed_runtime_service = start


class _Service:
    """What stands for the service where it was started; RuntimeError if it does not start."""

    def __init__(self, module: str, *arguments: Any, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(json.dumps([module, arguments, options]) + "\n")
        assert self._process.stdout is not None
        if self._process.stdout.readline() != _READY:
            raise RuntimeError(f"the coordination service at {arguments[0]} has not started")

    def shutdown(self) -> None:
        """Ends the service."""
        self._tell(_END)
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended before
            self._process.stdin.write(line)
            self._process.stdin.flush()


def main() -> None:
    """Serves until told to end, or for a moment after the end of who started it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # those are for the processes of the run
        signal.signal(number, signal.SIG_IGN)
    module, arguments, options = json.loads(sys.stdin.readline())
    service = importlib.import_module(module).get_distributed_runtime_service(*arguments, **options)
    print(_READY, end="", flush=True)
    if sys.stdin.readline() != _END:
        time.sleep(LINGERS)
    service.shutdown()


if __name__ == "__main__":
    main()
