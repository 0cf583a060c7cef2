"""A trace of the steps that were asked for, and memory in numbers."""

import jax
import jax.numpy as jnp
import pytest

from mtl_face.errors import ConfigError
from mtl_face.training import gauges, profile


@pytest.mark.parametrize(("text", "steps"), [("20:5", (20, 5)), ("1:1", (1, 1))])
def test_steps(text, steps):
    assert profile.parse_steps(text) == steps


@pytest.mark.parametrize("text", ["20", "", ":", "0:5", "5:0", "-1:5", "a:b", "1:2:3", "1.5:2"])
def test_steps_that_are_none(text):
    with pytest.raises(ConfigError, match="START:COUNT"):
        profile.parse_steps(text)


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
    trace = profile.StepProfile(tmp_path, steps, lines.append)
    assert Recorder(monkeypatch).run(trace, first, last) == expected
    if steps is None:
        assert not lines
    elif "start" in expected:
        assert len(lines) == 1
        assert str(tmp_path) in lines[0]
    else:
        assert lines == ["no profile: the steps 3 to 4 were not among those taken"]


def test_memory_of_this_process():
    numbers = gauges.memory()
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
    numbers = gauges.memory()
    assert numbers["memory/device_mib"] == 3
    assert numbers["memory/device_peak_mib"] == 5
