"""Annotation files and test lists of s-Aff-Wild2 (the ABAW multi-task challenges).

An annotation file has the header `image,valence,arousal,expression,aus` (five names) over rows of
sixteen values: `<video>/<frame>.jpg`, valence, arousal, expression, and AU 1, 2, 4, 6, 7, 10, 12,
15, 23, 24, 25, 26. Missing is -5 for valence and arousal, -1 for the expression and for action
units. A header with all sixteen names is read as well.

Accepted without remark, because files in circulation have them: trailing commas, Windows line
ends, a byte order mark, blank lines, blanks around values, integers written as `1.0`, backslashes
in paths. Frames without a file number, unknown columns and values out of range are refused, with
the line and up to ten faults in one message.

If only one of valence and arousal is -5, only that one becomes missing in the table; the row then
has no weight for the valence/arousal task, which needs both.
"""

import array
import os

import numpy as np

from data_pipeline.formats.editions import MULTI_TASK, ONE_TASK
from data_pipeline.formats.user_files import WHITESPACE, FaultList, read_lines
from data_pipeline.formats.values import (
    ID_REMEDY,
    MISSING_CLASS,
    MISSING_VA,
    NUMBER_REMEDY,
    check_ranges,
    header_names,
    split_image_id,
    to_numbers,
)
from mtl_face import tables, tasks
from mtl_face.errors import AnnotationError

DATASET = "s-aff-wild2"
"""Name of the data set where nothing else names it, as in test lists and submissions."""

HEADER = MULTI_TASK.header

_VALUE_NAMES = MULTI_TASK.columns
_NUM_COLUMNS = 1 + len(_VALUE_NAMES)
_HEADERS = (HEADER.split(","), ["image", *(name.lower() for name in _VALUE_NAMES)])
_LIST_HEADERS = (
    *_HEADERS,
    ["image"],
    ["image_location"],
    ["images"],
    *([name.lower() for name in form.header.split(",")] for form in ONE_TASK.values()),
)
_COLUMNS_REMEDY = (
    "a row is image,valence,arousal,expression and the twelve action units, separated by commas"
)


def read_annotations(
    path: str | os.PathLike[str], *, image_root: str | os.PathLike[str], dataset: str = DATASET
) -> tables.FrameTable:
    """Reads a training or validation annotation file.

    The images below `image_root` are not looked at: labels can be read where images are not.

    Returns:
        The sorted frame table; `row` is the line in the file.

    Raises:
        AnnotationError: the file cannot be read or has faults; names path, line and remedy.
    """
    lines = read_lines(path)
    first = _first_line(lines, path)
    _check_header(lines[first], path, first + 1)

    faults = FaultList(path)
    found: list[tuple[str, str, int]] = []
    line_numbers: list[int] = []
    flat_values = array.array("d")
    for line_number, line in enumerate(lines[first + 1 :], start=first + 2):
        if not line.strip(WHITESPACE):
            continue
        cells = line.split(",")
        if len(cells) != _NUM_COLUMNS:
            cells = _drop_trailing(cells)
        if len(cells) != _NUM_COLUMNS:
            faults.add(
                line_number, f"{len(cells)} values, expected {_NUM_COLUMNS}", _COLUMNS_REMEDY
            )
            continue
        try:
            image_id = split_image_id(cells[0])
        except ValueError as error:
            faults.add(line_number, str(error), ID_REMEDY)
            continue
        try:
            values = to_numbers(_VALUE_NAMES, cells[1:])
        except ValueError as error:
            faults.add(line_number, str(error), NUMBER_REMEDY)
            continue
        found.append(image_id)
        line_numbers.append(line_number)
        flat_values.extend(values)

    value_NC = np.frombuffer(flat_values, np.float64).reshape(-1, len(_VALUE_NAMES))
    check_ranges(_VALUE_NAMES, value_NC, line_numbers, faults)
    faults.raise_if_any()
    if not found:
        raise AnnotationError(
            "no rows below the header", path=path, line=first + 1, remedy="download it again"
        )
    images, videos, numbers = zip(*found, strict=True)
    va_N2, au_NA = value_NC[:, :2], value_NC[:, 3:]
    va_N2 = np.where(va_N2 == MISSING_VA, np.nan, va_N2)
    return tables.FrameTable.from_columns(
        dataset=dataset,
        video=videos,
        frame=numbers,
        image=images,
        root=os.fspath(image_root),
        valence=va_N2[:, 0],
        arousal=va_N2[:, 1],
        expression=value_NC[:, 2],
        au=np.where(au_NA == MISSING_CLASS, np.nan, au_NA),
        row=line_numbers,
    )


def read_test_list(
    path: str | os.PathLike[str], *, image_root: str | os.PathLike[str]
) -> tables.FrameTable:
    """Reads a test list: one image id a line, with or without a header and trailing commas.

    Returns:
        A table without labels, in the order of the list with its duplicates: the order that a
        submission must have. It is not sorted.

    Raises:
        AnnotationError: the file cannot be read or has faults; names path, line and remedy.
    """
    lines = read_lines(path)
    first = _first_line(lines, path)
    start = first + 1 if header_names(lines[first]) in _LIST_HEADERS else first
    faults = FaultList(path)
    found: list[tuple[str, str, int]] = []
    line_numbers: list[int] = []
    for line_number, line in enumerate(lines[start:], start=start + 1):
        if not line.strip(WHITESPACE):
            continue
        cells = _drop_trailing(line.split(","))
        if len(cells) != 1:
            faults.add(
                line_number,
                f"{len(cells)} values, expected one image id",
                "a test list has image ids only; read labelled rows as an annotation file",
            )
            continue
        try:
            found.append(split_image_id(cells[0]))
            line_numbers.append(line_number)
        except ValueError as error:
            faults.add(line_number, str(error), ID_REMEDY)
    faults.raise_if_any()
    if not found:
        raise AnnotationError(
            "no image ids below the header", path=path, line=first + 1, remedy="download it again"
        )
    images, videos, numbers = zip(*found, strict=True)
    return tables.FrameTable.from_columns(
        dataset=DATASET,
        video=videos,
        frame=numbers,
        image=images,
        root=os.fspath(image_root),
        row=line_numbers,
        sort=False,
    )


def _first_line(lines: list[str], path: str | os.PathLike[str]) -> int:
    for position, line in enumerate(lines):
        if line.strip(WHITESPACE):
            return position
    raise AnnotationError("the file is empty", path=path, line=1, remedy="download it again")


def _check_header(line: str, path: str | os.PathLike[str], line_number: int) -> None:
    names = header_names(line)
    if names in _HEADERS:
        return
    remedy = f"the first line must read {HEADER}"
    if names == list(tasks.VA_NAMES) or "neutral" in names or names[:1] == ["au1"]:
        remedy = "this is a file of one video for one task: read its folder in that format"
    elif names[:1] == ["image_location"]:
        remedy = "this is a file of a one-task challenge: read it in that format"
    elif names and (".jp" in names[0] or ".png" in names[0]):  # none: a line of commas
        remedy = f"this line is data: put the line {HEADER} above it"
    elif "\t" in line or ";" in line:
        remedy += ", with commas between the names"
    raise AnnotationError(
        f"unknown header {line[:100]!r}", path=path, line=line_number, remedy=remedy
    )


def _drop_trailing(cells: list[str]) -> list[str]:
    """Without the empty cells that trailing commas make."""
    end = len(cells)
    while end and not cells[end - 1].strip(WHITESPACE):
        end -= 1
    return cells[:end]
