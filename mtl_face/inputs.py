"""What a network takes of each frame: names of the arrays, their shapes and dtypes.

Dimension letters: S side of a stored crop, V points of the face mesh (468), K baselines.
"""

from collections.abc import Sequence

import numpy as np

from mtl_face.face_table import MESH_POINTS

IMAGE = "image"
"""A stored crop, uint8 [S, S, 3]: R, G, B."""

POINTS = "points"
"""The face mesh, float32 [V, 3]: what is left of the points where the mean neutral face is taken
out, in units of the distance between the eyes (`mtl_face.faces.geometry.normalise`)."""

BASELINE = "baseline"
"""The same of the person's face at rest, float32 [V, 3]; all 0: unknown. It comes with points."""


def specification(
    inputs: Sequence[str], image_size: int, *, baselines: int | None = None
) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape by name of an example's arrays; `inputs` as in `model.inputs`.

    In training an example brings several baselines, [K, V, 3], of which one is drawn: K is
    `baselines`.
    """
    found: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    if IMAGE in inputs:
        found[IMAGE] = (np.dtype(np.uint8), (image_size, image_size, 3))
    if POINTS in inputs:
        points = (np.dtype(np.float32), (MESH_POINTS, 3))
        found |= {POINTS: points, BASELINE: points}
        if baselines is not None:
            found[BASELINE] = (points[0], (baselines, *points[1]))
    return found


def is_input(name: str) -> bool:
    """Whether an array of a batch, by its name, goes into the network."""
    return name in (IMAGE, POINTS, BASELINE)
