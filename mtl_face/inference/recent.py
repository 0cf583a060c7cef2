"""The last frames of each person, of which a causal network over time answers the newest one.

Dimension letters: F faces, W frames of a window.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mtl_face.inputs import GAPS, LONGEST_ABSENCE, LONGEST_GAP, Arrays, causal_begin


@dataclasses.dataclass
class _Person:
    """The rows of a person's present window, the first of which has the number `begin`."""

    last: int
    begin: int = 0
    gaps: list[int] = dataclasses.field(default_factory=list)
    rows: list[Arrays] = dataclasses.field(default_factory=list)

    def add(self, frame: int, row: Arrays, length: int) -> None:
        self.gaps.append(min(frame - self.last, LONGEST_GAP))
        self.rows.append(row)
        self.last = frame
        left = causal_begin(self.begin + len(self.rows) - 1, length) - self.begin
        del self.gaps[:left], self.rows[:left]
        self.begin += left
        self.gaps[0] = 0


class Recent:
    """Windows of persons as their frames come; they are those of `data_pipeline.windows`.

    It holds at most `length` rows of each person who was seen within `LONGEST_ABSENCE` frames.

    Args:
        length: frames of a window, at least 2.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._persons: dict[int, _Person] = {}

    @property
    def num_rows(self) -> int:
        """Rows that are held, of all persons."""
        return sum(len(person.rows) for person in self._persons.values())

    def windows(
        self, arrays: Mapping[str, NDArray], person_F: NDArray[np.int64], frame_F: NDArray[np.int64]
    ) -> tuple[Arrays, NDArray[np.int32]]:
        """Takes the next faces, frame after frame, and gives the window that answers each.

        Args:
            arrays: what `Predictor.read` gives, [F, ...] by name.
            person_F: number of each face's person.
            frame_F: number of its frame, later than any before of the same person.

        Returns:
            (windows, index): arrays [F, W, ...] as `mtl_face.inputs.windows` names them, and int32
            [F, W], the face where its window answers it, else -1.
        """
        count, length = len(frame_F), self._length
        index_FW = np.full((count, length), -1, np.int32)
        found = {GAPS: np.full((count, length), -1, np.int32)}
        for name, rows in arrays.items():
            found[name] = np.zeros((count, length, *rows.shape[1:]), rows.dtype)
        for face, (number, frame) in enumerate(
            zip(person_F.tolist(), frame_F.tolist(), strict=True)
        ):
            person = self._persons.get(number)
            if person is None or frame - person.last > LONGEST_ABSENCE:
                person = self._persons[number] = _Person(frame)
            person.add(frame, {name: rows[face].copy() for name, rows in arrays.items()}, length)
            size = len(person.rows)
            found[GAPS][face, :size] = person.gaps
            for name in arrays:
                found[name][face, :size] = [row[name] for row in person.rows]
            index_FW[face, size - 1] = face
        if count:
            newest = frame_F.max()
            self._persons = {
                number: person
                for number, person in self._persons.items()
                if newest - person.last <= LONGEST_ABSENCE
            }
        return found, index_FW
