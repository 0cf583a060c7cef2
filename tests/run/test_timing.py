"""Seconds of the parts of a start."""

import re
import time

import pytest

from mtl_face.run.timing import Timing


def test_laps_add_up_by_part():
    begun = time.perf_counter()
    timing = Timing()
    timing.lap("data")  # from the begin of the process on
    assert timing.seconds["data"] > 0
    for part in ("network", "data", "network"):
        time.sleep(0.01)
        timing.lap(part)
    assert list(timing.seconds) == ["data", "network"]
    assert 0.02 <= timing.seconds["network"] <= time.perf_counter() - begun


def test_lines():
    timing = Timing()
    timing.lap("data")
    timing.lap("first step")
    lines = timing.lines()
    assert all(re.fullmatch(r"timing: [a-z ]{10} +\d+\.\d\d s", line) for line in lines)
    assert [line[8:18].strip() for line in lines] == ["data", "first step", "all"]
    seconds = [float(line.split()[-2]) for line in lines]
    assert sum(seconds[:-1]) == pytest.approx(seconds[-1], abs=0.02)
