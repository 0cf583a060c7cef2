"""Finds the faces of a picture and the five landmarks of each.

BlazeFace looks at the picture in several sizes, each for faces of some heights. Face Mesh then
looks at each candidate alone, turned upright: it gives finer landmarks, with the corners of the
mouth, and rejects false candidates. A face that is known from the frame before needs Face Mesh
alone.

Dimension letters: L landmarks (5), F faces found, K key points (6), V mesh points (468).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face.faces.align import Floats
from mtl_face.faces.mesh import MESH_FACTOR, around, find_points, upright
from mtl_face.faces.search import candidates_of

LEAST_SCORE = 0.5
"""Least probability of a face, of both networks."""

SMALLEST_FACE_PX = 32.0
"""Height of a face, in pixels of the frame, below which it is left out unless smaller ones are
looked for: a 112 px crop would show it at a quarter of its resolution."""

REACH = 0.9
"""How far a face moves from frame to frame at most, in sizes of a face."""

GROWTH = 1.6
"""Ratio of a face's sizes from frame to frame at most."""

_APART = 0.8  # least distance of two faces, in sizes of the larger
_MARGIN = 0.8  # share of the least height that a face may lack, since heights are not exact
_PASSES = 2  # of the mesh: the second makes its points those of a followed face

# Points of the mesh: corners of each eye, tip of the nose, corners of the mouth. Left is the
# picture's left.
_LEFT_EYE, _RIGHT_EYE, _NOSE_TIP, _MOUTH = (33, 133), (362, 263), 1, (61, 291)


PHOTO_FACE_PX = 40.0
"""Height of the smallest faces that are looked for in photos, where nothing else is asked for."""


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

    @property
    def height(self) -> float:
        """Height of the box."""
        return float(self.box[3] - self.box[1])

    def scaled(self, before: tuple[int, int], after: tuple[int, int]) -> "Face":
        """The face in a picture that is resized from one width and height to another."""
        if before == after:
            return self
        scale_2 = np.array(after) / before
        mesh = None
        if self.mesh is not None:
            scale_3 = np.array([*scale_2, math.sqrt(scale_2.prod())])
            corner_3 = np.array([0.5, 0.5, 0])
            mesh = ((self.mesh + corner_3) * scale_3 - corner_3).astype(np.float32)
        return Face((self.landmarks + 0.5) * scale_2 - 0.5, self.score, mesh)

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
    """BlazeFace and Face Mesh, for any number of threads; compiled for the first picture.

    Args:
        min_face: height, from the top of the forehead to the chin, of the smallest faces that are
            looked for, in pixels of the picture. None: 8 % of the picture's longer side, which
            costs least, and of what is found all that is not lower than `SMALLEST_FACE_PX`.
    """

    def __init__(self, min_face: float | None = None) -> None:
        self._min_face = min_face
        self._least_height = SMALLEST_FACE_PX if min_face is None else _MARGIN * min_face

    def __call__(self, frame: Image.Image) -> list[Face]:
        """The faces of an RGB picture, the largest first."""
        return self.find([frame])[0]

    def find(self, frames: Sequence[Image.Image]) -> list[list[Face]]:
        """The faces of each of some RGB pictures, the largest first; all in common batches."""
        candidates = [
            (index, _cut(box_4, keypoint_K2))
            for index, found in enumerate(candidates_of(frames, self._min_face))
            for box_4, keypoint_K2 in found
        ]
        for _ in range(_PASSES):
            pictures = [frames[index] for index, _ in candidates]
            score_F, mesh_FV3 = find_points(pictures, [matrix_23 for _, matrix_23 in candidates])
            faces: list[list[Face]] = [[] for _ in frames]
            again = []
            for (index, _), score, mesh_V3 in zip(candidates, score_F, mesh_FV3, strict=True):
                face = face_of(mesh_V3, float(score))
                seen = face.score >= LEAST_SCORE and face.height >= self._least_height
                if seen and _add(face, faces[index]):
                    again.append((index, around(mesh_V3)))
            candidates = again
        return [sorted(of_frame, key=lambda face: -face.size) for of_frame in faces]

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


def face_of(mesh_V3: npt.NDArray[np.float32], score: float) -> Face:
    """The face whose mesh is known."""
    point_V2 = mesh_V3[:, :2].astype(np.float64)
    eyes = [point_V2[list(corners)].mean(axis=0) for corners in (_LEFT_EYE, _RIGHT_EYE)]
    landmark_L2 = np.stack([*eyes, point_V2[_NOSE_TIP], *point_V2[list(_MOUTH)]])
    return Face(landmark_L2, score, mesh_V3)


def _add(face: Face, faces: list[Face]) -> bool:
    """Adds a face, unless there is one in its place.

    Two candidates may lead to one and the same face, and parts of a large face look like small
    ones.
    """
    for other in faces:
        apart = float(np.linalg.norm(face.centre - other.centre))
        if apart <= _APART * max(face.size, other.size):
            return False
    faces.append(face)
    return True


def _cut(box_4: Floats, keypoint_K2: Floats) -> Floats:
    """The map to the mesh network's cut of a candidate."""
    side = MESH_FACTOR * max(box_4[2] - box_4[0], box_4[3] - box_4[1])
    return upright((box_4[:2] + box_4[2:]) / 2 - 0.5, side, keypoint_K2[1] - keypoint_K2[0])
