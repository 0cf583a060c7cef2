"""The measurement of small faces: what counts as found."""

import numpy as np
import pytest

from benchmarks import small_faces
from mtl_face.faces.align import TEMPLATE_L2
from mtl_face.faces.detect import Face, FaceFinder


def face(x, height):
    """A face without a mesh, whose box has this height."""
    low, high = TEMPLATE_L2[:, 1].min(), TEMPLATE_L2[:, 1].max()
    return Face((TEMPLATE_L2 - TEMPLATE_L2.mean(axis=0)) * height / (high - low) + [x, 100], 0.9)


def test_place_and_height_decide():
    known = face(100, 40).landmarks
    found = small_faces.is_found(known, 40, [face(x, 40) for x in (100, 109, 111)])
    assert found == [True, True, False]
    found = small_faces.is_found(known, 40, [face(100, height) for height in (23, 24, 67, 69)])
    assert found == [False, True, True, False]


@pytest.mark.slow
def test_faces_are_missed_that_are_not_looked_for():
    for least, recall in ((20.0, 1.0), (None, 0.0)):
        result = small_faces.measure(FaceFinder(least), 1280, 720, 32, 1)
        assert result["recall"] == recall
        assert result["faces"] == 4


def test_a_scene_is_the_same_again():
    one, other = (small_faces.scene(400, 200, 24, 3) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1].shape == (4, 5, 2)
    assert not np.array_equal(one[0], small_faces.scene(400, 200, 24, 4)[0])
