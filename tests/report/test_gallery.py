import dataclasses

import numpy as np
import pytest
from evaluation_tables import decisions_alone, make_labels, make_predictions

from mtl_face.report.gallery import choose, frame_errors, frame_uncertainties


def test_frame_errors_by_hand():
    labels = make_labels(3, missing=0.0)
    labels.au[2] = np.nan
    labels.valence[1] = np.nan
    labels.expression[1] = -1
    labels.au[1, 6:] = np.nan
    answers = make_predictions(labels, noise=0.0)
    answers.valence[0] = labels.valence[0] + (0.4 if labels.valence[0] < 0.5 else -0.4)
    answers.au_logits[1, 0] *= -1
    assert answers.expression_logits is not None
    answers.expression_logits[:] = 0.0
    error, num_tasks = frame_errors(labels, answers)
    assert num_tasks.tolist() == [3, 1, 2]
    assert error[0] == pytest.approx((0.4 / 2 / 2 + 0 + 7 / 8) / 3)
    assert error[1] == pytest.approx(1 / 6)
    assert error[2] == pytest.approx((0 + 7 / 8) / 2)
    decisions = decisions_alone(answers)
    decisions.expression_decisions[0] = (labels.expression[0] + 1) % 8
    decisions.expression_decisions[2] = -1
    error, num_tasks = frame_errors(labels, decisions)
    assert num_tasks.tolist() == [3, 1, 1]
    assert error.tolist() == pytest.approx([(0.1 + 0 + 1) / 3, 1 / 6, 0.0])


def test_frame_uncertainties_by_hand():
    labels = make_labels(2, missing=0.0)
    answers = make_predictions(labels)
    assert answers.expression_logits is not None
    assert answers.au_logits is not None
    answers.expression_logits[0] = 0.0
    answers.expression_logits[1] = np.where(np.arange(8) < 2, 0.0, -np.inf)
    answers.expression_logits[1, 2:] = -1000.0
    answers.au_logits[0] = 0.0
    answers.au_logits[1] = 1000.0
    uncertainty = frame_uncertainties(answers)
    assert uncertainty is not None
    assert uncertainty == pytest.approx([1.0, 1 / 6])
    with_std = dataclasses.replace(
        answers, valence_std=np.array([0.1, 5.0]), arousal_std=np.array([0.3, 0.5])
    )
    uncertainty = frame_uncertainties(with_std)
    assert uncertainty is not None
    assert uncertainty == pytest.approx([(1 + 1 + 0.2) / 3, (1 / 3 + 0 + 0.75) / 3])
    bare = decisions_alone(answers)
    assert frame_uncertainties(bare) is None


def test_chosen_frames_are_ordered_different_and_from_different_videos():
    labels = make_labels(300, missing=0.05)
    answers = make_predictions(labels)
    groups = choose(labels, answers, num_rows=24)
    error, num_tasks = frame_errors(labels, answers)
    rows = np.concatenate(list(groups.values()))
    assert len(set(rows.tolist())) == 24
    assert (num_tasks[rows] == 3).all()
    assert (np.diff(error[groups["best"]]) >= 0).all()
    assert (np.diff(error[groups["worst"]]) <= 0).all()
    uncertainty = frame_uncertainties(answers)
    assert uncertainty is not None
    assert (np.diff(uncertainty[groups["most uncertain"]]) <= 0).all()
    full = np.flatnonzero(num_tasks == 3)
    assert error[groups["best"][0]] == error[full].min()
    assert error[groups["worst"][0]] == error[full].max()
    rest = np.setdiff1d(full, np.concatenate([groups["best"], groups["worst"]]))
    assert uncertainty[groups["most uncertain"][0]] == uncertainty[rest].max()
    for chosen in groups.values():
        assert len(set(labels.video[chosen])) == 6


@pytest.mark.parametrize(
    ("num_rows", "sizes"), [(0, [0, 0, 0, 0]), (1, [1, 0, 0, 0]), (6, [2, 2, 1, 1])]
)
def test_the_number_of_frames_is_kept(num_rows, sizes):
    labels = make_labels(50, missing=0.0)
    groups = choose(labels, make_predictions(labels), num_rows=num_rows)
    assert [len(rows) for rows in groups.values()] == sizes


def test_few_frames_are_shown_once():
    labels = make_labels(8, missing=0.0)
    groups = choose(labels, make_predictions(labels), num_rows=24)
    assert [len(rows) for rows in groups.values()] == [6, 2, 0, 0]
