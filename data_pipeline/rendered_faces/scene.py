"""Light, camera and background of one video.

Colours are linear RGB. Directions in the camera's axes: x to the picture's right, y up, z toward
the camera. Letters: Y and X samples of the picture.
"""

from dataclasses import dataclass

import numpy as np

CANVAS = 300
"""Side of the background picture in samples; the crop shows 224 of them."""


@dataclass(frozen=True)
class Scene:
    """The surroundings of a video.

    Attributes:
        distance: from the camera to the head's centre, decimetres.
        lights_63: direction and colour of key and of fill, colours from above and below.
        background_YX3: float32 picture larger than the crop.
        exposure: factor on the light; saturation: 1 leaves colours, 0 makes grey.
        blur: weight of each neighbour in a 3-tap blur; noise: in units of 8-bit values.
        landmark_noise_px: spread of the detector's error in pixels of the crop.
        jpeg_quality: 1 to 100.
    """

    distance: float
    lights_63: np.ndarray
    background_YX3: np.ndarray
    exposure: float
    saturation: float
    blur: float
    noise: float
    landmark_noise_px: float
    jpeg_quality: int

    def lights_in(self, turn_33: np.ndarray) -> np.ndarray:
        """The lights with their directions in the axes of a head turned by `turn_33`."""
        lights_63 = self.lights_63.astype(np.float32).copy()
        lights_63[0] = turn_33.T @ self.lights_63[0]
        lights_63[2] = turn_33.T @ self.lights_63[2]
        return lights_63

    def background_at(self, yaw: float, pitch: float) -> np.ndarray:
        """The part of the background behind a head so turned, `[Y, X, 3]`."""
        room = CANVAS - 224
        column = int(np.clip(room / 2 + 1.3 * yaw, 0, room))
        row = int(np.clip(room / 2 + 1.3 * pitch, 0, room))
        return np.ascontiguousarray(self.background_YX3[row : row + 224, column : column + 224])


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draws the scene of a video."""
    azimuth, elevation = np.radians([rng.normal(0, 38), rng.uniform(0, 55)])
    key_3 = np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        ]
    )
    fill_3 = np.array([-np.sign(key_3[0]) * 0.8, rng.uniform(-0.2, 0.4), 0.6])
    warmth = rng.normal(0, 0.10)
    key_colour_3 = np.array([1 + warmth, 1.0, 1 - warmth])
    other = rng.normal(0, 0.06)
    ambient_3 = np.array([1 + other, 1.0, 1 - other])
    key = rng.uniform(0.45, 0.85)
    ambient = rng.uniform(0.22, 0.42)
    return Scene(
        distance=float(rng.uniform(5.0, 16.0)),
        lights_63=np.array(
            [
                key_3,
                key * key_colour_3,
                fill_3 / np.linalg.norm(fill_3),
                rng.uniform(0.04, 0.22) * ambient_3,
                ambient * ambient_3,
                ambient * rng.uniform(0.3, 0.7) * ambient_3,
            ]
        ),
        background_YX3=_background(rng),
        exposure=float(np.exp(rng.normal(0, 0.13))),
        saturation=float(np.clip(rng.normal(0.95, 0.15), 0.3, 1.3)),
        blur=float(rng.uniform(0.0, 0.20)),
        noise=float(rng.uniform(0.5, 5.0)),
        landmark_noise_px=float(rng.uniform(0.4, 1.1)),
        jpeg_quality=int(rng.integers(85, 96)),
    )


def _background(rng: np.random.Generator) -> np.ndarray:
    """A wall with a few soft shapes, out of focus."""
    y_Y = np.linspace(-1, 1, CANVAS)[:, None]
    x_X = np.linspace(-1, 1, CANVAS)[None, :]

    def colour() -> np.ndarray:
        grey = rng.uniform(0.02, 0.55)
        return np.clip(grey * (1 + rng.normal(0, 0.2, 3)), 0.01, 0.8)

    angle = rng.uniform(0, 2 * np.pi)
    ramp_YX = 0.5 + 0.35 * (np.cos(angle) * x_X + np.sin(angle) * y_Y)
    first_3, second_3 = colour(), colour()
    picture_YX3 = first_3 + np.clip(ramp_YX, 0, 1)[..., None] * (second_3 - first_3)
    for _ in range(int(rng.integers(0, 6))):
        soft = rng.uniform(0.02, 0.15)
        if rng.random() < 0.5:
            centre_x, centre_y = rng.uniform(-1, 1, 2)
            wide, high = rng.uniform(0.08, 0.5, 2)
            edge_YX = np.maximum(np.abs(x_X - centre_x) - wide, np.abs(y_Y - centre_y) - high)
        else:
            centre_x, centre_y = rng.uniform(-1, 1, 2)
            edge_YX = np.hypot(x_X - centre_x, y_Y - centre_y) - rng.uniform(0.08, 0.4)
        cover_YX = 1 / (1 + np.exp(np.clip(edge_YX / soft, -30, 30)))
        picture_YX3 += cover_YX[..., None] * 0.8 * (colour() - picture_YX3)
    return picture_YX3.astype(np.float32)
