"""`run.py` in processes that start at once: forked from one that has imported the libraries.

Most of a start is importing, TensorFlow above all. Tests that start dozens of runs pay for it once.
A `Run` has the names of `subprocess.Popen` and is a process of its own: it has a number, prints,
can be killed, and ends as Python ends.
"""

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Launcher:
    """A process that has the libraries and starts runs; for `with`."""

    def __init__(self, environment):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._process.kill()  # it has nothing to finish
        self._process.wait()

    def start(self, words, environment):
        """Runs `run.py` with these words; JAX's variables may differ from the launcher's own."""
        out, their_out = os.pipe()
        err, their_err = os.pipe()
        number = self.ask({"words": words, "environment": environment}, [their_out, their_err])
        os.close(their_out)
        os.close(their_err)
        return Run(self, number, out, err)

    def ask(self, request, files=()):
        """The launcher's answer."""
        socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        return json.loads(self._socket.recv(2**10))


class Run:
    """A started run, with what tests use of `subprocess.Popen`."""

    def __init__(self, launcher, pid, out, err):
        self._launcher = launcher
        self.pid = pid
        self.stdout, self.stderr = (os.fdopen(number, encoding="utf-8") for number in (out, err))
        self.returncode = None

    def poll(self):
        if self.returncode is None:
            self.returncode = self._launcher.ask({"ended": self.pid})
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout):
        """(the rest of what it prints, of what it complains of), when it has ended."""
        with ThreadPoolExecutor() as pool:
            rest = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                out, err = (each.result(timeout) for each in rest)
            except TimeoutError:
                self.kill()
                raise
        self.stdout.close()
        self.stderr.close()
        while self.poll() is None:
            time.sleep(0.01)
        return out, err


def serve(connection):
    """The launcher's part: forks a run for each request, until nobody asks any more."""
    from mtl_face.run import environment

    environment.prepare(preset="none", compilation_cache="workdir")  # as `run.py` does before JAX
    import jax

    from data_pipeline import decoding  # noqa: F401 (TensorFlow)
    from mtl_face.run import evaluate, train  # noqa: F401

    gc.collect()
    gc.freeze()  # no run looks through all of this again, and copies its memory by that

    own = dict(os.environ)
    while True:
        message, files, _, _ = socket.recv_fds(connection, 2**16, 2)
        if not message:
            return
        request = json.loads(message)
        if "ended" in request:
            number, status = os.waitpid(request["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if number else None
        else:
            answer = os.fork()
            if answer == 0:
                break
            for file in files:
                os.close(file)
        connection.sendall(json.dumps(answer).encode())
    connection.close()
    for number, (name, file) in enumerate(zip(("stdout", "stderr"), files, strict=True), start=1):
        os.dup2(file, number)
        os.close(file)
        setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for name, value in request["environment"].items():
        if own.get(name) != value:
            os.environ[name] = value
            if name.startswith("JAX_"):  # which JAX has read by now
                setting = name.lower()
                is_text = isinstance(jax.config.values[setting], str)
                jax.config.update(setting, value if is_text else json.loads(value))
    sys.argv = ["run.py", *request["words"]]
    runpy.run_path("run.py", run_name="__main__")


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # as where `python run.py` starts
    serve(socket.socket(fileno=int(sys.argv[1])))
