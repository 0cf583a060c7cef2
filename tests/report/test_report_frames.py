"""Frames of the report: which are chosen, timelines of videos, attention laid over faces."""

import dataclasses
import re

import numpy as np
import pytest
from evaluation_tables import Labels, make_labels, make_predictions

from mtl_face.evaluation.answers import Answers
from mtl_face.report import attention_maps, timeline
from mtl_face.report.gallery import choose, frame_errors, frame_uncertainties


def test_frame_errors_by_hand():
    labels = make_labels(3, missing=0.0)
    labels.au[2] = np.nan
    labels.valence[1] = np.nan
    labels.expression[1] = -1
    labels.au[1, 6:] = np.nan
    answers = Answers.of(make_predictions(labels, noise=0.0))
    answers.valence[0] = labels.valence[0] + (0.4 if labels.valence[0] < 0.5 else -0.4)
    answers.au[1, 0] = 1 - answers.au[1, 0]
    assert answers.expression_logits is not None
    answers.expression_logits[:] = 0.0
    error, num_tasks = frame_errors(labels, answers)
    assert num_tasks.tolist() == [3, 1, 2]
    assert error[0] == pytest.approx((0.4 / 2 / 2 + 0 + 7 / 8) / 3)
    assert error[1] == pytest.approx(1 / 6)
    assert error[2] == pytest.approx((0 + 7 / 8) / 2)
    decisions = dataclasses.replace(answers, expression_logits=None)
    decisions.expression[0] = (labels.expression[0] + 1) % 8
    decisions.expression[2] = -1
    error, num_tasks = frame_errors(labels, decisions)
    assert num_tasks.tolist() == [3, 1, 1]
    assert error.tolist() == pytest.approx([(0.1 + 0 + 1) / 3, 1 / 6, 0.0])


def test_frame_uncertainties_by_hand():
    labels = make_labels(2, missing=0.0)
    answers = Answers.of(make_predictions(labels))
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
    bare = dataclasses.replace(answers, au_logits=None, expression_logits=None)
    assert frame_uncertainties(bare) is None


def test_chosen_frames_are_ordered_different_and_from_different_videos():
    labels = make_labels(300, missing=0.05)
    answers = Answers.of(make_predictions(labels))
    groups = choose(labels, answers, num_rows=24)
    error, num_tasks = frame_errors(labels, answers)
    rows = np.concatenate(list(groups.values()))
    assert len(set(rows.tolist())) == 24
    assert (num_tasks[rows] == 3).all()
    assert (np.diff(error[groups["best"]]) >= 0).all()
    assert (np.diff(error[groups["worst"]]) <= 0).all()
    uncertainty = frame_uncertainties(answers)
    assert uncertainty is not None
    assert (np.diff(uncertainty[groups["uncertain"]]) <= 0).all()
    full = np.flatnonzero(num_tasks == 3)
    assert error[groups["best"][0]] == error[full].min()
    assert error[groups["worst"][0]] == error[full].max()
    rest = np.setdiff1d(full, np.concatenate([groups["best"], groups["worst"]]))
    assert uncertainty[groups["uncertain"][0]] == uncertainty[rest].max()
    for chosen in groups.values():
        assert len(set(labels.video[chosen])) == 6


@pytest.mark.parametrize(
    ("num_rows", "sizes"), [(0, [0, 0, 0, 0]), (1, [1, 0, 0, 0]), (6, [2, 2, 1, 1])]
)
def test_the_number_of_frames_is_kept(num_rows, sizes):
    labels = make_labels(50, missing=0.0)
    groups = choose(labels, Answers.of(make_predictions(labels)), num_rows=num_rows)
    assert [len(rows) for rows in groups.values()] == sizes


def test_few_frames_are_shown_once():
    labels = make_labels(8, missing=0.0)
    groups = choose(labels, Answers.of(make_predictions(labels)), num_rows=24)
    assert [len(rows) for rows in groups.values()] == [6, 2, 0, 0]


def one_video(frames, valence):
    """Labels of one video, and answers that are 0."""
    num = len(frames)
    labels = Labels(
        dataset=np.full(num, "set"),
        video=np.full(num, "a<b"),
        frame=np.asarray(frames),
        valence=np.asarray(valence, float),
        arousal=np.zeros(num),
        expression=np.full(num, -1),
        au=np.full((num, 12), np.nan),
    )
    predictions = make_predictions(labels, noise=0.0)
    return labels, Answers.of(dataclasses.replace(predictions, valence=np.zeros(num)))


def lines(drawing, css_class):
    """Points of each piece of the lines of a class in the first strip."""
    strip = drawing.split('class="strip"')[1]
    paths = re.findall(rf'<path class="{css_class}" d="([^"]*)"/>', strip)
    return [
        [tuple(map(float, point.split())) for point in re.split("[LhZ]", piece) if " " in point]
        for path in paths
        for piece in path.split("M")[1:]
    ]


