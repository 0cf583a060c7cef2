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
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face.faces.align import Floats
from mtl_face.faces.mesh import MESH_FACTOR, around, find_points, upright
from mtl_face.faces.models import BLAZE_FACE_SIZE, blaze_face_network

LEAST_SCORE = 0.5
"""Least probability of a face, of both networks."""

SMALLEST_FACE_PX = 16.0
"""Distance between the eyes and the mouth, in pixels of the frame, below which a face is left out:
a 112 px crop would show it at a quarter of its resolution."""

REACH = 0.9
"""How far a face moves from frame to frame at most, in sizes of a face."""

GROWTH = 1.6
"""Ratio of a face's sizes from frame to frame at most."""

_OVERLAP = 0.3  # intersection over union, from which two boxes are one face
_SEARCH_SIDE = 2 * BLAZE_FACE_SIZE  # short side to which a frame is shrunk for the search
_MOST_TILES = 8
_PASSES = 2  # of the mesh: the second makes its points those of a followed face
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

    def distance(self, other: "Face") -> float:
        """How far apart the two are, in sizes of a face."""
        apart = float(np.linalg.norm(self.centre - other.centre))
        return 2 * apart / max(self.size + other.size, 1e-9)

    def growth(self, other: "Face") -> float:
        """Ratio of the larger to the smaller size."""
        small, large = sorted((self.size, other.size))
        return large / max(small, 1e-9)


Detector = Callable[[Image.Image], list[Face]]
"""Finds the faces of an RGB picture, the largest first."""


class FaceFinder:
    """BlazeFace and Face Mesh, for any number of threads; compiled for the first picture."""

    def __call__(self, frame: Image.Image) -> list[Face]:
        """The faces of an RGB picture, the largest first."""
        return self.find([frame])[0]

    def find(self, frames: Sequence[Image.Image]) -> list[list[Face]]:
        """The faces of each of some RGB pictures, the largest first; all in common batches."""
        candidates = [
            (index, box_4, keypoint_K2)
            for index, found in enumerate(self._search(frames))
            for box_4, keypoint_K2 in found
        ]
        matrices = [_cut(box_4, keypoint_K2) for _, box_4, keypoint_K2 in candidates]
        pictures = [frames[index] for index, _, _ in candidates]
        score_F, mesh_FV3 = find_points(pictures, matrices, _PASSES)
        result: list[list[Face]] = [[] for _ in frames]
        for (index, _, _), score, mesh_V3 in zip(candidates, score_F, mesh_FV3, strict=True):
            face = face_of(mesh_V3, float(score))
            if face.score >= LEAST_SCORE and face.size >= SMALLEST_FACE_PX:
                _add(face, result[index])
        return [sorted(faces, key=lambda face: -face.size) for faces in result]

    def follow(self, frame: Image.Image, faces: Sequence[Face]) -> list[Face | None]:
        """Where faces of the frame before are in this RGB picture, without a search for others.

        None for a face that is lost: it has no mesh, moved or grew by more than a face does from
        frame to frame, ended on another one's place, or is no longer seen.
        """
        matrices = [around(face.mesh) for face in faces if face.mesh is not None]
        score_F, mesh_FV3 = find_points([frame] * len(matrices), matrices)
        indices = [index for index, face in enumerate(faces) if face.mesh is not None]
        result: list[Face | None] = [None] * len(faces)
        kept: list[Face] = []
        for place in np.argsort(-score_F, kind="stable").tolist():
            before = faces[indices[place]]
            face = face_of(mesh_FV3[place], float(score_F[place]))
            if (
                face.score >= LEAST_SCORE
                and before.distance(face) <= REACH
                and before.growth(face) <= GROWTH
                and _add(face, kept)
            ):
                result[indices[place]] = face
        return result

    def _search(self, frames: Sequence[Image.Image]) -> list[list[tuple[Floats, Floats]]]:
        """Boxes and key points of candidates in pixels of each frame, best first."""
        shrunk = [_shrunk(frame) for frame in frames]
        places = [
            (index, left, top, side)
            for index, small in enumerate(shrunk)
            for left, top, side in squares(*small.size)
        ]
        pixel_NSS3 = [
            np.asarray(
                # Black outside of the frame.
                shrunk[index]
                .crop((left, top, left + side, top + side))
                .resize((BLAZE_FACE_SIZE,) * 2, Image.Resampling.BILINEAR)
            )
            for index, left, top, side in places
        ]
        pixels = np.array(pixel_NSS3, np.uint8).reshape(-1, BLAZE_FACE_SIZE, BLAZE_FACE_SIZE, 3)
        found: list[list[tuple[Floats, Floats, Floats]]] = [[] for _ in frames]
        for (index, left, top, side), score_A, box_A4, point_AK2 in zip(
            places, *blaze_face_network()(pixels), strict=True
        ):
            keep_A = score_A >= LEAST_SCORE
            corner = np.array([left, top])
            scale = np.array(frames[index].size) / shrunk[index].size
            box_F22 = box_A4[keep_A].reshape(-1, 2, 2).astype(np.float64)
            box_F22 = (box_F22 * side + corner) * scale
            point_FK2 = (point_AK2[keep_A].astype(np.float64) * side + corner) * scale
            found[index].append((score_A[keep_A], box_F22.reshape(-1, 4), point_FK2))
        return [
            suppress(*(np.concatenate(parts) for parts in zip(*of_frame, strict=True)))
            for of_frame in found
        ]


BlazeFaceDetector = FaceFinder  # its former name


def face_of(mesh_V3: npt.NDArray[np.float32], score: float) -> Face:
    """The face whose mesh is known."""
    point_V2 = mesh_V3[:, :2].astype(np.float64)
    eyes = [point_V2[list(corners)].mean(axis=0) for corners in (_LEFT_EYE, _RIGHT_EYE)]
    landmark_L2 = np.stack([*eyes, point_V2[_NOSE_TIP], *point_V2[list(_MOUTH)]])
    return Face(landmark_L2, score, mesh_V3)


def _add(face: Face, faces: list[Face]) -> bool:
    """Adds a face, but not where there is one: two candidates may lead to one and the same."""
    if any(np.linalg.norm(face.centre - other.centre) <= other.size / 2 for other in faces):
        return False
    faces.append(face)
    return True


def _cut(box_4: Floats, keypoint_K2: Floats) -> Floats:
    """The map to the mesh network's cut of a candidate."""
    side = MESH_FACTOR * max(box_4[2] - box_4[0], box_4[3] - box_4[1])
    return upright((box_4[:2] + box_4[2:]) / 2 - 0.5, side, keypoint_K2[1] - keypoint_K2[0])


def _shrunk(frame: Image.Image) -> Image.Image:
    """The frame at the size of the search, if it is larger."""
    shrink = min(frame.size) / _SEARCH_SIDE
    if shrink <= 1:
        return frame
    width, height = (max(1, round(side / shrink)) for side in frame.size)
    return frame.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


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
