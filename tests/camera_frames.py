"""Camera frames of rendered heads, with the places of their landmarks known exactly.

The renderer of `rendered_faces` draws into an aligned crop. Here the same drawing fills a larger
picture, in which the head lies where a test wants it.
"""

import contextlib
import dataclasses
import functools
from unittest import mock

import numpy as np

from benchmarks.rendered_faces_sheet import plain_scene
from data_pipeline.rendered_faces import render
from data_pipeline.rendered_faces.camera import TEMPLATE_L2, Pose, project, rotation, similarity
from data_pipeline.rendered_faces.head import intensities
from data_pipeline.rendered_faces.person import make_person
from data_pipeline.rendered_faces.scene import Scene


class _Backdrop(Scene):
    """A scene whose background has the picture's size."""

    def background_at(self, yaw, pitch):
        size = render.CROP_SIZE * render.SUPERSAMPLING
        ramp = np.linspace(0.05, 0.3, size, dtype=np.float32)
        picture = np.stack([0.2 + 0 * ramp, ramp, 0.35 - ramp], axis=-1)
        return np.ascontiguousarray(np.broadcast_to(picture[:, None], (size, size, 3)))


@functools.cache
def person(seed):
    return make_person(np.random.default_rng(seed))


def head(seed, *, size=320, eyes_px=60.0, yaw=0.0, pitch=0.0, roll=0.0, units=()):
    """Draws a person's head in the middle of a square picture.

    Args:
        seed: decides the person.
        size: side of the picture.
        eyes_px: about the distance between the eyes.
        yaw, pitch, roll: of the head, degrees.
        units: action units at full intensity, or their intensities by number.

    Returns:
        uint8 [size, size, 3]; float64 [5, 2], where the eyes, the tip of the nose and the corners
        of the mouth are, those on the left of a frontal picture first.
    """
    factor = eyes_px / 35.24
    angle = np.radians(roll)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    template = factor * (TEMPLATE_L2 - [56, 66]) @ turn + size / 2 - 0.5
    intensity = intensities(units if isinstance(units, dict) else dict.fromkeys(units, 1.0))
    scene = _Backdrop(**{f.name: getattr(plain_scene(), f.name) for f in dataclasses.fields(Scene)})
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


def paste(canvas, picture, landmarks, left, top):
    """Puts a picture on a canvas; gives the landmarks in the canvas' pixels."""
    height, width = picture.shape[:2]
    canvas[top : top + height, left : left + width] = picture
    return landmarks + np.array([left, top])
