"""The 468 points of faces whose place in a picture is known about.

Dimension letters: S side of a cut, F faces, V mesh points (468).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face.faces import align
from mtl_face.faces.align import Floats
from mtl_face.faces.models import MESH_SIZE, face_mesh_network

MESH_FACTOR = 1.5
"""Side of the mesh network's cut, as a multiple of the face's larger side."""

EYES = (33, 263)
"""Points at the outer corners of the eyes, the one on the picture's left first."""


def find_points(
    pictures: Sequence[Image.Image], matrices: Sequence[Floats]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Finds the points of faces, all in one batch.

    Nothing is rounded to grey levels on the way: matrices that differ by rounding errors give
    points that differ by as little.

    Args:
        pictures: the RGB picture of each face.
        matrices: from places in each to the mesh network's cut of the face, from `upright`.

    Returns:
        Probability that there is a face, [F]; points [F, V, 3] in pixels of the picture, and depth
        in the same unit, smaller where nearer.
    """
    cuts = [
        align.cut(picture, matrix_23, MESH_SIZE)
        for picture, matrix_23 in zip(pictures, matrices, strict=True)
    ]
    cut_FSS3 = np.array(cuts, np.float32).reshape(-1, MESH_SIZE, MESH_SIZE, 3)
    score_F, mesh_FV3 = face_mesh_network()(cut_FSS3)
    for mesh_V3, matrix_23 in zip(mesh_FV3, matrices, strict=True):
        inverse_23 = align.invert(matrix_23)
        mesh_V3[:, :2] = align.transform(inverse_23, mesh_V3[:, :2])
        mesh_V3[:, 2] *= np.linalg.norm(inverse_23[:, 0])
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
