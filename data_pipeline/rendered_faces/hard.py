"""Stretches of a video in which a frame alone says little: covered, blurred, dim or turned away.

In stretches of a second or two something moves before the face (a hand, a mug), the picture is out
of focus, the light goes out, or the head turns far to a side. What the face shows goes on, and so
do its labels: who sees the frames before and after knows more than who sees one. Letters: F
labelled frames, y and x pixels.
"""

import dataclasses
from typing import Self

import numpy as np

from data_pipeline.rendered_faces.motion import Motion
from data_pipeline.rendered_faces.scene import Scene

KINDS = ("cover", "blur", "dim", "turn")
"""What makes a stretch hard; each is as likely."""

HARD_FRAMES = (20, 70)
"""Shortest and longest stretch, in frames of the video."""
RAMP_FRAMES = 6
"""Frames in which a stretch begins, and ends."""
BLUR_PX = (3.0, 6.0)
"""Standard deviation of the blur, pixels of a crop."""
DIM_EXPOSURE = (0.004, 0.02)
"""Factor on the light, and with it `DIM_NOISE` more sensor noise in 8-bit values."""
DIM_NOISE = 6.0
TURN_YAW_DEG = (40.0, 60.0)
TURN_PITCH_DEG = (-15.0, 15.0)
COVER_PX = ((22.0, 34.0), (30.0, 46.0))
"""Shorter and longer half axis of what covers the face."""

_SOFTNESS_PX = 1.5
_OUTSIDE_PX = 110.0


