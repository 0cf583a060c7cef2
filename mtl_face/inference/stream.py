"""Faces of photos, videos and cameras: found, followed, and answered by a network.

Dimension letters: N rows of a table, F faces, V mesh points (468), S side of a stored crop, H
height and W width of a crop.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl_face import pictures
from mtl_face.errors import ConfigError, ImageError
from mtl_face.evaluation import calibration as calibrations
from mtl_face.evaluation.calibration import Calibration
from mtl_face.face_table import (
    BLURRED,
    MESH_POINTS,
    NEUTRAL_PICTURE,
    NO_BASELINE,
    NO_FACE,
    NOT_DECODED,
    OK,
    PARTLY_OUTSIDE,
    RUNNING_MEAN,
    SMALL,
    TURNED,
    FaceTable,
)
from mtl_face.faces import align, camera, geometry
from mtl_face.faces.detect import PHOTO_FACE_PX, REACH, Face, FaceFinder
from mtl_face.faces.track import PATIENCE, Tracker, as_json, from_json
from mtl_face.faces.video import VideoFrame, ahead, batched, open_video
from mtl_face.inference.baseline import Baselines, neutrality
from mtl_face.inference.predictor import Predictor
from mtl_face.inference.recent import Recent
from mtl_face.inputs import BASELINE, IMAGE, POINTS
from mtl_face.pictures import AnyImage
from mtl_face.tables import PredictionTable

_TOGETHER = 8  # frames answered at a time: the network is compiled for as many faces

_OF_METADATA = (
    "weights_sha256",
    "program_sha256",
    "step",
    "training",
    "probability",
    "provenance",
    "versions",
)

SEARCH_EVERY = 8
"""Frames from one search for faces to the next, while all that were seen can be followed.

A search takes six times as long as following a face. Who comes into the picture is found by the
next search. After a face was lost, each frame is searched until it is back, or `PATIENCE` ends.
"""

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

MOST_TURNED = 30.0
"""Angle between the face's direction and the view, in degrees, above which it is turned.

Of rendered heads the points that a turn by 20 degrees should leave in place move by 0.04 of the
distance between the eyes, by 30 degrees 0.05 to 0.07; an expression moves them by 0.02 to 0.05.
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
        arrays: what the network took of these rows, as `Predictor.predict_arrays`.
    """

    table: FaceTable
    predictions: PredictionTable
    arrays: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)

    def answered(self, calibration: Calibration | None = None) -> FaceTable:
        """The table with the answers; a calibration is applied without its smoothing."""
        predictions = self.predictions
        if calibration is not None:
            predictions = calibrations.apply(predictions, calibration.without_smoothing())
        return with_answers(self.table, predictions)

    def relative(
        self,
        predictor: Predictor,
        baseline_FV3: NDArray[np.float32],
        share_F: NDArray[np.float64],
        word: str,
    ) -> "Seen":
        """Answered beside a baseline, which is taken out of the points of each face.

        Args:
            predictor: the network, one that takes points; all that it takes is in `arrays`.
            baseline_FV3: normalised points of the person at rest.
            share_F: weight of these answers, 0..1; the rest is that of those given before.
            word: for the column `baseline` where the share is not 0, of `BASELINES`.
        """
        row_F = np.flatnonzero(self.table.has_face)
        baseline_N = self.table.baseline.astype(object)
        baseline_N[row_F] = np.where(share_F > 0, word, NO_BASELINE)
        table = dataclasses.replace(self.table, baseline=baseline_N.astype(np.str_))
        predictions = self.predictions
        if share_F.any():
            arrays = {**self.arrays, BASELINE: baseline_FV3}
            predictions = _blended(predictions, predictor.predict_arrays(arrays), share_F)
        return Seen(table, predictions, self.arrays)

    def beside(self, predictor: Predictor, neutral_V3: NDArray[np.float32]) -> "Seen":
        """Answered beside the points of a neutral picture, which is of all persons."""
        count = len(self.predictions)
        baseline_FV3 = np.tile(neutral_V3, (count, 1, 1))
        return self.relative(predictor, baseline_FV3, np.ones(count), NEUTRAL_PICTURE)


def about(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a table of faces keeps of the metadata of its predictions."""
    return {name: metadata[name] for name in _OF_METADATA if name in metadata}


