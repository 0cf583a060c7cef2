"""The camera: pose, perspective, alignment to the five-point template, gaze, and the sensor.

Axes of the head: x to the person's left, y up, z forward, decimetres. Axes of the camera: x to the
picture's right, y up, z toward the camera; a head at rest has the same axes. Letters: V points, L
landmarks, Y and X rows and columns of samples, y and x of pixels.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.rendered_faces.raster import compiled

TEMPLATE_L2 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Where eyes (the person's right first), nose tip and mouth corners lie in a crop, pixels."""

HEAD_CENTRE = np.array([0.0, 7.2, 0.5])
"""The point about which the head turns, decimetres."""

GAZE_LIMIT_DEG = 22.0
"""How far an eye turns in its socket."""


@dataclass(frozen=True)
class Pose:
    """Where the head and the eyes point in one frame.

    Attributes:
        yaw, pitch, roll: degrees; positive turns to the person's left, downward and to the
            person's left shoulder.
        gaze_yaw, gaze_pitch: direction of the eyes in degrees, relative to the camera.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze_yaw: float = 0.0
    gaze_pitch: float = 0.0


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix from the head's axes to the camera's, for angles in degrees."""
    (cy, cp, cr), (sy, sp, sr) = (f(np.radians([yaw, pitch, roll])) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def similarity(source_L2: np.ndarray, target_L2: np.ndarray) -> tuple[complex, complex]:
    """Least-squares similarity as complex numbers: `target = scale * source + shift`."""
    source = source_L2[:, 0] + 1j * source_L2[:, 1]
    target = target_L2[:, 0] + 1j * target_L2[:, 1]
    centred = source - source.mean()
    scale = np.vdot(centred, target - target.mean()) / np.vdot(centred, centred).real
    return complex(scale), complex(target.mean() - scale * source.mean())


def project(place_V3: np.ndarray, turn_33: np.ndarray, distance: float) -> np.ndarray:
    """Perspective view of places in the axes of a head that `turn_33` turns, float64 `[V, 3]`.

    The columns are image-plane x (right), y (down), and nearness (inverse depth). `distance` is
    that from the camera to `HEAD_CENTRE`, decimetres.
    """
    turned_V3 = (place_V3 - HEAD_CENTRE) @ turn_33.T
    depth_V = distance - turned_V3[:, 2]
    return np.stack([turned_V3[:, 0] / depth_V, -turned_V3[:, 1] / depth_V, 1 / depth_V], axis=1)


def gaze_directions(pose: Pose, turn_33: np.ndarray) -> np.ndarray:
    """Where the person's right and left eye look in the head's axes, float32 unit vectors `[2, 3]`.

    Both look toward the camera, turned by the pose's gaze, as far as eyes turn.
    """
    yaw, pitch = np.radians([pose.gaze_yaw, pose.gaze_pitch])
    world_3 = np.array([np.sin(yaw), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    gaze_3 = turn_33.T @ world_3
    limit = np.tan(np.radians(GAZE_LIMIT_DEG))
    sideways_2 = np.clip(gaze_3[:2] / max(gaze_3[2], 1e-3), -limit, limit)
    gaze_3 = np.array([sideways_2[0], sideways_2[1], 1.0])
    gaze_3 /= np.linalg.norm(gaze_3)
    return np.stack([gaze_3, gaze_3]).astype(np.float32)


_GAMMA = (np.arange(4097) / 4096).astype(np.float32) ** np.float32(1 / 2.2)
"""Encoded value of each of 4096 steps of light: a table is faster than a power."""


@compiled
def finish(linear_YX3, exposure, saturation, blur, noise_yx3, out_yx3):
    """Averages 2 x 2 samples to a pixel, blurs, adds noise and stores 8-bit sRGB (gamma 2.2).

    Args:
        linear_YX3: float32 samples, twice as many in each direction as pixels.
        exposure: factor on the light.
        saturation: 1 leaves colours as they are, 0 makes grey.
        blur: weight of each neighbour in a 3-tap blur, 0 to 1/3.
        noise_yx3: float32 noise in units of 8-bit values.
        out_yx3: uint8 pixels, written.
    """
    height, width = out_yx3.shape[0], out_yx3.shape[1]
    pixel = np.empty((height, width, 3), np.float32)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                pixel[y, x, c] = (
                    exposure
                    * np.float32(0.25)
                    * (
                        linear_YX3[2 * y, 2 * x, c]
                        + linear_YX3[2 * y, 2 * x + 1, c]
                        + linear_YX3[2 * y + 1, 2 * x, c]
                        + linear_YX3[2 * y + 1, 2 * x + 1, c]
                    )
                )
    middle = np.float32(1) - np.float32(2) * blur
    across = np.empty_like(pixel)
    for y in range(height):
        for x in range(width):
            before, after = max(x - 1, 0), min(x + 1, width - 1)
            for c in range(3):
                across[y, x, c] = middle * pixel[y, x, c] + blur * (
                    pixel[y, before, c] + pixel[y, after, c]
                )
    for y in range(height):
        before, after = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            grey = np.float32(0)
            for c in range(3):
                value = middle * across[y, x, c] + blur * (
                    across[before, x, c] + across[after, x, c]
                )
                # A soft shoulder: light above 0.8 is compressed instead of clipped.
                if value > np.float32(0.8):
                    over = value - np.float32(0.8)
                    value = np.float32(0.8) + over / (np.float32(1) + np.float32(5) * over)
                place = min(max(value, np.float32(0)), np.float32(0.999)) * np.float32(4096)
                low = int(place)
                value = _GAMMA[low] + (place - np.float32(low)) * (_GAMMA[low + 1] - _GAMMA[low])
                pixel[y, x, c] = value
                grey += value * np.float32(1 / 3)
            for c in range(3):
                value = grey + saturation * (pixel[y, x, c] - grey)
                level = np.float32(255) * value + noise_yx3[y, x, c]
                out_yx3[y, x, c] = np.uint8(min(max(level + np.float32(0.5), 0.0), 255.0))
