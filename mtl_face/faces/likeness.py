"""How a person's face looks in a video, whatever it expresses: colours of its parts, and its shape.

It tells the persons of one video apart where their motion cannot; it recognises nobody. Colours
are means over small squares on skin, chin, brows, mouth and hair, as brightness and two
differences of colours; the shape is a few lengths that expressions change little, of the mesh
without its place, size and turn. Each value is divided by the spread that it has over pictures of
one person (rendered heads of many poses, sizes and expressions).

Dimension letters: V mesh points (468), D values.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face.faces import geometry
from mtl_face.faces.align import Floats

_TOP, _CHIN, _EYES = 10, 152, (33, 263)

_SKIN, _BROWS, _MOUTH = (151, 108, 337, 50, 280, 205, 425), (70, 300), (0, 17)
_ABOVE = ((_TOP, 0.2), (_TOP, 0.4), (109, 0.3), (338, 0.3))
"""Hair: mesh points, and how far above them in distances between the outer corners of the eyes."""

_SQUARE = 0.08  # half a side of the squares, in the same unit

_COLOUR_SPREAD = np.array(
    [
        (0.030, 0.012, 0.010),  # skin
        (0.060, 0.022, 0.022),  # chin
        (0.048, 0.056, 0.062),  # brows
        (0.031, 0.016, 0.014),  # mouth
        (0.066, 0.030, 0.027),  # hair
    ]
)

_LENGTHS = (
    (10, 168, 0.030),  # height of the forehead
    (168, 1, 0.017),  # length of the nose
    (6, 2, 0.021),
    (133, 362, 0.012),  # between the eyes
    (33, 133, 0.012),  # width of an eye
    (10, 152, 0.040),  # height of the face
)
"""Two points, and the spread of their distance in distances between the eyes."""

_SHAPE_WEIGHT = 0.3
"""Weight of all lengths, where that of all colours is 1: lengths tell less."""


def likeness(picture: Image.Image, mesh_V3: npt.NDArray[np.float32]) -> Floats:
    """Describes the face with these points in an RGB picture, [D]; NaN: outside of the picture."""
    colour_53 = _colours(picture, mesh_V3.astype(np.float64)) / _COLOUR_SPREAD
    aligned_V3 = geometry.aligned(mesh_V3[None], geometry.mean_face())[0][0]
    length_D = np.array(
        [np.linalg.norm(aligned_V3[a] - aligned_V3[b]) / spread for a, b, spread in _LENGTHS]
    )
    return np.concatenate([colour_53.ravel(), length_D])


def difference(one_D: Floats, other_D: Floats) -> float:
    """How differently two faces look: about 1 for pictures of one person, of others 5 on average.

    The weighted mean of the squared differences of what is known of both; 1 if that is nothing.
    """
    squared_D = (one_D - other_D) ** 2
    known_D = np.isfinite(squared_D)
    if not known_D.any():
        return 1.0
    return float((squared_D[known_D] @ _WEIGHT_D[known_D]) / _WEIGHT_D[known_D].sum())


_WEIGHT_D = np.concatenate(
    [
        np.full(_COLOUR_SPREAD.size, 1 / _COLOUR_SPREAD.size),
        np.full(len(_LENGTHS), _SHAPE_WEIGHT / len(_LENGTHS)),
    ]
)


def _colours(picture: Image.Image, mesh_V3: Floats) -> Floats:
    """Brightness, red - green and blue - green of each part, in 0..1 and -1..1, [5, 3]."""
    place_V2 = mesh_V3[:, :2]
    unit = float(np.linalg.norm(place_V2[_EYES[1]] - place_V2[_EYES[0]]))
    up_2 = place_V2[_TOP] - place_V2[_CHIN]
    up_2 = up_2 / max(float(np.linalg.norm(up_2)), 1e-9) * unit
    hair = [place_V2[point] + share * up_2 for point, share in _ABOVE]
    low_2 = np.floor(np.minimum(place_V2.min(axis=0), np.min(hair, axis=0)) - unit).astype(int)
    high_2 = np.ceil(np.maximum(place_V2.max(axis=0), np.max(hair, axis=0)) + unit).astype(int)
    low_2, high_2 = low_2.clip(0, picture.size), high_2.clip(0, picture.size)
    part_HW3 = np.asarray(picture.crop((*low_2.tolist(), *high_2.tolist())))
    half = max(0.5, _SQUARE * unit)

    def mean(centre_2: Floats) -> Floats:
        """Mean colour of a square; NaN where it lies outside."""
        begin_2 = np.rint(centre_2 - half - low_2).astype(int).clip(0)
        end_2 = np.rint(centre_2 + half - low_2).astype(int) + 1
        if (end_2 <= begin_2).any():
            return np.full(3, np.nan)
        square = part_HW3[begin_2[1] : end_2[1], begin_2[0] : end_2[0]].reshape(-1, 3)
        return square.mean(axis=0) / 255 if len(square) else np.full(3, np.nan)

    colour_53 = np.stack(
        [
            np.median([mean(place_V2[point]) for point in _SKIN], axis=0),
            mean(place_V2[_CHIN]),
            np.mean([mean(place_V2[point]) for point in _BROWS], axis=0),
            np.mean([mean(place_V2[point]) for point in _MOUTH], axis=0),
            np.mean([mean(place) for place in hair], axis=0),
        ]
    )
    red, green, blue = colour_53.T
    return np.stack([colour_53.mean(axis=1), red - green, blue - green], axis=1)