def _blended(
    first: PredictionTable, second: PredictionTable, share_F: NDArray[np.float64]
) -> PredictionTable:
    """Weighted means of values, logits and standard deviations; `share_F` is the second's."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, np.ndarray) and one.dtype == np.float64:
            share = share_F.reshape(-1, *[1] * (one.ndim - 1))
            changes[field.name] = (1 - share) * one + share * other
    return dataclasses.replace(first, **changes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Last:
    """The newest frame.

    Attributes:
        frame: its number.
        faces: those in it.
        followed: frames since the last search.
        search_until: frame up to which each is searched, since a face was lost.
        expected: how many faces there were then.
        size: width and height of the frame; None: not known.
    """

    frame: int = 0
    faces: Sequence[Face] = ()
    followed: int = 0
    search_until: int = 0
    expected: int = 0
    size: Sequence[int] | None = None


class FaceStream:
    """Answers the frames of one video or camera, in their order; one thread at a time.

    A person is a track: numbered from 1 in order of appearance, kept while the face is followed.

    Args:
        predictor: the network.
        source: what the column `source` of the tables holds.
        finder: finds faces; None: the networks of this package.
        mesh: whether tables keep all points of a face.
        relative: whether a network that takes points judges a face by how it differs from the
            person's own points at rest, as far as these are known from earlier frames.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        source: str,
        finder: Finder | None = None,
        mesh: bool = False,
        relative: bool = True,
    ) -> None:
        check_crops(predictor)
        self._predictor = predictor
        self._source = source
        self._finder = finder or FaceFinder()
        self._mesh = mesh
        self._relative = relative and takes_baseline(predictor)
        self._tracker = Tracker()
        self._baselines = Baselines()
        self._last = _Last()

    @functools.cached_property
    def _recent(self) -> Recent | None:
        """What a network over time knows of earlier frames; ConfigError, see `check_live`."""
        check_live(self._predictor)
        return None if self._predictor.frames is None else self._predictor.recent()

    def update(self, frames: Sequence[VideoFrame]) -> list[FaceTable]:
        """A table a frame: a row a face, or one row without a face.

        Frames are later than those before. Faces of one call are answered in one batch; a
        calibration inside of a program is applied.
        """
        seen = self.answer(self.find(frames))
        table = seen.answered(self._predictor.calibration)
        return [table.take(table.frame == frame.number) for frame in frames]

    def find(self, frames: Sequence[VideoFrame]) -> "list[Sight]":
        """Finds and follows the faces of the next frames; `answer` takes them.

        `update` does both. Apart, they can run in two threads: frames are found in their order.
        """
        sights = []
        for frame in frames:
            faces = self._faces(frame)
            tracks = self._tracker.update(frame.number, faces, frame.picture)
            self._tracker.forget()
            persons = [track.number + 1 for track in tracks]
            place = (self._source, frame.number, frame.seconds, frame.picture)
            sights.append(Sight(*place, faces, persons))
        return sights

    def answer(self, sights: "Sequence[Sight]") -> Seen:
        """Answers the faces of frames, and learns from them how each person looks at rest.

        ConfigError for a network over time that also sees the frames to come.
        """
        seen = see(self._predictor, sights, mesh=self._mesh, recent=self._recent)
        if not self._relative:
            return seen
        points_FV3 = seen.arrays[POINTS]
        person_F = seen.table.person[seen.table.has_face]
        baseline_FV3, share_F = np.zeros_like(points_FV3), np.zeros(len(points_FV3))
        neutral_F = neutrality(seen.predictions)
        frame_F = seen.table.frame[seen.table.has_face]
        for frame in np.unique(frame_F):
            rows = frame_F == frame
            baseline_FV3[rows], share_F[rows] = self._baselines.known(person_F[rows])
            self._baselines.add(person_F[rows], points_FV3[rows], neutral_F[rows])
        return seen.relative(self._predictor, baseline_FV3, share_F, RUNNING_MEAN)

    def _faces(self, frame: VideoFrame) -> list[Face]:
        """The faces of the next frame: searched for now and then, followed in between."""
        last = self._last
        size = frame.picture.size
        follows = frame.number == last.frame + 1 and not self._tracker.is_cut(frame.picture)
        before = list(last.faces) if follows else []
        if last.size is not None:
            width, height = last.size
            before = [face.scaled((width, height), size) for face in before]
        if not isinstance(self._finder, FaceFinder):
            faces = self._finder(frame.picture)
        elif before and last.followed < SEARCH_EVERY - 1 and frame.number > last.search_until:
            followed = self._finder.follow(frame.picture, before)
            faces = [face for face in followed if face is not None]
            if len(faces) == len(before):
                self._last = dataclasses.replace(
                    last, frame=frame.number, faces=faces, followed=last.followed + 1, size=size
                )
                return faces
            faces = self._search(self._finder, frame, before)
        else:
            faces = self._search(self._finder, frame, before)
        expected = max(len(before), last.expected)
        lost = len(faces) < expected
        until = frame.number + PATIENCE if len(faces) < len(before) else last.search_until
        if lost and frame.number < until:
            self._last = _Last(frame.number, faces, 0, until, expected, size)
        else:
            self._last = _Last(frame.number, faces, size=size)
        return faces

    @staticmethod
    def _search(finder: FaceFinder, frame: VideoFrame, before: Sequence[Face]) -> list[Face]:
        """The faces of a frame: those that can be followed, and others that the search finds.

        The search finds the points of a face a little differently: answers would jump with each.
        """
        faces = [face for face in finder.follow(frame.picture, before) if face is not None]
        for found in finder(frame.picture):
            if all(found.distance(face) > REACH for face in faces):
                faces.append(found)
        return sorted(faces, key=lambda face: -face.size)

    def tracks(self) -> dict[str, Any]:
        """What `find` of the next frames depends on, as JSON values."""
        return {
            "tracks": self._tracker.state(),
            **vars(self._last),
            "faces": [as_json(face) for face in self._last.faces],
        }

    def learned(self) -> dict[str, Any]:
        """What `answer` of the next frames depends on, as JSON values."""
        return self._baselines.state()

    def restore(self, tracks: Mapping[str, Any], learned: Mapping[str, Any]) -> None:
        """Goes on from what `tracks` and `learned` gave."""
        last = dict(tracks)
        self._tracker.restore(last.pop("tracks"))
        last["faces"] = [from_json(face) for face in last["faces"]]
        self._last = _Last(**last)
        self._baselines.restore(learned)


