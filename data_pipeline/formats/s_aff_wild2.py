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
import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.editions import MULTI_TASK, ONE_TASK
from data_pipeline.formats.user_files import WHITESPACE, BadRow, FaultList, read_lines
from data_pipeline.formats.values import (
    MISSING_CLASS,
    MISSING_VA,
    CellError,
    check_ranges,
    header_names,
    split_image_id,
    to_numbers,
)
from mtl_face import tables, tasks
from mtl_face.errors import AnnotationError, quoted

DATASET = "s-aff-wild2"
"""Name of the data set where nothing else names it, as in test lists and submissions."""

HEADER = MULTI_TASK.header

_VALUE_NAMES = MULTI_TASK.columns
HEADERS = (HEADER.split(","), ["image", *(name.lower() for name in _VALUE_NAMES)])
"""Headers of an annotation file in lower case: the usual five names, and all sixteen."""

_LIST_HEADERS = (
    *HEADERS,
    ["image"],
    ["image_location"],
    ["images"],
    *([name.lower() for name in form.header.split(",")] for form in ONE_TASK.values()),
)
_ROW_REMEDY = (
    "a row is image,valence,arousal,expression and the twelve action units, separated by commas"
)
_ID_REMEDY = "a test list has image ids only; read labelled rows as an annotation file"


def read_annotations(
    path: str | os.PathLike[str],
    *,
    image_root: str | os.PathLike[str],
    dataset: str = DATASET,
    skipped: list[BadRow] | None = None,
) -> tables.FrameTable:
    """Reads a training or validation annotation file; AnnotationError for faults.

    The images below `image_root` are not looked at: labels can be read where images are not.
    `skipped` is as for `FaultList`. The table is sorted; `row` is the line in the file.
    """
    faults = FaultList(path, skipped)
    lines = read_lines(path, faults)
    first = _first_line(lines)
    _check_header(lines[first], path, first + 1)
    columns, value_NC = _read_rows(faults, lines, first + 1, _VALUE_NAMES)
    va_N2, au_NA = value_NC[:, :2], value_NC[:, 3:]
    va_N2 = np.where(va_N2 == MISSING_VA, np.nan, va_N2)
    return tables.FrameTable.from_columns(
        dataset=dataset,
        root=os.fspath(image_root),
        valence=va_N2[:, 0],
        arousal=va_N2[:, 1],
        expression=value_NC[:, 2],
        au=np.where(au_NA == MISSING_CLASS, np.nan, au_NA),
        **columns,
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
    first = _first_line(lines)
    start = first + 1 if header_names(lines[first]) in _LIST_HEADERS else first
    columns, _ = _read_rows(FaultList(path), lines, start, ())
    return tables.FrameTable.from_columns(
        dataset=DATASET, root=os.fspath(image_root), sort=False, **columns
    )


def _read_rows(
    faults: FaultList, lines: list[str], start: int, names: Sequence[str]
) -> tuple[dict[str, Any], npt.NDArray[np.float64]]:
    """Rows of an image id and the named values, from `lines[start]` on; AnnotationError if none.

    Returns:
        The columns `image`, `video`, `frame` and `row` of a frame table, and float64 values [N, C].
    """
    num_columns = 1 + len(names)
    found: list[tuple[str, str, int, int]] = []
    flat_values = array.array("d")
    for line_number, line in enumerate(lines[start:], start=start + 1):
        if not line.strip(WHITESPACE):
            continue
        cells = line.split(",")
        if len(cells) != num_columns:
            whole = line.rstrip(WHITESPACE + ",")
            cells = whole.split(",") if whole else []
        if len(cells) != num_columns:
            expected, remedy = (num_columns, _ROW_REMEDY) if names else ("one image id", _ID_REMEDY)
            faults.add(line_number, f"{len(cells)} values, expected {expected}", remedy)
            continue
        try:
            image_id = split_image_id(cells[0])
            flat_values.extend(to_numbers(names, cells[1:]))
        except CellError as error:
            faults.add(line_number, str(error), error.remedy)
            continue
        found.append((*image_id, line_number))
    value_NC = np.frombuffer(flat_values, np.float64).reshape(len(found), len(names))
    sound_N = np.ones(len(found), bool)
    if names:
        line_numbers = [row for *_, row in found]
        check_ranges(names, value_NC, line_numbers, faults)
        sound_N = faults.sound_rows(line_numbers)
    else:  # no row of a list is left out
        faults.raise_if_any()
    if not found:
        what = "rows" if names else "image ids"
        raise AnnotationError(
            f"no {what} below the header", path=faults.path, line=start, remedy="download it again"
        )
    found = list(itertools.compress(found, sound_N))
    columns = zip(("image", "video", "frame", "row"), zip(*found, strict=True), strict=True)
    return dict(columns), value_NC[sound_N]


def _first_line(lines: list[str]) -> int:
    """Number of the first line that is not blank; `read_lines` refuses a file without one."""
    return next(n for n, line in enumerate(lines) if line.strip(WHITESPACE))


def _check_header(line: str, path: str | os.PathLike[str], line_number: int) -> None:
    names = header_names(line)
    if names in HEADERS:
        return
    remedy = f"the first line must read {HEADER}"
    if names == list(tasks.VA_NAMES) or "neutral" in names or names[:1] == ["au1"]:
        remedy = "this is a file of one video for one task: read its folder in that format"
    elif names[:1] == ["image_location"]:
        remedy = "this is a file of a one-task challenge: read it in that format"
    elif names and (".jp" in names[0] or ".png" in names[0]):  # none: a line of commas
        remedy = (
            f"this line is data: put the line {HEADER} above it, or use data.kind=manifest, which "
            "reads rows without a header"
        )
    elif "\t" in line or ";" in line:
        remedy += ", with commas between the names"
    raise AnnotationError(
        f"unknown header {quoted(line, 100)}", path=path, line=line_number, remedy=remedy
    )
