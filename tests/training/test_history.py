"""The learning curves: their file, and TensorBoard's, on sound disks and on bad ones."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from clu import metric_writers
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mtl_face import files
from mtl_face.errors import WorkdirError
from mtl_face.training import history
from mtl_face.training.history import History


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history.jsonl"


def write(path, steps):
    rows = History(path, after_step=0)
    for step in steps:
        rows.append({"step": step, "loss": 1.0 / step})


def test_rows_come_back(path):
    write(path, [2, 4, 6])
    assert [row["step"] for row in history.read(path)] == [2, 4, 6]
    assert history.read(path)[0]["loss"] == 0.5


def test_no_file(path):
    assert history.read(path) == []
    History(path, after_step=3)
    assert path.read_text() == ""


def test_rows_past_the_step_are_dropped(path):
    write(path, [2, 4, 6, 8])
    again = History(path, after_step=5)
    assert [row["step"] for row in history.read(path)] == [2, 4]
    again.append({"step": 6, "loss": 9.0})
    assert [row["step"] for row in history.read(path)] == [2, 4, 6]
    assert history.read(path)[-1]["loss"] == 9.0
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_row_is_on_disk_at_once(path):
    rows = History(path, after_step=0)
    rows.append({"step": 1})
    assert json.loads(path.read_text()) == {"step": 1}


def test_values_that_are_not_finite(path):
    """A mean over nothing is written as null: NaN is no JSON."""
    History(path, after_step=0).append({"step": 1, "va": float("nan"), "au": 0.5})

    def no_constant(word):
        raise AssertionError(f"{word} in a JSON file")

    assert json.loads(path.read_text(), parse_constant=no_constant) == {
        "step": 1,
        "va": None,
        "au": 0.5,
    }


@hypothesis_settings(deadline=None, derandomize=True, max_examples=60)
@given(cut=st.integers(0, 200))
def test_a_last_line_cut_anywhere_is_left_out(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("history") / "history.jsonl"
    write(path, [2, 4, 6, 8, 10])
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    steps = [row["step"] for row in history.read(path)]
    # A last line that lost its line feed alone is whole too.
    assert steps in ([2, 4, 6, 8, 10][:whole], [2, 4, 6, 8, 10][: whole + 1])
    again = History(path, after_step=100)
    again.append({"step": 12})
    assert [row["step"] for row in history.read(path)] == [*steps, 12]


@pytest.mark.parametrize("content", ["{\n{}\n", '{"step": 1}\nx\n{"step": 2}\n', "3\n", "{}\n"])
def test_a_file_that_someone_changed(path, content):
    path.write_text(content)
    with pytest.raises(WorkdirError, match=r"line [12]") as raised:
        history.read(path)
    assert raised.value.path == str(path)


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:

        def refuse(*arguments):
            raise OSError(30, "Read-only file system")

        patch.setattr(files.os, "replace", refuse)
        with pytest.raises(WorkdirError, match="cannot be written"):
            History(tmp_path / "history.jsonl", after_step=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot be read"):
        History(tmp_path / "file" / "history.jsonl", after_step=0)
    path = tmp_path / "history.jsonl"
    rows = History(path, after_step=0)
    path.unlink()
    path.mkdir()
    with pytest.raises(WorkdirError, match="cannot be written"):
        rows.append({"step": 1})


def test_a_full_disk_is_told_once_and_its_rows_are_written_later(tmp_path, monkeypatch):
    path, warnings = tmp_path / "history.jsonl", []
    rows = History(path, after_step=0, warn=warnings.append)
    rows.append({"step": 1, "x": 1.0})
    with monkeypatch.context() as patch:

        def refuse(*arguments, **options):
            raise OSError(28, "No space left on device")

        patch.setattr(Path, "open", refuse)
        rows.append({"step": 2, "x": 2.0})
        rows.append({"step": 3, "x": 3.0})
    assert [row["step"] for row in history.read(path)] == [1]
    rows.append({"step": 4, "x": 4.0})
    assert [row["step"] for row in history.read(path)] == [1, 2, 3, 4]
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]


def write_events(folder, steps):
    writer = metric_writers.create_default_writer(str(folder), asynchronous=False)
    for step in steps:
        writer.write_scalars(step, {"loss": step / 10, "speed": 1.0})
        writer.flush()
    writer.close()


def event_rows(folder):
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            found += [(event.step, value.tag) for value in event.summary.value]
    return sorted(row for row in found if row[1] in ("loss", "speed"))


def expected(steps):
    return sorted((step, tag) for step in steps for tag in ("loss", "speed"))


def test_later_rows_are_dropped(tmp_path):
    write_events(tmp_path, [2, 4, 6, 8])
    assert event_rows(tmp_path) == expected([2, 4, 6, 8])
    assert history.forget_events_after(tmp_path, 5) == 4
    write_events(tmp_path, [6, 8, 10])
    assert event_rows(tmp_path) == expected([2, 4, 6, 8, 10])
    assert history.forget_events_after(tmp_path, 10) == 0
    assert history.forget_events_after(tmp_path, 0) == 10
    assert event_rows(tmp_path) == []


def test_nothing_to_forget_changes_no_file(tmp_path):
    assert history.forget_events_after(tmp_path / "absent", 3) == 0
    write_events(tmp_path, [2])
    (path,) = tmp_path.glob("events*")
    before = path.stat().st_mtime_ns
    history.forget_events_after(tmp_path, 2)
    assert path.stat().st_mtime_ns == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("lost", [1, 5, 13, 20])
def test_a_record_cut_short_is_dropped(tmp_path, lost):
    write_events(tmp_path, [2, 4])
    (path,) = tmp_path.glob("events*")
    path.write_bytes(path.read_bytes()[:-lost])
    history.forget_events_after(tmp_path, 9)
    write_events(tmp_path, [6])
    found = event_rows(tmp_path)
    assert set(found) - {(4, "loss"), (4, "speed")} == set(expected([2, 6]))
    assert len(found) == len(set(found))


@pytest.mark.parametrize("tail", [bytes(100), b"\xff" * 40, "the last event"])
def test_what_a_dead_machine_left_is_dropped(tmp_path, tail):
    write_events(tmp_path, [2, 4])
    (path,) = tmp_path.glob("events*")
    content = path.read_bytes()
    damaged = content + tail if isinstance(tail, bytes) else content[:-20] + bytes(20)
    path.write_bytes(damaged)
    history.forget_events_after(tmp_path, 9)
    write_events(tmp_path, [6])
    found = event_rows(tmp_path)
    lost = 0 if isinstance(tail, bytes) else 1
    assert len(found) == len(set(found)) == len(expected([2, 4, 6])) - lost
    assert set(found) >= set(expected([2, 6]))
    assert path.stat().st_size <= len(content)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    write_events(tmp_path, [2, 4])

    def refuse(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(WorkdirError, match="Read-only file system"):
        history.forget_events_after(tmp_path, 2)


FULL = tf.errors.ResourceExhaustedError(None, None, "logs/events; No space left on device")


class Writer:
    def __init__(self, *errors):
        self.errors, self.steps = list(errors), []

    def write_scalars(self, step, numbers):
        self.steps.append(step)

    def flush(self):
        if self.errors and (error := self.errors.pop(0)):
            raise error


@pytest.mark.parametrize("error", [FULL, OSError(28, "No space left on device")])
def test_a_disk_that_refuses(tmp_path, error):
    warnings = []
    write = history.scalar_writer(Writer(error), tmp_path)
    with pytest.raises(WorkdirError, match=r"cannot be written: .*No space left"):
        write(1, {})
    writer = Writer(error, error, None)
    write = history.scalar_writer(writer, tmp_path, warn=warnings.append)
    for step in (1, 2, 3):
        write(step, {})
    assert writer.steps == [1, 2, 3]
    assert len(warnings) == 1
    assert warnings[0].endswith("No space left on device; going on")


@pytest.mark.parametrize("warn", [None, print])
def test_a_defect_is_not_taken_for_a_full_disk(tmp_path, warn):
    write = history.scalar_writer(Writer(TypeError("no number")), tmp_path, warn=warn)
    with pytest.raises(TypeError):
        write(1, {})


def test_how_a_checkpoint_was_chosen():
    rows = [
        {"step": 2, "train/loss": 1.0},
        {"step": 4, "validation/score": 0.8, "validation/p": 0.8, "validation/va": 0.1},
        {"step": 6, "validation/score": None},
        {"step": 8, "validation/score": 0.7, "validation/p": 0.7, "validation/other/p": 9.0},
    ]
    assert history.selection(rows, 4) == {
        "criterion": "P",
        "looks": 2,
        "step": 4,
        "score": 0.8,
        "last_step": 8,
        "last_score": 0.7,
    }
    assert history.selection(rows, 2) is None
    rows = [{"step": 4, "validation/score": 0.5, "validation/au": 0.2, "validation/expr": 0.3}]
    criterion = history.selection(rows, 4)["criterion"]
    assert criterion == "the sum of au and expr, since P is not defined"
