"""Faces of photos, videos and cameras: found, followed, and answered by a network.

Dimension letters: N rows of a table, F faces, V mesh points (468), S side of a stored crop, H
height and W width of a crop.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl_face.face_table import (
    BLURRED,
    MESH_POINTS,
    NO_FACE,
    NOT_DECODED,
    OK,
    PARTLY_OUTSIDE,
    SMALL,
    FaceTable,
)
from mtl_face.faces import align
from mtl_face.faces.detect import Face, FaceFinder
from mtl_face.faces.track import Tracker
from mtl_face.faces.video import VideoFrame
from mtl_face.inference.predictor import Predictor
from mtl_face.tables import PredictionTable

SMALLEST_HEIGHT_PX = 40.0
"""Height of a face's box below which it is marked as small.

Faces of 40 pixels, shrunk from 150 and more: the points of the mesh move by 0.011 of the distance
between the eyes (median of 12 people and of 8 rendered heads); at 32 pixels by up to 0.04.
"""

LEAST_SHARPNESS = 0.025
"""Sharpness, see `sharpness`, below which a face is marked as blurred.

Faces whose eyes are 60 pixels apart, blurred by a Gaussian of 2 pixels: sharpness 0.02 to 0.07, and
the points move by 0.01; of 3 pixels: 0.009 to 0.03, and 0.015 to 0.02 (the same heads).
"""

MOST_OUTSIDE = 0.1
"""Share of a face's box outside of the frame above which it is marked as partly outside."""


Finder = Callable[[Image.Image], list[Face]]
"""Finds the faces of an RGB picture, the largest first."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """Faces of some frames, with what the network says of each.

    Attributes:
        table: rows of all frames in their order, without answers.
        predictions: answers to the rows with a face, F rows in the same order; `video` names the
            source and the person.
    """

    table: FaceTable
    predictions: PredictionTable

    def answered(self) -> FaceTable:
        """The table with the answers."""
        return with_answers(self.table, self.predictions)


class FaceStream:
    """Answers the frames of one video or camera, in their order; one thread at a time.

    A person is a track: numbered from 1 in order of appearance, kept while the face is followed.

    Args:
        predictor: the network.
        source: what the column `source` of the tables holds.
        finder: finds faces; None: the networks of this package.
        mesh: whether tables keep all points of a face.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        source: str,
        finder: Finder | None = None,
        mesh: bool = False,
    ) -> None:
        self._predictor = predictor
        self._source = source
        self._finder = finder or FaceFinder()
        self._mesh = mesh
        self._tracker = Tracker()

    def update(self, frames: Sequence[VideoFrame]) -> list[FaceTable]:
        """A table a frame: a row a face, or one row without a face.

        Frames are later than those before. Faces of one call are answered in one batch.
        """
        table = see(self._predictor, self.find(frames), mesh=self._mesh).answered()
        return [table.take(table.frame == frame.number) for frame in frames]

    def find(self, frames: Sequence[VideoFrame]) -> "list[Sight]":
        """Finds and follows the faces of the next frames; `see` answers them.

        `update` does both. Apart, they can run in two threads: frames are found in their order.
        """
        sights = []
        for frame in frames:
            faces = self._finder(frame.picture)
            tracks = self._tracker.update(frame.number, faces)
            self._tracker.forget()
            persons = [track.number + 1 for track in tracks]
            place = (self._source, frame.number, frame.seconds, frame.picture)
            sights.append(Sight(*place, faces, persons))
        return sights

    def state(self) -> dict[str, Any]:
        """What the next frames depend on, as JSON values."""
        return {"tracks": self._tracker.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._tracker.restore(state["tracks"])


@dataclasses.dataclass(frozen=True, eq=False)
class Sight:
    """A frame of a source and who is in it.

    Attributes:
        source: name of the source.
        number: of the frame, from 1.
        seconds: from the start of the source, where known.
        picture: RGB; None if the frame could not be decoded.
        faces: those in it.
        persons: number of each face's person, from 1.
    """

    source: str
    number: int
    seconds: float | None
    picture: Image.Image | None
    faces: Sequence[Face] = ()
    persons: Sequence[int] = ()


def see(predictor: Predictor, sights: Sequence[Sight], *, mesh: bool = False) -> Seen:
    """Describes and answers the faces of some frames; `mesh`: whether all points are kept."""
    faces = [(sight.picture, face) for sight in sights if sight.picture for face in sight.faces]
    crops = [align.crop_face(picture, face.landmarks) for picture, face in faces]
    arrays: dict[str, NDArray[Any]] = {}
    if "image" in predictor.inputs:
        arrays["image"] = _images(crops, predictor.crop_size)
    predictions = predictor.predict_arrays(arrays)
    empty = FaceTable.without_faces([], [], [], mesh=mesh)
    table = FaceTable.joined([empty, *(_rows(sight, mesh=mesh) for sight in sights)])
    status = table.status.astype(object)
    status[table.has_face] = [
        _status(picture, face, crop) for (picture, face), crop in zip(faces, crops, strict=True)
    ]
    table = dataclasses.replace(table, status=status.astype(np.str_))
    return Seen(table, keyed(predictions, table))


def keyed(predictions: PredictionTable, table: FaceTable) -> PredictionTable:
    """Predictions for the rows of a table with a face, named by them: a person is a video."""
    seen = table.take(table.has_face)
    pairs = zip(seen.source.tolist(), seen.person.tolist(), strict=True)
    return dataclasses.replace(
        predictions,
        dataset=np.full(len(seen), "faces"),
        video=np.asarray([f"{source}, person {person}" for source, person in pairs], np.str_),
        frame=seen.frame,
        image=np.full(len(seen), ""),
    )


def _rows(sight: Sight, *, mesh: bool) -> FaceTable:
    """The rows of a frame without status and answers."""
    faces = sight.faces
    count = max(len(faces), 1)
    time_ms = np.nan if sight.seconds is None else 1000 * sight.seconds
    table = FaceTable.without_faces(
        [sight.source] * count,
        [sight.number] * count,
        [time_ms] * count,
        status=NOT_DECODED if sight.picture is None else NO_FACE,
        mesh=mesh,
    )
    if not faces:
        return table
    fields: dict[str, Any] = {
        "person": np.asarray(sight.persons),
        "score": np.asarray([face.score for face in faces]),
        "box": np.stack([face.box for face in faces]),
        "landmarks": np.stack([face.landmarks for face in faces]),
        "baseline": np.full(count, ""),
    }
    if mesh:
        empty_V3 = np.full((MESH_POINTS, 3), np.nan, np.float32)
        fields["mesh"] = np.stack([empty_V3 if f.mesh is None else f.mesh for f in faces])
    return dataclasses.replace(table, **fields)


def with_answers(table: FaceTable, predictions: PredictionTable) -> FaceTable:
    """The table with answers to its rows with a face, in their order.

    Valence and arousal are clipped to [-1, 1]. Standard deviations and probabilities that the
    predictions lack are NaN.
    """
    row_F = np.flatnonzero(table.has_face)
    if len(row_F) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(row_F)} faces")
    answers = {
        "va": predictions.va.clip(-1, 1),
        "va_std": predictions.va_std,
        "au_probability": predictions.au_probabilities,
        "au_present": predictions.au,
        "expression": predictions.expression,
        "expression_probability": predictions.expression_probabilities,
    }
    fields = {}
    for name, answer in answers.items():
        if answer is not None:
            fields[name] = getattr(table, name).copy()
            fields[name][row_F] = answer
    return dataclasses.replace(table, **fields)


