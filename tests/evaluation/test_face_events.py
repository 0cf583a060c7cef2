"""Events: counted by hand, and by a slow machine that goes from frame to frame."""

import dataclasses

import face_rows
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.evaluation import face_events
from mtl_face.evaluation.face_events import EventError, EventRules, events_of, tracks
from mtl_face.face_table import FaceTable
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

EXACT = EventRules(shortest_ms=0, longest_gap_ms=0, margin=0, keep=1)


def unit_video(probability, *, seen=None, present=None, unit=6, **options):
    """A video in which one action unit (by place) moves; the face is neutral otherwise."""
    probability = np.asarray(probability, float)
    seen = np.ones(len(probability), bool) if seen is None else np.asarray(seen, bool)
    all_units = np.zeros((len(probability), 12))
    all_units[:, unit] = probability
    decided = all_units > 0.5 if present is None else np.asarray(present)
    neutral = np.eye(8)[np.zeros(len(probability), int)]
    return face_rows.video(
        seen,
        au_probability=all_units[seen],
        au_present=decided[seen],
        expression=np.zeros(int(seen.sum()), int),
        expression_probability=neutral[seen],
        **options,
    )


def answer_video(chances, *, seen=None, **options):
    """A video with these probabilities of expressions [F, E], and without action units."""
    chances = np.asarray(chances, float)
    seen = np.ones(len(chances), bool) if seen is None else np.asarray(seen, bool)
    count = int(seen.sum())
    return face_rows.video(
        seen,
        au_probability=np.zeros((count, 12)),
        au_present=np.zeros((count, 12), int),
        expression=chances[seen].argmax(axis=1),
        expression_probability=chances[seen],
        **options,
    )


def events(faces, rules=EXACT, what=None):
    (track,) = tracks(faces, trusted_only=rules.trusted_only)
    return [event for event in events_of(faces, track, rules) if what in (None, event.what)]


def test_two_videos_of_one_name_are_told():
    """As where tables of two folders are joined."""
    faces = FaceTable.joined([unit_video([0.1, 0.9, 0.1]), unit_video([0.9, 0.9])])
    with pytest.raises(EventError, match="person 1 stands twice in frame 1") as raised:
        events(faces)
    assert "each its own source" in raised.value.remedy


def test_one_smile_counted_by_hand():
    """25 frames a second: frames 3 to 6 smile, the second of these most."""
    faces = unit_video([0.1, 0.2, 0.6, 0.9, 0.8, 0.7, 0.3, 0.1])
    (smile,) = events(faces, what="au12")
    assert smile == face_events.Event(
        source="a.mp4",
        person=1,
        what="au12",
        onset_ms=80,
        apex_ms=120,
        offset_ms=240,
        duration_ms=160,
        onset_frame=3,
        apex_frame=4,
        offset_frame=6,
        peak_probability=0.9,
        trusted_share=1.0,
        begins="seen",
        ends="seen",
    )


def test_times_come_from_the_frames_not_from_a_rate():
    times = [0, 30, 100, 105, 400, 500, 520]
    faces = unit_video([0, 0.9, 0.9, 0, 0.8, 0, 0], times_ms=times)
    first, second = events(faces, what="au12")
    assert (first.onset_ms, first.offset_ms, first.duration_ms) == (30, 105, 75)
    assert (second.onset_ms, second.offset_ms, second.onset_frame) == (400, 500, 5)


def test_a_wavering_probability_is_one_event():
    faces = unit_video([0.1, 0.6, 0.45, 0.55, 0.41, 0.39, 0.45, 0.2])
    hysteresis = dataclasses.replace(EXACT, keep=0.4)
    (event,) = events(faces, hysteresis, "au12")
    assert (event.onset_frame, event.offset_frame) == (2, 5)
    assert len(events(faces, EXACT, "au12")) == 2
    # What never was present is no event, however probable.
    assert events(unit_video([0.45] * 8), hysteresis, "au12") == []


