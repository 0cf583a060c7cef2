"""Frames of rendered heads, with the places of their landmarks known exactly.

The renderer of `rendered_faces` draws into an aligned crop. Here the same drawing fills a larger
picture, or is cut out and put on any background at any size: what finds and follows faces is
measured and tested on such frames.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.rendered_faces_sheet import plain_scene
from data_pipeline.rendered_faces import render
from data_pipeline.rendered_faces.camera import TEMPLATE_L2, Pose, project, rotation, similarity
from data_pipeline.rendered_faces.head import intensities
from data_pipeline.rendered_faces.person import Person, make_person
from data_pipeline.rendered_faces.scene import Scene


@dataclasses.dataclass(frozen=True)
class _Backdrop(Scene):
    """A scene whose background has the picture's size.

    Attributes:
        wall: linear RGB of the background; None: a ramp of colours.
    """

    wall: tuple[float, float, float] | None = None

    def background_at(self, yaw: float, pitch: float) -> np.ndarray:
        size = render.CROP_SIZE * render.SUPERSAMPLING
        if self.wall is not None:
            return np.full((size, size, 3), self.wall, np.float32)
        ramp = np.linspace(0.05, 0.3, size, dtype=np.float32)
        picture = np.stack([0.2 + 0 * ramp, ramp, 0.35 - ramp], axis=-1)
        return np.ascontiguousarray(np.broadcast_to(picture[:, None], (size, size, 3)))


@functools.cache
def person(seed: int) -> Person:
    """The person that a seed decides."""
    return make_person(np.random.default_rng(seed))


def head(
    seed: int,
    *,
    size: int = 320,
    eyes_px: float = 60.0,
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    units: Sequence[int] | dict[int, float] = (),
    wall: tuple[float, float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a person's head in the middle of a square picture.

    Args:
        seed: decides the person.
        size: side of the picture.
        eyes_px: about the distance between the eyes.
        yaw: of the head, degrees, as are `pitch` and `roll`.
        pitch: see `yaw`.
        roll: see `yaw`.
        units: action units at full intensity, or their intensities by number.
        wall: linear RGB of the background; None: a ramp of colours.

    Returns:
        uint8 [size, size, 3]; float64 [5, 2], where the eyes, the tip of the nose and the corners
        of the mouth are, those on the left of a frontal picture first.
    """
    factor = eyes_px / 35.24
    angle = np.radians(roll)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    template = factor * (TEMPLATE_L2 - [56, 66]) @ turn + size / 2 - 0.5
    intensity = intensities(units if isinstance(units, dict) else dict.fromkeys(units, 1.0))
    plain = plain_scene()
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(Scene)}
    scene = _Backdrop(**fields, wall=wall)
    pose = Pose(yaw=yaw, pitch=pitch, roll=0.0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(render, "CROP_SIZE", size))
        stack.enter_context(mock.patch.object(render, "TEMPLATE_L2", template))
        renderer = render.Renderer(person(seed), scene)
        picture = renderer.render(intensity, pose)
    vertices = renderer.person.shape.pose(intensity)
    marks = project(renderer.landmarks(vertices), rotation(yaw, pitch, 0.0), scene.distance)
    scale, shift = similarity(marks[:, :2], template)
    place = scale * (marks[:, 0] + 1j * marks[:, 1]) + shift
    return picture, np.stack([place.real, place.imag], axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class CutOut:
    """A head without its background.

    Attributes:
        colour: float32 [S, S, 3] in 0..255, times the cover.
        cover: float32 [S, S] in 0..1.
        landmarks: float64 [5, 2], in pixels.
    """

    colour: np.ndarray
    cover: np.ndarray
    landmarks: np.ndarray

    def resized(self, side: int) -> "CutOut":
        """The same at another size of its picture."""
        layers = [*np.moveaxis(self.colour, -1, 0), self.cover]
        shrunk = [
            np.asarray(Image.fromarray(layer).resize((side, side), Image.Resampling.BOX))
            if side < len(layer)
            else np.asarray(Image.fromarray(layer).resize((side, side), Image.Resampling.BILINEAR))
            for layer in layers
        ]
        factor = side / len(self.cover)
        landmarks = (self.landmarks + 0.5) * factor - 0.5
        return CutOut(np.stack(shrunk[:3], axis=-1), shrunk[3], landmarks)

    def put_on(self, canvas: np.ndarray, left: int, top: int) -> np.ndarray:
        """Draws the head on a picture, uint8 [H, W, 3], in place; parts outside are cut off.

        Returns the landmarks in the picture's pixels.
        """
        height, width = canvas.shape[:2]
        side = len(self.cover)
        rows = slice(max(top, 0), min(top + side, height))
        columns = slice(max(left, 0), min(left + side, width))
        if rows.start < rows.stop and columns.start < columns.stop:
            inner = (
                slice(rows.start - top, rows.stop - top),
                slice(columns.start - left, columns.stop - left),
            )
            behind = canvas[rows, columns] * (1 - self.cover[inner])[..., None]
            canvas[rows, columns] = np.rint(behind + self.colour[inner]).clip(0, 255)
        return self.landmarks + np.array([left, top])


@functools.lru_cache(maxsize=512)
def cut_out(
    seed: int,
    *,
    size: int = 320,
    eyes_px: float = 60.0,
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    units: tuple[int, ...] = (),
) -> CutOut:
    """A head from `head`, cut out: where a background of another brightness changes nothing."""
    settings = {"size": size, "eyes_px": eyes_px, "yaw": yaw, "pitch": pitch, "roll": roll}
    dark, landmarks = head(seed, **settings, units=units, wall=(0.0, 0.0, 0.0))
    bright, _ = head(seed, **settings, units=units, wall=(1.0, 1.0, 1.0))
    dark, bright = dark.astype(np.float32), bright.astype(np.float32)
    cover = 1 - (bright - dark).mean(axis=-1) / bright[0, 0].mean()
    return CutOut(dark, cover.clip(0, 1).astype(np.float32), landmarks)


def background(seed: int, width: int, height: int) -> np.ndarray:
    """A room without faces: blurred blots of many sizes and some plain boxes, uint8 [H, W, 3]."""
    random = np.random.default_rng([seed, 1])
    picture = np.full((height, width, 3), random.uniform(60, 180, 3), np.float32)
    for cells, contrast in ((3, 30), (8, 20), (24, 12), (90, 6)):  # less where finer, as in rooms
        shape = (cells, max(2, cells * width // height))
        grey = random.normal(0, contrast, shape)
        for channel in range(3):
            blots = grey + random.normal(0, contrast / 4, shape)
            smooth = Image.fromarray(blots.astype(np.float32)).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            picture[..., channel] += np.asarray(smooth)
    for _ in range(12):
        top, left = int(random.integers(height)), int(random.integers(width))
        bottom, right = top + int(random.integers(8, 300)), left + int(random.integers(8, 300))
        picture[top:bottom, left:right] = random.uniform(0, 255, 3)
    return picture.clip(0, 255).astype(np.uint8)
