"""Where faces may be in pictures: BlazeFace on sizes and parts of them.

Dimension letters: F candidates, A anchors, K key points (6), S side of a tile.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face.faces.align import Floats
from mtl_face.faces.models import BLAZE_FACE_SIZE, blaze_face_network

TILE = 256
"""Side of a picture that is searched at once."""

LEAST_SCORE = 0.4
"""Least score of BlazeFace; the mesh decides."""

_LEAST_SHARE = 0.16  # of 128 pixels, that a face takes for BlazeFace to find it
_STEP = 4.0  # ratio of the sizes in which a frame is searched
_TILE_OVERLAP = 64
_GAP = 24  # between pictures in one tile
_TOGETHER = 64  # tiles that are held at a time
_OVERLAP = 0.3  # intersection over union, from which two boxes are one face

_Candidates = tuple[Floats, Floats, Floats]
"""Score [F], box [F, 4] and key points [F, K, 2] in pixels of a frame."""

_NOTHING: _Candidates = (np.zeros(0), np.zeros((0, 4)), np.zeros((0, 6, 2)))


def candidates_of(
    frames: Sequence[Image.Image], min_face: float | None
) -> list[list[tuple[Floats, Floats]]]:
    """Box [4] and key points [K, 2] of candidates in pixels of each RGB frame, best first.

    `min_face` is the height of the smallest faces that are looked for; see `tiles_of`.
    """
    tiles = (
        (index, tile) for index, frame in enumerate(frames) for tile in tiles_of(frame, min_face)
    )
    found: list[list[_Candidates]] = [[_NOTHING] for _ in frames]
    while part := list(itertools.islice(tiles, _TOGETHER)):
        outputs = blaze_face_network()(np.stack([tile.pixels for _, tile in part]))
        for (index, tile), *of_tile in zip(part, *outputs, strict=True):
            found[index] += tile.candidates(*of_tile)
    return [
        suppress(*(np.concatenate(parts) for parts in zip(*of_frame, strict=True)))
        for of_frame in found
    ]


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a frame, shrunk or enlarged, in a tile.

    Attributes:
        place: left and top of the part in the tile; `size`: its width and height there.
        start: left and top of the part in the scaled frame.
        scale: width and height of the frame relative to those of the scaled frame.
    """

    place: tuple[int, int]
    size: tuple[int, int]
    start: tuple[int, int]
    scale: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
    """A picture to search, uint8 [S, S, 3], black where it shows nothing, and what it shows."""

    pixels: npt.NDArray[np.uint8]
    parts: Sequence[Part]

    def candidates(self, score_A: Floats, box_A4: Floats, point_AK2: Floats) -> list[_Candidates]:
        """What BlazeFace found in each part, in pixels of the frame."""
        keep_A = score_A >= LEAST_SCORE
        score_F = score_A[keep_A].astype(np.float64)
        box_F22 = box_A4[keep_A].reshape(-1, 2, 2).astype(np.float64) * TILE
        point_FK2 = point_AK2[keep_A].astype(np.float64) * TILE
        centre_F2 = box_F22.mean(axis=1)
        result = []
        for part in self.parts:
            low_2, size_2 = np.array(part.place), np.array(part.size)
            inside_F = ((centre_F2 >= low_2) & (centre_F2 <= low_2 + size_2)).all(axis=1)
            shift_2 = np.array(part.start) - low_2
            box_f22 = (box_F22[inside_F] + shift_2) * part.scale
            point_fK2 = (point_FK2[inside_F] + shift_2) * part.scale
            result.append((score_F[inside_F], box_f22.reshape(-1, 4), point_fK2))
        return result


def tiles_of(frame: Image.Image, min_face: float | None) -> Iterator[Tile]:
    """The frame in sizes that together show faces of all heights from `min_face` on.

    BlazeFace finds a face that takes from a sixth to all of 128 pixels. In the smallest size of the
    frame its longer side has 128; each further one is at most four times as large. A size larger
    than a tile is cut into tiles that overlap by a quarter.
    """
    long = max(frame.size)
    finest = 2 * BLAZE_FACE_SIZE / long
    if min_face is not None:
        finest = max(_LEAST_SHARE * BLAZE_FACE_SIZE / min_face, BLAZE_FACE_SIZE / long)
    scales = [finest]
    while scales[-1] * long > BLAZE_FACE_SIZE:
        scales.append(max(scales[-1] / _STEP, BLAZE_FACE_SIZE / long))
    small: list[tuple[Image.Image, tuple[float, float]]] = []
    scaled = frame
    for scale in scales:
        width, height = (max(1, round(side * scale)) for side in frame.size)
        scaled = scaled.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=1.4)
        ratio = (frame.width / scaled.width, frame.height / scaled.height)
        if max(scaled.size) <= TILE:
            small.append((scaled, ratio))
            continue
        for top in _starts(scaled.height):
            for left in _starts(scaled.width):
                part = scaled.crop((left, top, left + TILE, top + TILE))
                yield Tile(np.asarray(part), [Part((0, 0), (TILE, TILE), (left, top), ratio)])
    while small:
        yield _packed(small)


def _starts(side: int) -> list[int]:
    """Where tiles begin along a side."""
    count = max(1, math.ceil((side - _TILE_OVERLAP) / (TILE - _TILE_OVERLAP)))
    return np.linspace(0, max(side - TILE, 0), count).round().astype(int).tolist()


def _packed(pictures: list[tuple[Image.Image, tuple[float, float]]]) -> Tile:
    """A tile with the first pictures of a list, as many as fit side by side; takes them out."""
    canvas = Image.new("RGB", (TILE, TILE))
    parts: list[Part] = []
    right = bottom = 0
    while pictures:
        picture, scale = pictures[0]
        if not parts:
            place = (0, 0)
        elif bottom + _GAP + picture.height <= TILE:
            place = (0, bottom + _GAP)
        elif right + _GAP + picture.width <= TILE and len(parts) == 1:
            place = (right + _GAP, 0)
        else:
            break
        canvas.paste(picture, place)
        parts.append(Part(place, picture.size, (0, 0), scale))
        right, bottom = right or picture.width, place[1] + picture.height
        pictures.pop(0)
    return Tile(np.asarray(canvas), parts)


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