def test_short_events_are_left_out():
    faces = unit_video([0, 0.9, 0, 0.9, 0.9, 0.9, 0, 0])
    for shortest, count in ((40, 2), (41, 1), (120, 1), (121, 0)):
        rules = dataclasses.replace(EXACT, shortest_ms=shortest)
        assert len(events(faces, rules, "au12")) == count


def test_a_lost_face_ends_an_event_and_says_so():
    seen = np.ones(12, bool)
    seen[[5, 6, 7]] = False
    faces = unit_video([0.9] * 12, seen=seen)
    first, second = events(faces, what="au12")
    assert (first.begins, first.ends) == ("start of video", "face lost")
    assert (second.begins, second.ends) == ("face appears", "end of video")
    assert (first.offset_ms, second.onset_ms) == (200, 320)
    # A gap of 120 ms may be bridged; the event then lasts through it.
    (whole,) = events(faces, dataclasses.replace(EXACT, longest_gap_ms=120), "au12")
    assert (whole.onset_ms, whole.offset_ms) == (0, 480)
    assert len(events(faces, dataclasses.replace(EXACT, longest_gap_ms=119), "au12")) == 2


def test_expressions_follow_each_other():
    happy, sad = np.eye(8)[4], np.eye(8)[5]
    faces = answer_video([happy] * 3 + [sad] * 2 + [happy] * 4)
    found = [(event.what, event.onset_frame, event.offset_frame) for event in events(faces)]
    assert found == [("Happiness", 1, 3), ("Sadness", 4, 5), ("Happiness", 6, 9)]


def test_an_expression_yields_to_a_clearly_better_one_alone():
    near, clear = np.zeros(8), np.zeros(8)
    near[[4, 5]] = 0.47, 0.53
    clear[[4, 5]] = 0.3, 0.7
    happy = np.eye(8)[4]
    rules = dataclasses.replace(EXACT, margin=0.1)
    faces = answer_video([happy, happy, near, near, happy])
    assert [event.what for event in events(faces, rules)] == ["Happiness"]
    faces = answer_video([happy, happy, near, clear, near])
    found = [(event.what, event.onset_frame, event.offset_frame) for event in events(faces, rules)]
    assert found == [("Happiness", 1, 3), ("Sadness", 4, 5)]


def test_untrusted_faces_are_counted_or_left_out():
    status = np.array(["ok", "blurred", "small", "ok"])
    faces = unit_video([0.9] * 4, status=status)
    (event,) = events(faces, what="au12")
    assert event.trusted_share == 0.5
    rules = dataclasses.replace(EXACT, trusted_only=True)
    first, second = events(faces, rules, "au12")
    assert (first.ends, second.begins, second.trusted_share) == ("face lost", "face appears", 1.0)
    nobody = dataclasses.replace(faces, status=np.full(len(faces), "small"))
    assert list(tracks(nobody, trusted_only=True)) == []


def test_decisions_without_probabilities():
    faces = unit_video([0, 1, 1, 0])
    faces = dataclasses.replace(
        faces,
        au_probability=np.full((4, 12), np.nan),
        expression_probability=np.full((4, 8), np.nan),
    )
    (event,) = events(faces, EventRules(shortest_ms=0), "au12")
    assert (event.onset_frame, event.apex_frame, event.offset_frame) == (2, 2, 3)
    assert np.isnan(event.peak_probability)
    assert [event.what for event in events(faces)] == ["au12", "Neutral"]


def test_tasks_without_answers_have_no_events():
    faces = unit_video([0.9] * 4)
    nothing = dataclasses.replace(
        faces,
        au_present=np.full((4, 12), -1),
        au_probability=np.full((4, 12), np.nan),
        expression=np.full(4, -1),
        expression_probability=np.full((4, 8), np.nan),
    )
    assert events(nothing, EventRules(shortest_ms=0)) == []


