"""What a run watches: the wait for its input, its memory, and a trace of the steps asked for."""

import itertools
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from mtl_face.errors import ConfigError, ImageError, UserError
from mtl_face.training import monitoring
from mtl_face.training.monitoring import InputWatch


@pytest.mark.parametrize("timeout", [0, 30])
def test_batches_come_in_order_and_end(timeout):
    before = set(threading.enumerate())
    watch = InputWatch(range(5), timeout_seconds=timeout, where="here")
    assert list(watch) == [0, 1, 2, 3, 4]
    assert list(watch) == []
    for thread in set(threading.enumerate()) - before:
        if thread.name == "input":
            thread.join(300)
            assert not thread.is_alive()
    assert watch.waited_seconds >= 0


@pytest.mark.parametrize("timeout", [0, 30])
def test_no_batch_is_taken_before_it_is_asked_for(timeout):
    taken = []
    watch = InputWatch(map(taken.append, itertools.count()), timeout_seconds=timeout, where="here")
    next(watch)
    next(watch)
    time.sleep(0.05)
    assert taken == [0, 1]


@pytest.mark.parametrize("timeout", [0, 30])
def test_an_error_of_the_input_comes_through(timeout):
    def batches():
        yield 1
        raise ImageError("broken", path="x.jpg")

    watch = InputWatch(batches(), timeout_seconds=timeout, where="here")
    assert next(watch) == 1
    with pytest.raises(ImageError, match="broken"):
        next(watch)


def test_a_stalled_input_is_named():
    def batches():
        yield 1
        time.sleep(60)

    watch = InputWatch(
        batches(), timeout_seconds=0.2, where="host node7 (process 3 of 8)", first_step=40
    )
    begin = time.perf_counter()
    next(watch)
    with pytest.raises(UserError) as raised:
        next(watch)
    assert time.perf_counter() - begin < 30
    assert raised.value.problem == (
        "the input has stalled on host node7 (process 3 of 8): no batch for step 42 in 0.2 s"
    )
    assert "data.root" in raised.value.remedy


def test_waiting_is_measured():
    def batches():
        for _ in range(3):
            time.sleep(0.05)
            yield 0

    watch = InputWatch(batches(), timeout_seconds=30, where="here")
    begin = time.perf_counter()
    for _ in range(3):
        next(watch)
        time.sleep(0.1)  # the step
    assert 0.15 <= watch.waited_seconds <= time.perf_counter() - begin - 0.3


@pytest.mark.parametrize(("text", "steps"), [("20:5", (20, 5)), ("1:1", (1, 1))])
def test_steps(text, steps):
    assert monitoring.parse_steps(text) == steps


@pytest.mark.parametrize("text", ["20", "", ":", "0:5", "5:0", "-1:5", "a:b", "1:2:3", "1.5:2"])
def test_steps_that_are_none(text):
    with pytest.raises(ConfigError, match="START:COUNT"):
        monitoring.parse_steps(text)


class Recorder:
    """Stands in for JAX's profiler: a trace of its own takes seconds."""

    def __init__(self, monkeypatch):
        self.calls = []
        monkeypatch.setattr(jax.profiler, "start_trace", lambda path: self.calls.append("start"))
        monkeypatch.setattr(jax.profiler, "stop_trace", lambda: self.calls.append("stop"))

    def run(self, trace, first, last):
        for step in range(first, last + 1):
            trace.before(step)
            self.calls.append(step)
            trace.after(step, jnp.zeros(()))
        trace.close()
        return self.calls


@pytest.mark.parametrize(
    ("steps", "first", "last", "expected"),
    [
        ((3, 2), 1, 6, [1, 2, "start", 3, 4, "stop", 5, 6]),
        ((3, 1), 1, 4, [1, 2, "start", 3, "stop", 4]),
        ((3, 9), 1, 4, [1, 2, "start", 3, 4, "stop"]),  # the run ends first
        ((3, 4), 5, 7, ["start", 5, 6, "stop", 7]),  # it went on in the middle
        ((3, 2), 5, 6, [5, 6]),
        (None, 1, 2, [1, 2]),
    ],
)
def test_steps_traced(tmp_path, monkeypatch, steps, first, last, expected):
    lines = []
    trace = monitoring.StepProfile(tmp_path, steps, lines.append)
    assert Recorder(monkeypatch).run(trace, first, last) == expected
    if steps is None:
        assert not lines
    elif "start" in expected:
        assert len(lines) == 1
        assert str(tmp_path) in lines[0]
    else:
        assert lines == ["no profile: the steps 3 to 4 were not among those taken"]


def test_memory_of_this_process():
    numbers = monitoring.memory()
    assert 50 < numbers["memory/host_mib"] < 10**6
    assert "memory/device_mib" not in numbers  # a CPU does not tell


def test_memory_of_devices(monkeypatch):
    class Device:
        def __init__(self, report):
            self.report = report

        def memory_stats(self):
            return self.report

    reports = [
        {"bytes_in_use": 2**20, "peak_bytes_in_use": 5 * 2**20},
        None,
        {"bytes_in_use": 3 * 2**20, "peak_bytes_in_use": 4 * 2**20, "num_allocs": 7},
    ]
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(report) for report in reports])
    numbers = monitoring.memory()
    assert numbers["memory/device_mib"] == 3
    assert numbers["memory/device_peak_mib"] == 5