def predict_images(
    predictor: Predictor,
    images: Sequence[AnyImage],
    *,
    names: Sequence[str],
    neutral: AnyImage | None = None,
    mesh: bool = False,
) -> FaceTable:
    """The rows of photos, see `Predictor.predict`; `names` are their sources."""
    check_crops(predictor)
    finder = FaceFinder(PHOTO_FACE_PX)
    parts = [FaceTable.without_faces([], [], [], mesh=mesh)]
    baseline_V3 = None if neutral is None else neutral_points(predictor, neutral, finder)
    for image in images:
        if isinstance(image, str | os.PathLike) and _is_video(image):
            raise ImageError(
                "is a video",
                path=image,
                remedy="iterate over model.stream(PATH), or use run.py predict",
            )
    for begin in range(0, len(images), _TOGETHER):
        named = list(zip(images, names, strict=True))[begin : begin + _TOGETHER]
        opened = [pictures.picture_of(image, name) for image, name in named]
        found = finder.find(opened)
        sights = [
            Sight(name, 1, None, picture, faces, range(1, len(faces) + 1))
            for (_, name), picture, faces in zip(named, opened, found, strict=True)
        ]
        seen = see(predictor, sights, mesh=mesh)
        if baseline_V3 is not None:
            seen = seen.beside(predictor, baseline_V3)
        parts.append(seen.answered(predictor.calibration))
    metadata = about(seen.predictions.metadata) if images else {}
    if predictor.calibration is not None:
        metadata["calibration"] = predictor.calibration_file
    return dataclasses.replace(FaceTable.joined(parts), metadata=metadata)


