"""The camera: pose, perspective, alignment to the five-point template, and where the eyes look.

Axes of the head: x to the person's left, y up, z forward, decimetres. Axes of the camera: x to the
picture's right, y up, z toward the camera; a head at rest has the same axes. Letters: V points, L
landmarks.
"""

from dataclasses import dataclass

import numpy as np

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
    """Perspective view of places on a turned head.

    Args:
        place_V3: places in the head's axes.
        turn_33: from `rotation`.
        distance: from the camera to `HEAD_CENTRE`, decimetres.

    Returns:
        float64 `[V, 3]`: image-plane x (right), y (down), and nearness (inverse depth).
    """
    turned_V3 = (place_V3 - HEAD_CENTRE) @ turn_33.T
    depth_V = distance - turned_V3[:, 2]
    return np.stack([turned_V3[:, 0] / depth_V, -turned_V3[:, 1] / depth_V, 1 / depth_V], axis=1)


def gaze_directions(pose: Pose, turn_33: np.ndarray) -> np.ndarray:
    """Where the person's right and left eye look, in the head's axes.

    Both look toward the camera, turned by the pose's gaze, as far as eyes turn.

    Args:
        pose: of head and eyes.
        turn_33: from `rotation`.

    Returns:
        float32 unit vectors `[2, 3]`.
    """
    yaw, pitch = np.radians([pose.gaze_yaw, pose.gaze_pitch])
    world_3 = np.array([np.sin(yaw), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    gaze_3 = turn_33.T @ world_3
    limit = np.tan(np.radians(GAZE_LIMIT_DEG))
    sideways_2 = np.clip(gaze_3[:2] / max(gaze_3[2], 1e-3), -limit, limit)
    gaze_3 = np.array([sideways_2[0], sideways_2[1], 1.0])
    gaze_3 /= np.linalg.norm(gaze_3)
    return np.stack([gaze_3, gaze_3]).astype(np.float32)
