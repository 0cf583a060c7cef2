"""What one value of an annotation file may be: image ids, numbers, their ranges, marks of missing.

Valence and arousal lie in [-1, 1], missing is -5. An expression is a class from 0 to 7 and an
action unit 0 or 1, missing is -1. An image id is `<video>/<frame>.jpg`.

Dimension letters: N rows, C columns.
"""

import os
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.user_files import WHITESPACE, FaultList
from mtl_face import tasks
from mtl_face.errors import exact, quoted

MISSING_VA = -5.0
MISSING_CLASS = -1.0  # of the expression and of action units

NUMBER_REMEDY = "write numbers with a decimal point; missing is -5 (valence, arousal) or -1"
ID_REMEDY = "write image ids as <video>/<frame>.jpg, for instance 341/00008.jpg"

EXPRESSION = "expression"
"""Name of the expression's column in messages."""

FRAME_FILE = re.compile(r"([0-9]{1,18})\.(?:jpg|jpeg|jpe|jfif|png|bmp)", re.IGNORECASE | re.ASCII)
"""Name of an image file that is a frame's number."""

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class CellError(ValueError):
    """What is wrong with a cell, as its text, and what helps."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


def to_number(cell: str) -> float:
    """A number as files write it; ValueError for all else, 1_0 and digits of other scripts too."""
    if "_" in cell or not cell.isascii():
        raise ValueError(cell)
    return float(cell)


def to_numbers(names: Sequence[str], cells: Sequence[str]) -> list[float]:
    """The numbers of a row; CellError, which names the first cell that is none."""
    values = []
    for name, cell in zip(names, cells, strict=True):
        try:
            values.append(to_number(cell))
        except ValueError:
            shown = cell.strip(WHITESPACE)
            problem = f"{name} is {quoted(shown, 40) if shown else 'empty'}, not a number"
            raise CellError(problem, NUMBER_REMEDY) from None
    return values


def check_ranges(
    names: Sequence[str],
    value_NC: npt.NDArray[np.float64],
    line_numbers: Sequence[int],
    faults: FaultList,
) -> None:
    """Adds a fault for the first value of each row that is neither in its range nor missing.

    Columns are named valence, arousal, expression, and AU... for all else.
    """
    valid_CN = [_is_valid(name, value_NC[:, column]) for column, name in enumerate(names)]
    valid_NC = np.stack(valid_CN, axis=1)
    for row in np.flatnonzero(~valid_NC.all(axis=1)).tolist():
        column = int(np.argmin(valid_NC[row]))
        name, value = names[column], value_NC[row, column]
        if not np.isfinite(value):
            allowed, remedy = "which is not a finite number", NUMBER_REMEDY
        elif name in tasks.VA_NAMES:
            allowed = "outside [-1, 1]"
            remedy = "valence and arousal lie in [-1, 1]; a missing one is -5"
        elif name == EXPRESSION:
            allowed = "outside the classes 0 to 7"
            remedy = "expressions are " + ", ".join(
                f"{index} {label}" for index, label in enumerate(tasks.EXPRESSION_NAMES)
            )
            remedy += "; a missing one is -1"
        else:
            allowed = "neither 0 nor 1"
            remedy = "action units are 0 (absent) or 1 (present); a missing one is -1"
        faults.add(line_numbers[row], f"{name} is {exact(value)}, {allowed}", remedy)


def header_names(line: str) -> list[str]:
    """The names in a header, in lower case, without the empty ones that trailing commas make."""
    names = [cell.strip(WHITESPACE).lower() for cell in line.split(",")]
    while names and not names[-1]:
        names.pop()
    return names


def split_image_id(text: str) -> tuple[str, str, int]:
    """Takes an image id `<video>/<frame>.<extension>` apart; CellError with its fault.

    Returns:
        The id as `check_path` returns it, the video's name with the folders that it lies in, and
        the frame number.
    """
    image = check_path(text)
    parts = image.split("/")
    if len(parts) < 2:
        raise CellError(f"image id {quoted(image)} names no video", ID_REMEDY)
    match = FRAME_FILE.fullmatch(parts[-1])
    if match is None:
        raise CellError(
            f"image id {quoted(image)} has no frame number: its file name must be digits and end "
            "in jpg, jpeg, png or bmp",
            ID_REMEDY,
        )
    return image, image[: -len(parts[-1]) - 1], int(match[1])


def check_image_path(text: str) -> str:
    """As `check_path`, of a JPEG, PNG or BMP file whose name need not be a frame number."""
    image = check_path(text)
    ending = os.path.splitext(image)[1]
    if ending.lower() not in EXTENSIONS:
        raise CellError(
            f"image {quoted(image)} does not end in jpg, jpeg, png or bmp",
            "convert images of other kinds to JPEG or PNG"
            if ending
            else "name each image by its path below the image folder, with the file's ending",
        )
    return image


def check_path(text: str) -> str:
    """A path with forward slashes, without blanks around it, empty parts and `.`.

    CellError if it does not stay below the folder that it is joined to.
    """
    image = text.strip(WHITESPACE)
    if _CONTROL.search(image):
        raise CellError(
            f"image id {quoted(image)} holds a control character", "rename the file or its folder"
        )
    image = image.replace("\\", "/")
    if image.startswith("/") or image[1:3] == ":/":
        raise CellError(
            f"image id {quoted(image)} is an absolute path", "write paths below the image folder"
        )
    parts = image.split("/")
    if ".." in parts:
        raise CellError(
            f"image id {quoted(image)} leaves the image folder",
            "write paths below the image folder, without ..",
        )
    return "/".join(part for part in parts if part not in ("", "."))


def _is_valid(name: str, value_N: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    if name in tasks.VA_NAMES:
        return (np.abs(value_N) <= 1) | (value_N == MISSING_VA)
    if name == EXPRESSION:
        return np.isin(value_N, range(-1, len(tasks.EXPRESSION_NAMES)))
    return np.isin(value_N, (MISSING_CLASS, 0, 1))
