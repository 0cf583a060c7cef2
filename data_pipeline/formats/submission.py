"""Reading submissions to the ABAW challenges, and noting everything in which they depart from form.

One reading serves three purposes: the validator lists all deviations, the strict reader refuses
the file for any of them, and the lenient one only for those that leave open what is meant.

Dimension letters: N rows, C values of a row.
"""

import array
import collections
import dataclasses
import math
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.editions import COLUMNS, FORMS, Form
from data_pipeline.formats.s_aff_wild2 import DATASET
from data_pipeline.formats.user_files import WHITESPACE, FaultList, read_bytes, text_files, to_text
from data_pipeline.formats.values import (
    ID_REMEDY,
    CellError,
    header_names,
    split_image_id,
    to_number,
)
from mtl_face import tasks
from mtl_face.errors import AnnotationError, quoted
from mtl_face.tables import PredictionTable

_LONGEST_NUMBER = 40  # characters of a number that a message shows
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


Note = Callable[..., None]
"""Notes a deviation: its line, kind, problem and whether the line is readable."""


class Place(NamedTuple):
    """What a row is about: its line, its image id as written and as meant, its video and frame."""

    line: int
    written: str
    image: str
    video: str
    frame: int


@dataclasses.dataclass(frozen=True, eq=False)
class Examined:
    """One file as read.

    Attributes:
        form: its columns.
        places: of every row whose image id can be read, whatever its values are.
        readable: numbers of the places whose values can be read, [N].
        values: float64 [N, C], in the order of `form.columns`, as written.
        deviations: where it departs from its form, by line.
        line_count: lines in the file, the last one without an end included.
    """

    form: Form
    places: list[Place]
    readable: list[int]
    values: npt.NDArray[np.float64]
    deviations: list[Deviation]
    line_count: int


def read_submission(
    path: str | os.PathLike[str], *, strict: bool = True
) -> tuple[PredictionTable, tuple[str, ...]]:
    """Reads a submission file of any edition, or a folder of files `<video>.txt` of the third.

    A strict reading refuses every deviation from the form that the header names. A lenient one
    reads what can only mean one thing, and says so: another or no header, trailing commas, blanks,
    other separators, Windows line ends, a byte order mark, blank lines, classes written as `3.0`,
    image ids without extension, valence and arousal outside [-1, 1] (kept as they are), action
    units as scores between 0 and 1 (present from 0.5 on), eight scores in place of an expression,
    -1 for an expression or action unit. It still refuses fields that are missing, surplus, no
    numbers or not finite, other classes, and image ids that name no video or frame.

    Returns:
        The decisions in the order of the rows, duplicates kept, and what a lenient reading
        overlooked, one sentence a kind.

    Raises:
        AnnotationError: the file cannot be read, is no submission, or deviates; lists up to ten
            deviations with their lines.
    """
    files: list[Examined] = []
    deviations: list[Deviation] = []
    found = [path]
    if os.path.isdir(path):
        found = [*text_files(path, remedy="name the submission file itself")]
    for file in found:
        examined = examine(file, files[0].form if files else None)
        noted = examined.deviations
        _refuse(file, noted if strict else [note for note in noted if not note.readable])
        if not examined.readable:
            raise AnnotationError(
                "no rows below the header", path=file, line=1, remedy="write the file again"
            )
        deviations.extend(noted)
        files.append(examined)
    return _table(files), _summarise(deviations)


def _refuse(path: str | os.PathLike[str], deviations: list[Deviation]) -> None:
    faults = FaultList(path)
    for deviation in deviations:
        remedy = "correct the file; docs/submissions.md shows each form"
        if deviation.readable:
            remedy += ", or read it leniently (--lenient)"
        faults.add(deviation.line, deviation.problem, remedy)
    faults.raise_if_any()


def _summarise(deviations: list[Deviation]) -> tuple[str, ...]:
    of_kind: dict[str, list[Deviation]] = collections.defaultdict(list)
    for deviation in deviations:
        of_kind[deviation.kind].append(deviation)
    return tuple(
        str(found[0]) + (f" ({len(found) - 1} more of the kind)" if len(found) > 1 else "")
        for found in of_kind.values()
    )