def test_a_source_without_times_counts_frames():
    faces = unit_video([0, 0.9, 0.9, 0.9, 0], times_ms=np.full(5, np.nan))
    rules = dataclasses.replace(EXACT, shortest_ms=120)
    (event,) = events(faces, rules, "au12")
    assert (event.onset_frame, event.offset_frame) == (2, 4)
    assert np.isnan([event.onset_ms, event.apex_ms, event.offset_ms, event.duration_ms]).all()
    assert events(faces, dataclasses.replace(EXACT, shortest_ms=121), "au12") == []


def test_a_pause_of_a_camera_ends_events():
    times = [0, 40, 80, 5000, 5040, 5080]
    first, second = events(unit_video([0.9] * 6, times_ms=times), EventRules(), "au12")
    assert (first.offset_ms, first.ends, second.begins) == (120, "face lost", "face appears")
    assert second.offset_ms == 5120


def test_tracks_of_several_persons_and_sources():
    two = FaceTable.joined(
        [
            face_rows.video([1, 1, 0]),
            face_rows.video([0, 1, 1], person=2),
            face_rows.video([1, 1], source="b.mp4"),
            face_rows.faces(2),  # a photo of the same name has no times
        ]
    )
    two = dataclasses.replace(two, source=np.append(two.source[:-2], ["c.jpg"] * 2))
    found = [(track.source, track.person, track.frame_F.tolist()) for track in tracks(two)]
    assert found == [("a.mp4", 1, [1, 2, 3]), ("a.mp4", 2, [1, 2, 3]), ("b.mp4", 1, [1, 2])]
    for track in tracks(two):
        seen = track.row_F >= 0
        np.testing.assert_array_equal(two.frame[track.row_F[seen]], track.frame_F[seen])
        assert (two.person[track.row_F[seen]] == track.person).all()


def test_frames_that_were_not_decoded_belong_to_the_one_before():
    faces = unit_video([0.9] * 6, seen=[1, 1, 0, 1, 1, 1])
    status = np.where(faces.has_face, faces.status, "not decoded")
    (event,) = events(dataclasses.replace(faces, status=status), what="au12")
    assert (event.onset_ms, event.offset_ms) == (0, 240)


@pytest.mark.parametrize(
    ("name", "value"),
    [("keep", 1.5), ("margin", -0.1), ("shortest_ms", -1), ("longest_gap_ms", float("nan"))],
)
def test_rules_out_of_range(name, value):
    with pytest.raises(EventError, match=f"{name} is"):
        EventRules(**{name: value})


def test_rules_from_texts():
    assert EventRules.from_texts([]) == EventRules()
    texts = ["keep=0.25", "shortest_ms=200", "trusted_only=yes", "keep=0.3"]
    assert EventRules.from_texts(texts) == EventRules(keep=0.3, shortest_ms=200, trusted_only=True)
    for text, words in (
        ("kept=1", "no rule of events"),
        ("keep", "keep is ''"),
        ("margin=a", "margin is 'a'"),
        ("trusted_only=1", "yes or no"),
        ("keep=2", "keep is 2"),
    ):
        with pytest.raises(EventError, match=words):
            EventRules.from_texts([text])


def slow_units(faces, track, rules, unit):
    """Onset, apex and offset frame by a machine that reads one frame after the other."""
    found, current, last_end = [], None, None
    for place, row in enumerate(track.row_F.tolist()):
        if row < 0:
            continue
        lost = last_end is not None and (
            track.start_F[place] - last_end > rules.longest_gap_ms + 1e-3
        )
        if current is not None and lost:
            found.append(current)
            current = None
        present = faces.au_present[row, unit] == 1
        chance = faces.au_probability[row, unit]
        if current is None:
            if present:
                current = [place, place, place]
        elif present or chance >= rules.keep:
            current[2] = place
            if chance > faces.au_probability[track.row_F[current[1]], unit]:
                current[1] = place
        else:
            found.append(current)
            current = None
        last_end = track.end_F[place]
    if current is not None:
        found.append(current)
    return [
        tuple(int(track.frame_F[place]) for place in each)
        for each in found
        if track.end_F[each[2]] - track.start_F[each[0]] >= rules.shortest_ms - 1e-3
    ]