@dataclasses.dataclass(frozen=True)
class Hardship:
    """How hard each labelled frame of a video is to read.

    Attributes:
        kind_F: int64 index in `KINDS`; -1 where nothing is wrong.
        strength_F: float64 0 to 1, how far the stretch has set in.
        blur_F: float64 standard deviation of the blur, pixels.
        exposure_F: float64 factor on the light.
        turn_F2: float64 yaw and pitch that are added, degrees.
        cover_F8: float64 centre x and y, half axes, angle in radians and colour (linear, 0 to 255)
            of the ellipse before the face; a half axis is 0 where there is none.
    """

    kind_F: np.ndarray
    strength_F: np.ndarray
    blur_F: np.ndarray
    exposure_F: np.ndarray
    turn_F2: np.ndarray
    cover_F8: np.ndarray

    @classmethod
    def sample(cls, frame_F: np.ndarray, share: float, rng: np.random.Generator) -> Self:
        """Draws the stretches of a video; they take `share` (0 to below 1) of its time."""
        count = len(frame_F)
        made = cls(
            kind_F=np.full(count, -1, np.int64),
            strength_F=np.zeros(count),
            blur_F=np.zeros(count),
            exposure_F=np.ones(count),
            turn_F2=np.zeros((count, 2)),
            cover_F8=np.zeros((count, 8)),
        )
        clear = sum(HARD_FRAMES) / 2 * (1 - share) / share if share else np.inf
        time_F = frame_F.astype(float)
        # A video is cut from a longer recording: its beginning is as hard as its middle.
        start = time_F[0] - sum(HARD_FRAMES) / 2 + rng.exponential(clear) if share else np.inf
        while start < time_F[-1]:
            end = start + rng.uniform(*HARD_FRAMES)
            inside_F = (time_F >= start) & (time_F < end)
            rise_F = np.minimum((time_F - start) / RAMP_FRAMES, (end - time_F) / RAMP_FRAMES)
            made._set(int(rng.integers(len(KINDS))), inside_F, np.clip(rise_F, 0, 1), rng)
            start = end + rng.exponential(clear)
        return made

    def _set(
        self, kind: int, inside_F: np.ndarray, strength_F: np.ndarray, rng: np.random.Generator
    ) -> None:
        """Writes one stretch into the arrays."""
        strength_f = strength_F[inside_F]
        self.kind_F[inside_F] = kind
        self.strength_F[inside_F] = strength_f
        if KINDS[kind] == "blur":
            self.blur_F[inside_F] = rng.uniform(*BLUR_PX) * strength_f
        elif KINDS[kind] == "dim":
            darkest = np.log(rng.uniform(*DIM_EXPOSURE))
            self.exposure_F[inside_F] = np.exp(darkest * strength_f)
        elif KINDS[kind] == "turn":
            yaw = rng.choice([-1.0, 1.0]) * rng.uniform(*TURN_YAW_DEG)
            turn_2 = np.array([yaw, rng.uniform(*TURN_PITCH_DEG)])
            smooth_f = strength_f**2 * (3 - 2 * strength_f)
            self.turn_F2[inside_F] = smooth_f[:, None] * turn_2
        else:
            aim_2 = np.array([56.0, rng.choice([52.0, 90.0])]) + rng.normal(0, (8.0, 5.0))
            direction = rng.uniform(0, 2 * np.pi)
            away_2 = _OUTSIDE_PX * np.array([np.cos(direction), np.sin(direction)])
            place_f2 = aim_2 + (1 - strength_f)[:, None] * away_2
            wander_f = np.linspace(0, rng.uniform(2, 8), len(strength_f))[:, None]
            place_f2 = place_f2 + 3.0 * np.sin(wander_f + rng.uniform(0, 6, 2))
            rest = [rng.uniform(*range_px) for range_px in COVER_PX]
            colour_3 = rng.uniform(20, 235) * (1 + rng.normal(0, 0.12, 3))
            rest_6 = np.array([*rest, rng.uniform(0, np.pi), *np.clip(colour_3, 5, 250)])
            self.cover_F8[inside_F, :2] = place_f2
            self.cover_F8[inside_F, 2:] = rest_6

    def turned(self, motion: Motion) -> Motion:
        """The motion with the head turned away in the stretches of that kind."""
        poses = dict(motion.poses)
        for name, turn_F in zip(("yaw", "pitch"), self.turn_F2.T, strict=True):
            poses[name] = poses[name] + turn_F
        return dataclasses.replace(motion, poses=poses)

    def scene(self, scene: Scene, row: int) -> Scene:
        """The scene in the light of a frame."""
        exposure = self.exposure_F[row]
        if exposure == 1.0:
            return scene
        noise = scene.noise + DIM_NOISE * self.strength_F[row]
        return dataclasses.replace(
            scene, exposure=float(scene.exposure * exposure), noise=float(noise)
        )

    def disturb(self, pixel_yx3: np.ndarray, row: int) -> np.ndarray:
        """The picture of a frame with what covers it, out of focus; uint8 like what is given."""
        from PIL import Image, ImageFilter

        if self.cover_F8[row, 2] > 0:
            pixel_yx3 = _covered(pixel_yx3, self.cover_F8[row])
        if self.blur_F[row] > 0:
            blur = ImageFilter.GaussianBlur(float(self.blur_F[row]))
            pixel_yx3 = np.asarray(Image.fromarray(pixel_yx3).filter(blur))
        return pixel_yx3


def _covered(pixel_yx3: np.ndarray, cover_8: np.ndarray) -> np.ndarray:
    """A picture with an ellipse before it, rounded by a little shade toward its edge."""
    x, y, short, long, angle = cover_8[:5]
    dy_yx, dx_yx = (
        np.mgrid[: pixel_yx3.shape[0], : pixel_yx3.shape[1]] - np.array([y, x])[:, None, None]
    )
    along_yx = (np.cos(angle) * dx_yx + np.sin(angle) * dy_yx) / long
    across_yx = (np.cos(angle) * dy_yx - np.sin(angle) * dx_yx) / short
    radius_yx = np.hypot(along_yx, across_yx)
    share_yx = 1 / (1 + np.exp(np.clip((radius_yx - 1) * short / _SOFTNESS_PX, -30, 30)))
    shade_yx3 = cover_8[5:] * (1 - 0.35 * np.minimum(radius_yx, 1) ** 2)[..., None]
    mixed_yx3 = pixel_yx3 + share_yx[..., None] * (shade_yx3 - pixel_yx3)
    return np.clip(np.rint(mixed_yx3), 0, 255).astype(np.uint8)