def _images(crops: Sequence[Image.Image], size: int) -> NDArray[np.uint8]:
    """Crops at the size that the network was trained on, resized as its training resizes them."""
    resized = [
        crop if crop.size == (size, size) else crop.resize((size, size), Image.Resampling.BILINEAR)
        for crop in crops
    ]
    return np.array([np.asarray(crop) for crop in resized], np.uint8).reshape(-1, size, size, 3)


def _status(picture: Image.Image, face: Face, crop: Image.Image) -> str:
    """`OK`, or the reasons not to trust a face, joined by `+`."""
    flags = {
        SMALL: face.box[3] - face.box[1] < SMALLEST_HEIGHT_PX,
        BLURRED: sharpness(np.asarray(crop)) < LEAST_SHARPNESS,
        PARTLY_OUTSIDE: _outside(face.box, picture.size) > MOST_OUTSIDE,
    }
    return "+".join(name for name, holds in flags.items() if holds) or OK


def _outside(box_4: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Share of a box outside of a picture of this width and height."""
    low_2 = np.maximum(box_4[:2], -0.5)
    high_2 = np.minimum(box_4[2:], np.asarray(size) - 0.5)
    area = float(np.prod(box_4[2:] - box_4[:2]))
    return 1 - float(np.prod((high_2 - low_2).clip(0))) / max(area, 1e-9)


def sharpness(crop_HW3: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey inner half of an aligned crop, over its variance.

    A face out of focus, in motion or enlarged from few pixels has a small one; contrast and
    brightness do not change it. 0 of a crop of one colour.
    """
    side = len(crop_HW3)
    inner = slice(side // 4, side - side // 4)
    grey_HW = crop_HW3[inner, inner].astype(np.float64).mean(axis=2)
    laplacian_HW = (
        grey_HW[:-2, 1:-1]
        + grey_HW[2:, 1:-1]
        + grey_HW[1:-1, :-2]
        + grey_HW[1:-1, 2:]
        - 4 * grey_HW[1:-1, 1:-1]
    )
    return float(laplacian_HW.var()) / max(float(grey_HW.var()), 1e-9)
