"""Reading a submission file row by row, and noting everything in which it departs from its form.

One reading serves three purposes: the validator lists all deviations, the strict reader refuses
the file for any of them, and the lenient one only for those that leave open what is meant.

Dimension letters: N rows, C values of a row.
"""

import array
import dataclasses
import math
import os
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.editions import FORMS, Form
from data_pipeline.formats.user_files import WHITESPACE, read_bytes, to_text
from data_pipeline.formats.values import ID_REMEDY, split_image_id, to_number
from mtl_face import tasks
from mtl_face.errors import AnnotationError

_BINARY = ("0", "1")
_CLASSES = tuple(str(index) for index in range(len(tasks.EXPRESSION_NAMES)))


@dataclasses.dataclass(frozen=True)
class Deviation:
    """One way in which a file is not what it should be.

    Attributes:
        path: the file.
        line: line in it, from 1.
        kind: one or two words, to count by.
        problem: what is wrong.
        readable: whether it is clear all the same what the line says.
    """

    path: str
    line: int
    kind: str
    problem: str
    readable: bool = False

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.problem}"


Place = tuple[int, str, str, int]


@dataclasses.dataclass(frozen=True, eq=False)
class SubmittedRows:
    """The rows of one file that could be read.

    Attributes:
        form: the columns.
        images: image ids, [N].
        videos: name of the video of each row, [N].
        frames: frame numbers, [N].
        values: float64 [N, C], in the order of `form.columns`, as written.
        lines: line of each row, [N].
        places: (line, image id as written, video, frame) of every row whose image id can be read,
            whatever its values are.
        line_count: lines in the file, the last one without an end included.
    """

    form: Form
    images: list[str]
    videos: list[str]
    frames: list[int]
    values: npt.NDArray[np.float64]
    lines: list[int]
    places: list[Place]
    line_count: int


def examine(
    path: str | os.PathLike[str], form: Form | None
) -> tuple[SubmittedRows, list[Deviation]]:
    """Reads a file and notes its deviations.

    Args:
        path: the text file.
        form: what it should be; None: what its header or the number of its fields says.

    Returns:
        The rows that can be read, and the deviations, by line.

    Raises:
        AnnotationError: the file cannot be read as text, is empty, or (without `form`) is no
            submission of any form.
    """
    content = read_bytes(path)
    lines = to_text(content, path).split("\n")
    notes = _Notes(path)
    if content.startswith(b"\xef\xbb\xbf"):
        notes.add(1, "encoding", "a byte order mark stands before the header", readable=True)
    if b"\r" in content:
        notes.add(1, "line ends", "lines end in a carriage return, not in a line feed alone", True)
    if lines[-1] == "":
        lines.pop()
    first = next((n for n, line in enumerate(lines) if line.strip(WHITESPACE)), 0)
    named = _form_of_header(lines[first])
    if form is None:
        form = named or _form_of_row(lines[first], path, first + 1)
    start = first + 1 if _is_header(lines[first]) else first
    if start == first:
        notes.add(first + 1, "header", f"the header is missing, expected {form.header}", True)
    elif lines[first] != form.header:
        shown = lines[first][:120]
        # Two names for one thing are readable; the columns of another form are not.
        notes.add(
            first + 1, "header", f"the header is {shown!r}, expected {form.header}", named == form
        )
    for blank in range(first):
        notes.add(blank + 1, "blank line", "a blank line", readable=True)
    return _read_rows(path, lines, start, form, notes), notes.sorted()