def slow_answers(faces, track, rules):
    found, current, last_end = [], None, None
    for place, row in enumerate(track.row_F.tolist()):
        if row < 0:
            continue
        answer, chances = int(faces.expression[row]), faces.expression_probability[row]
        lost = last_end is not None and (
            track.start_F[place] - last_end > rules.longest_gap_ms + 1e-3
        )
        goes_on = (
            current is not None
            and not lost
            and (
                answer == current[0]
                or chances[current[0]] >= chances[answer] - rules.margin - 1e-12
            )
        )
        if goes_on:
            current[2] = place
        else:
            if current is not None:
                found.append(current)
            current = [answer, place, place]
        last_end = track.end_F[place]
    found.append(current)
    return [
        (EXPRESSION_NAMES[number], int(track.frame_F[first]), int(track.frame_F[last]))
        for number, first, last in found
        if track.end_F[last] - track.start_F[first] >= rules.shortest_ms - 1e-3
    ]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_against_a_machine_that_reads_frame_by_frame(data):
    count = data.draw(st.integers(2, 25))
    draw_list = lambda element: data.draw(  # noqa: E731
        st.lists(element, min_size=count, max_size=count)
    )
    levels = st.sampled_from([0.1, 0.35, 0.4, 0.45, 0.55, 0.9])
    seen = np.array(draw_list(st.booleans()))
    seen[data.draw(st.integers(0, count - 1))] = True
    steps = draw_list(st.sampled_from([10, 33, 40, 120, 1000]))
    chances = np.array(draw_list(st.sampled_from([0, 1, 2])))[:, None]
    ratio = np.array(draw_list(st.sampled_from([0.3, 0.45, 0.5, 0.52, 0.7])))
    expressions = np.zeros((count, 8))
    expressions[np.arange(count), chances[:, 0]] = ratio
    expressions[np.arange(count), chances[:, 0] + 1] = 1 - ratio
    units = np.zeros((count, 12))
    units[:, 2] = draw_list(levels)
    present = units > data.draw(st.sampled_from([0.3, 0.5]))
    faces = face_rows.video(
        seen,
        times_ms=np.cumsum(steps),
        au_probability=units[seen],
        au_present=present[seen],
        expression=expressions[seen].argmax(axis=1),
        expression_probability=expressions[seen],
    )
    rules = EventRules(
        keep=data.draw(st.sampled_from([0.2, 0.4, 1.0])),
        margin=data.draw(st.sampled_from([0.0, 0.1])),
        shortest_ms=data.draw(st.sampled_from([0.0, 40.0, 100.0])),
        longest_gap_ms=data.draw(st.sampled_from([0.0, 100.0, 200.0])),
    )
    (track,) = tracks(faces)
    found = events_of(faces, track, rules)
    units_found = [event for event in found if event.what in AU_NAMES]
    assert {event.what for event in units_found} <= {AU_NAMES[2]}
    frames = [(event.onset_frame, event.apex_frame, event.offset_frame) for event in units_found]
    assert frames == slow_units(faces, track, rules, 2)
    answers = [
        (event.what, event.onset_frame, event.offset_frame)
        for event in found
        if event.what in EXPRESSION_NAMES
    ]
    assert answers == slow_answers(faces, track, rules)
    for event in found:
        start = dict(zip(track.frame_F.tolist(), track.start_F.tolist(), strict=True))
        assert event.onset_ms == start[event.onset_frame]
        assert event.apex_ms == start[event.apex_frame]
        assert event.duration_ms == event.offset_ms - event.onset_ms > 0
