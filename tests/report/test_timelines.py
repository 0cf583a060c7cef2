import dataclasses
import re

import numpy as np
from evaluation_tables import make_labels, make_predictions

from mtl_face.report import timelines
from mtl_face.tables import FrameTable


def one_video(frames, valence):
    """Labels of one video, and answers that are 0."""
    num = len(frames)
    labels = FrameTable.from_columns(
        dataset="set",
        video=["a<b"] * num,
        frame=frames,
        image=[f"a/{frame}.jpg" for frame in frames],
        root="/images",
        valence=valence,
        arousal=np.zeros(num),
        sort=False,
    )
    predictions = make_predictions(labels, noise=0.0)
    return labels, dataclasses.replace(predictions, valence=np.zeros(num))


def lines(drawing, kind):
    """Points of each piece of the lines of a kind in the strip of valence."""
    paths = [path for name, path in drawing["strips"][0]["paths"] if name == kind]
    return [
        [tuple(map(float, point.split())) for point in re.split("[LhZ]", piece) if " " in point]
        for path in paths
        for piece in path.split("M")[1:]
    ]


def draw(labels, answers, raw=None):
    (video,) = timelines.choose_videos(labels, answers)
    return timelines.draw(video, labels, answers, raw)


def test_a_timeline_is_where_the_values_are():
    # rows out of order, one frame twice, one label missing
    labels, answers = one_video([30, 10, 20, 10], [1.0, -1.0, np.nan, -1.0])
    drawing = draw(labels, answers)
    assert lines(drawing, "truth") == [[(0, 100), (1000, 0)]]
    assert lines(drawing, "final") == [[(0, 50), (500, 50), (1000, 50)]]
    assert (drawing["first"], drawing["last"]) == (10, 30)
    assert drawing["caption"] == "a<b: 3 frames, root mean square error 0.707"
    assert [strip["name"] for strip in drawing["strips"]] == ["valence", "arousal"]
    described = "truth from -1.00 to 1.00, prediction from 0.00 to 0.00."
    assert drawing["strips"][0]["description"] == f"Valence of a<b over its frames: {described}"


def test_a_timeline_breaks_where_frames_are_missing_for_long():
    labels, answers = one_video([1, 2, 3, 50, 101, 100], np.linspace(-1, 1, 6))
    pieces = lines(draw(labels, answers), "truth")
    assert [len(piece) for piece in pieces] == [3, 1, 2]


def test_a_frame_alone_at_the_end_is_a_dot():
    labels, answers = one_video([1, 2, 3, 201], [0.0, 0.0, 0.0, 1.0])
    path = dict(draw(labels, answers)["strips"][0]["paths"])["truth"]
    assert path == "M0 50.0L5 50.0L10 50.0M1000 0.0h0"


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
    kinds = [kind for kind, _ in drawing["strips"][0]["paths"]]
    assert kinds == ["zero", "raw", "truth", "final"]


def test_a_long_video_keeps_its_peaks_and_stays_small():
    valence = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000)
    valence[12_345], valence[777] = 1.0, -1.0
    labels, answers = one_video(np.arange(20_000), valence)
    drawing = draw(labels, answers)
    (points,) = lines(drawing, "truth")
    assert min(y for _, y in points) == 0
    assert max(y for _, y in points) == 100
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert sum(len(path) for _, path in drawing["strips"][0]["paths"]) < 15_000


def test_the_worst_video_is_the_first_and_one_frame_is_no_timeline():
    labels = make_labels(31, missing=0.3)
    labels.valence[10:20] = np.nan
    answers = make_predictions(labels, noise=0.0)
    answers.valence[20:30] = 1.0
    videos = timelines.choose_videos(labels, answers)
    names = [video.name for video in videos]
    assert (names[0], names[-1]) == ("video2", "video1")
    assert np.isnan(videos[-1].rmse)
    assert len(videos) == 3
    answers.dataset[:15] = "other"  # two data sets: their names are needed
    names = {video.name for video in timelines.choose_videos(labels, answers)}
    assert {"other / video0", "rendered / video2"} <= names
    answers.valence[:] = np.nan
    assert timelines.choose_videos(labels, answers) == []
