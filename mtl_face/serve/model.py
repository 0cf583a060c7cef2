"""What the server asks of a model, and in which order it asks for several clients."""

import asyncio
from collections.abc import Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar

import numpy as np
from PIL import Image
from starlette.concurrency import run_in_threadpool

from mtl_face.face_table import FaceTable
from mtl_face.faces.detect import PHOTO_FACE_PX, FaceFinder, face_of
from mtl_face.faces.mesh import find_points, upright
from mtl_face.faces.video import VideoFrame
from mtl_face.inference.predictor import Predictor
from mtl_face.inference.stream import FaceStream, Sight, check_crops, check_live, see

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Stream(Protocol):
    """The faces of one video or camera; persons keep their numbers from frame to frame."""

    def update(self, frames: Sequence[VideoFrame]) -> list[FaceTable]:
        """One table for each frame, in order."""


class Model(Protocol):
    """A trained model with what finds faces.

    Attributes:
        name: what the page calls it.
    """

    name: str

    def photo(self, picture: Image.Image, source: str) -> FaceTable:
        """The faces of an upright RGB picture."""

    def stream(self, source: str) -> Stream:
        """A new stream, which knows nothing of others."""


class Faces:
    """A `Model` of a predictor and the networks that find faces, loaded once for all streams.

    ConfigError if its crops were cut in another way than faces are cut here, or it is a network
    over time that also sees the frames to come.
    """

    def __init__(self, predictor: Predictor, name: str) -> None:
        check_crops(predictor)
        check_live(predictor)
        self.name = name
        self._predictor = predictor
        self._finder = FaceFinder()
        self._finder_of_photos = FaceFinder(PHOTO_FACE_PX)

    def compile(self) -> None:
        """Compiles what a frame with one face needs, for which its answer would wait otherwise."""
        picture = Image.new("RGB", (1280, 720))
        self._finder(picture)
        square_23 = upright(np.array([640.0, 360.0]), 400.0, np.array([1.0, 0.0]))
        (score,), (mesh_V3,) = find_points([picture], [square_23])
        see(self._predictor, [Sight("", 1, None, picture, [face_of(mesh_V3, float(score))], [1])])

    def photo(self, picture: Image.Image, source: str) -> FaceTable:
        """The faces of an upright RGB picture."""
        stream = FaceStream(self._predictor, source=source, finder=self._finder_of_photos)
        (table,) = stream.update([VideoFrame(1, None, picture)])
        return table

    def stream(self, source: str) -> FaceStream:
        """A new stream, which knows nothing of others."""
        return FaceStream(self._predictor, source=source, finder=self._finder)


class Turns:
    """Runs one call of the network at a time, in the order in which the calls arrive.

    Every client waits for at most one call of each other client, since none makes its next call
    before its last one is answered.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()  # hands over in order of arrival

    async def run(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """The result of a function, called in a worker thread when its turn comes."""
        async with self._lock:
            return await run_in_threadpool(function, *args, **kwargs)
