"""Submissions to the ABAW challenges, read back as arrays.

Dimension letters: N rows, A action units (12).
"""

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.editions import COLUMNS, Form
from data_pipeline.formats.submission_rows import Deviation, SubmittedRows, examine
from data_pipeline.formats.user_files import FaultList
from mtl_face import tasks
from mtl_face.errors import AnnotationError

__all__ = ["Deviation", "SubmissionTable", "read_submission"]


@dataclasses.dataclass(frozen=True, eq=False)
class SubmissionTable:
    """What a submission says, in the order of its rows, duplicates kept.

    Attributes:
        video: object [N] of str.
        frame: int64 [N].
        image: object [N] of str, `<video>/<frame>.jpg`.
        valence: float64 [N] as written, which may lie outside [-1, 1] if read leniently; NaN in a
            file without valence and arousal.
        arousal: as `valence`.
        expression: int64 [N] in 0..7; -1 in a file without expressions, or where a file that was
            read leniently says -1.
        au: int8 [N, A] of 0 and 1; -1 as for `expression`.
        lines: int64 [N], line of each row in its file, from 1.
        tasks: the tasks that the file holds.
        warnings: what a lenient reading overlooked, one sentence a kind.
    """

    video: npt.NDArray[np.object_]
    frame: npt.NDArray[np.int64]
    image: npt.NDArray[np.object_]
    valence: npt.NDArray[np.float64]
    arousal: npt.NDArray[np.float64]
    expression: npt.NDArray[np.int64]
    au: npt.NDArray[np.int8]
    lines: npt.NDArray[np.int64]
    tasks: tuple[str, ...]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frame)


def read_submission(path: str | os.PathLike[str], *, strict: bool = True) -> SubmissionTable:
    """Reads a submission file of any edition, or a folder of files, one a video.

    Args:
        path: the text file; for the one-task tracks of the third edition a folder of
            `<video>.txt`, or one such file.
        strict: true refuses every deviation from the form that the header names. False reads what
            can only mean one thing, and says so in `warnings`: another or no header, trailing
            commas, blanks, other separators, Windows line ends, a byte order mark, blank lines,
            classes written as `3.0`, image ids without extension, valence and arousal outside
            [-1, 1] (kept as they are), action units as scores between 0 and 1 (present from 0.5
            on), eight scores in place of an expression, -1 for an expression or action unit. It
            still refuses fields that are missing, surplus, no numbers or not finite, other
            classes, and image ids that name no video or frame.

    Returns:
        The table.

    Raises:
        AnnotationError: the file cannot be read, is no submission, or deviates; lists up to ten
            deviations with their lines.
    """
    paths = _files_of(path)
    tables = []
    deviations: list[Deviation] = []
    form: Form | None = None
    for file in paths:
        rows, found = examine(file, form)
        form = rows.form
        _refuse(file, found if strict else [note for note in found if not note.readable])
        if not rows.images:
            raise AnnotationError(
                "no rows below the header", path=file, line=1, remedy="write the file again"
            )
        deviations.extend(found)
        tables.append(rows)
    return _join(tables, _summarise(deviations))


def _files_of(path: str | os.PathLike[str]) -> Sequence[str | os.PathLike[str]]:
    if not os.path.isdir(path):
        return [path]
    files = sorted(Path(path).glob("*.txt"))
    if not files:
        raise AnnotationError(
            "the folder holds no .txt file", path=path, remedy="name the submission file itself"
        )
    return files


def _refuse(path: str | os.PathLike[str], deviations: list[Deviation]) -> None:
    faults = FaultList(path)
    for deviation in deviations:
        faults.add(
            deviation.line,
            deviation.problem,
            "mend the file; docs/submissions.md shows each form"
            + ("" if not deviation.readable else ", or read it with strict=False"),
        )
    faults.raise_if_any()


def _summarise(deviations: list[Deviation]) -> tuple[str, ...]:
    count = collections.Counter(deviation.kind for deviation in deviations)
    first: dict[str, Deviation] = {}
    for deviation in deviations:
        first.setdefault(deviation.kind, deviation)
    return tuple(
        f"{first[kind]}" + (f" ({number - 1} more of the kind)" if number > 1 else "")
        for kind, number in count.items()
    )


def _join(tables: list[SubmittedRows], warnings: tuple[str, ...]) -> SubmissionTable:
    form = tables[0].form
    value_NC = np.concatenate([rows.values for rows in tables])
    start, columns = 0, {}
    for task in form.tasks:
        columns[task] = value_NC[:, start : start + len(COLUMNS[task])]
        start += len(COLUMNS[task])
    num_rows = len(value_NC)
    va_N2 = columns.get(tasks.VA, np.full((num_rows, 2), np.nan))
    expression_N1 = columns.get(tasks.EXPR, np.full((num_rows, 1), -1.0))
    au_NA = columns.get(tasks.AU, np.full((num_rows, len(tasks.AU_NAMES)), -1.0))
    au_NA = np.where((au_NA > 0) & (au_NA < 1), au_NA >= 0.5, au_NA)
    return SubmissionTable(
        video=_texts(name for rows in tables for name in rows.videos),
        frame=np.array([frame for rows in tables for frame in rows.frames], np.int64),
        image=_texts(name for rows in tables for name in rows.images),
        valence=va_N2[:, 0].copy(),
        arousal=va_N2[:, 1].copy(),
        expression=expression_N1[:, 0].astype(np.int64),
        au=au_NA.astype(np.int8),
        lines=np.array([line for rows in tables for line in rows.lines], np.int64),
        tasks=form.tasks,
        warnings=warnings,
    )


def _texts(values: Iterable[str]) -> npt.NDArray[np.object_]:
    listed = list(values)
    column = np.empty(len(listed), dtype=object)
    column[:] = listed
    return column
