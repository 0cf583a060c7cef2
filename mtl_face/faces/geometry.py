"""The shape of a face without its place, size and turn, and the turn of the head.

Points are those of the mesh. The mean neutral face is packaged: the mean of neutral rendered faces
after generalised Procrustes analysis, made symmetric (`benchmarks/derive_mean_face.py`). Its unit
is the distance between the centres of its eyes; x to the picture's right, y down, z away from the
viewer.

Dimension letters: N faces, V mesh points (468).
"""

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy

MEAN_FACE = Path(__file__).parent / "assets" / "mean_face.safetensors"

MESH_POINTS = 468

LEFT_EYE, RIGHT_EYE = (33, 133), (362, 263)
"""Mesh points at the corners of each eye; left is the picture's."""

Points = npt.NDArray[np.floating]


@functools.cache
def _asset() -> dict[str, npt.NDArray[np.generic]]:
    arrays = safetensors.numpy.load(MEAN_FACE.read_bytes())
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def mean_face() -> npt.NDArray[np.float64]:
    """The mean neutral face, [V, 3], centred, in distances between its eyes."""
    return _asset()["points"].astype(np.float64)


def mirror() -> npt.NDArray[np.int32]:
    """The point on the other side of each point, [V]; a point of the middle is its own."""
    return _asset()["mirror"].astype(np.int32)


def aligned(mesh_NV3: Points, target_V3: Points) -> tuple[Points, Points]:
    """Least-squares similarity of each mesh to a target, without reflection (Umeyama 1991).

    Returns:
        The meshes on the target, float64 [N, V, 3], and the rotations M, float64 [N, 3, 3], that
        turn the target to the meshes: a mesh is about `scale * target @ M.T + shift`.

    Raises:
        ValueError: the points of a mesh coincide, or are not finite.
    """
    mesh_NV3 = np.asarray(mesh_NV3, np.float64)
    centred_NV3 = mesh_NV3 - mesh_NV3.mean(axis=1, keepdims=True)
    centre_3 = target_V3.mean(axis=0)
    size_N = (centred_NV3**2).sum(axis=(1, 2))
    if not (np.isfinite(size_N) & (size_N > 0)).all():
        raise ValueError("the points of a mesh coincide, or are not finite")
    covariance_N33 = np.einsum("nvi,vj->nij", centred_NV3, target_V3 - centre_3)
    left_N33, singular_N3, right_N33 = np.linalg.svd(covariance_N33)
    sign_N3 = np.ones_like(singular_N3)
    sign_N3[:, 2] = np.sign(np.linalg.det(left_N33 @ right_N33))
    turn_N33 = (left_N33 * sign_N3[:, None]) @ right_N33
    scale_N = (singular_N3 * sign_N3).sum(axis=1) / size_N
    return scale_N[:, None, None] * (centred_NV3 @ turn_N33) + centre_3, turn_N33


def normalise(mesh_NV3: Points) -> npt.NDArray[np.float32]:
    """How each face differs from the mean neutral face, whatever its place, size and turn.

    Args:
        mesh_NV3: meshes in pixels or any other unit that is the same for x, y and depth.

    Returns:
        [N, V, 3], in distances between the eyes of the mean face; zero for the mean face itself.

    Raises:
        ValueError: as `aligned`.
    """
    target_V3 = mean_face()
    return (aligned(mesh_NV3, target_V3)[0] - target_V3).astype(np.float32)


def pose(mesh_NV3: Points) -> npt.NDArray[np.float64]:
    """Yaw, pitch and roll of each head in degrees, [N, 3].

    Yaw > 0: turned to the picture's right; pitch > 0: up; roll > 0: tilted clockwise in the
    picture. The head is rolled first, then pitched, then turned. ValueError as `aligned`.
    """
    turn_N33 = aligned(mesh_NV3, mean_face())[1]
    forward_N3 = -turn_N33[:, :, 2]
    yaw_N = np.arctan2(forward_N3[:, 0], -forward_N3[:, 2])
    pitch_N = np.arctan2(-forward_N3[:, 1], np.hypot(forward_N3[:, 0], forward_N3[:, 2]))
    roll_N = np.arctan2(turn_N33[:, 1, 0], turn_N33[:, 1, 1])
    return np.degrees(np.stack([yaw_N, pitch_N, roll_N], axis=1))


def mirrored(point_NV3: Points) -> Points:
    """The normalised points of the mirrored faces, [N, V, 3]."""
    return point_NV3[:, mirror()] * np.asarray([-1, 1, 1], point_NV3.dtype)
