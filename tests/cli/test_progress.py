import io
import sys

import pytest

from mtl_face.cli.progress import Progress


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
    assert lines[0] == "500 of 2,000 images, 98 a second, 00:15 left"


def test_nothing_to_do(capsys):
    Progress("images")(0, 0)
    assert capsys.readouterr().out.startswith("0 of 0 images")


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
