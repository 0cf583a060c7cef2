"""The file of the learning curves."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

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
    assert History(path, after_step=3).rows == []
    assert path.read_text() == ""


def test_rows_past_the_step_are_dropped(path):
    write(path, [2, 4, 6, 8])
    again = History(path, after_step=5)
    assert [row["step"] for row in again.rows] == [2, 4]
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


def test_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(WorkdirError, match="cannot be written"):
        History(tmp_path / "absent" / "history.jsonl", after_step=0)
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
