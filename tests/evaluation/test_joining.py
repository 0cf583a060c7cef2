import dataclasses

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.errors import UserError
from mtl_face.evaluation.joining import match


def naive_match(labels, predictions):
    """The rule in plain Python: k-th row gets the k-th prediction of its key, else the first."""
    places: dict[tuple, list[int]] = {}
    for row in range(len(predictions)):
        key = (predictions.dataset[row], predictions.video[row], predictions.frame[row])
        places.setdefault(key, []).append(row)
    seen: dict[tuple, int] = {}
    result = []
    for row in range(len(labels.frame)):
        key = (labels.dataset[row], labels.video[row], labels.frame[row])
        k = seen.get(key, 0)
        seen[key] = k + 1
        found = places.get(key, [-1])
        result.append(found[k] if k < len(found) else found[0])
    return result


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.data())
def test_match_is_the_rule_in_plain_python(data):
    labels = make_labels(30)
    rows = np.array(data.draw(st.lists(st.integers(0, 29), max_size=40)), np.int64)
    predicted = np.array(data.draw(st.lists(st.integers(0, 29), max_size=40)), np.int64)
    predictions = make_predictions(labels).take(predicted)
    some = labels.take(rows)
    index = match(some, predictions, lenient=True)
    assert index.tolist() == naive_match(some, predictions)


def test_equal_video_and_frame_of_another_dataset_is_another_row():
    labels = make_labels(4)
    twice = labels.take(np.array([0, 0]))
    twice = dataclasses.replace(twice, dataset=np.array(["a", "b"], object))
    predictions = make_predictions(twice)
    assert match(twice, predictions.take(np.array([1, 0]))).tolist() == [1, 0]


def test_missing_predictions_are_named():
    labels = make_labels(30)
    predictions = make_predictions(labels).take(np.arange(2, 30))
    with pytest.raises(UserError, match=r"2 of 30 .*rendered/video0 frame 1, .*frame 4") as error:
        match(labels, predictions)
    assert error.value.remedy
    assert match(labels, predictions, lenient=True)[:3].tolist() == [-1, -1, 0]


def test_one_prediction_serves_every_copy_of_its_row():
    labels = make_labels(3)
    assert match(labels.take(np.array([1, 1, 1])), make_predictions(labels)).tolist() == [1, 1, 1]


def test_contradicting_predictions_of_one_row_are_refused():
    labels = make_labels(3)
    first, second = make_predictions(labels), make_predictions(labels, seed=2)
    both = first.take(np.array([0, 1, 2, 0, 1, 2]))
    assert match(labels, both).tolist() == [0, 1, 2]
    both.valence[3:] = second.valence
    with pytest.raises(UserError, match="3 rows have several predictions that differ"):
        match(labels, both)


def test_empty_tables():
    labels = make_labels(3)
    nothing = np.array([], np.int64)
    assert match(labels.take(nothing), make_predictions(labels)).size == 0
    with pytest.raises(UserError, match="3 of 3"):
        match(labels, make_predictions(labels).take(nothing))
