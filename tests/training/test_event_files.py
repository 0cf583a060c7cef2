"""Rows of TensorBoard after a resume: each step once, whatever a kill left."""

import pytest
from clu import metric_writers
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mtl_face.errors import WorkdirError
from mtl_face.training import event_files


def write(folder, steps):
    writer = metric_writers.create_default_writer(str(folder), asynchronous=False)
    for step in steps:
        writer.write_scalars(step, {"loss": step / 10, "speed": 1.0})
        writer.flush()
    writer.close()


def rows(folder):
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            found += [(event.step, value.tag) for value in event.summary.value]
    return sorted(row for row in found if row[1] in ("loss", "speed"))


def expected(steps):
    return sorted((step, tag) for step in steps for tag in ("loss", "speed"))


def test_later_rows_are_dropped(tmp_path):
    write(tmp_path, [2, 4, 6, 8])
    assert rows(tmp_path) == expected([2, 4, 6, 8])
    assert event_files.forget_after(tmp_path, 5) == 4
    write(tmp_path, [6, 8, 10])
    assert rows(tmp_path) == expected([2, 4, 6, 8, 10])
    assert event_files.forget_after(tmp_path, 10) == 0
    assert event_files.forget_after(tmp_path, 0) == 10
    assert rows(tmp_path) == []


def test_nothing_to_forget_changes_no_file(tmp_path):
    assert event_files.forget_after(tmp_path / "absent", 3) == 0
    write(tmp_path, [2])
    (path,) = tmp_path.glob("events*")
    before = path.stat().st_mtime_ns
    event_files.forget_after(tmp_path, 2)
    assert path.stat().st_mtime_ns == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("lost", [1, 5, 13, 20])
def test_a_record_cut_short_is_dropped(tmp_path, lost):
    write(tmp_path, [2, 4])
    (path,) = tmp_path.glob("events*")
    path.write_bytes(path.read_bytes()[:-lost])
    event_files.forget_after(tmp_path, 9)
    write(tmp_path, [6])
    found = rows(tmp_path)
    assert set(found) - {(4, "loss"), (4, "speed")} == set(expected([2, 6]))
    assert len(found) == len(set(found))


@pytest.mark.parametrize("tail", [bytes(100), b"\xff" * 40, "the last event"])
def test_what_a_dead_machine_left_is_dropped(tmp_path, tail):
    write(tmp_path, [2, 4])
    (path,) = tmp_path.glob("events*")
    content = path.read_bytes()
    damaged = content + tail if isinstance(tail, bytes) else content[:-20] + bytes(20)
    path.write_bytes(damaged)
    event_files.forget_after(tmp_path, 9)
    write(tmp_path, [6])
    found = rows(tmp_path)
    lost = 0 if isinstance(tail, bytes) else 1
    assert len(found) == len(set(found)) == len(expected([2, 4, 6])) - lost
    assert set(found) >= set(expected([2, 6]))
    assert path.stat().st_size <= len(content)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    write(tmp_path, [2, 4])

    def refuse(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(event_files.os, "replace", refuse)
    with pytest.raises(WorkdirError, match="Read-only file system"):
        event_files.forget_after(tmp_path, 2)
