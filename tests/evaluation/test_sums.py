"""Sums over videos, and groups of rows of about equal score."""

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions

from mtl_face.evaluation.joining import join
from mtl_face.evaluation.sums import Statistic, Videos, merge


@pytest.fixture
def joined():
    """60 rows of six videos."""
    labels = make_labels(60)
    return join(labels, make_predictions(labels))


def test_sums_are_those_of_each_video(joined):
    rows = np.random.default_rng(0).random(60) < 0.7
    column = np.random.default_rng(1).normal(size=60)
    videos = Videos.of(joined)
    assert videos.count == 6
    sums = videos.sums(rows, [column[rows], np.ones(rows.sum())])
    for i in range(6):  # video0 ... video5 are in order
        part = rows & (joined.truth.video == f"video{i}")
        assert sums[i] == pytest.approx([column[part].sum(), part.sum()])
    together = Videos.together(joined)
    assert together.sums(rows, [column[rows]]) == pytest.approx(sums[:, :1].sum(keepdims=True))
    assert together.count == 1


def test_histograms_are_those_of_each_video_and_group(joined):
    rows = np.ones(60, bool)
    group, column = np.arange(60) % 4, np.arange(60.0)
    histograms = Videos.of(joined).histograms(rows, group, 5, [column])
    assert histograms.shape == (6, 1, 5)
    part = (joined.truth.video == "video2") & (group == 3)
    assert histograms[2, 0, 3] == column[part].sum()
    assert not histograms[:, :, 4].any()


def test_groups_are_exact_together_and_coarse_by_video(joined):
    score = np.random.default_rng(0).normal(size=3000)
    score[:10] = score[10:20]
    exact, num_exact, coarse = Videos.together(joined).groups(score)
    assert (num_exact, coarse) == (2990, False)
    assert (np.diff(score[np.argsort(exact, kind="stable")]) <= 0).all()
    group, number, coarse = Videos.of(joined).groups(score)
    assert coarse
    assert number <= 1024
    assert (np.diff(group[np.argsort(-score)]) >= 0).all()
    assert (group[:10] == group[10:20]).all()
    assert not Videos.of(joined).groups(np.repeat(score[:1000], 3))[2]


def test_scores_of_totals_of_weights_and_without_each():
    values = np.array([1.0, 2.0, 6.0])
    mean = Statistic(np.stack([np.ones(3), values], axis=1), lambda s: {"mean": s[:, 1] / s[:, 0]})
    assert mean.total()["mean"].tolist() == [3.0]
    weights = np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
    assert mean.weighted(weights)["mean"].tolist() == pytest.approx([3.0, 10 / 3])
    assert mean.without_each()["mean"].tolist() == [4.0, 3.5, 1.5]


def test_p_is_the_sum_of_the_tasks_where_all_are_there():
    parts = [{f"{task}.score": np.array([0.1])} for task in ("va", "au", "expr")]
    assert merge(parts)["p"] == pytest.approx([0.3])
    assert "p" not in merge(parts[:2])
