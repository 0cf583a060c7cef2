"""Finds the faces of a picture and the five landmarks of each.

BlazeFace looks at the whole picture and, where that is much wider than high or the reverse, at
overlapping squares of it, in which faces are larger. Face Mesh then looks at each candidate alone,
turned upright: it gives finer landmarks, with the corners of the mouth, and rejects false
candidates.

Dimension letters: L landmarks (5), F faces found, K key points (6), A anchors (896), V mesh points
(468).
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face.faces import align
from mtl_face.faces.align import Floats
from mtl_face.faces.mesh import MESH_FACTOR, upright
from mtl_face.faces.models import BLAZE_FACE_SIZE, MESH_SIZE, BlazeFace, FaceMesh

LEAST_SCORE = 0.5
"""Least probability of a face, of both networks."""

SMALLEST_FACE_PX = 16.0
"""Distance between the eyes and the mouth, in pixels of the frame, below which a face is left out:
a 112 px crop would show it at a quarter of its resolution."""

_OVERLAP = 0.3  # intersection over union, from which two boxes are one face
_SEARCH_SIDE = 2 * BLAZE_FACE_SIZE  # short side to which a frame is shrunk for the search
_MOST_TILES = 8
_TILE_FROM = 1.25  # aspect ratio from which squares are searched as well

# Points of the mesh: corners of each eye, tip of the nose, corners of the mouth. Left is the
# picture's left.
_LEFT_EYE, _RIGHT_EYE, _NOSE_TIP, _MOUTH = (33, 133), (362, 263), 1, (61, 291)


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face in a picture.

    Attributes:
        landmarks: float64 [L, 2], in pixels of the picture, in the order of
            `align.LANDMARK_NAMES`.
        score: probability that it is one, 0..1.
        mesh: float32 [V, 3]: x and y in pixels of the picture, and depth in the same unit, smaller
            where nearer; None of a detector without a mesh.
    """

    landmarks: Floats
    score: float
    mesh: npt.NDArray[np.float32] | None = None

    @property
    def box(self) -> Floats:
        """Left, top, right, bottom around the mesh, or around the landmarks, [4]."""
        points = self.landmarks if self.mesh is None else self.mesh[:, :2]
        return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float64)

    @property
    def centre(self) -> Floats:
        """Mean of the landmarks, [2]."""
        return self.landmarks.mean(axis=0)

    @property
    def size(self) -> float:
        """Spread of the landmarks: about the distance from the eyes to the mouth, in pixels."""
        return 2 * math.sqrt(float(((self.landmarks - self.centre) ** 2).sum(axis=1).mean()))


Detector = Callable[[Image.Image], list[Face]]
"""Finds the faces of an RGB picture, the largest first."""


