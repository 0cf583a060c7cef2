"""Shape and turn of a face, against SciPy's rotations."""

import numpy as np
import pytest
import scipy.spatial
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mtl_face.faces import geometry

ANGLES = st.floats(-60, 60)


def placed(face_V3, yaw=0.0, pitch=0.0, roll=0.0, scale=40.0, shift=(300.0, 200.0, -5.0)):
    """A face in pixels: x right, y down, z away; rolled, then pitched up, then turned right."""
    turn = (
        Rotation.from_euler("y", -yaw, degrees=True)
        * Rotation.from_euler("x", -pitch, degrees=True)
        * Rotation.from_euler("z", roll, degrees=True)
    )
    return turn.apply(face_V3) * scale + shift


@settings(deadline=None, derandomize=True, max_examples=30)
@given(yaw=ANGLES, pitch=ANGLES, roll=ANGLES)
def test_pose_is_the_turn_that_was_made(yaw, pitch, roll):
    mesh = placed(geometry.mean_face(), yaw, pitch, roll)[None]
    np.testing.assert_allclose(geometry.pose(mesh), [[yaw, pitch, roll]], atol=1e-4)


def test_the_signs_of_pose_are_those_of_the_picture():
    face = geometry.mean_face()
    nose = face[:, 2].argmin()
    base = placed(face)[nose]
    for angles, axis, sign in (
        ({"yaw": 20.0}, 0, 1),  # the tip of the nose moves to the picture's right
        ({"pitch": 20.0}, 1, -1),  # and up
    ):
        turned = placed(face, **angles)
        moved = turned[nose] - turned.mean(axis=0) - (base - placed(face).mean(axis=0))
        assert sign * moved[axis] > 0
        assert geometry.pose(turned[None])[0][axis] == pytest.approx(20.0)
    rolled = placed(face, roll=20.0)
    left, right = (
        rolled[list(eye)].mean(axis=0) for eye in (geometry.LEFT_EYE, geometry.RIGHT_EYE)
    )
    assert right[1] > left[1]  # clockwise in the picture: the right side goes down
    assert geometry.pose(rolled[None])[0][2] == pytest.approx(20.0)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(yaw=ANGLES, pitch=ANGLES, roll=ANGLES, scale=st.floats(0.1, 1000), seed=st.integers(0, 99))
def test_normalised_points_do_not_depend_on_place_size_and_turn(yaw, pitch, roll, scale, seed):
    face = geometry.mean_face() + np.random.default_rng(seed).normal(0, 0.02, (468, 3))
    plain = geometry.normalise(placed(face)[None])
    moved = geometry.normalise(placed(face, yaw, pitch, roll, scale, (1.0, 2.0, 3.0))[None])
    np.testing.assert_allclose(moved, plain, atol=2e-5)
    assert plain.dtype == np.float32


def test_alignment_is_that_of_scipy():
    rng = np.random.default_rng(0)
    target = geometry.mean_face()
    mesh = placed(target + rng.normal(0, 0.03, target.shape), 25, -10, 5)
    onto, turn = geometry.aligned(mesh[None], target)
    expected, _ = Rotation.align_vectors(mesh - mesh.mean(axis=0), target - target.mean(axis=0))
    np.testing.assert_allclose(turn[0], expected.as_matrix(), atol=1e-6)
    # Orthogonal Procrustes' disparity: the least sum of squares after rotation and scaling.
    _, _, disparity = scipy.spatial.procrustes(target, mesh)
    centred = target - target.mean(axis=0)
    assert ((onto[0] - target) ** 2).sum() / (centred**2).sum() == pytest.approx(
        disparity, rel=1e-6
    )


def test_the_mean_face_is_symmetric_and_has_its_unit():
    face, mirror = geometry.mean_face(), geometry.mirror()
    np.testing.assert_allclose(geometry.mirrored(face[None])[0], face, atol=1e-6)
    assert (mirror[mirror] == np.arange(geometry.MESH_POINTS)).all()
    left, right = (face[list(eye)].mean(axis=0) for eye in (geometry.LEFT_EYE, geometry.RIGHT_EYE))
    assert np.linalg.norm(right - left) == pytest.approx(1.0, abs=1e-6)
    assert right[0] > left[0]
    # Pairs that anatomy tells: corners of the eyes and of the mouth, and points of the middle.
    for one, other in ((33, 263), (133, 362), (61, 291), (1, 1), (152, 152), (10, 10)):
        assert mirror[one] == other


@pytest.mark.parametrize("mesh", [np.zeros((1, 468, 3)), np.full((1, 468, 3), np.nan)])
def test_a_mesh_without_extent_is_refused(mesh):
    with pytest.raises(ValueError, match="coincide"):
        geometry.normalise(mesh)
