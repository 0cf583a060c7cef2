"""Rows of a run: what of them counts, what changed since a checkpoint, and on another host."""

import dataclasses
import json

import numpy as np
import pytest
from small_experiment import Experiment, assert_is_users_error

from mtl_face.errors import UserError, WorkdirError
from mtl_face.run.rows import FILE, Rows
from mtl_face.tables import FrameTable
from mtl_face.training import metadata
from mtl_face.training.processes import distributed

NUM_ROWS = 6


def table(root="/data", **changes):
    columns = {
        "dataset": "mine",
        "video": ["a", "a", "a", "b", "b", "b"],
        "frame": [1, 2, 3, 1, 2, 3],
        "image": [f"{video}/{frame}.jpg" for video in "ab" for frame in (1, 2, 3)],
        "valence": [0.5, 0.0, np.nan, 0.25, -1.0, np.nan],
        "arousal": [0.5, 0.0, np.nan, 0.25, -1.0, np.nan],
        "expression": [0, 1, 2, 3, -1, -1],
        "au": np.full((NUM_ROWS, 12), np.nan),
    }
    return FrameTable.from_columns(root=root, **columns | changes)


def rows(train=None, validation=None):
    return Rows.of({"train": train or table(), "validation": validation or table()})


def changed(column, row, value):
    found = table()
    values = getattr(found, column).copy()
    values[row] = value
    return dataclasses.replace(found, **{column: values})


class TestWhatCounts:
    def test_the_place_does_not(self):
        assert rows(table(root="/elsewhere")).metadata == rows().metadata

    def test_nor_does_the_line(self):
        moved = table(row=np.arange(6)[::-1] + 1)
        assert rows(moved).metadata == rows().metadata

    @pytest.mark.parametrize("column", ["raters", "votes", "au_probability", "label_weight"])
    def test_soft_labels_do_where_they_are_trained_on(self, column):
        soft = changed(column, 0, (0.25, 0.25, 3) if column == "raters" else 0.25)
        assert rows(soft).metadata["rows"]["train"] != rows().metadata["rows"]["train"]
        assert rows(validation=soft).metadata == rows().metadata

    def test_nor_do_the_bits_of_a_missing_label_or_of_zero(self):
        """NaN has many bit patterns, and -0 is 0."""
        other = np.array([0x7FC00001], np.uint32).view(np.float32)[0]
        assert rows(changed("valence", 2, other)).metadata == rows().metadata
        assert rows(changed("valence", 1, -0.0)).metadata == rows().metadata

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("dataset", "other"),
            ("video", "c"),
            ("frame", 9),
            ("image", "a/9.jpg"),
            ("valence", 0.0001),
            ("arousal", np.nan),
            ("expression", 7),
            ("au", 1.0),
        ],
    )
    def test_names_and_labels_do(self, column, value):
        found = rows(changed(column, 3, value)).metadata["rows"]
        assert found["train"] != rows().metadata["rows"]["train"]
        assert found["validation"] == rows().metadata["rows"]["validation"]

    def test_where_one_name_ends_and_the_next_begins(self):
        first = table(dataset="ab", video=list("cccddd"))
        second = table(dataset="a", video=["bc"] * 3 + ["bd"] * 3)
        assert rows(first).metadata != rows(second).metadata

    def test_names_that_are_no_text(self):
        assert len(rows(table(video=["\udcff"] * 6)).labelled["train"]) == NUM_ROWS


@pytest.fixture
def workdir(tmp_path):
    """A run with one checkpoint on the rows of `table`."""
    checkpoint(tmp_path, 5, rows().metadata)
    rows().write(tmp_path)
    return tmp_path


def checkpoint(workdir, step, values):
    folder = workdir / "checkpoints" / str(step)
    folder.mkdir(parents=True)
    (folder / "_CHECKPOINT_METADATA").write_text(
        json.dumps({"custom_metadata": metadata.seal(values)})
    )


def problem(workdir, found):
    with pytest.raises(WorkdirError) as raised:
        found.require_as_before(workdir, accepted=False, say=print)
    assert raised.value.path == str(workdir)
    assert "train --accept_changed_data" in raised.value.remedy
    return raised.value.problem.removeprefix("its run had other rows: ")