class BlazeFaceDetector:
    """BlazeFace and Face Mesh; one thread at a time. Raises MissingExtraError."""

    def __init__(self) -> None:
        self._blaze_face = BlazeFace()
        self._mesh = FaceMesh()

    def __call__(self, frame: Image.Image) -> list[Face]:
        """The faces of an RGB picture, the largest first."""
        faces: list[Face] = []
        for box_4, keypoint_K2 in self._search(frame):
            face = self._look(frame, box_4, keypoint_K2)
            if face is None or face.size < SMALLEST_FACE_PX:
                continue
            # Two candidates may lead the mesh to one and the same face.
            if all(np.linalg.norm(face.centre - other.centre) > other.size / 2 for other in faces):
                faces.append(face)
        return sorted(faces, key=lambda face: -face.size)

    def _search(self, frame: Image.Image) -> list[tuple[Floats, Floats]]:
        """Boxes and key points of candidates in pixels of the frame, best first."""
        shrink = max(min(frame.size) / _SEARCH_SIDE, 1.0)
        small = frame
        if shrink > 1:
            width, height = (max(1, round(side / shrink)) for side in frame.size)
            small = frame.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        found = [self._search_square(small, *square) for square in squares(*small.size)]
        score_F, box_F4, point_FK2 = (np.concatenate(parts) for parts in zip(*found, strict=True))
        scale = np.array([frame.width / small.width, frame.height / small.height])
        return [
            (box_4 * np.tile(scale, 2), point_K2 * scale)
            for box_4, point_K2 in suppress(score_F, box_F4, point_FK2)
        ]

    def _search_square(
        self, frame: Image.Image, left: int, top: int, side: int
    ) -> tuple[Floats, Floats, Floats]:
        square = frame.crop((left, top, left + side, top + side))  # black outside of the frame
        square = square.resize((BLAZE_FACE_SIZE,) * 2, Image.Resampling.BILINEAR)
        score_A, box_A4, point_AK2 = self._blaze_face(np.asarray(square))
        keep_A = score_A >= LEAST_SCORE
        corner = np.array([left, top])
        return (
            score_A[keep_A],
            box_A4[keep_A] * side + np.tile(corner, 2),
            point_AK2[keep_A] * side + corner,
        )

    def _look(self, frame: Image.Image, box_4: Floats, keypoint_K2: Floats) -> Face | None:
        """The landmarks of a candidate, or None if the mesh sees no face."""
        side = MESH_FACTOR * max(box_4[2] - box_4[0], box_4[3] - box_4[1])
        centre_2 = (box_4[:2] + box_4[2:]) / 2 - 0.5
        matrix_23 = upright(centre_2, side, keypoint_K2[1] - keypoint_K2[0])
        score, cut_V3 = self._mesh(np.asarray(align.warp(frame, matrix_23, MESH_SIZE)))
        if score < LEAST_SCORE:
            return None
        point_V2 = align.transform(align.invert(matrix_23), cut_V3[:, :2])
        depth_V1 = cut_V3[:, 2:] * side / MESH_SIZE
        eyes = [point_V2[list(corners)].mean(axis=0) for corners in (_LEFT_EYE, _RIGHT_EYE)]
        landmark_L2 = np.stack([*eyes, point_V2[_NOSE_TIP], *point_V2[list(_MOUTH)]])
        mesh_V3 = np.concatenate([point_V2, depth_V1], axis=1).astype(np.float32)
        return Face(landmark_L2, score, mesh_V3)


def squares(width: int, height: int) -> list[tuple[int, int, int]]:
    """The squares of a picture that are searched, as left, top and side.

    The first holds the whole picture, centred; where the picture is far from square, others of its
    short side follow, which overlap by a third or more (a strip longer than five times its width is
    not covered: at most eight squares are searched).
    """
    long, short = max(width, height), min(width, height)
    result = [(-((long - width) // 2), -((long - height) // 2), long)]
    if long >= _TILE_FROM * short:
        count = math.ceil((long - short / 3) / (2 * short / 3))
        count = min(max(count, 2), _MOST_TILES)
        for place in np.linspace(0, long - short, count).round().astype(int).tolist():
            result.append((place, 0, short) if width > height else (0, place, short))
    return result


def suppress(score_F: Floats, box_F4: Floats, point_FK2: Floats) -> list[tuple[Floats, Floats]]:
    """Merges overlapping candidates into their mean, weighted by score; best first."""
    result = []
    rest = np.argsort(-score_F, kind="stable")
    while len(rest):
        overlap = _intersection_over_union(box_F4[rest[0]], box_F4[rest])
        overlap[0] = 1.0
        same, rest = rest[overlap > _OVERLAP], rest[overlap <= _OVERLAP]
        weight = score_F[same] / score_F[same].sum()
        result.append((weight @ box_F4[same], np.einsum("f,fkc->kc", weight, point_FK2[same])))
    return result


def _intersection_over_union(box_4: Floats, box_F4: Floats) -> Floats:
    low_F2 = np.maximum(box_4[:2], box_F4[:, :2])
    high_F2 = np.minimum(box_4[2:], box_F4[:, 2:])
    shared_F = np.prod((high_F2 - low_F2).clip(0), axis=1)
    area_F = np.prod((box_F4[:, 2:] - box_F4[:, :2]).clip(0), axis=1)
    area = np.prod((box_4[2:] - box_4[:2]).clip(0))
    return shared_F / np.maximum(area + area_F - shared_F, 1e-9)
