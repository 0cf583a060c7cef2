"""AffectNet's lists, as they are handed out and as they go round.

- `affectnet`: `training.csv` and `validation.csv` of the manual or automatic annotation:
  `subDirectory_filePath`, the face's box and landmarks, `expression`, `valence`, `arousal`; with
  or without the header line.
- `affectnet_words`: a list `labels.csv` of `pth` and `label`, a word.
- `affectnet_folders`: `train_set/annotations/<id>_exp.npy`, `_val.npy`, `_aro.npy` beside
  `train_set/images/<id>.jpg`.

Classes are 0 Neutral, 1 Happy, 2 Sad, 3 Surprise, 4 Fear, 5 Disgust, 6 Anger, 7 Contempt, 8 none of
them, 9 uncertain, 10 no face. -2 is a missing valence or arousal. Images of class 10 show no face
and are left out.
"""

import dataclasses
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.expression_maps import find_map
from data_pipeline.formats.layouts.layout import (
    Labels,
    Layout,
    Place,
    Rows,
    folder_below,
    of_tables,
    photos,
    readable,
    take,
)
from data_pipeline.formats.user_files import (
    WHITESPACE,
    BadRow,
    Columns,
    FaultList,
    peek,
    read_columns,
)
from data_pipeline.formats.values import CellError, check_path, to_number
from mtl_face import tasks
from mtl_face.errors import AnnotationError

HEADER = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
)
"""Columns of a list."""

_LABELS = ("expression", *tasks.VA_NAMES)
_MISSING_VA = "-2"
_NO_FACE = "10"
_NUM_POINTS = 68
_LARGEST = 4096
"""Bytes of an annotation that is one number."""

_ENDINGS = {"expression": "_exp.npy", "valence": "_val.npy", "arousal": "_aro.npy"}
_ANNOTATION = re.compile(r"(.+)_exp\.npy")


def _convert(columns: Columns, faults: FaultList, place: Place) -> Labels:
    table = {
        name: [cell.strip(WHITESPACE) for cell in cells] for name, cells in columns.cells.items()
    }
    return _labels(columns, table["subdirectory_filepath"], table, faults, place)


@dataclasses.dataclass(frozen=True, eq=False)
class Faces:
    """Faces of a list with the landmarks that it gives.

    Attributes:
        lines: line of each row in the list.
        images: paths of the images.
        labels: cells of the columns of labels.
        points_NP2: float64 [N, P, 2], x and y in pixels of the image; NaN where there are not 68.
        num_without: rows of class 10, which say that there is no face, and are left out.
    """

    lines: list[int]
    images: list[str]
    labels: dict[str, list[str]]
    points_NP2: npt.NDArray[np.float64]
    num_without: int


def read_faces(path: Path) -> Faces:
    """The faces of a list, without rows of class 10; AnnotationError for faults."""
    faults = FaultList(path)
    header = HEADER if _is_bare_list(path, peek(path)) else None
    columns = read_columns(path, lambda name: name.strip(WHITESPACE) in HEADER, faults, header)
    absent = [name for name in (HEADER[0], HEADER[5], HEADER[6]) if name not in columns.cells]
    if absent:
        raise AnnotationError(
            f"no list of AffectNet: there is no column {absent[0]}",
            path=path,
            line=1,
            remedy=f"its columns are {', '.join(HEADER)}",
        )
    plain = [_plain(cell.strip(WHITESPACE)) for cell in columns.cells["expression"]]
    rows = [row for row, label in enumerate(plain) if label != _NO_FACE]
    images = []
    for row in rows:
        try:
            images.append(check_path(columns.cells[HEADER[0]][row]))
        except CellError as error:
            faults.add(columns.lines[row], str(error), error.remedy)
    faults.raise_if_any()
    points_NP2 = np.full((len(rows), _NUM_POINTS, 2), np.nan)
    for number, row in enumerate(rows):
        numbers = columns.cells["facial_landmarks"][row].split(";")
        try:
            points_NP2[number] = np.reshape([to_number(cell) for cell in numbers], (-1, 2))
        except ValueError:  # not 68 points: they stay NaN
            continue
    return Faces(
        [columns.lines[row] for row in rows],
        images,
        {
            name: [columns.cells[name][row] for row in rows]
            for name in _LABELS
            if name in columns.cells
        },
        points_NP2,
        len(plain) - len(rows),
    )


