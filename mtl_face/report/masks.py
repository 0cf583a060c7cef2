"""Masks that hide faces for good, with the lines of a face drawn on them.

A mask is one colour: nothing of the picture shines through it, however many frames one has. It
covers the face, its ears and forehead. The lines (brows, eyes, nose, mouth) show what the face
does.

Dimension letters: V mesh points (468), P points of an outline.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mtl_face.face_table import FaceTable
from mtl_face.faces.video import VideoFrame

HOLD_S = 2.0
"""A face that is lost stays hidden where it was last seen for so long."""

AHEAD_S = 0.5
"""A face that appears is hidden in the frames of this time before, where it is first seen."""

SECONDS_A_FRAME = 0.04
"""Taken for the length of a frame where a source has no times."""

_MARGIN = 0.22  # of the mask around the mesh, as a share of the face's size
_HELD_MARGIN = 0.4  # the same where the face is not seen, but was near
_AROUND_LANDMARKS = 2.6  # a face is so much larger than its five landmarks
_SHARP = 2
_FILL, _INK = (52, 60, 68), (214, 220, 226)
_LINES = (
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 70),  # brows
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276, 300),
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7, 33),  # eyes
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249, 263),
    (168, 6, 197, 195, 5, 4),  # nose
    (98, 97, 2, 326, 327),
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146, 61),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95, 78),
)
"""Points of the mesh along the lines of a face."""

Outline = NDArray[np.float64]
"""Corners of a mask, in pixels of the picture, [P, 2]."""


def outline(faces: FaceTable, row: int, *, seen: bool = True) -> Outline:
    """The mask of a face: a rounded shape around its box, [P, 2].

    Args:
        faces: a table that has the face.
        row: row of the face.
        seen: whether the face is in this very frame; else the mask is larger.
    """
    corners = faces.box[row].reshape(2, 2)
    size = corners[1] - corners[0]
    if faces.mesh is None and np.allclose(size, np.ptp(faces.landmarks[row], axis=0), atol=1):
        size = size * _AROUND_LANDMARKS
    half = size / 2 + (_MARGIN if seen else _HELD_MARGIN) * size.max()
    angle_P = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    around_P2 = np.stack([np.cos(angle_P), np.sin(angle_P)], axis=1)
    # Squarer than an ellipse, to cover the jaw and the temples of a tilted head.
    around_P2 = np.sign(around_P2) * np.abs(around_P2) ** 0.75
    return corners.mean(axis=0) + 1.08 * half * around_P2


def hide(picture: Image.Image, outlines: Sequence[Outline]) -> None:
    """Fills masks, in place. Their inside is one colour, their edge is smooth."""
    for corners in outlines:
        low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(corners.max(axis=0)) + 1, picture.size).astype(int)
        if (high <= low).any():
            continue
        width, height = (_SHARP * (high - low)).tolist()
        mask = Image.new("L", (width, height))
        points = [tuple(point) for point in (_SHARP * (corners - low)).tolist()]
        ImageDraw.Draw(mask).polygon(points, 255)
        picture.paste(_FILL, tuple(low.tolist()), mask.reduce(_SHARP))


def sketch(picture: Image.Image, faces: FaceTable, row: int) -> None:
    """Draws the lines of a face, or its landmarks where the mesh is not kept, in place."""
    draw = ImageDraw.Draw(picture)
    left, _, right, _ = faces.box[row].tolist()
    width = max(1, round((right - left) / 90))
    if faces.mesh is not None and np.isfinite(faces.mesh[row]).all():
        for line in _LINES:
            points = faces.mesh[row, list(line), :2].astype(float).tolist()
            draw.line([tuple(point) for point in points], _INK, width, joint="curve")
        return
    for x, y in faces.landmarks[row].tolist():
        if np.isfinite([x, y]).all():
            draw.ellipse((x - 2 * width, y - 2 * width, x + 2 * width, y + 2 * width), _INK)


class Screen:
    """Decides which masks a frame of a video needs, besides those of the faces that it has.

    A detector loses faces for moments, and finds a face that comes in some frames late. So a mask
    stays for `HOLD_S` where its face was last seen, and stands already in the frames of `AHEAD_S`
    before the face is found; of a face that was lost for less, it covers the way in between.
    Frames are handed on so much later.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._lost: dict[int, tuple[float, Outline]] = {}
        self._count = 0

    def push(self, frame: VideoFrame, faces: FaceTable) -> Iterator["Masked"]:
        """Takes a frame with its faces; gives the earlier ones that are settled."""
        self._count += 1
        seconds = frame.seconds
        now = self._count * SECONDS_A_FRAME if seconds is None else seconds
        rows = np.flatnonzero(faces.has_face).tolist()
        near = {int(faces.person[row]): outline(faces, row, seen=False) for row in rows}
        masks = [outline(faces, row) for row in rows]
        before = {person: corners for person, (_, corners) in self._lost.items()}
        for person, (seen, corners) in list(self._lost.items()):
            if now - seen > HOLD_S:
                del self._lost[person]
            elif person not in near:
                masks.append(corners)
        for person, corners in near.items():
            way = _around(before[person], corners) if person in self._lost else corners
            self._lost[person] = now, corners
            for earlier in reversed(self._waiting):
                if person in earlier.people or now - earlier.seconds > AHEAD_S:
                    break
                earlier.masks.append(way)
        self._waiting.append(_Waiting(now, set(near), masks, frame, faces))
        while now - self._waiting[0].seconds > AHEAD_S:
            yield self._next()

    def rest(self) -> Iterator["Masked"]:
        """The frames that are left when the last one has been pushed."""
        while self._waiting:
            yield self._next()

    def _next(self) -> "Masked":
        first = self._waiting.popleft()
        return Masked(first.frame, first.faces, first.masks)


def _around(first: Outline, second: Outline) -> Outline:
    """The convex outline of both."""
    from scipy.spatial import ConvexHull

    corners = np.concatenate([first, second])
    return corners[ConvexHull(corners).vertices]


class Masked(NamedTuple):
    """A frame, its faces, and all masks to draw on it."""

    frame: VideoFrame
    faces: FaceTable
    masks: list[Outline]


class _Waiting(NamedTuple):
    seconds: float
    people: set[int]
    masks: list[Outline]
    frame: VideoFrame
    faces: FaceTable
