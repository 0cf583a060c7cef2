import numpy as np
import pytest

from mtl_face import tables, tasks

NAN = np.nan


def make_table(**changes):
    columns = {
        "dataset": "set",
        "video": ["b", "a", "a", "a"],
        "frame": [1, 10, 9, 9],
        "image": ["b/00001.jpg", "a/00010.jpg", "a/00009.jpg", "a/00009.jpg"],
        "root": "/images",
        "valence": [0.5, NAN, -1.0, 0.25],
        "arousal": [0.1, 0.2, 1.0, NAN],
        "expression": [-1, 7, 0, -1],
        "au": np.array([[1] * 12, [NAN] * 12, [0] * 11 + [NAN], [NAN] * 12]),
    }
    return tables.from_columns(**(columns | changes))


def test_sorts_by_video_and_number_and_marks_later_twins():
    table = make_table()
    assert list(table.video) == ["a", "a", "a", "b"]
    assert list(table.frame) == [9, 9, 10, 1]
    assert list(table.row) == [3, 4, 2, 1]  # stable: the twin that came first stays first
    assert list(table.duplicate) == [False, True, False, False]


def test_order_given_is_kept_on_request():
    table = make_table(sort=False)
    assert list(table.row) == [1, 2, 3, 4]
    assert list(table.duplicate) == [False, False, False, True]


def test_paths_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    table = make_table(root="crops")
    assert table.paths()[-1] == str(tmp_path / "crops" / "b" / "00001.jpg")


def test_labels_and_weights():
    targets, weights = tables.labels(make_table(sort=False))
    np.testing.assert_array_equal(weights["va"], [1, 0, 1, 0])  # valence and arousal: both or none
    expected = np.array([[0.5, 0.1], [0, 0], [-1, 1], [0, 0]], np.float32)
    np.testing.assert_array_equal(targets["va"], expected)
    np.testing.assert_array_equal(weights["au"].sum(axis=1), [12, 0, 11, 0])
    np.testing.assert_array_equal(targets["au"].sum(axis=1), [12, 0, 0, 0])
    np.testing.assert_array_equal(weights["expr"], [0, 1, 1, 0])
    np.testing.assert_array_equal(targets["expr"].argmax(axis=1)[1:3], [7, 0])
    np.testing.assert_array_equal(targets["expr"].sum(axis=1), [0, 1, 1, 0])
    for group in (targets, weights):
        assert tuple(group) == tasks.TASKS
        for column in group.values():
            assert column.dtype == np.float32
            assert np.isfinite(column).all()


def test_counts():
    assert make_table().counts() == {
        "rows": 4,
        "unique_images": 3,
        "duplicates": 1,
        "videos": 2,
        "va": 2,
        "au": 2,
        "expr": 2,
        "all_tasks": 1,
        "unlabelled": 1,  # the row that has arousal missing and nothing else
    }


def test_select_by_mask_and_by_index():
    table = make_table()
    kept = table.select(~table.duplicate)
    assert list(kept.row) == [3, 2, 1]
    assert list(table.select([3, 0]).row) == [1, 3]
    assert len(table.select([])) == 0
    assert not table.select([1]).duplicate.any()  # its twin is gone
    with pytest.raises(IndexError):
        table.select([True, False])


def test_to_pandas():
    frame = make_table().to_pandas()
    assert list(frame["frame"]) == [9, 9, 10, 1]
    assert list(frame.columns[8 : 8 + 12]) == list(tasks.AU_NAMES)
    assert frame["au26"].isna().sum() == 3
    assert frame["expression"].tolist() == [0, -1, 7, -1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"valence": [0, 0, 0, 1.5]}, "valence outside"),
        ({"expression": [0, 1, 2, 8]}, "expression outside"),
        ({"au": np.full((4, 12), 0.5)}, "action unit"),
        ({"au": np.zeros((4, 11))}, "column au is"),
        ({"valence": [0.0]}, "column valence is"),
        ({"video": ["a"]}, "1 values for 4 rows"),
        ({"row": [1]}, "column row is"),
    ],
)
def test_refuses_wrong_columns(changes, words):
    with pytest.raises(ValueError, match=words):
        make_table(**changes)
