"""Cuts for the mesh network, in closed form."""

import numpy as np
import pytest

from mtl_face.faces import align, mesh


def test_upright_turns_the_eyes_level_and_fills_the_cut():
    eyes = np.array([np.cos(0.3), np.sin(0.3)])
    matrix = mesh.upright(np.array([40.0, 70.0]), 96.0, eyes)
    places = np.array([[40.0, 70.0], [40.0, 70.0] + 10 * eyes])
    centre, right = align.transform(matrix, places)
    assert centre.tolist() == pytest.approx([95.5, 95.5])
    assert (right - centre).tolist() == pytest.approx([20.0, 0.0])


def test_around_is_half_as_large_again_as_the_face():
    points = np.zeros((468, 3), np.float32)
    points[:2, :2] = [[10, 20], [30, 100]]
    points[2:, :2] = [20, 50]
    points[list(mesh.EYES), :2] = [[12, 40], [28, 40]]
    corners = align.transform(
        align.invert(mesh.around(points)), np.array([[-0.5, -0.5], [191.5, 191.5]])
    )
    np.testing.assert_allclose(corners, [[20 - 60, 60 - 60], [20 + 60, 60 + 60]], atol=1e-9)
