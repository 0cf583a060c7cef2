"""Summaries: shares, spreads and rates over time, against long-hand sums."""

import csv
import dataclasses

import face_rows
import numpy as np
import pandas as pd
import pytest

from mtl_face.errors import WorkdirError
from mtl_face.evaluation import face_summary
from mtl_face.evaluation.face_events import EventError, EventRules
from mtl_face.evaluation.face_summary import summarise
from mtl_face.face_table import FaceTable


def uneven(seed=0, count=40):
    """A video of uneven frames whose times are whole milliseconds, some without the face."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(10, 90, count))
    return face_rows.video(rng.random(count) > 0.2, times_ms=times, seed=seed)


def each_millisecond(faces):
    """The row that is shown in each millisecond: every frame repeated as long as it lasts."""
    number, first = np.unique(faces.frame, return_index=True)
    start = faces.time_ms[first]
    usual = float(np.median(np.diff(start)))
    length = np.append(np.diff(start), usual)
    assert len(number) == len(faces)
    return np.repeat(np.arange(len(faces)), (2 * length).astype(int))  # of half milliseconds


def test_numbers_are_those_of_each_millisecond():
    faces = uneven()
    (person,) = summarise(faces).persons
    rows = each_millisecond(faces)
    seen = rows[faces.has_face[rows]]
    assert person["frames"] == len(faces)
    assert person["frames_with_face"] == person["frames_trusted"] == faces.has_face.sum()
    assert person["duration_ms"] == pytest.approx(len(rows) / 2)
    assert person["in_view_share"] == pytest.approx(len(seen) / len(rows))
    for place, name in enumerate(("valence", "arousal")):
        values = faces.va[seen, place]
        assert person[f"{name}_mean"] == pytest.approx(values.mean())
        assert person[f"{name}_sd"] == pytest.approx(values.std())
        for percent in face_summary.PERCENTILES:
            expected = np.percentile(values, percent, method="inverted_cdf")
            assert person[f"{name}_p{percent}"] == pytest.approx(expected)
    for number, name in enumerate(("neutral", "anger", "disgust", "fear", "happiness")):
        share = (faces.expression[seen] == number).mean()
        assert person[f"expr_{name}_share"] == pytest.approx(share)
    for unit, name in ((0, "au1"), (11, "au26")):
        share = (faces.au_present[seen, unit] == 1).mean()
        assert person[f"{name}_share"] == pytest.approx(share)


def test_rates_and_peaks_counted_by_hand():
    """Two minutes, half of them in view; three events of AU4, of which one is too short."""
    count = 1200
    units = np.zeros((count, 12))
    units[100:110, 2], units[103, 2] = 0.6, 0.9
    units[200:220, 2] = 0.7
    units[300, 2] = 0.99
    seen = np.arange(count) < 600
    faces = face_rows.video(
        seen,
        times_ms=100.0 * np.arange(count),
        au_probability=units[seen],
        au_present=units[seen] > 0.5,
    )
    (person,) = summarise(faces, EventRules(shortest_ms=150)).persons
    assert person["duration_ms"] == 120_000
    assert person["in_view_share"] == 0.5
    assert person["au4_share"] == pytest.approx(31 / 600)
    assert person["au4_events_per_minute"] == pytest.approx(2.0)
    assert person["au4_mean_peak_probability"] == pytest.approx((0.9 + 0.7) / 2)
    assert person["au6_share"] == person["au6_events_per_minute"] == 0
    assert np.isnan(person["au6_mean_peak_probability"])


def test_faces_that_cannot_be_trusted():
    status = np.array(["ok", "small", "ok", "blurred"])
    faces = face_rows.video([1] * 4, status=status, va=np.array([[0.2] * 2, [0.8] * 2] * 2))
    (everything,) = summarise(faces).persons
    assert (everything["frames_with_face"], everything["frames_trusted"]) == (4, 2)
    assert (everything["in_view_share"], everything["trusted_share"]) == (1.0, 0.5)
    assert everything["valence_mean"] == pytest.approx(0.5)
    (trusted,) = summarise(faces, EventRules(trusted_only=True)).persons
    assert (trusted["frames_with_face"], trusted["in_view_share"]) == (2, 0.5)
    assert trusted["valence_mean"] == pytest.approx(0.2)


def test_tasks_without_answers_stay_empty():
    faces = face_rows.video(
        [1] * 3,
        va=np.full((3, 2), np.nan),
        au_present=np.full((3, 12), -1),
        au_probability=np.full((3, 12), np.nan),
        expression=np.full(3, -1),
        expression_probability=np.full((3, 8), np.nan),
    )
    summary = summarise(faces)
    (person,) = summary.persons
    words = ("valence", "arousal", "expr_", "au")
    answers = [value for name, value in person.items() if name.startswith(words)]
    assert len(answers) == 2 * 7 + 8 + 36
    assert np.isnan(answers).all()
    assert len(summary.in_words()) == 1


def test_a_source_without_times_has_shares_but_no_rates():
    faces = face_rows.video([1, 1, 0, 1], times_ms=np.full(4, np.nan))
    (person,) = summarise(faces).persons
    assert person["in_view_share"] == 0.75
    assert np.isnan(person["duration_ms"])
    assert np.isnan(person["au1_events_per_minute"])
    assert "75% of 4 frames" in summarise(faces).in_words()[0]


def test_the_mesh_is_not_needed_and_changes_nothing():
    faces = uneven()
    with_mesh = dataclasses.replace(faces, mesh=np.zeros((len(faces), 468, 3), np.float32))
    assert summarise(with_mesh).events == summarise(faces).events


def test_files_can_be_read_by_pandas(tmp_path):
    faces = FaceTable.joined(
        [uneven(1), dataclasses.replace(uneven(2), source=np.full(40, "=b.mp4"))]
    )
    summary = summarise(faces, EventRules(shortest_ms=0))
    written = summary.write(tmp_path / "talk.csv")
    assert written == (tmp_path / "talk_summary.csv", tmp_path / "talk_events.csv")
    persons, events = (pd.read_csv(path) for path in written)
    assert persons.columns.tolist() == face_summary.columns()
    assert persons.source.tolist() == ["a.mp4", "'=b.mp4"]  # no spreadsheet takes it for a formula
    for name in persons.columns[1:]:
        expected = [float(person[name]) for person in summary.persons]
        np.testing.assert_allclose(persons[name], expected, rtol=1e-5, atol=1e-9)
    assert len(events) == len(summary.events) > 20
    for name in ("onset_ms", "apex_ms", "offset_ms", "duration_ms", "peak_probability"):
        expected = [getattr(event, name) for event in summary.events]
        np.testing.assert_allclose(events[name], expected, rtol=1e-5)
    assert events.what.tolist() == [event.what for event in summary.events]
    assert events.onset_frame.dtype == np.int64
    with written[1].open(newline="") as file:
        assert len(next(csv.reader(file))) == len(events.columns)


def test_times_of_long_videos_are_exact(tmp_path):
    faces = face_rows.video([1] * 5, times_ms=7_199_999.25 + np.arange(5) * 33.125)
    summarise(faces, EventRules(shortest_ms=0)).write(tmp_path / "a")
    events = pd.read_csv(tmp_path / "a_events.csv")
    assert set(events.onset_ms) <= set(np.round(faces.time_ms, 3))
    assert events.onset_ms.min() == 7_199_999.25


@pytest.mark.parametrize(
    ("name", "stem"), [("a.csv", "a"), ("a", "a"), ("day 1.0", "day 1.0"), ("a.CSV", "a")]
)
def test_names_of_files(tmp_path, name, stem):
    assert face_summary.paths(tmp_path / name) == (
        tmp_path / f"{stem}_summary.csv",
        tmp_path / f"{stem}_events.csv",
    )


def test_in_words():
    answer = np.array([4] * 6 + [0] * 2)
    units = np.zeros((8, 12))
    units[2:6, 6] = 0.9
    faces = face_rows.video(
        [1] * 8,
        times_ms=1000.0 * np.arange(8),
        va=np.full((8, 2), 0.25),
        expression=answer,
        expression_probability=np.eye(8)[answer],
        au_probability=units,
        au_present=units > 0.5,
    )
    lines = summarise(faces).in_words()
    assert lines == [
        "a.mp4, person 1: in view 100% of 00:08, to be trusted 100%",
        "  valence +0.25 (sd 0.00, 5 to 95 %: +0.25 to +0.25)",
        "  arousal +0.25 (sd 0.00, 5 to 95 %: +0.25 to +0.25)",
        "  expressions: Happiness 75%, Neutral 25%",
        "  action units: AU12 (lip corner puller) 50%, 7.5 a minute",
    ]


def test_many_persons_are_cut_in_words_alone():
    parts = [face_rows.video([1] * 3, source=f"{n}.mp4") for n in range(14)]
    summary = summarise(FaceTable.joined(parts))
    assert len(summary.persons) == 14
    assert summary.in_words()[-1] == "and 4 more"


def test_what_is_no_video_is_an_error():
    for faces in (
        face_rows.faces(3),
        face_rows.video([0, 0]),
        face_rows.faces(1).take(np.arange(0)),
    ):
        with pytest.raises(EventError, match="no video"):
            summarise(faces)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError):
        summarise(uneven()).write(tmp_path / "file" / "a.csv")