def _table(files: list[Examined]) -> PredictionTable:
    """The rows of files of one form."""
    places = [file.places[i] for file in files for i in file.readable]
    value_NC = np.concatenate([file.values for file in files])
    columns: dict[str, Any] = {name: np.full(len(places), np.nan) for name in tasks.VA_NAMES}
    start = 0
    for task in files[0].form.tasks:
        part_NC = value_NC[:, start : start + len(COLUMNS[task])]
        start += len(COLUMNS[task])
        if task == tasks.VA:
            columns |= dict(zip(tasks.VA_NAMES, part_NC.T, strict=True))
        elif task == tasks.AU:
            score_NC = (part_NC > 0) & (part_NC < 1)
            columns["au_decisions"] = np.where(score_NC, part_NC >= 0.5, part_NC)
        else:
            columns["expression_decisions"] = part_NC[:, 0]
    return PredictionTable(
        dataset=np.full(len(places), DATASET),
        video=np.array([place.video for place in places], np.str_),
        frame=np.array([place.frame for place in places], np.int64),
        image=np.array([place.image for place in places], np.str_),
        **columns,
    )


def examine(path: str | os.PathLike[str], form: Form | None) -> Examined:
    """Reads a file and notes its deviations from `form`.

    None takes the form that its header or the number of its fields says. AnnotationError if the
    file cannot be read as text, is empty, or (without `form`) is no submission of any form.
    """
    content = read_bytes(path)
    lines = to_text(content, path).split("\n")
    deviations: list[Deviation] = []

    def note(line: int, kind: str, problem: str, readable: bool = False) -> None:
        deviations.append(Deviation(os.fspath(path), line, kind, problem, readable))

    if content.startswith(b"\xef\xbb\xbf"):
        note(1, "encoding", "a byte order mark stands before the header", readable=True)
    if b"\r" in content:
        note(1, "line ends", "lines end in a carriage return, not in a line feed alone", True)
    if lines[-1] == "":
        lines.pop()
    first = next((n for n, line in enumerate(lines) if line.strip(WHITESPACE)), 0)
    named = _form_of_header(lines[first])
    if form is None:
        form = named or _form_of_row(lines[first], path, first + 1)
    start = first + 1 if _is_header(lines[first]) else first
    if start == first:
        note(first + 1, "header", f"the header is missing, expected {form.header}", True)
    elif lines[first] != form.header:
        # Two names for one thing are readable; the columns of another form are not.
        note(
            first + 1,
            "header",
            f"the header is {quoted(lines[first], 120)}, expected {form.header}",
            named == form,
        )
    for blank in range(first):
        note(blank + 1, "blank line", "a blank line", readable=True)
    places, readable, values = _read_rows(path, lines, start, form, note)
    deviations.sort(key=lambda deviation: deviation.line)
    return Examined(form, places, readable, values, deviations, len(lines))


def _read_rows(
    path: str | os.PathLike[str], lines: list[str], start: int, form: Form, note: Note
) -> tuple[list[Place], list[int], npt.NDArray[np.float64]]:
    """`places`, `readable` and `values` of `Examined`."""
    places: list[Place] = []
    readable: list[int] = []
    flat = array.array("d")
    video = os.path.splitext(os.path.basename(path))[0]
    frame = 0
    for number, line in enumerate(lines[start:], start=start + 1):
        if not line.strip(WHITESPACE):
            note(number, "blank line", "a blank line", readable=True)
            continue
        frame += 1  # in a file without image ids, whatever the line turns out to be
        cells = _split(line, number, form, note)
        image = f"{video}/{frame:05d}.jpg"
        place: Place | None = Place(number, image, image, video, frame)
        if form.image_column:
            written = line.split(",")[0].strip(WHITESPACE) if cells is None else cells.pop(0)
            place = _image_id(written, number, note)
        if place is None:
            continue
        places.append(place)
        values = None if cells is None else _values(cells, number, form, note)
        if values is not None:
            readable.append(len(places) - 1)
            flat.extend(values)
    return places, readable, np.frombuffer(flat, np.float64).reshape(-1, len(form.columns)).copy()