def check_crops(predictor: Predictor) -> None:
    """Refuses a network whose crops are cut in another way than this program cuts faces.

    Raises:
        ConfigError: with what differs.
    """
    crop = predictor.crop
    if IMAGE not in predictor.inputs or not crop:
        return
    own = align.specification(predictor.crop_size)
    names = [name for name, value in own.items() if crop.get(name) != value]
    if names:
        differ = "; ".join(f"{name} is {crop.get(name)!r}, not {own[name]!r}" for name in names)
        raise ConfigError(
            f"the model was trained on faces that are cut in another way: {differ}",
            remedy="cut the faces as its training did, and predict them with --test_list",
        )


def check_live(predictor: Predictor) -> None:
    """ConfigError if a network answers a frame by those to come, which a camera has not shown."""
    if predictor.frames is not None and not predictor.config.temporal.causal:
        raise ConfigError(
            "the network sees the frames after each one (temporal.causal=false), and they are "
            "not there yet in live use",
            remedy="train one with temporal.causal=true, or analyse the video as a whole: run.py "
            "predict VIDEO",
        )


def takes_baseline(predictor: Predictor) -> bool:
    """Whether a network can judge faces beside those of the same persons at rest."""
    return POINTS in predictor.inputs and predictor.frames is None


def _is_video(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() in pictures.VIDEO_ENDINGS


def predict_video(
    predictor: Predictor,
    video: str | os.PathLike[str],
    *,
    relative: bool = True,
    mesh: bool = False,
) -> Iterator[FaceTable]:
    """Tables of the frames of a video or a camera, see `Predictor.stream`."""
    check_live(predictor)
    name = os.fspath(video)
    live = FaceStream(predictor, source=name, relative=relative, mesh=mesh)
    number = camera.number_of(name)
    if number is not None:
        for frame in camera.frames(number):
            yield from live.update([frame])
        return
    last = 0
    opened = open_video(Path(name))
    for frames in batched(ahead(opened, _TOGETHER), _TOGETHER):
        for frame, table in zip(frames, live.update(frames), strict=True):
            yield from _lost(name, range(last + 1, frame.number), mesh)
            yield table
            last = frame.number
    yield from _lost(name, range(last + 1, opened.frames + 1), mesh)


def _lost(name: str, numbers: Sequence[int], mesh: bool) -> Iterator[FaceTable]:
    for number in numbers:
        yield FaceTable.without_faces([name], [number], [np.nan], status=NOT_DECODED, mesh=mesh)


def neutral_points(predictor: Predictor, picture: AnyImage, finder: Finder) -> NDArray[np.float32]:
    """The normalised points of the largest face of a picture, [V, 3].

    Raises:
        ImageError: it cannot be read, or shows no face.
        ConfigError: the model takes no points.
    """
    if not takes_baseline(predictor):
        raise ConfigError(
            "a neutral picture is of use to models that take the points of a face alone, and to "
            "none over time",
            remedy="leave it out (--neutral), or take such a model, as --model=geometry",
        )
    path = picture if isinstance(picture, str | os.PathLike) else None
    faces = finder(pictures.picture_of(picture, "the neutral picture"))
    if not faces or faces[0].mesh is None:
        raise ImageError(
            "shows no face" if path else "the neutral picture shows no face",
            path=path,
            remedy="give a frontal picture of the person at rest",
        )
    return geometry.normalise(faces[0].mesh[None])[0]


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


def see(
    predictor: Predictor,
    sights: Sequence[Sight],
    *,
    mesh: bool = False,
    recent: Recent | None = None,
) -> Seen:
    """Describes and answers the faces of some frames.

    Args:
        predictor: the network; the arrays of one over time are what it reads of the faces.
        sights: the frames.
        mesh: whether all points are kept.
        recent: what a network over time knows of earlier frames of the source; None: each face is
            answered by itself.
    """
    faces = [(sight.picture, face) for sight in sights if sight.picture for face in sight.faces]
    inner = [align.crop_middle(picture, face.landmarks) for picture, face in faces]
    pose_F3 = np.full((len(faces), 3), np.nan)
    meshes = [face.mesh for _, face in faces if face.mesh is not None]
    if meshes:
        pose_F3[[face.mesh is not None for _, face in faces]] = geometry.pose(np.stack(meshes))
    arrays: dict[str, NDArray[Any]] = {}
    if IMAGE in predictor.inputs:
        crops = [align.crop_face(picture, face.landmarks) for picture, face in faces]
        arrays[IMAGE] = _images(crops, predictor.crop_size)
    if POINTS in predictor.inputs:
        empty_0V3 = np.zeros((0, MESH_POINTS, 3), np.float32)
        arrays[POINTS] = geometry.normalise(np.stack(meshes)) if meshes else empty_0V3
        arrays[BASELINE] = np.zeros_like(arrays[POINTS])
    empty = FaceTable.without_faces([], [], [], mesh=mesh)
    table = FaceTable.joined([empty, *(_rows(sight, mesh=mesh) for sight in sights)])
    row_F = np.flatnonzero(table.has_face)
    status_N, baseline_N = table.status.astype(object), table.baseline.astype(object)
    pose_N3 = table.pose.copy()
    status_N[row_F] = [
        _status(picture, face, middle, pose_3)
        for (picture, face), middle, pose_3 in zip(faces, inner, pose_F3, strict=True)
    ]
    if POINTS in predictor.inputs:
        baseline_N[row_F] = NO_BASELINE
    pose_N3[row_F] = pose_F3
    table = dataclasses.replace(
        table,
        status=status_N.astype(np.str_),
        baseline=baseline_N.astype(np.str_),
        pose=pose_N3,
    )
    if predictor.frames is None:
        predictions = predictor.predict_arrays(arrays)
    else:
        arrays = predictor.read(arrays)
        named = table.take(table.has_face)
        who = (None, None) if recent is None else (named.person, named.frame)
        predictions = predictor.predict_next(arrays, recent or predictor.recent(), *who)
    return Seen(table, keyed(predictions, table), arrays)


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


def _status(
    picture: Image.Image, face: Face, middle: Image.Image, pose_3: NDArray[np.float64]
) -> str:
    """`OK`, or the reasons not to trust a face, joined by `+`."""
    yaw, pitch, _ = np.radians(pose_3)
    flags = {
        SMALL: face.box[3] - face.box[1] < SMALLEST_HEIGHT_PX,
        BLURRED: sharpness(np.asarray(middle)) < LEAST_SHARPNESS,
        TURNED: np.cos(yaw) * np.cos(pitch) < np.cos(np.radians(MOST_TURNED)),
        PARTLY_OUTSIDE: _outside(face.box, picture.size) > MOST_OUTSIDE,
    }
    return "+".join(name for name, holds in flags.items() if holds) or OK


def _outside(box_4: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Share of a box outside of a picture of this width and height."""
    low_2 = np.maximum(box_4[:2], -0.5)
    high_2 = np.minimum(box_4[2:], np.asarray(size) - 0.5)
    area = float(np.prod(box_4[2:] - box_4[:2]))
    return 1 - float(np.prod((high_2 - low_2).clip(0))) / max(area, 1e-9)


def sharpness(middle_HW3: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey middle of an aligned crop, over its variance.

    A face out of focus, in motion or enlarged from few pixels has a small one; contrast and
    brightness do not change it. 0 of a crop of one colour.
    """
    grey_HW = middle_HW3.astype(np.float64).mean(axis=2)
    laplacian_HW = (
        grey_HW[:-2, 1:-1]
        + grey_HW[2:, 1:-1]
        + grey_HW[1:-1, :-2]
        + grey_HW[1:-1, 2:]
        - 4 * grey_HW[1:-1, 1:-1]
    )
    return float(laplacian_HW.var()) / max(float(grey_HW.var()), 1e-9)
