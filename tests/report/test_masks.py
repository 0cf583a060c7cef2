"""Masks: nothing of a face is left, and no frame in between shows it."""

import face_rows
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtl_face.faces.video import VideoFrame
from mtl_face.report import masks

PICTURE = Image.new("RGB", (8, 8))


def frame(number, seconds):
    return VideoFrame(number, seconds, PICTURE)


def run(present, times):
    """Masks of each frame, of persons (1, 2) that are seen in some frames at their own places."""
    screen, out = masks.Screen(), []
    for number, (people, seconds) in enumerate(zip(present, times, strict=True), start=1):
        rows = face_rows.faces(2, number=number, seconds=seconds).take(np.array(people, int))
        out += screen.push(frame(number, seconds), rows)
    out += screen.rest()
    assert [each.frame.number for each in out] == list(range(1, len(present) + 1))
    assert [len(each.faces) for each in out] == [len(people) for people in present]
    both = face_rows.faces(2)
    centres = np.array([masks.outline(both, row).mean(axis=0) for row in (0, 1)])
    return [
        {int(np.abs(centres - corners.mean(axis=0)).sum(axis=1).argmin()) for corners in each.masks}
        for each in out
    ]


def test_a_lost_face_stays_hidden_for_a_time():
    times = np.arange(80) / 8
    present = [[0]] * 10 + [[]] * 70
    covered = run(present, times.tolist())
    last = 9 / 8
    assert covered == [{0} if time - last <= masks.HOLD_S else set() for time in times]


def test_a_face_is_hidden_before_it_is_found():
    times = (np.arange(40) * 0.1).tolist()
    covered = run([[]] * 20 + [[1]] * 20, times)
    assert covered[:15] == [set()] * 15
    assert covered[15:] == [{1}] * 25


def test_the_way_of_a_face_that_moves_while_it_is_lost_is_covered():
    """Lost for three frames, in which it moves by three times its width."""
    screen, out = masks.Screen(), []
    for number in range(1, 10):
        left = 100.0 * (number - 1)
        faces = face_rows.faces(seconds=number / 8, box=(left, 40.0, left + 100, 140.0))
        if number in (4, 5, 6):
            faces = faces.take(np.arange(0))
        out += screen.push(frame(number, number / 8), faces)
    out += screen.rest()
    for number in (4, 5, 6):
        picture = Image.new("RGB", (1000, 200), "white")
        masks.hide(picture, out[number - 1].masks)
        left = 100 * (number - 1)  # where the face is, unseen
        assert picture.crop((left, 40, left + 100, 140)).getextrema()[0][1] < 100
        assert picture.getpixel((980, 90)) == (255, 255, 255)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_against_every_pair_of_frames(data):
    steps = data.draw(st.lists(st.sampled_from([0.04, 0.2, 0.7, 2.5]), min_size=1, max_size=25))
    times = np.cumsum(steps).round(3).tolist()
    people = st.lists(st.sampled_from([0, 1]), unique=True, max_size=2)
    present = data.draw(st.lists(people, min_size=len(times), max_size=len(times)))
    expected = [
        {
            person
            for person in (0, 1)
            for other, later in zip(present, times, strict=True)
            if person in other and -masks.AHEAD_S <= time - later <= masks.HOLD_S
        }
        for time in times
    ]
    assert run(present, times) == expected


def test_frames_without_times_count_as_40_ms():
    covered = run([[0]] + [[]] * 60, [None] * 61)
    assert covered == [{0}] * 51 + [set()] * 10


def test_frames_are_kept_for_half_a_second_alone():
    screen = masks.Screen()
    for number in range(1, 200):
        seconds = number / 8
        settled = list(screen.push(frame(number, seconds), face_rows.faces(seconds=seconds)))
        if number > 7:
            assert [each.frame.number for each in settled] == [number - 5]


@pytest.mark.parametrize("seen", [True, False])
def test_mask_covers_the_box_and_more(seen):
    faces = face_rows.faces(box=(300.0, 200.0, 420.0, 350.0))
    corners = masks.outline(faces, 0, seen=seen)
    black = Image.new("RGB", (700, 600), "black")
    masks.hide(black, [corners])
    hidden = np.asarray(black).any(axis=-1)
    assert hidden[200:350, 300:420].all()
    assert hidden[170:200, 330:390].all()  # the forehead
    assert hidden[250:300, 280:300].all()  # an ear
    larger = masks.outline(faces, 0, seen=False)
    assert (np.ptp(larger, axis=0) >= np.ptp(corners, axis=0)).all()


def test_box_of_landmarks_alone_is_enlarged():
    """A detector without a mesh has a box around eyes and mouth, which is less than a face."""
    faces = face_rows.faces(
        box=(100.0, 100.0, 160.0, 170.0),
        landmarks=np.array([[[100, 100], [160, 100], [130, 130], [110, 170], [150, 170.0]]]),
    )
    corners = masks.outline(faces, 0)
    assert corners[:, 0].min() < 60
    assert corners[:, 1].max() > 215


def test_nothing_of_the_picture_is_left_inside():
    faces = face_rows.faces(box=(60.0, 50.0, 130.0, 140.0))
    pictures = []
    for seed in range(2):
        noise = np.random.default_rng(seed).integers(0, 256, (200, 200, 3), np.uint8)
        pictures.append(Image.fromarray(noise))
        masks.hide(pictures[-1], [masks.outline(faces, 0)])
    first, second = (np.asarray(picture) for picture in pictures)
    same = (first == second).all(axis=-1)
    assert same[50:140, 60:130].all()
    assert len(np.unique(first[50:140, 60:130].reshape(-1, 3), axis=0)) == 1
    assert same.mean() < 0.8  # the rest is as it was


def test_masks_outside_of_the_picture_do_no_harm():
    picture = Image.new("RGB", (50, 50), "white")
    for box in ((-500.0, -500.0, -400.0, -400.0), (900.0, 10.0, 950.0, 60.0)):
        masks.hide(picture, [masks.outline(face_rows.faces(box=box), 0)])
    assert picture.getextrema() == ((255, 255),) * 3
    masks.hide(picture, [masks.outline(face_rows.faces(box=(-9e3, -9e3, 9e3, 9e3)), 0)])
    assert len(picture.getcolors()) == 1


def test_lines_show_what_the_face_does():
    """An open mouth is drawn open; without a mesh, the landmarks are dots."""
    mesh = np.zeros((1, 468, 3), np.float32)
    mesh[0, :, 0], mesh[0, :, 1] = 80.0, 60.0
    mesh[0, 13, 1], mesh[0, 14, 1] = 90.0, 110.0  # the middle of the lips' inner edges
    picture = Image.new("RGB", (160, 160), "black")
    masks.sketch(picture, face_rows.faces(mesh=mesh), 0)
    assert np.nonzero(np.asarray(picture).any(axis=-1))[0].max() >= 109
    picture = Image.new("RGB", (160, 160), "black")
    faces = face_rows.faces(box=(40.0, 40.0, 100.0, 110.0))
    masks.sketch(picture, faces, 0)
    for x, y in faces.landmarks[0].astype(int):
        assert picture.getpixel((int(x), int(y))) != (0, 0, 0)
