"""The crop specification, and the similarity that brings a face to it.

A crop is 112 x 112 pixels in which the eyes, the tip of the nose and the corners of the mouth lie
as near to five template points as rotation, scaling and shifting of the frame allow: the template
that face recognition uses, and the alignment of the crops of Aff-Wild2.

Coordinates are in pixels, x to the right, y down; (0, 0) is the centre of the first pixel. Left and
right are the picture's: the eye on the left is the person's right one.

Dimension letters: L landmarks (5), H height, W width, C channels (3).
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]

LANDMARK_NAMES = ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner")

_MAX_SAMPLES = 8  # a side of a pixel, when shrinking
_MARGIN = 2  # pixels or blocks around the part of a frame that is looked at

SIZE = 112
"""Side of a crop, in pixels."""

TEMPLATE_L2 = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)
"""Where the landmarks go, x and y in pixels of the crop."""


def specification(size: int = SIZE) -> dict[str, Any]:
    """What a crop is, ready for JSON: enough to cut another face in the same way, to any size."""
    scale = size / SIZE
    return {
        "version": 1,
        "size": size,
        "colour": "RGB, 8 bits",
        "landmarks": list(LANDMARK_NAMES),
        "template": [
            [round((place + 0.5) * scale - 0.5, 4) for place in point]
            for point in TEMPLATE_L2.tolist()
        ],
        "alignment": "least-squares similarity (rotation, scale, shift; no reflection) from "
        "the landmarks to the template",
        "coordinates": "pixels, x right, y down, (0, 0) the centre of the first pixel; left "
        "and right as seen in the picture",
        "outside_of_the_frame": "black",
    }


def similarity(source_L2: Floats, target_L2: Floats) -> Floats:
    """Least-squares similarity between two sets of points, without reflection.

    With points as complex numbers a similarity is z -> a z + b, and the least-squares a and b have
    a closed form: that of Umeyama (1991) in the plane, where the rotation needs no singular values.

    Returns M, float64 [2, 3]: (x, y) goes to M @ (x, y, 1). ValueError if the source points
    coincide.
    """
    source_L = source_L2[:, 0] + 1j * source_L2[:, 1]
    target_L = target_L2[:, 0] + 1j * target_L2[:, 1]
    centred_L = source_L - source_L.mean()
    spread = np.vdot(centred_L, centred_L).real
    if spread < 1e-12:
        raise ValueError("the points coincide: no similarity is determined")
    turn = np.vdot(centred_L, target_L) / spread
    shift = target_L.mean() - turn * source_L.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def invert(matrix_23: Floats) -> Floats:
    """The inverse of an affine map [2, 3]."""
    linear_22 = np.linalg.inv(matrix_23[:, :2])
    return np.concatenate([linear_22, -linear_22 @ matrix_23[:, 2:]], axis=1)


def transform(matrix_23: Floats, point_L2: Floats) -> Floats:
    """Maps points by an affine map."""
    return point_L2 @ matrix_23[:, :2].T + matrix_23[:, 2]


def warp(frame: Image.Image, matrix_23: Floats, size: int) -> Image.Image:
    """Cuts a square out of a frame.

    Where the frame is shrunk, each pixel is the mean of several bilinear samples, so that fine
    texture does not alias. The result is black where the frame does not reach.

    Args:
        frame: an RGB picture.
        matrix_23: from places in the frame to places in the result.
        size: side of the result.
    """
    inverse_23 = invert(matrix_23)
    return _sampled(frame, inverse_23, size, min(_samples(_shrinkage(inverse_23)), _MAX_SAMPLES))


def cut(frame: Image.Image, matrix_23: Floats, size: int) -> npt.NDArray[np.float32]:
    """Cuts a square out of a frame, without rounding to grey levels.

    What the square shows depends on its place without steps: a place that differs by rounding
    errors gives values that differ by as little. A part of a frame that is much larger than the
    square is first brought to means of blocks of its pixels, which lie where they lie in the frame
    whatever the place; each value is then the mean of some bilinear samples, as in `warp`. The
    frame fades to black in one more pixel.

    Args:
        frame: an RGB picture.
        matrix_23: from places in the frame to places in the result.
        size: side of the result.

    Returns:
        float32 [size, size, 3] in 0..255; 0 where the frame does not reach.
    """
    inverse_23 = invert(matrix_23)
    shrink = _shrinkage(inverse_23)
    block = max(int(shrink), 1)
    corner_42 = np.array([(x, y) for x in (-0.5, size - 0.5) for y in (-0.5, size - 0.5)])
    reach_42 = transform(inverse_23, corner_42) / block
    low_2 = block * np.maximum(np.floor(reach_42.min(axis=0)) - _MARGIN, 0).astype(int)
    high_2 = block * np.maximum(np.ceil(reach_42.max(axis=0)) + _MARGIN, 0).astype(int)
    high_2 = np.minimum(high_2, frame.size)
    if (high_2 <= low_2).any():
        return np.zeros((size, size, 3), np.float32)
    part = frame.reduce(block, (*low_2.tolist(), *high_2.tolist()))
    part = part.crop((-1, -1, part.width + 1, part.height + 1))  # to which the frame fades
    inverse_23[:, 2] += 0.5 - low_2
    inverse_23 /= block
    inverse_23[:, 2] += 0.5
    planes = [
        _sampled(plane.convert("F"), inverse_23, size, _samples(shrink / block))
        for plane in part.split()
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _shrinkage(inverse_23: Floats) -> float:
    """How many pixels of the frame a side of a pixel of the result has."""
    return math.sqrt(abs(np.linalg.det(inverse_23[:, :2])))


def _samples(shrink: float) -> int:
    """Samples of a pixel, a side."""
    return max(math.ceil(shrink - 0.25), 1)


def _sampled(frame: Image.Image, inverse_23: Floats, size: int, samples: int) -> Image.Image:
    """A square of means of `samples` x `samples` bilinear samples, in the frame's mode."""
    # Pillow puts (0, 0) at the corner of the first pixel and gives it the centre of each sample.
    linear_22 = inverse_23[:, :2] / samples
    shift_2 = inverse_23[:, 2] - inverse_23[:, :2] @ [0.5, 0.5] + 0.5
    data = (*linear_22[0], shift_2[0], *linear_22[1], shift_2[1])
    result = frame.transform(
        (size * samples, size * samples), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )
    return result.reduce(samples) if samples > 1 else result


def crop_face(frame: Image.Image, landmark_L2: Floats) -> Image.Image:
    """Cuts an aligned face out of an RGB frame; `landmark_L2` in the order of `LANDMARK_NAMES`."""
    return warp(frame, similarity(landmark_L2, TEMPLATE_L2), SIZE)


def crop_middle(frame: Image.Image, landmark_L2: Floats) -> Image.Image:
    """The middle of what `crop_face` cuts, of half its side, in a quarter of the time."""
    corner = SIZE // 4
    return warp(frame, similarity(landmark_L2, TEMPLATE_L2 - corner), SIZE - 2 * corner)
