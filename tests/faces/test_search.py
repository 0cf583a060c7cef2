"""The parts of a picture that are searched, and what is found in them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtl_face.faces import search


def shown(tile):
    """Left, top, right, bottom of each part in pixels of the frame, and its scale."""
    for part in tile.parts:
        start, size = np.array(part.start), np.array(part.size)
        yield (*(start * part.scale), *((start + size) * part.scale), part.scale[0])


@given(st.integers(1, 1500), st.integers(1, 1500), st.sampled_from([None, 24, 60, 300]))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_every_face_is_shown_large_enough_and_whole(width, height, min_face):
    """A face anywhere, of any height from the least on, lies in a part that suits its size."""
    frame = Image.new("RGB", (width, height))
    tiles = list(search.tiles_of(frame, min_face))
    assert all(tile.pixels.shape == (256, 256, 3) for tile in tiles)
    parts = [part for tile in tiles for part in shown(tile)]
    least = 0.08 * max(width, height) if min_face is None else min_face
    random = np.random.default_rng([width, height])
    for side in np.geomspace(least, max(least, min(width, height)), 6):
        if side > min(width, height):
            continue
        left, top = random.uniform(0, width - side), random.uniform(0, height - side)
        slack = 0.1 * side + 1
        assert any(
            part_left <= left + slack
            and part_top <= top + slack
            and part_right >= left + side - slack
            and part_bottom >= top + side - slack
            and 19 <= side / scale <= 129  # pixels that the network sees
            for part_left, part_top, part_right, part_bottom, scale in parts
        )


def test_a_wide_frame_takes_one_tile():
    """Two sizes of it side by side, each pixel from the place that its part says."""
    ramp = np.zeros((720, 1280, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 1280)
    ramp[..., 1] = np.linspace(0, 255, 720)[:, None]
    (tile,) = search.tiles_of(Image.fromarray(ramp), None)
    assert len(tile.parts) == 2
    for part in tile.parts:
        (left, top), (width, height) = part.place, part.size
        x, y = left + 2 * width // 3, top + height // 4
        frame_x, frame_y = (np.array([x, y]) + 0.5 - part.place + part.start) * part.scale
        red, green, _ = tile.pixels[y, x].tolist()
        assert red == pytest.approx(255 * frame_x / 1280, abs=2)
        assert green == pytest.approx(255 * frame_y / 720, abs=2)


def test_candidates_are_those_of_their_part():
    wide = search.Part((0, 0), (256, 144), (0, 0), (5.0, 5.0))
    small = search.Part((0, 168), (128, 72), (0, 0), (10.0, 10.0))
    tile = search.Tile(np.zeros((256, 256, 3), np.uint8), [wide, small])
    boxes = np.array([[20, 30, 60, 70], [10, 178, 50, 218], [150, 178, 190, 218.0]]) / 256
    points = np.repeat(boxes[:, None, :2], 6, axis=1)
    large, little = tile.candidates(np.array([0.9, 0.8, 0.95]), boxes, points)
    np.testing.assert_allclose(large[1], [[100, 150, 300, 350]])
    np.testing.assert_allclose(little[1], [[100, 100, 500, 500]])
    np.testing.assert_allclose(little[2], np.full((1, 6, 2), 100))
    assert (large[0].tolist(), little[0].tolist()) == ([0.9], [0.8])
    assert [len(part[0]) for part in tile.candidates(np.full(3, 0.1), boxes, points)] == [0, 0]


def test_overlapping_candidates_become_one():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60.0]])
    points = np.repeat(boxes[:, None, :2], 6, axis=1)
    (first, first_points), (second, _) = search.suppress(np.array([0.6, 0.9, 0.7]), boxes, points)
    np.testing.assert_allclose(first, [0.6, 0, 10.6, 10])
    np.testing.assert_allclose(first_points[:, 0], 0.6)
    np.testing.assert_allclose(second, boxes[2])
