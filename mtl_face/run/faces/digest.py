"""A table of faces in a few lines: a line a face of photos, a line a person of videos."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import escaped, shortened
from mtl_face.face_table import NO_FACE, NOT_DECODED, OK, FaceTable
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

_MOST_LINES = 40
_LONGEST_NAME = 32


@dataclasses.dataclass
class _Person:
    """Sums over the rows of a person."""

    faces: int = 0
    doubtful: int = 0
    last_status: str = OK
    expressions: NDArray[np.int64] = dataclasses.field(
        default_factory=lambda: np.zeros(len(EXPRESSION_NAMES), np.int64)
    )
    probability: float = np.nan
    present: NDArray[np.int64] = dataclasses.field(
        default_factory=lambda: np.zeros(len(AU_NAMES), np.int64)
    )
    answered: int = 0
    va: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(2))


class Digest:
    """Counts rows and sums what they say; `add` takes the tables of all sources in their order."""

    def __init__(self) -> None:
        self.rows = self.faces = 0
        self.without: dict[str, dict[str, int]] = {}
        self._persons: dict[tuple[str, int], _Person] = {}
        self._frames: dict[str, int] = {}

    def add(self, table: FaceTable) -> None:
        """Takes the next rows."""
        self.rows += len(table)
        self.faces += int(table.has_face.sum())
        for source in dict.fromkeys(table.source.tolist()):
            of_source = table.frame[table.source == source]
            self._frames[source] = max(self._frames.get(source, 0), int(of_source.max()))
        for status in (NO_FACE, NOT_DECODED):
            names, counts = np.unique(table.source[table.status == status], return_counts=True)
            for source, count in zip(names.tolist(), counts.tolist(), strict=True):
                by_status = self.without.setdefault(source, {})
                by_status[status] = by_status.get(status, 0) + count
        for source, number, rows in table.persons():
            person = self._persons.setdefault((source, number), _Person())
            person.faces += len(rows)
            person.doubtful += int((table.status[rows] != OK).sum())
            person.last_status = str(table.status[rows[-1]])
            classes = table.expression[rows]
            person.expressions += np.bincount(classes[classes >= 0], minlength=8)
            person.probability = float(table.expression_probability[rows[-1]].max(initial=0))
            person.present += (table.au_present[rows] == 1).sum(axis=0)
            va_M2 = table.va[rows]
            known = ~np.isnan(va_M2).any(axis=1)
            person.answered += int(known.sum())
            person.va += va_M2[known].sum(axis=0)

    def lines(self) -> list[str]:
        """The table as text, its header first."""
        rows = []
        for source in self._frames:
            numbers = sorted(number for name, number in self._persons if name == source)
            rows += [self._row(source, number) for number in numbers]
            if not numbers:
                (status, *_) = self.without[source]
                rows.append([_shown(source), "", status, "", "", "", ""])
        return _aligned(rows)

    def _row(self, source: str, number: int) -> list[str]:
        person = self._persons[source, number]
        frames, faces = self._frames[source], person.faces
        video = frames > 1
        best = int(person.expressions.argmax())
        expression = ""
        if person.expressions[best]:
            share = person.expressions[best] / faces if video else person.probability
            expression = f"{EXPRESSION_NAMES[best]} {share:.0%}"
        units = [
            f"{name.upper()} {count / faces:.0%}" if video else name.upper()
            for name, count in zip(AU_NAMES, person.present.tolist(), strict=True)
            if count >= max(0.1 * faces, 1)
        ]
        va = [""] * 2
        if person.answered:
            va = [f"{value:+.2f}" for value in person.va / person.answered]
        note = "" if person.last_status == OK else person.last_status
        if video:
            note = f"in {faces:,} of {frames:,} frames"
            if person.doubtful:
                note += f", doubtful in {person.doubtful:,}"
        return [_shown(source), str(number), expression, *va, " ".join(units), note]


def _shown(name: str) -> str:
    text = escaped(name).replace("\n", "\\n")
    return text if len(text) <= _LONGEST_NAME else "..." + text[3 - _LONGEST_NAME :]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    header = ["source", "person", "expression", "valence", "arousal", "action units", ""]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = zip(cells, widths, strict=True)
        return "  ".join(cell.ljust(width) for cell, width in padded).rstrip()

    return [line(header), *shortened(rows, _MOST_LINES, line)]
