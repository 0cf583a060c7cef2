"""A bar or lines of progress, and the seconds of the parts of a start."""

import io
import re
import sys
import time

import pytest

from mtl_face.cli.progress import Progress, Timing, late


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves by hand."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then_where_no_terminal_is(capsys, clock):
    progress = Progress("images")
    for done in range(0, 2001, 10):
        clock[0] += 0.1
        progress(done, 2000)
    progress(2000, 2000)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2,000 of 2,000 images, 100 a second, 00:00 left"
    assert len(lines) == 4
    assert not any("\r" in line for line in lines)
    assert lines[0] == "500 of 2,000 images, 100 a second, 00:14 left"


def test_time_of_a_later_work_counts_from_its_begin(capsys, clock):
    show = late("pictures")
    clock[0] += 1000
    for done in range(0, 101):
        show(done, 100)
        clock[0] += 0.1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "100 of 100 pictures, 10 a second, 00:00 left"
    assert len(lines) == 2


def test_what_a_start_takes_does_not_count_in_the_rate(capsys, clock):
    progress = Progress("photos")
    clock[0] += 60.0
    progress(1, 21)
    for done in range(2, 22):
        clock[0] += 1.0
        progress(done, 21)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "6 of 21 photos, 1 a second, 00:15 left"
    assert lines[-1] == "21 of 21 photos, 1 a second, 00:00 left"


def test_one_call_alone_counts_from_the_begin(capsys, clock):
    progress = Progress("photos")
    clock[0] += 10.0
    progress(20, 20)
    assert capsys.readouterr().out == "20 of 20 photos, 2 a second, 00:00 left\n"


def test_nothing_to_do(capsys):
    Progress("images")(0, 0)
    assert capsys.readouterr().out.startswith("0 of 0 images")


def test_a_total_that_nobody_knows(capsys, monkeypatch, clock):
    progress = Progress("frames")
    for done in range(1, 131):
        clock[0] += 0.125
        progress(done, 0)
    assert capsys.readouterr().out.splitlines() == [
        "40 frames, 8 a second",
        "80 frames, 8 a second",
        "120 frames, 8 a second",
    ]
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    progress(140, 0)
    assert "\n" not in screen.getvalue()
    progress(140, 140)
    assert "140 frames, " in screen.getvalue()
    assert screen.getvalue().endswith("\n")


def test_a_bar_on_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    progress = Progress("frames")
    for done, total in ((1, 100), (50, 80), (90, 90), (90, 90)):
        progress(done, total)
    text = screen.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "90 of 90 frames" in text


def test_laps_add_up_by_part():
    begun = time.perf_counter()
    timing = Timing()
    timing("data")  # from the begin of the process on
    assert timing.seconds["data"] > 0
    for part in ("network", "data", "network"):
        time.sleep(0.01)
        timing(part)
    assert list(timing.seconds) == ["data", "network"]
    assert 0.02 <= timing.seconds["network"] <= time.perf_counter() - begun


def test_lines_of_a_start():
    timing = Timing()
    timing("data")
    timing("first step")
    lines = timing.lines()
    assert all(re.fullmatch(r"timing: [a-z ]{10} +\d+\.\d\d s", line) for line in lines)
    assert [line[8:18].strip() for line in lines] == ["data", "first step", "all"]
    seconds = [float(line.split()[-2]) for line in lines]
    assert sum(seconds[:-1]) == pytest.approx(seconds[-1], abs=0.02)
