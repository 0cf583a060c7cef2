"""Values of the challenges' annotation files: numbers, their ranges, and the marks of missing ones.

Valence and arousal lie in [-1, 1], missing is -5. An expression is a class from 0 to 7 and an
action unit 0 or 1, missing is -1.

Dimension letters: N rows, C columns.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.text_file import WHITESPACE, FaultList
from mtl_face import tasks

MISSING_VA = -5.0
MISSING_CLASS = -1.0  # of the expression and of action units

NUMBER_REMEDY = "write numbers with a decimal point; missing is -5 (valence, arousal) or -1"

EXPRESSION = "expression"
"""Name of the expression's column in messages."""


def to_number(cell: str) -> float:
    """A number as files write it.

    Raises:
        ValueError: it is none; among these are 1_0 and digits of other scripts, which Python reads.
    """
    if "_" in cell or not cell.isascii():
        raise ValueError(cell)
    return float(cell)


def describe_text(names: Sequence[str], cells: Sequence[str]) -> str:
    """Says which of a row's cells is no number."""
    for name, cell in zip(names, cells, strict=True):
        try:
            to_number(cell)
        except ValueError:
            shown = cell.strip(WHITESPACE)[:40]
            return f"{name} is {repr(shown) if shown else 'empty'}, not a number"
    raise AssertionError("called for a row of numbers")


def check_ranges(
    names: Sequence[str],
    value_NC: npt.NDArray[np.float64],
    line_numbers: Sequence[int],
    faults: FaultList,
) -> None:
    """Adds a fault for the first value of each row that is neither in its range nor missing.

    Args:
        names: names of the columns: valence, arousal, expression, and AU... for all else.
        value_NC: float64 [N, C].
        line_numbers: line of each row, [N].
        faults: where they are added.
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
        faults.add(line_numbers[row], f"{name} is {value:g}, {allowed}", remedy)


def affect_or_nan(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Valence and arousal with NaN where missing, of the same shape."""
    return np.where(values == MISSING_VA, np.nan, values)


def units_or_nan(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Action units with NaN where missing, of the same shape."""
    return np.where(values == MISSING_CLASS, np.nan, values)


def _is_valid(name: str, value_N: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    if name in tasks.VA_NAMES:
        return (np.abs(value_N) <= 1) | (value_N == MISSING_VA)
    if name == EXPRESSION:
        return np.isin(value_N, range(-1, len(tasks.EXPRESSION_NAMES)))
    return np.isin(value_N, (MISSING_CLASS, 0, 1))
