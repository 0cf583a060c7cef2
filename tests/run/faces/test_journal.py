"""Records survive what interrupts their writing, whole or not at all."""

import errno
import os

import numpy as np
import pytest

from mtl_face.errors import WorkdirError
from mtl_face.run.faces.journal import VERSION, Journal

WORK = {"inputs": ["a.mp4"], "model": "f00d"}


def fill(path, count, work=WORK):
    with Journal(path, work) as journal:
        for number in range(count):
            journal.add({"x": np.arange(number + 3), "t": np.array(["é", "b"])}, number=number)


def numbers(path):
    with Journal(path, WORK) as journal:
        for entry in journal.entries:
            record = journal.read(entry)
            assert record.notes == entry.notes
            assert record.arrays["x"].tolist() == list(range(entry.notes["number"] + 3))
            assert record.arrays["t"].tolist() == ["é", "b"]
        return [entry.notes["number"] for entry in journal.entries]


def test_an_end_at_any_byte(tmp_path):
    """Of a file that was cut anywhere, all whole records are there, and more can be added."""
    path = tmp_path / ".t.unfinished"
    ends = []
    for _ in range(3):
        fill(path, 1)
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole)]:
        path.write_bytes(whole[:length])
        expected = [0] * sum(end <= length for end in ends)
        assert numbers(path) == expected
        fill(path, 1)
        assert numbers(path) == [*expected, 0]


def test_damage_ends_it(tmp_path):
    path = tmp_path / "j"
    fill(path, 3)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert len(numbers(path)) < 3
    # a length beyond the file asks for no memory
    first_line = path.read_bytes().index(b"\n") + 1
    path.write_bytes(content[:first_line] + b"\xff" * 40)
    assert numbers(path) == []


def test_another_work_is_refused(tmp_path):
    path = tmp_path / "j"
    fill(path, 1)
    before = path.read_bytes()
    with pytest.raises(WorkdirError, match="another command"):
        Journal(path, {**WORK, "model": "beef"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("left", [{**WORK, VERSION: 1}, {"model": "f00d"}])
def test_what_another_version_left_begins_again(tmp_path, left):
    """Of the same work, as far as that version wrote it down; another one is refused."""
    path = tmp_path / "j"
    said = []
    fill(path, 1, left)
    before = path.read_bytes()
    with pytest.raises(WorkdirError, match="another command"):
        Journal(path, {**WORK, "model": "beef", VERSION: 2}, say=said.append)
    assert (path.read_bytes(), said) == (before, [])
    with Journal(path, {**WORK, VERSION: 2}, say=said.append) as journal:
        assert journal.entries == []
        journal.add({"x": np.arange(3)}, number=0)
    with Journal(path, {**WORK, VERSION: 2}, say=said.append) as journal:
        assert len(journal.entries) == 1
    assert said == [f"{path} was left by another version of mtl_face: it begins again"]


def test_a_full_disk(tmp_path, monkeypatch):
    with Journal(tmp_path / "j", WORK) as journal:
        journal.add({"x": np.arange(3)}, number=0)

        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        journal._synced = 0.0
        with pytest.raises(WorkdirError, match="No space left") as raised:
            journal.add({"x": np.arange(4)}, number=1)
    assert "free some space" in raised.value.remedy
    with pytest.raises(WorkdirError, match="cannot be written"):
        Journal(tmp_path / "j" / "below-a-file", WORK)


def test_it_is_deleted(tmp_path):
    journal = Journal(tmp_path / "j", WORK)
    journal.delete()
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_has_taken_is_left_alone(tmp_path):
    """As from a machine that stood still: nothing is added, and nothing deleted."""
    path = tmp_path / "j"

    def taken():
        raise WorkdirError("was taken over by another", path=path)

    fill(path, 1)
    before = path.read_bytes()
    with Journal(path, WORK, taken) as journal:
        with pytest.raises(WorkdirError, match="taken over"):
            journal.add({"x": np.arange(3)}, number=1)
        with pytest.raises(WorkdirError, match="taken over"):
            journal.delete()
    assert path.read_bytes() == before
