"""Likeness of rendered heads: of one person in several poses, and of different persons."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.heads import background, cut_out
from mtl_face.faces import detect
from mtl_face.faces.likeness import difference, likeness

POSES = ((0, 0, ()), (14, 5, (12, 25)), (-18, -4, (25, 26)))


@pytest.fixture(scope="module")
def described():
    """Likeness of six persons in three poses each, [6, 3, D]."""
    finder = detect.FaceFinder()
    pictures = []
    for seed in range(6):
        for number, (yaw, roll, units) in enumerate(POSES):
            canvas = background(10 * seed + number, 400, 300)
            head = cut_out(7000 + seed, yaw=yaw, roll=roll, units=units)
            head.resized(280 - 30 * number).put_on(canvas, 50, 10)
            pictures.append(Image.fromarray(canvas))
    found = finder.find(pictures)
    values = [
        likeness(picture, faces[0].mesh) for picture, faces in zip(pictures, found, strict=True)
    ]
    return np.stack(values).reshape(6, 3, -1)


def test_a_person_is_most_like_oneself(described):
    """But for one of six, who has a double."""
    nearest = []
    for person in range(6):
        mean = described[person, :2].mean(axis=0)
        others = [difference(mean, described[other, 2]) for other in range(6)]
        nearest.append(int(np.argmin(others)))
    assert sum(person == other for person, other in enumerate(nearest)) >= 5


def test_persons_differ_more_than_poses(described):
    same = [difference(one[0], one[pose]) for one in described for pose in (1, 2)]
    different = [
        difference(described[one, 0], described[other, pose])
        for one in range(6)
        for other in range(6)
        for pose in (1, 2)
        if one != other
    ]
    assert np.median(same) < 0.5 * np.median(different)


def test_brightness_counts_and_place_does_not(described):
    finder = detect.FaceFinder()
    canvas = background(3, 500, 300)
    moved = canvas.copy()
    cut_out(7001).resized(260).put_on(canvas, 10, 10)
    cut_out(7001).resized(260).put_on(moved, 200, 30)
    one, other, dark = (Image.fromarray(pixels) for pixels in (canvas, moved, canvas // 2))
    ((here,), (there,)) = finder.find([one, other])
    first = likeness(one, here.mesh)
    assert difference(first, likeness(other, there.mesh)) < 0.5
    assert difference(first, likeness(dark, here.mesh)) > 3


def test_what_is_outside_of_the_picture_is_not_known(described):
    finder = detect.FaceFinder()
    canvas = background(3, 400, 300)
    cut_out(7001).resized(280).put_on(canvas, 50, 10)
    (face,) = finder(Image.fromarray(canvas))
    top = int(face.mesh[:, 1].min())
    without_hair = Image.fromarray(canvas[top + 2 :])
    values = likeness(without_hair, face.mesh - np.array([0, top + 2, 0], np.float32))
    assert np.isnan(values[12:15]).all()
    assert np.isfinite(values[:12]).all()
    whole = likeness(Image.fromarray(canvas), face.mesh)
    assert np.isfinite(whole).all()
    assert difference(values, whole) < 0.2
    assert difference(np.full_like(whole, np.nan), whole) == 1
    assert difference(whole, whole) == 0
