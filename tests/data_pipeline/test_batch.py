import jax
import numpy as np

from data_pipeline import batch
from mtl_face import tasks
from mtl_face.tables import FrameTable

NAN = np.nan


def test_soft_labels_and_weights():
    """Shares go before classes, probabilities before decisions, and a weight is that of a row."""
    votes = np.full((5, 8), NAN)
    votes[0, :2], votes[1, 3:5], votes[3, 6] = (3, 1), (2, 2), 5
    probability = np.full((5, 12), NAN)
    probability[0] = 0.25
    table = FrameTable.from_columns(
        dataset="set",
        video="a",
        frame=[1, 2, 3, 4, 5],
        image=[f"a/{frame}.jpg" for frame in range(5)],
        root="/images",
        valence=[0.5, NAN, -1.0, 0.25, 0.5],
        arousal=[0.1, 0.2, 1.0, 0.5, NAN],
        expression=[0, -1, 7, -1, -1],
        votes=votes,
        au=np.array([[0] * 12, [NAN] * 12, [1] * 11 + [NAN], [NAN] * 12, [NAN] * 12]),
        au_probability=probability,
        label_weight=[1, 0.5, 0.25, 0, 1],
    )
    targets, weights = jax.device_get(batch.expand_labels(batch.compact_labels(table)))
    one = np.eye(8)
    expected = [0.75 * one[0] + 0.25 * one[1], 0.5 * one[3] + 0.5 * one[4], one[7]]
    expected += [0 * one[0]] * 2
    np.testing.assert_array_equal(targets["expr"], np.float32(expected))
    np.testing.assert_array_equal(weights["expr"], np.float32([1, 0.5, 0.25, 0, 0]))
    np.testing.assert_array_equal(targets["au"][0], np.float32([0.25] * 12))
    np.testing.assert_array_equal(targets["au"][2], [1] * 11 + [0])
    np.testing.assert_array_equal(weights["au"].sum(axis=1), [12, 0, 0.25 * 11, 0, 0])
    np.testing.assert_array_equal(weights["va"], np.float32([1, 0, 0.25, 0, 0]))
    for column in (*targets.values(), *weights.values()):
        assert column.dtype == np.float32
        assert np.isfinite(column).all()
    hard = batch.compact_labels(table.hard())
    assert {task: column.dtype.name for task, column in hard.items()} == {
        "va": "float32",
        "au": "int8",
        "expr": "int8",
    }


def test_spread_of_annotators():
    """A target beside the others, where one row has it and soft labels are wanted."""
    raters = np.full((3, 3), NAN)
    raters[1] = (0.3, 0.6, 3)
    columns = {"image": ["a/1.jpg", "a/2.jpg", "a/3.jpg"], "root": "/images", "raters": raters}
    table = FrameTable.from_columns(
        dataset="set", video="aaa", frame=[1, 2, 3], valence=[0, 0, 0], arousal=[0, 0, 0], **columns
    )
    targets, weights = jax.device_get(batch.expand_labels(batch.compact_labels(table)))
    expected = np.float32([[0, 0], [0.06, 0.24], [0, 0]])  # (3 - 1) / 3 of the squares
    np.testing.assert_allclose(targets["va_rater_variance"], expected, rtol=1e-6)
    assert set(weights) == set(tasks.TASKS)
    np.testing.assert_array_equal(weights["va"], [1, 1, 1])
    assert set(batch.compact_labels(table.hard())) == set(tasks.TASKS)
    assert set(batch.compact_labels(table.only_tasks(("au",)))) == set(tasks.TASKS)


def test_labels_and_weights():
    table = FrameTable.from_columns(
        dataset="set",
        video="a",
        frame=[1, 2, 3, 4],
        image=[f"a/{frame}.jpg" for frame in range(4)],
        root="/images",
        valence=[0.5, NAN, -1.0, 0.25],
        arousal=[0.1, 0.2, 1.0, NAN],
        expression=[-1, 7, 0, -1],
        au=np.array([[1] * 12, [NAN] * 12, [0] * 11 + [NAN], [NAN] * 12]),
    )
    compact = batch.compact_labels(table)
    assert {task: column.dtype.name for task, column in compact.items()} == {
        "va": "float32",
        "au": "int8",
        "expr": "int8",
    }
    targets, weights = jax.device_get(batch.expand_labels(compact))
    np.testing.assert_array_equal(weights["va"], [1, 0, 1, 0])  # valence and arousal: both or none
    expected = np.array([[0.5, 0.1], [0, 0], [-1, 1], [0, 0]], np.float32)
    np.testing.assert_array_equal(targets["va"], expected)
    np.testing.assert_array_equal(weights["au"].sum(axis=1), [12, 0, 11, 0])
    np.testing.assert_array_equal(targets["au"].sum(axis=1), [12, 0, 0, 0])
    np.testing.assert_array_equal(weights["expr"], [0, 1, 1, 0])
    np.testing.assert_array_equal(targets["expr"].argmax(axis=1)[1:3], [7, 0])
    np.testing.assert_array_equal(targets["expr"].sum(axis=1), [0, 1, 1, 0])
    for group in (targets, weights):
        assert set(group) == set(tasks.TASKS)
        for column in group.values():
            assert column.dtype == np.float32
            assert np.isfinite(column).all()
