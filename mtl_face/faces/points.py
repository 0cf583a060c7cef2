"""Face points of crops, as networks take them, and how they are made.

Dimension letters: N crops, S side of a crop, V mesh points (468).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_face import files
from mtl_face.faces import crop_mesh, geometry, models

LARGEST_DEVIATION = 0.25
"""RMS of the deviations of a face's points from the mean face, in distances between the eyes."""


@functools.cache
def specification() -> dict[str, Any]:
    """How points are made of crops, as JSON values."""
    networks = sorted(
        path
        for path in models.ASSETS.iterdir()
        if path.suffix != ".json" and path != geometry.MEAN_FACE
    )
    return {
        "mesh": "MediaPipe Face Mesh, 468 points",
        "passes": crop_mesh.PASSES,
        "cuts": "bilinear, float32; around the crop its edge, by a quarter of the side, then black",
        "normalisation": "similarity to the mean neutral face by least squares, minus that face; "
        "unit: the distance between its eyes",
        "mean_face_sha256": files.sha256(geometry.MEAN_FACE),
        "networks_sha256": {path.name: files.sha256(path) for path in networks},
    }


def statement(baseline: Sequence[str]) -> dict[str, Any]:
    """What a card says of the points, as JSON values: also the mean face, [V][3], which is 0.

    `baseline` is `data.baseline`: which points of the person at rest training has seen.
    """
    return {
        **specification(),
        "baseline": list(baseline),
        "mean_face": geometry.mean_face().tolist(),
    }


def differences(stated: Mapping[str, Any]) -> list[str]:
    """How points of another specification differ in meaning from those made here, a line each."""
    own = specification()
    lines = [
        f"{name} is {stated.get(name)!r:.80}, here {own[name]!r:.80}"
        for name in ("mesh", "normalisation", "mean_face_sha256")
        if stated.get(name) != own[name]
    ]
    if "mean_face" in stated and stated["mean_face"] != geometry.mean_face().tolist():
        lines.append("mean_face is not the face that is the mean here")
    return lines


def points_of_crops(
    crop_NSS3: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Finds the points of crops that show one face each, and takes the mean neutral face out.

    Returns:
        Points float32 [N, V, 3], see `geometry.normalise`; and for each crop, bool [N], whether
        they can be those of a face. Where they cannot, as of a picture of one colour, they are 0.
    """
    mesh_NV3 = crop_mesh.mesh_of_crops(crop_NSS3)
    point_NV3 = np.zeros_like(mesh_NV3)
    found_N = np.asarray(np.isfinite(mesh_NV3).all(axis=(1, 2)))
    found_N[found_N] = np.ptp(mesh_NV3[found_N], axis=1).max(axis=-1) > 0
    if found_N.any():
        point_NV3[found_N] = geometry.normalise(mesh_NV3[found_N])
    found_N &= np.sqrt(np.mean(np.square(point_NV3), axis=(1, 2))) < LARGEST_DEVIATION
    point_NV3[~found_N] = 0
    return point_NV3, found_N
