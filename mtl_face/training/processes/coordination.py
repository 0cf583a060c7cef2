"""JAX's coordination service of several processes, in a process of its own.

JAX aborts every process as soon as the service is gone. Apart from process 0 it outlives that by a
moment, so that the others can say whose end it was.

That process runs this file alone, which imports neither JAX nor this package until it needs them.
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

_READY = "ready"
_END = "end\n"


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Within the block `jax.distributed.initialize` starts its service in a process of its own."""
    from jax._src import distributed

    module = distributed._jax
    start = module.get_distributed_runtime_service
    module.get_distributed_runtime_service = functools.partial(_Service, module.__name__)
    try:
        yield
    finally:
        module.get_distributed_runtime_service = start


class _Service:
    """What stands for the service in the process that starts it; UserError if it does not start."""

    def __init__(self, module: str, *arguments: Any, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(json.dumps([module, arguments, options]) + "\n")
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip() or "its process has ended"
        if answer != _READY:
            from mtl_face.errors import UserError

            raise UserError(
                f"the coordination service cannot listen at {arguments[0]}: {answer}",
                remedy="choose another port in --coordinator, on every host",
            )

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
    start = importlib.import_module(module).get_distributed_runtime_service
    try:
        service = start(*arguments, **options)
    except Exception as error:  # of whatever kind: its words are handed on
        print(" ".join(str(error).split()), flush=True)
        return
    print(_READY, flush=True)
    if sys.stdin.readline() != _END:
        time.sleep(LINGERS)
    service.shutdown()


if __name__ == "__main__":
    main()
