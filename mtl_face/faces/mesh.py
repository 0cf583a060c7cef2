"""The 468 points of faces whose place is known about: in pictures, and in crops.

Dimension letters: N crops, S side of a crop, F faces, V mesh points (468).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face.face_table import MESH_POINTS
from mtl_face.faces import align
from mtl_face.faces.align import Floats
from mtl_face.faces.models import MESH_SIZE, face_mesh_network

MESH_FACTOR = 1.5
"""Side of the mesh network's cut, as a multiple of the face's larger side."""

PASSES = 3
"""How often the points of a crop are found: each time in a cut around the last ones."""

EYES = (33, 263)
"""Points at the outer corners of the eyes, the one on the picture's left first."""

_TOGETHER = 256  # crops of which cuts are held at a time


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
    margin = crop_NSS3.shape[1] // 4
    parts = [np.zeros((0, MESH_POINTS, 3), np.float32)]
    for start in range(0, len(crop_NSS3), _TOGETHER):
        wide = np.pad(
            crop_NSS3[start : start + _TOGETHER],
            ((0, 0), (margin, margin), (margin, margin), (0, 0)),
            mode="edge",
        )
        pictures = [Image.fromarray(picture) for picture in wide]
        middle = np.full(2, (wide.shape[1] - 1) / 2)
        whole_23 = upright(middle, wide.shape[1], np.array([1.0, 0.0]))
        _, mesh_FV3 = find_points(pictures, [whole_23] * len(pictures), passes)
        parts.append((mesh_FV3 - [margin, margin, 0]).astype(np.float32))
    return np.concatenate(parts)


def find_points(
    pictures: Sequence[Image.Image], matrices: Sequence[Floats], passes: int = 1
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Finds the points of faces, all in one batch.

    Args:
        pictures: the RGB picture of each face.
        matrices: from places in each to the mesh network's cut of the face, from `upright`.
        passes: with several, each but the first looks at a cut around the last points.

    Returns:
        Probability that there is a face, [F]; points [F, V, 3] in pixels of the picture, and depth
        in the same unit, smaller where nearer.
    """
    for _ in range(passes):
        cuts = [
            np.asarray(align.warp(picture, matrix_23, MESH_SIZE))
            for picture, matrix_23 in zip(pictures, matrices, strict=True)
        ]
        cut_FSS3 = np.array(cuts, np.uint8).reshape(-1, MESH_SIZE, MESH_SIZE, 3)
        score_F, mesh_FV3 = face_mesh_network()(cut_FSS3)
        for mesh_V3, matrix_23 in zip(mesh_FV3, matrices, strict=True):
            inverse_23 = align.invert(matrix_23)
            mesh_V3[:, :2] = align.transform(inverse_23, mesh_V3[:, :2])
            mesh_V3[:, 2] *= np.linalg.norm(inverse_23[:, 0])
        matrices = [around(mesh_V3) for mesh_V3 in mesh_FV3]
    return score_F, mesh_FV3


def upright(centre_2: Floats, side: float, eyes_2: Floats) -> Floats:
    """The map that cuts a square around a centre, turned so that `eyes_2` becomes horizontal."""
    direction_2 = eyes_2 / max(float(np.linalg.norm(eyes_2)), 1e-9)
    turn_22 = np.array([direction_2, [-direction_2[1], direction_2[0]]])
    turn_22 *= MESH_SIZE / max(float(side), 1e-6)
    shift_2 = (MESH_SIZE - 1) / 2 - turn_22 @ centre_2
    return np.concatenate([turn_22, shift_2[:, None]], axis=1)


def around(mesh_V3: npt.NDArray[np.float32]) -> Floats:
    """The map that cuts the mesh network's square around points found before."""
    place_V2 = mesh_V3[:, :2].astype(np.float64)
    low_2, high_2 = place_V2.min(axis=0), place_V2.max(axis=0)
    eyes_2 = place_V2[EYES[1]] - place_V2[EYES[0]]
    return upright((low_2 + high_2) / 2, MESH_FACTOR * float((high_2 - low_2).max()), eyes_2)