class _Notes:
    """The deviations of one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._found: list[Deviation] = []

    def add(self, line: int, kind: str, problem: str, readable: bool = False) -> None:
        self._found.append(Deviation(self._path, line, kind, problem, readable))

    def sorted(self) -> list[Deviation]:
        return sorted(self._found, key=lambda deviation: deviation.line)


def _read_rows(
    path: str | os.PathLike[str], lines: list[str], start: int, form: Form, notes: _Notes
) -> SubmittedRows:
    images: list[str] = []
    videos: list[str] = []
    frames: list[int] = []
    numbers: list[int] = []
    flat = array.array("d")
    video = os.path.splitext(os.path.basename(path))[0]
    frame = 0
    places: list[Place] = []
    for number, line in enumerate(lines[start:], start=start + 1):
        if not line.strip(WHITESPACE):
            notes.add(number, "blank line", "a blank line", readable=True)
            continue
        frame += 1  # in a file without image ids, whatever the line turns out to be
        cells = _split(line, number, form, notes)
        place: tuple[str, str, int] | None = (f"{video}/{frame:05d}.jpg", video, frame)
        if form.image_column:
            written = line.split(",")[0].strip(WHITESPACE) if cells is None else cells.pop(0)
            place = _image_id(written, number, notes)
        if place is None:
            continue
        places.append((number, written if form.image_column else place[0], *place[1:]))
        values = None if cells is None else _values(cells, number, form, notes)
        if values is None:
            continue
        images.append(place[0])
        videos.append(place[1])
        frames.append(place[2])
        numbers.append(number)
        flat.extend(values)
    value_NC = np.frombuffer(flat, np.float64).reshape(-1, len(form.columns)).copy()
    return SubmittedRows(form, images, videos, frames, value_NC, numbers, places, len(lines))


def _split(line: str, number: int, form: Form, notes: _Notes) -> list[str] | None:
    """The fields of a line, without blanks around them, or None if their number is wrong."""
    cells = line.split(",")
    if len(cells) == 1 and form.num_fields > 1:
        for separator in ("\t", ";"):
            if separator in line:
                notes.add(number, "separator", f"{separator!r} between values, not a comma", True)
                cells = line.split(separator)
                break
    stripped = [cell.strip(WHITESPACE) for cell in cells]
    if stripped != cells:
        notes.add(number, "blanks", "blanks around a value", readable=True)
    count = len(stripped)
    while count > 1 and not stripped[count - 1]:
        count -= 1
    trailing = len(stripped) - count
    if trailing and count <= form.num_fields:
        commas = "a trailing comma" if trailing == 1 else f"{trailing} trailing commas"
        notes.add(number, "trailing comma", commas, readable=count == form.num_fields)
        stripped = stripped[:count]
    if len(stripped) == form.num_fields:
        return stripped
    if form.tasks == (tasks.EXPR,) and len(stripped) == form.num_fields + len(_CLASSES) - 1:
        return _largest_class(stripped, number, form, notes)
    notes.add(number, "fields", f"{len(stripped)} fields, expected {form.num_fields}")
    return None


def _largest_class(cells: list[str], number: int, form: Form, notes: _Notes) -> list[str] | None:
    """A row of eight scores, as the header of an expression file invites, as a row of one class."""
    scores = [_number(cell) for cell in cells[form.image_column :]]
    if any(score is None or not math.isfinite(score) for score in scores):
        notes.add(number, "fields", f"{len(cells)} fields, expected {form.num_fields}")
        return None
    notes.add(number, "fields", "eight scores, expected the number of one class", readable=True)
    best = int(np.argmax(np.array(scores, dtype=np.float64)))
    return [*cells[: form.image_column], str(best)]


def _image_id(cell: str, number: int, notes: _Notes) -> tuple[str, str, int] | None:
    """Image id, video and frame, or None if the cell holds none."""
    try:
        place = split_image_id(cell)
    except ValueError as error:
        try:
            place = split_image_id(cell + ".jpg")
        except ValueError:
            notes.add(number, "image id", f"{error}: {ID_REMEDY}")
            return None
    if place[0] != cell:
        notes.add(number, "image id", f"image id {cell!r}, expected {place[0]}", readable=True)
    return place


def _values(cells: list[str], number: int, form: Form, notes: _Notes) -> list[float] | None:
    """The values of a row, or None if one of them says nothing."""
    values = []
    sound = True
    for name, cell in zip(form.columns, cells, strict=True):
        value = _number(cell)
        if value is None:
            shown = repr(cell[:40]) if cell else "empty"
            notes.add(number, "number", f"{name} is {shown}, not a number")
            sound = False
            continue
        values.append(value)
        if name in tasks.VA_NAMES:
            sound &= _check_affect(name, cell, value, number, notes)
        else:
            sound &= _check_class(name, cell, value, number, notes)
    return values if sound else None


def _check_affect(name: str, cell: str, value: float, number: int, notes: _Notes) -> bool:
    if not math.isfinite(value):
        notes.add(number, "not finite", f"{name} is {cell}, not a finite number")
        return False
    if not -1.0 <= value <= 1.0:
        notes.add(number, "range", f"{name} is {cell}, outside [-1, 1]", readable=True)
    return True


def _check_class(name: str, cell: str, value: float, number: int, notes: _Notes) -> bool:
    """Checks an expression or an action unit."""
    is_expression = name == "expression"
    allowed = _CLASSES if is_expression else _BINARY
    if cell in allowed:
        return True
    expected = "a class from 0 to 7" if is_expression else "0 or 1"
    if not math.isfinite(value):
        notes.add(number, "not finite", f"{name} is {cell}, not a finite number")
        return False
    if value == -1:
        notes.add(number, "range", f"{name} is {cell}, the mark of a missing label", readable=True)
        return True
    if value in range(len(allowed)):
        notes.add(number, "spelling", f"{name} is {cell}, write {int(value)}", readable=True)
        return True
    is_score = not is_expression and 0.0 < value < 1.0
    notes.add(number, "range", f"{name} is {cell}, expected {expected}", readable=is_score)
    return is_score


def _number(cell: str) -> float | None:
    """The number that a field holds, or None."""
    try:
        return to_number(cell)
    except ValueError:
        return None


def _names(line: str) -> list[str]:
    cells = [cell.strip(WHITESPACE).lower() for cell in line.replace("\t", ",").split(",")]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _is_header(line: str) -> bool:
    """Whether a first line holds names: its last field is a word."""
    names = _names(line)
    return bool(names) and _number(names[-1]) is None and "/" not in names[0]


def _form_of_header(line: str) -> Form | None:
    names = _names(line)
    for form in FORMS:
        if names in _spellings(form):
            return form
    return None


def _spellings(form: Form) -> Iterable[list[str]]:
    """Lists of names that say what `form.header` says."""
    headers = [_names(form.header), [*_names(form.header)[: form.image_column], *form.columns]]
    for names in headers:
        lowered = [name.lower() for name in names]
        if form.image_column:
            for word in ("image", "image_location", "images", "image_id", "path"):
                yield [word, *lowered[1:]]
        else:
            yield lowered


def _form_of_row(line: str, path: str | os.PathLike[str], number: int) -> Form:
    """The form of a file without a header that says it."""
    cells = _names(line)
    image_column = bool(cells) and "/" in cells[0]
    for form in FORMS:
        if form.image_column == image_column and form.num_fields == len(cells):
            return form
    raise AnnotationError(
        f"{line[:120]!r} is neither the header nor a row of a submission",
        path=path,
        line=number,
        remedy=f"a multi-task file starts with {FORMS[0].header}; docs/submissions.md shows all",
    )