def _labels(
    columns: Columns,
    images: list[str],
    table: dict[str, list[str]],
    faults: FaultList,
    place: Place,
) -> Labels:
    """The labels of images, without images that show no face or cannot be read."""
    labels = {name: [_plain(cell) for cell in table[name]] for name in _LABELS if name in table}
    for name in tasks.VA_NAMES:
        if name in labels:
            labels[name] = ["" if cell == _MISSING_VA else cell for cell in labels[name]]
    expression_map = place.expression_map("affectnet")
    classes = find_map(expression_map)
    numbers = labels["expression"]
    faces = [row for row, label in enumerate(numbers) if label != _NO_FACE]
    rows, unread = readable(images, faces)
    others = [row for row in rows if classes.get(numbers[row], "") is None]
    what = ", ".join(sorted({numbers[row] for row in others}))
    labels["expression"] = ["" if classes.get(label, "") is None else label for label in numbers]
    return Labels(
        faults,
        take(columns, rows, **photos(images), **labels),
        expression_map=expression_map,
        counts={
            f"rows of contempt, none or uncertain (class {what}) have no expression": len(others),
            "rows of class 10 (no face) are left out": len(numbers) - len(faces),
            **unread,
        },
    )


def _plain(number: str) -> str:
    """A number as lists write it: `-2` for `-2.0`."""
    return number.removesuffix(".0")


def _is_bare_list(path: Path, rows: Rows) -> bool:
    return bool(rows) and len(rows[0]) == len(HEADER) and ";" in rows[0][5]


def _read_list(place: Place) -> Iterator[Labels]:
    if place.path.is_dir() or not _is_bare_list(place.path, peek(place.path)):
        yield from _TABLE.read(place)
        return
    faults = place.faults(place.path)
    columns = read_columns(place.path, lambda name: name in HEADER, faults, HEADER)
    cells = {name.lower(): column for name, column in columns.cells.items()}
    yield _convert(Columns(cells, [], columns.lines), faults, place)


_TABLE = of_tables(
    "affectnet",
    "AffectNet's list",
    is_header=lambda names: {"subdirectory_filepath", "expression"} <= names,
    wanted=lambda name: name == "subdirectory_filepath" or name in _LABELS,
    convert=_convert,
)

LIST = Layout(
    "affectnet",
    "AffectNet's list",
    recognise=lambda path, rows: _TABLE.recognise(path, rows) or _is_bare_list(path, rows),
    read=_read_list,
)


def _convert_words(columns: Columns, faults: FaultList, place: Place) -> Labels:
    words = columns.cells["label"]
    rows = range(len(words))
    cells = take(columns, rows, **photos(columns.cells["pth"]), expression=words)
    return Labels(faults, cells, expression_map=place.expression_map("affectnet"))


WORDS = of_tables(
    "affectnet_words",
    "a list of AffectNet's faces by words (pth, label)",
    is_header=lambda names: {"pth", "label"} <= names,
    wanted=lambda name: name in ("pth", "label"),
    convert=_convert_words,
)


def _annotations(path: Path) -> Path:
    """The folder of annotations: the one named, or the one in it."""
    inside = path / "annotations"
    return inside if inside.is_dir() else path


def _is_folders(path: Path, rows: Rows) -> bool:
    return path.is_dir() and any(_annotations(path).glob("*_exp.npy"))


def _read_folders(place: Place) -> Iterator[Labels]:
    folder = _annotations(place.path)
    identities = sorted(
        match[1] for name in os.listdir(folder) if (match := _ANNOTATION.fullmatch(name))
    )
    pictures = folder.parent / "images"
    below = folder_below(pictures, place.image_root)
    found = {os.path.splitext(name)[0]: name for name in _listed(pictures)}
    table: dict[str, list[str]] = {name: [] for name in _ENDINGS}
    sound = []
    for identity in identities:
        try:
            numbers = [_read_number(folder / f"{identity}{end}") for end in _ENDINGS.values()]
        except AnnotationError as error:
            if place.skipped is None:
                raise
            place.skipped.append(BadRow(str(error.path), 1, error.problem))
            continue
        sound.append(identity)
        for name, number in zip(_ENDINGS, numbers, strict=True):
            table[name].append(number)
    images = [f"{below}/{found.get(name, f'{name}.jpg')}" for name in sound]
    columns = Columns({}, [], list(range(1, len(sound) + 1)))
    yield _labels(columns, images, table, place.faults(folder), place)


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # the images' absence is said where images are looked for
        return []


def _read_number(path: Path) -> str:
    """The one value of a NumPy file as text; empty where there is no file of it."""
    remedy = "unpack the annotations again"
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise AnnotationError(str(error), path=path, remedy=remedy) from error
    try:
        if len(content) > _LARGEST:
            raise ValueError("it is too large for one number")
        value = np.load(io.BytesIO(content), allow_pickle=False)
        return str(value.item()).strip()
    # A damaged header raises whatever the damage leads to.
    except (ValueError, EOFError, SyntaxError, TypeError, KeyError, AttributeError) as error:
        raise AnnotationError(
            f"no NumPy file of one number ({str(error)[:80]})", path=path, remedy=remedy
        ) from error


FOLDERS = Layout(
    "affectnet_folders", "AffectNet's folder of annotations (.npy)", _is_folders, _read_folders
)
