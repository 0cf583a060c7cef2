"""The learning curves: one JSON object a line, in step order, safe against sudden death."""

import json
import os
from pathlib import Path
from typing import Any


class History:
    """Rows of numbers by step, kept in `history.jsonl`.

    A run that goes on from an older step drops the rows past it, so that the file never holds two
    rows of one step.
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        """Opens the file and forgets rows past `after_step`.

        Args:
            path: the file; made if absent.
            after_step: the step that the run goes on from.
        """
        self._path = path
        self.rows = [row for row in read(path) if row["step"] <= after_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        os.replace(temporary, path)

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row; `row["step"]` is the number of steps taken."""
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a history file; none if it is absent. A last line cut short by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise
    return rows