def draw(labels, answers, raw=None):
    (video,) = timeline.choose_videos(labels, answers)
    return timeline.draw(video, labels, answers, raw)


def test_a_timeline_is_where_the_values_are():
    # rows out of order, one frame twice, one label missing
    labels, answers = one_video([30, 10, 20, 10], [1.0, -1.0, np.nan, -1.0])
    drawing = draw(labels, answers)
    assert lines(drawing, "truth") == [[(0, 100), (1000, 0)]]
    assert lines(drawing, "final") == [[(0, 50), (500, 50), (1000, 50)]]
    assert "frame 10" in drawing
    assert "frame 30" in drawing
    assert "a&lt;b: 3 frames, root mean square error 0.707" in drawing
    assert "<b" not in drawing


def test_a_timeline_breaks_where_frames_are_missing_for_long():
    labels, answers = one_video([1, 2, 3, 50, 101, 100], np.linspace(-1, 1, 6))
    pieces = lines(draw(labels, answers), "truth")
    assert [len(piece) for piece in pieces] == [3, 1, 2]


def test_the_band_is_the_interval_of_95_percent_inside_the_range():
    labels, answers = one_video([0, 1], [0.0, 0.0])
    answers = dataclasses.replace(
        answers, valence_std=np.array([0.1, 3.0]), arousal_std=np.array([1.0, 1.0])
    )
    assert lines(draw(labels, answers), "band") == [[(0, 40.2), (1000, 0), (1000, 100), (0, 59.8)]]


def test_raw_predictions_are_drawn_beneath():
    labels, answers = one_video([0, 1], [0.0, 0.0])
    raw = dataclasses.replace(answers, valence=np.array([0.5, -0.5]))
    drawing = draw(labels, answers, raw)
    assert lines(drawing, "raw") == [[(0, 25), (1000, 75)]]
    assert drawing.index('class="raw"') < drawing.index('class="truth"')


def test_a_long_video_keeps_its_peaks_and_stays_small():
    valence = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000)
    valence[12_345], valence[777] = 1.0, -1.0
    labels, answers = one_video(np.arange(20_000), valence)
    drawing = draw(labels, answers)
    (points,) = lines(drawing, "truth")
    assert min(y for _, y in points) == 0
    assert max(y for _, y in points) == 100
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert len(drawing) < 30_000


def test_the_worst_video_is_the_first_and_one_frame_is_no_timeline():
    labels = make_labels(31, missing=0.3)
    labels.valence[10:20] = np.nan
    answers = Answers.of(make_predictions(labels, noise=0.0))
    answers.valence[20:30] = 1.0
    videos = timeline.choose_videos(labels, answers)
    names = [video.name for video in videos]
    assert (names[0], names[-1]) == ("rendered / video2", "rendered / video1")
    assert np.isnan(videos[-1].rmse)
    assert len(videos) == 3
    answers.valence[:] = np.nan
    assert timeline.choose_videos(labels, answers) == []


def test_attention_is_averaged_over_the_heads_and_laid_out_by_rows():
    weights = np.zeros((1, 2, 2, 3, 9), np.float32)
    weights[0, 1, 0, 2, 5] = 1.0
    weights[0, 1, 1, 2, 6] = 1.0
    maps = attention_maps.check(weights, 1)
    assert maps.shape == (1, 2, 3, 3, 3)
    assert maps[0, 1, 2].tolist() == [[0, 0, 0], [0, 0, 0.5], [0.5, 0, 0]]
    assert attention_maps.in_words(maps[0, 1, 2]) == "peak 4.5 times uniform, middle right"


@pytest.mark.parametrize("shape", [(1, 2, 2, 3, 8), (2, 2, 2, 3, 9), (1, 2, 2, 4, 9), (1, 3, 9)])
def test_attention_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="attention has shape"):
        attention_maps.check(np.zeros(shape, np.float32), 1)


def test_an_overlay_is_brightest_where_the_weight_is():
    picture = np.full((90, 60, 3), 100, np.uint8)
    weight = np.zeros((3, 3))
    weight[0, 2] = 0.5
    drawn = attention_maps.overlay(picture, weight, 0.5).astype(float).sum(axis=-1)
    assert drawn.shape == (90, 60)
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert row < 30
    assert column >= 40
    assert drawn[75, 10] < drawn[15, 50] / 2


def test_one_scale_serves_maps_without_a_peak():
    uniform = np.full((4, 2, 3, 7, 7), 1 / 49)
    assert attention_maps.top_weight(uniform) == pytest.approx(2 / 49)
    peaked = uniform.copy()
    peaked[..., 3, 3] = 0.4
    assert attention_maps.top_weight(peaked) == pytest.approx(0.4)