class TestWhatHasChanged:
    def test_nothing(self, workdir):
        said = []
        rows().require_as_before(workdir, accepted=False, say=said.append)
        assert said == []

    def test_a_row_gone(self, workdir):
        found = problem(workdir, rows(table().take(np.arange(5))))
        assert found == "train: 1 gone (5 rows, before 6)"

    def test_new_rows_and_other_labels(self, workdir):
        more = changed("expression", 0, 5).take([0, 1, 2, 3, 3, 4])
        found = problem(workdir, rows(more, changed("au", 4, 1)))
        assert found == (
            "train: 1 gone, 1 new, 1 with other labels (6 rows, before 6); "
            "validation: 1 with other labels (6 rows, before 6)"
        )

    def test_another_order(self, workdir):
        found = problem(workdir, rows(table().take([1, 0, 2, 3, 4, 5])))
        assert found == "train: in another order (6 rows, before 6)"

    @pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"text"])
    def test_without_the_hashes_the_counts_are_told(self, workdir, content):
        if content is None:
            (workdir / FILE).unlink()
        else:
            (workdir / FILE).write_bytes(content)
        found = problem(workdir, rows(table().take(np.arange(5))))
        assert found == "train: 5 rows, before 6"

    def test_the_hashes_of_other_rows_are_not_believed(self, workdir):
        rows(changed("frame", 0, 8)).write(workdir)
        found = problem(workdir, rows(table().take(np.arange(5))))
        assert found == "train: 5 rows, before 6"

    def test_accepted(self, workdir):
        said = []
        found = rows(table().take(np.arange(5)))
        found.require_as_before(workdir, accepted=True, say=said.append)
        assert said == [
            "warning: other rows than before: train: 1 gone (5 rows, before 6); accepted"
        ]

    def test_the_newest_sound_checkpoint_counts(self, workdir):
        checkpoint(workdir, 12, rows(changed("frame", 0, 8)).metadata)
        checkpoint(workdir, 13, {})
        (workdir / "checkpoints/13/_CHECKPOINT_METADATA").write_text("{")
        assert problem(workdir, rows()).startswith("train: ")

    def test_an_older_versions_checkpoint_goes_on(self, tmp_path):
        rows().require_as_before(tmp_path, accepted=False, say=print)
        checkpoint(tmp_path, 5, {"provenance": {}})
        rows().require_as_before(tmp_path, accepted=False, say=print)


def test_another_host_has_other_rows(monkeypatch):
    first = json.dumps(rows().metadata["rows"])
    monkeypatch.setattr(distributed, "of_first", lambda value: first)
    rows().require_same_everywhere()
    with pytest.raises(UserError, match="than process 0: train: 5 here, 6 there"):
        rows(table().take(np.arange(5))).require_same_everywhere()
    with pytest.raises(UserError, match="train: 6 here, 6 there, with other names or labels"):
        rows(changed("au", 0, 1)).require_same_everywhere()


@pytest.mark.slow
def test_a_run_whose_annotations_lost_a_row(tmp_path, capsys):
    experiment = Experiment(tmp_path)
    short = "--config.optimizer.epochs=1"
    longer = "--config.optimizer.epochs=2"
    assert experiment.run(capsys, "train", short)[0] == 0
    config = experiment.workdir / "config.json"
    config.write_text(config.read_text().replace('"epochs": 1', '"epochs": 2'))
    annotations = experiment.data / "training_set_annotations.txt"
    lines = annotations.read_text().splitlines(keepends=True)
    annotations.write_text("".join(lines[:-1]))
    before = sorted(experiment.workdir.rglob("*"))
    for flags in ([longer], [longer, "--config.data.source=memory"]):
        result = experiment.run(capsys, "train", *flags)
        assert_is_users_error(
            result, experiment.workdir, "train: 1 gone (39 rows, before 40)", "accept_changed_data"
        )
    assert sorted(experiment.workdir.rglob("*")) == before
    status, out, err = experiment.run(capsys, "train", longer, "--accept_changed_data")
    assert (status, err) == (0, "")
    assert "warning: other rows than before: train: 1 gone (39 rows, before 40); accepted" in out
    status, out, err = experiment.run(capsys, "train", longer)  # the new rows are its own now
    assert (status, err) == (0, "")
    assert "training is complete" in out