def _split(line: str, number: int, form: Form, note: Note) -> list[str] | None:
    """The fields of a line, without blanks around them, or None if their number is wrong."""
    cells = line.split(",")
    if len(cells) == 1 and form.num_fields > 1:
        for separator in ("\t", ";"):
            if separator in line:
                note(number, "separator", f"{separator!r} between values, not a comma", True)
                cells = line.split(separator)
                break
    stripped = [cell.strip(WHITESPACE) for cell in cells]
    if stripped != cells:
        note(number, "blanks", "blanks around a value", readable=True)
    count = len(stripped)
    while count > 1 and not stripped[count - 1]:
        count -= 1
    trailing = len(stripped) - count
    if trailing and count <= form.num_fields:
        commas = "a trailing comma" if trailing == 1 else f"{trailing} trailing commas"
        note(number, "trailing comma", commas, readable=count == form.num_fields)
        stripped = stripped[:count]
    if len(stripped) == form.num_fields:
        return stripped
    if form.tasks == (tasks.EXPR,) and len(stripped) == form.num_fields + len(_CLASSES) - 1:
        return _largest_class(stripped, number, form, note)
    note(number, "fields", f"{len(stripped)} fields, expected {form.num_fields}")
    return None


def _largest_class(cells: list[str], number: int, form: Form, note: Note) -> list[str] | None:
    """A row of eight scores, as the header of an expression file invites, as a row of one class."""
    scores = [_number(cell) for cell in cells[form.image_column :]]
    if any(score is None or not math.isfinite(score) for score in scores):
        note(number, "fields", f"{len(cells)} fields, expected {form.num_fields}")
        return None
    note(number, "fields", "eight scores, expected the number of one class", readable=True)
    best = int(np.argmax(np.array(scores, dtype=np.float64)))
    return [*cells[: form.image_column], str(best)]


def _image_id(cell: str, number: int, note: Note) -> Place | None:
    """What the image id of a row names, or None if the cell holds none."""
    try:
        image, video, frame = split_image_id(cell)
    except CellError as error:
        try:
            image, video, frame = split_image_id(cell + ".jpg")
        except CellError:
            note(number, "image id", f"{error}: {ID_REMEDY}")
            return None
    if image != cell:
        note(
            number, "image id", f"image id {quoted(cell)}, expected {quoted(image)}", readable=True
        )
    return Place(number, cell, image, video, frame)


def _values(cells: list[str], number: int, form: Form, note: Note) -> list[float] | None:
    """The values of a row, or None if one of them says nothing."""
    values = []
    sound = True
    for name, cell in zip(form.columns, cells, strict=True):
        value = _number(cell)
        if value is None:
            shown = quoted(cell, 40) if cell else "empty"
            note(number, "number", f"{name} is {shown}, not a number")
            sound = False
            continue
        values.append(value)
        sound &= _says_something(name, cell, value, number, note)
    return values if sound else None


def _says_something(name: str, cell: str, value: float, number: int, note: Note) -> bool:
    """Whether it is clear what a value means; notes what is wrong with it."""
    shown = cell if len(cell) <= _LONGEST_NUMBER else f"{cell[:_LONGEST_NUMBER]}..."
    if not math.isfinite(value):
        note(number, "not finite", f"{name} is {shown}, not a finite number")
        return False
    if name in tasks.VA_NAMES:
        if not -1.0 <= value <= 1.0:
            note(number, "range", f"{name} is {shown}, outside [-1, 1]", readable=True)
        return True
    is_expression = name == "expression"
    allowed = _CLASSES if is_expression else _BINARY
    if cell in allowed:
        return True
    if value == -1:
        note(number, "range", f"{name} is {shown}, the mark of a missing label", readable=True)
        return True
    if value in range(len(allowed)):
        note(number, "spelling", f"{name} is {shown}, write {int(value)}", readable=True)
        return True
    is_score = not is_expression and 0.0 < value < 1.0
    expected = "a class from 0 to 7" if is_expression else "0 or 1"
    note(number, "range", f"{name} is {shown}, expected {expected}", readable=is_score)
    return is_score


def _number(cell: str) -> float | None:
    """The number that a field holds, or None."""
    try:
        return to_number(cell)
    except ValueError:
        return None


def _names(line: str) -> list[str]:
    return header_names(line.replace("\t", ","))


def _is_header(line: str) -> bool:
    """Whether a first line holds names: its last field is a word."""
    names = _names(line)
    return bool(names) and _number(names[-1]) is None and "/" not in names[0]


def _form_of_header(line: str) -> Form | None:
    names = _names(line)
    return next((form for form in FORMS if names in _spellings(form)), None)


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
        f"{quoted(line, 120)} is neither the header nor a row of a submission",
        path=path,
        line=number,
        remedy=f"a multi-task file starts with {FORMS[0].header}; docs/submissions.md shows all",
    )
