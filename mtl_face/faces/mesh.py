"""The 468 points of faces that are at hand as crops.

Dimension letters: N crops, S side of a crop, V mesh points (468).
"""

import functools
import threading

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face.face_table import MESH_POINTS
from mtl_face.faces import align
from mtl_face.faces.align import Floats
from mtl_face.faces.models import MESH_SIZE, FaceMesh

MESH_FACTOR = 1.5
"""Side of the mesh network's cut, as a multiple of the face's larger side."""

PASSES = 3
"""How often the points of a crop are found: each time in a cut around the last ones."""

_EYES = (33, 263)  # outer corners of the eyes, the one on the picture's left first

_one_at_a_time = threading.Lock()


def mesh_of_crops(
    crop_NSS3: npt.NDArray[np.uint8], passes: int = PASSES
) -> npt.NDArray[np.float32]:
    """Finds the points of crops that show one face each, as `align.crop_face` cuts them.

    A crop cuts off parts of the face that the network expects to see: the border is repeated by a
    quarter of the side. There is no measure of whether a crop shows a face at all.

    Returns:
        Points [N, V, 3]: x and y in pixels of the crop, where (0, 0) is the centre of the first
        pixel, and depth in pixels, smaller where nearer.
    """
    size = crop_NSS3.shape[1]
    margin = size // 4
    result = np.zeros((len(crop_NSS3), MESH_POINTS, 3), np.float32)
    for crop_SS3, mesh_V3 in zip(crop_NSS3, result, strict=True):
        wide = np.pad(crop_SS3, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        picture = Image.fromarray(wide)
        middle = (picture.width - 1) / 2
        matrix_23 = upright(np.array([middle, middle]), picture.width, np.array([1.0, 0.0]))
        for _ in range(passes):
            point_V3 = _look(picture, matrix_23)
            matrix_23 = around(point_V3)
        mesh_V3[:] = point_V3 - [margin, margin, 0]
    return result


def upright(centre_2: Floats, side: float, eyes_2: Floats) -> Floats:
    """The map that cuts a square around a centre, turned so that `eyes_2` becomes horizontal."""
    direction_2 = eyes_2 / max(float(np.linalg.norm(eyes_2)), 1e-9)
    turn_22 = np.array([direction_2, [-direction_2[1], direction_2[0]]])
    turn_22 *= MESH_SIZE / max(float(side), 1e-6)
    shift_2 = (MESH_SIZE - 1) / 2 - turn_22 @ centre_2
    return np.concatenate([turn_22, shift_2[:, None]], axis=1)


def around(mesh_V3: npt.NDArray[np.floating]) -> Floats:
    """The map that cuts the mesh network's square around points found before."""
    place_V2 = mesh_V3[:, :2].astype(np.float64)
    low_2, high_2 = place_V2.min(axis=0), place_V2.max(axis=0)
    eyes_2 = place_V2[_EYES[1]] - place_V2[_EYES[0]]
    return upright((low_2 + high_2) / 2, MESH_FACTOR * float((high_2 - low_2).max()), eyes_2)


def _look(picture: Image.Image, matrix_23: Floats) -> Floats:
    with _one_at_a_time:
        _, cut_V3 = _network()(np.asarray(align.warp(picture, matrix_23, MESH_SIZE)))
    inverse_23 = align.invert(matrix_23)
    scale = float(np.linalg.norm(inverse_23[:, 0]))
    return np.concatenate(
        [align.transform(inverse_23, cut_V3[:, :2]), cut_V3[:, 2:] * scale], axis=1
    )


@functools.cache
def _network() -> FaceMesh:
    return FaceMesh()
