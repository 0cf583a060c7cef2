"""The two networks that find faces and landmarks, run by LiteRT (extra `video`).

BlazeFace (short range) takes 128 x 128 and gives boxes with six key points on 896 anchors; Face
Mesh takes a 192 x 192 cut of one face and gives 468 points and a score. Both are models of
MediaPipe, Apache-2.0; `assets/PROVENANCE.json` names their origin.

Dimension letters: A anchors (896), K key points (6), V mesh points (468).
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_face.errors import UserError
from mtl_face.faces.align import Floats

ASSETS = Path(__file__).parent / "assets"

BLAZE_FACE_SIZE = 128
MESH_SIZE = 192

_BLAZE_FACE = "face_detection_short_range.tflite"
_MESH = "face_landmark.tflite"
_GRIDS = ((16, 2), (8, 6))  # cells a side, anchors a cell


class MissingExtraError(UserError):
    """A library of the extra `video` cannot be imported."""


def missing_extra(purpose: str, error: ImportError) -> MissingExtraError:
    """The error for `purpose`, as in "reading videos needs PyAV"."""
    return MissingExtraError(
        f"{purpose}, which cannot be imported ({error})",
        remedy='install the extra: python -m pip install "mtl_face[video]" '
        "(in a clone: python -m pip install -e '.[video]')",
    )


class BlazeFace:
    """The network that finds faces in a small picture. Raises MissingExtraError."""

    def __init__(self) -> None:
        self._network = _load(_BLAZE_FACE)
        self._anchor_A2 = anchors()

    def __call__(self, pixel_128_128_3: npt.NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
        """Searches an RGB picture.

        Returns:
            Score [A] in 0..1; box [A, 4] as left, top, right, bottom and key points [A, K, 2] (the
            eyes, left of the picture first, tip of the nose, middle of the mouth, ears), both as
            shares of the picture's side.
        """
        outputs = _run(self._network, pixel_128_128_3.astype(np.float32) / np.float32(127.5) - 1)
        by_width = {output.shape[-1]: output for output in outputs}
        raw_A82 = by_width[16].reshape(-1, 8, 2).astype(np.float64) / BLAZE_FACE_SIZE
        score_A = 1 / (1 + np.exp(-by_width[1][:, 0].astype(np.float64).clip(-80, 80)))
        centre_A2 = raw_A82[:, 0] + self._anchor_A2
        half_A2 = raw_A82[:, 1] / 2
        box_A4 = np.concatenate([centre_A2 - half_A2, centre_A2 + half_A2], axis=1)
        return score_A, box_A4, raw_A82[:, 2:] + self._anchor_A2[:, None]


class FaceMesh:
    """The network that finds the points of one face. Raises MissingExtraError."""

    def __init__(self) -> None:
        self._network = _load(_MESH)

    def __call__(self, pixel_192_192_3: npt.NDArray[np.uint8]) -> tuple[float, Floats]:
        """Looks at the RGB cut of an upright face with about a quarter of its size around it.

        Returns:
            Probability that there is a face; points [V, 3]: x and y in pixels of the cut, where
            (0, 0) is the centre of the first pixel, and depth in pixels, smaller where nearer.
        """
        outputs = _run(self._network, pixel_192_192_3.astype(np.float32) / 255)
        by_size = {output.size: output.ravel() for output in outputs}
        score = 1 / (1 + np.exp(-float(by_size[1][0])))
        points = max(by_size.values(), key=len)
        return float(score), points.reshape(-1, 3).astype(np.float64) - [0.5, 0.5, 0.0]


def anchors() -> Floats:
    """Centres of BlazeFace's anchors as shares of the side, [A, 2]."""
    parts = []
    for cells, repeats in _GRIDS:
        y, x = np.mgrid[:cells, :cells]
        centre = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        parts.append(np.repeat(centre, repeats, axis=0))
    return np.concatenate(parts)


def _load(name: str) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing_extra("finding faces needs LiteRT", error) from error
    network = Interpreter(model_path=str(ASSETS / name), num_threads=1)
    network.allocate_tensors()
    return network


def _run(network: Any, value: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
    network.set_tensor(network.get_input_details()[0]["index"], value[None].astype(np.float32))
    network.invoke()
    return [network.get_tensor(output["index"])[0] for output in network.get_output_details()]
