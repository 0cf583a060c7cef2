"""Following faces, and putting tracks together to people."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtl_face.faces import track as track_module
from mtl_face.faces.align import TEMPLATE_L2
from mtl_face.faces.detect import Face
from mtl_face.faces.track import PATIENCE, Tracker, people


def face(x, y=100.0, scale=1.0):
    return Face((TEMPLATE_L2 - TEMPLATE_L2.mean(axis=0)) * scale + [x, y], 0.9)


def follow(*frames):
    """The tracker after frames given as lists of faces, numbered from 1."""
    tracker = Tracker()
    for number, faces in enumerate(frames, start=1):
        tracker.update(number, faces)
    return tracker


def sides(tracker):
    """Frames and mean place of each person."""
    return [
        (
            list(person),
            float(
                np.mean(
                    [
                        tracker.tracks[track]
                        .faces[tracker.tracks[track].frames.index(frame)]
                        .centre[0]
                        for frame, track in person.items()
                    ]
                )
            ),
        )
        for person in people(tracker.tracks)
    ]


def test_a_moving_face_is_one_track():
    tracker = follow(*([face(100 + 20 * step)] for step in range(20)))
    assert [track.frames for track in tracker.tracks] == [list(range(1, 21))]


def test_faces_keep_their_tracks_when_the_order_changes():
    tracker = follow([face(100), face(300)], [face(305), face(102)], [face(104), face(310)])
    assert [round(track.faces[-1].centre[0]) for track in tracker.tracks] == [104, 310]


def test_another_size_is_another_face():
    assert len(follow([face(100)], [face(100, scale=3.0)]).tracks) == 2


def test_a_short_break_keeps_the_track_and_a_long_one_ends_it():
    for pause, count in ((PATIENCE - 1, 1), (PATIENCE, 2)):
        tracker = follow([face(100)], *([[]] * pause), [face(100)])
        assert len(tracker.tracks) == count
        ((frames, _),) = sides(tracker)
        assert frames == [1, pause + 2]


def test_two_people_get_sides_by_place():
    right_first = [[face(500, scale=1.5), face(100)]] * 10
    assert [round(place) for _, place in sides(follow(*right_first))] == [100, 500]


def test_one_person_seen_in_two_places_stays_one():
    """A cut moves the face; nobody else is ever seen at the same time."""
    tracker = follow(*[[face(100)]] * 10, *[[face(500)]] * 10)
    assert len(tracker.tracks) == 2
    ((frames, _),) = sides(tracker)
    assert frames == list(range(1, 21))


def test_interrupted_tracks_of_two_people_go_to_the_nearest_side():
    both = [face(100), face(500)]
    frames = [*[both] * 10, *[[face(100)]] * 30, *[both] * 10, *[[face(505)]] * 30, *[both] * 10]
    (left, left_place), (right, right_place) = sides(follow(*frames))
    assert (round(left_place), round(right_place)) == (100, 502)
    assert left == [*range(1, 51), *range(81, 91)]
    assert right == [*range(1, 11), *range(41, 91)]


def test_who_comes_back_alone_goes_to_the_nearest_side():
    both, nobody = [[face(100), face(500)]] * 20, [[]] * 30
    frames = [*both, *nobody, *[[face(470)]] * 10, *nobody, *[[face(130)]] * 10]
    (left, _), (right, _) = sides(follow(*frames))
    assert left == [*range(1, 21), *range(91, 101)]
    assert right == [*range(1, 21), *range(51, 61)]


def test_passers_by_are_left_out():
    frames = [[face(300)] + ([face(20, scale=0.5)] if 5 < step < 9 else []) for step in range(60)]
    ((_, place),) = sides(follow(*frames))
    assert round(place) == 300


def test_a_third_person_is_left_out():
    frames = [[face(100), face(300, scale=0.6), face(500)]] * 12
    assert [round(place) for _, place in sides(follow(*frames))] == [100, 500]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=4, unique=True),
        max_size=12,
    )
)
@settings(deadline=None, derandomize=True, max_examples=80)
def test_no_track_has_two_faces_of_a_frame(frames):
    tracker = follow(*([face(60 * x, 80 * y) for x, y in places] for places in frames))
    assert sum(len(track.frames) for track in tracker.tracks) == sum(map(len, frames))
    for track in tracker.tracks:
        assert len(set(track.frames)) == len(track.frames) == len(track.faces)
        assert track.frames == sorted(track.frames)
    chosen = people(tracker.tracks)
    assert len(chosen) <= 2
    tracks = [number for person in chosen for number in set(person.values())]
    assert len(set(tracks)) == len(tracks)


LOOKS = {"anna": [1.0, 2.0, 0.0], "ben": [5.0, 2.0, 3.0], "cleo": [2.0, -3.0, 8.0]}


@pytest.fixture
def looking(monkeypatch):
    """Tracks who is where in each frame: {name: x}; the number of each name's track, by frame.

    The looks of a face are those of `LOOKS`, with noise; its mesh carries the name.
    """
    random = np.random.default_rng(0)
    names = list(LOOKS)

    def looks(picture, mesh):
        return np.tile(LOOKS[names[int(mesh[0, 2])]], 7) + random.normal(0, 0.5, 21)

    monkeypatch.setattr(track_module, "likeness", looks)

    def run(frames, tracker=None, start=1, pictures=None):
        tracker = tracker or Tracker()
        result = []
        for number, places in enumerate(frames, start=start):
            faces = []
            for name, x in places.items():
                mesh = np.zeros((468, 3), np.float32)
                mesh[0, 2] = names.index(name)
                faces.append(Face(face(x).landmarks, 0.9, mesh))
            picture = pictures[number - 1] if pictures else Image.new("RGB", (640, 360))
            tracks = tracker.update(number, faces, picture)
            result.append(dict(zip(places, (track.number for track in tracks), strict=True)))
        return result

    return run


AWAY = [{}] * (PATIENCE + 20)


def test_who_comes_back_elsewhere_keeps_the_number(looking):
    found = looking([{"anna": 100}] * 10 + AWAY + [{"anna": 500}] * 10)
    assert all(numbers == {"anna": 0} for numbers in found if numbers)


def test_who_comes_into_the_place_of_another_is_new(looking):
    found = looking([{"anna": 100}] * 10 + AWAY + [{"ben": 100}] * 10 + AWAY + [{"anna": 300}] * 10)
    assert [next(iter(numbers.values())) for numbers in found if numbers] == [0] * 10 + [1] * 10 + [
        0
    ] * 10


def test_seats_that_are_changed_in_a_cut(looking):
    found = looking([{"anna": 100, "ben": 500}] * 10 + [{"ben": 100, "anna": 500}] * 10)
    assert all(numbers == {"anna": 0, "ben": 1} for numbers in found)


def test_cuts_between_two_in_one_place(looking):
    found = looking(([{"anna": 300}] * 10 + [{"ben": 305}] * 10) * 2)
    assert [numbers for numbers in found if numbers] == ([{"anna": 0}] * 10 + [{"ben": 1}] * 10) * 2


def wall(seed, *, gain=1.0, shift=0):
    """A wall of large patches, brighter by a factor, and moved to the right, with noise."""
    random = np.random.default_rng(seed)
    patches = Image.fromarray(random.integers(40, 160, (9, 16, 3)).astype(np.uint8))
    pixels = np.asarray(patches.resize((640, 360), Image.Resampling.BICUBIC), np.float64)
    pixels = np.roll(pixels, shift, axis=1) * gain + random.normal(0, 4, (360, 640, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_a_cut_is_where_all_of_the_picture_is_another():
    """Not where light, size or place change, or somebody comes near; black belongs to no shot."""
    tracker = Tracker()
    near = wall(0)
    near.paste(wall(1).crop((0, 0, 260, 300)), (190, 60))
    same = [wall(0), wall(0, gain=1.5), wall(0, gain=0.6), wall(0), wall(0, shift=20), wall(0)]
    same += [near, wall(0), wall(0).resize((320, 180)), Image.new("RGB", (640, 360)), wall(0)]
    for number, picture in enumerate(same, start=1):
        assert not tracker.is_cut(picture)
        tracker.update(number, [], picture)
    tracker.update(20, [], Image.new("RGB", (640, 360)))
    for seed in range(1, 6):
        assert tracker.is_cut(wall(seed))


def test_after_a_cut_place_does_not_tell(looking, monkeypatch):
    """Two who look alike enough to be one, had nothing but their looks changed."""
    monkeypatch.setitem(LOOKS, "ben", [2.68, 3.68, 1.68])
    frames = [{"anna": 300}] * 10 + [{"ben": 305}] * 10 + [{"anna": 310}] * 10
    one, other = wall(0), wall(1)
    assert looking(frames, pictures=[one] * 30) == [dict.fromkeys(each, 0) for each in frames]
    found = looking(frames, pictures=[one] * 10 + [other] * 10 + [one] * 10)
    assert found == [{"anna": 0}] * 10 + [{"ben": 1}] * 10 + [{"anna": 0}] * 10


def test_who_is_found_some_frames_after_a_cut(looking, monkeypatch):
    monkeypatch.setitem(LOOKS, "ben", [2.68, 3.68, 1.68])
    frames = [{"anna": 300}] * 10 + [{}] + [{"ben": 305}] * 10
    found = looking(frames, pictures=[wall(0)] * 10 + [wall(1)] * 11)
    assert found[11:] == [{"ben": 1}] * 10


def test_a_person_keeps_the_number_through_cuts(looking):
    """Even one who was seen in a frame or two, as in a pan that is taken for cuts."""
    frames = [{"anna": 300 + 10 * step} for step in range(10)]
    found = looking(frames, pictures=[wall(step) for step in range(10)])
    assert found == [{"anna": 0}] * 10


def test_two_who_cross_while_one_is_hidden(looking):
    frames = [{"anna": 100 + 20 * step, "ben": 500 - 20 * step} for step in range(21)]
    for step in range(8, 13):
        del frames[step]["ben"]
    found = looking(frames)
    assert all(numbers.get("anna", 0) == 0 for numbers in found)
    assert all(numbers.get("ben", 1) == 1 for numbers in found)


def test_no_two_of_a_frame_have_one_number(looking):
    """Even those who look alike."""
    found = looking([{"anna": 100}] * 10 + AWAY + [{"anna": 100, "ben": 300, "cleo": 500}] * 5)
    assert found[-1] == {"anna": 0, "ben": 1, "cleo": 2}


def test_a_state_goes_on_as_if_never_stopped(looking):
    frames = [{"anna": 100, "ben": 500}] * 10 + AWAY + [{"ben": 100}] * 10
    whole = looking(frames)
    tracker = Tracker()
    looking(frames[:12], tracker)
    other = restored(tracker)
    assert looking(frames[12:], other, start=13) == whole[12:]
    assert other.tracks[1].seen == 20


def restored(tracker):
    other = Tracker()
    other.restore(json.loads(json.dumps(tracker.state(), allow_nan=False)))
    return other


@pytest.mark.parametrize("stop", [10, 11])
def test_a_state_knows_the_shot(looking, monkeypatch, stop):
    """Where following stops just before a cut, and just after it."""
    monkeypatch.setitem(LOOKS, "ben", [2.68, 3.68, 1.68])
    frames = [{"anna": 300}] * 10 + [{}] + [{"ben": 305}] * 5
    pictures = [wall(0)] * 10 + [wall(1)] * 6
    tracker = Tracker()
    looking(frames[:stop], tracker, pictures=pictures)
    found = looking(frames[stop:], restored(tracker), start=stop + 1, pictures=pictures)
    assert found[-5:] == [{"ben": 1}] * 5


def test_a_track_survives_another_size_of_the_picture():
    tracker = Tracker()
    numbers = []
    for number, factor in enumerate((1.0, 1.0, 2.0, 2.0, 0.5, 0.5), start=1):
        size = (round(640 * factor), round(360 * factor))
        one = Face(face(500 + number, scale=0.6).landmarks * factor, 0.9)
        numbers += tracker.update(number, [one], Image.new("RGB", size))
    assert [track.number for track in numbers] == [0] * 6


def test_a_face_in_a_resized_picture():
    mesh = np.array([[10, 20, 4], [30, 40, -4]], np.float32)
    larger = Face(np.array([[10.0, 20.0]]), 0.9, mesh).scaled((100, 50), (200, 100))
    np.testing.assert_allclose(larger.landmarks, [[20.5, 40.5]])
    np.testing.assert_allclose(larger.mesh, [[20.5, 40.5, 8], [60.5, 80.5, -8]])
