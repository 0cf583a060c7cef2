"""The third table: what was seen and answered in photos, videos and from cameras.

A row is a face of a frame, or a frame without one, so that no frame is lost. Frames are numbered
from 1; a photo is a source of one frame. Coordinates are in pixels of the upright frame, x to the
right and y down; (0, 0) is the centre of the first pixel. Left and right are the picture's.

Dimension letters: N rows, L landmarks (5), V mesh points (468), A action units (12), E expressions
(8), C columns of a field.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES, VA_NAMES

if TYPE_CHECKING:
    import os

    import pandas as pd
    from matplotlib.figure import Figure
    from PIL import Image

    from mtl_face.pictures import AnyImage

MESH_POINTS = 468

OK, NO_FACE, NOT_DECODED = "ok", "no face", "not decoded"
SMALL, BLURRED, TURNED, PARTLY_OUTSIDE = "small", "blurred", "turned", "partly outside"
STATUSES = (OK, NO_FACE, NOT_DECODED, SMALL, BLURRED, TURNED, PARTLY_OUTSIDE)
"""Words of the column `status`. A face that should not be trusted has one or several of the last
four, joined by `+`."""

NO_BASELINE, NEUTRAL_PICTURE = "none", "neutral picture"
MEAN_OF_PERSON, RUNNING_MEAN = "mean of the person", "running mean"
BASELINES = (NO_BASELINE, NEUTRAL_PICTURE, MEAN_OF_PERSON, RUNNING_MEAN)
"""Words of the column `baseline`: what was taken out of the points of a face before it was judged;
empty where there is no face or the network takes none."""

_POSE = ("yaw", "pitch", "roll")
_BOX = ("face_left", "face_top", "face_right", "face_bottom")
_LANDMARKS = ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner")

COLUMNS: dict[str, tuple[str, ...]] = {
    "source": ("source",),
    "frame": ("frame",),
    "time_ms": ("time_ms",),
    "person": ("person",),
    "status": ("status",),
    "score": ("detection_score",),
    "box": _BOX,
    "landmarks": tuple(f"{name}_{axis}" for name in _LANDMARKS for axis in "xy"),
    "pose": _POSE,
    "baseline": ("baseline",),
    "va": VA_NAMES,
    "va_std": tuple(f"{name}_std" for name in VA_NAMES),
    "au_probability": tuple(f"{name}_probability" for name in AU_NAMES),
    "au_present": tuple(f"{name}_present" for name in AU_NAMES),
    "expression": ("expression",),
    "expression_probability": tuple(
        f"expr_{name.lower()}_probability" for name in EXPRESSION_NAMES
    ),
    "mesh": tuple(f"mesh{point}_{axis}" for point in range(MESH_POINTS) for axis in "xyz"),
}
"""Columns on disk by field, in their order."""

_TEXT = ("source", "status", "baseline")
_INTEGERS = {"frame": np.int64, "person": np.int64, "au_present": np.int8, "expression": np.int8}
_SHAPES = {
    "box": (4,),
    "landmarks": (len(_LANDMARKS), 2),
    "pose": (3,),
    "va": (2,),
    "va_std": (2,),
    "au_probability": (len(AU_NAMES),),
    "au_present": (len(AU_NAMES),),
    "expression_probability": (len(EXPRESSION_NAMES),),
    "mesh": (MESH_POINTS, 3),
}
_NAMES_OF_CLASSES = np.asarray([*EXPRESSION_NAMES, ""])  # class -1 is the last


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FaceTable:
    """Rows of faces and frames; NaN, -1 or "" where a row has no face or a task no answer.

    Attributes:
        source: file or camera as the user named it, str [N].
        frame: number from 1, int64 [N].
        time_ms: time from the start of the source in milliseconds, float64 [N]; NaN of photos and
            where the source does not say.
        person: number from 1 in order of appearance in the source, int64 [N]; 0: no face.
        status: see `STATUSES`, str [N].
        score: of the detection, probability that there is a face, float64 [N].
        box: left, top, right, bottom of the face, float64 [N, 4].
        landmarks: eyes, tip of the nose, corners of the mouth, float64 [N, L, 2].
        pose: yaw, pitch, roll of the head in degrees, float64 [N, 3]; yaw > 0: turned to the
            picture's right, pitch > 0: up, roll > 0: tilted clockwise in the picture.
        baseline: see `BASELINES`, str [N].
        va: valence and arousal in [-1, 1], float64 [N, 2].
        va_std: their standard deviations, float64 [N, 2].
        au_probability: float64 [N, A] in 0..1.
        au_present: decisions, int8 [N, A]: 1, 0, or -1 without an answer.
        expression: class in the order of `EXPRESSION_NAMES`, int8 [N]; -1 without an answer.
        expression_probability: float64 [N, E], rows sum to 1.
        mesh: points of the face, x, y, and depth (smaller is nearer) in the same unit, float32
            [N, V, 3]; None: not kept.
        metadata: JSON values: `model`, `versions` and the like.
    """

    source: NDArray[np.str_]
    frame: NDArray[np.int64]
    time_ms: NDArray[np.float64]
    person: NDArray[np.int64]
    status: NDArray[np.str_]
    score: NDArray[np.float64]
    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    pose: NDArray[np.float64]
    baseline: NDArray[np.str_]
    va: NDArray[np.float64]
    va_std: NDArray[np.float64]
    au_probability: NDArray[np.float64]
    au_present: NDArray[np.int8]
    expression: NDArray[np.int8]
    expression_probability: NDArray[np.float64]
    mesh: NDArray[np.float32] | None = None
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self._fields():
            column = np.asarray(getattr(self, name))
            if name not in _TEXT:
                dtype = np.float32 if name == "mesh" else _INTEGERS.get(name, np.float64)
                column = column.astype(dtype, copy=False)
            shape = (len(self), *_SHAPES.get(name, ()))
            if column.shape != shape:
                raise ValueError(f"column {name} has shape {column.shape}, expected {shape}")
            object.__setattr__(self, name, column)

    @classmethod
    def without_faces(
        cls,
        source: Sequence[str],
        frame: Sequence[int],
        time_ms: Sequence[float],
        *,
        status: str = NO_FACE,
        mesh: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> Self:
        """Rows of frames in which there is no face; `mesh`: whether they have such a column."""
        count = len(frame)
        fields: dict[str, Any] = {
            "source": np.asarray(source, np.str_),
            "frame": np.asarray(frame, np.int64),
            "time_ms": np.asarray(time_ms, np.float64),
            "person": np.zeros(count, np.int64),
            "status": np.full(count, status),
            "baseline": np.full(count, ""),
            "expression": np.full(count, -1, np.int8),
            "au_present": np.full((count, len(AU_NAMES)), -1, np.int8),
        }
        for name in COLUMNS:
            if name not in fields and (name != "mesh" or mesh):
                fields[name] = np.full((count, *_SHAPES.get(name, ())), np.nan)
        return cls(**fields, metadata=dict(metadata or {}))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of several tables, one after the other, with the metadata of the first."""
        if not parts:
            return cls.without_faces([], [], [])
        fields = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in parts[0]._fields()
        }
        return cls(**fields, metadata=dict(parts[0].metadata))

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return (
            f"FaceTable(rows: {len(self):,}, faces: {int(self.has_face.sum()):,}, "
            f"sources: {len(np.unique(self.source)):,})"
        )

    @property
    def has_face(self) -> NDArray[np.bool_]:
        """Whether a row is a face, bool [N]."""
        return self.person > 0

    @property
    def expression_name(self) -> NDArray[np.str_]:
        """Name of each row's expression, "" without an answer, [N]."""
        return _NAMES_OF_CLASSES[self.expression]

    def take(self, rows: NDArray[Any]) -> Self:
        """These rows (int [M], or bool [N]), in this order, with the same metadata."""
        return dataclasses.replace(
            self, **{name: getattr(self, name)[rows] for name in self._fields()}
        )

    def persons(self) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
        """Source, number and rows of each person, in order of appearance."""
        places: dict[tuple[str, int], list[int]] = {}
        for row in np.flatnonzero(self.has_face).tolist():
            places.setdefault((str(self.source[row]), int(self.person[row])), []).append(row)
        for (source, person), rows in places.items():
            yield source, person, np.asarray(rows, np.int64)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns as on disk, by name and in order, each [N]; expressions by their names."""
        result: dict[str, NDArray[Any]] = {}
        for field, names in COLUMNS.items():
            values = self.expression_name if field == "expression" else getattr(self, field)
            if values is not None:
                by_column = values.reshape(len(self), len(names)).T
                result |= dict(zip(names, by_column, strict=True))
        return result

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray[Any]], metadata: dict[str, Any]) -> Self:
        """Inverse of `columns`; other columns are ignored. KeyError if one is missing."""
        fields: dict[str, Any] = {}
        for field, names in COLUMNS.items():
            if field == "mesh" and names[0] not in columns:
                continue
            values = np.stack([np.asarray(columns[name]) for name in names], axis=1)
            count = len(values)
            if field == "expression":
                index = {name: place for place, name in enumerate(EXPRESSION_NAMES)} | {"": -1}
                values = np.asarray([index[str(name)] for name in values[:, 0]], np.int8)
            fields[field] = values.reshape(count, *_SHAPES.get(field, ()))
            if field in _TEXT:
                fields[field] = fields[field].astype(np.str_)
        return cls(**fields, metadata=metadata)

    def to_dataframe(self) -> "pd.DataFrame":
        """The table as a DataFrame, with the columns on disk."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    def plot(self, path: "str | os.PathLike[str] | None" = None) -> "Figure":
        """Draws what the persons of videos show over time, see `mtl_face.report.face_timeline`.

        Args:
            path: a .svg, .png or .html to write besides; None: none.

        Raises:
            TimelineError: no video with a face, or another ending.
        """
        from mtl_face.report import face_timeline

        if path is not None:
            face_timeline.write_timeline(path, self)
        return face_timeline.figure(self)

    def annotate(self, image: "AnyImage", *, anonymise: bool = False) -> "Image.Image":
        """Draws the answers on a picture: RGB, with a column of cards beside it.

        Args:
            image: the picture that the rows are of: a path, an image of Pillow, or uint8
                [height, width, 3].
            anonymise: whether the faces are hidden.

        Raises:
            ImageError: the picture cannot be read.
            ValueError: the rows are of several pictures.
        """
        from mtl_face import pictures
        from mtl_face.report.annotate import Annotator

        shown = set(zip(self.source.tolist(), self.frame.tolist(), strict=True))
        if len(shown) > 1:
            raise ValueError(
                f"the rows are of {len(shown)} pictures: take those of one, as in "
                "table.take(table.source == PATH), and of a video also table.frame == NUMBER"
            )
        return Annotator(anonymise=anonymise).draw(pictures.picture_of(image), self)

    def _fields(self) -> list[str]:
        return [name for name in COLUMNS if getattr(self, name) is not None]
