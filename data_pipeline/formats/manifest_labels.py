"""Labels of a manifest: from cells of text to numbers in this project's ranges.

Dimension letters: N rows.
"""

import collections
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.expression_maps import ExpressionMap
from data_pipeline.formats.label_values import to_number
from data_pipeline.formats.manifest_columns import Columns
from data_pipeline.formats.text_file import WHITESPACE, FaultList
from mtl_face import tasks

_MISSING_WORDS = frozenset(("", "nan", "na", "n/a", "none", "null"))


def _numbers(
    columns: Columns, column: str, name: str, faults: FaultList
) -> npt.NDArray[np.float64]:
    """The column as numbers, NaN where empty."""
    value_N = np.full(len(columns.lines), np.nan)
    for row, cell in enumerate(columns.cells[column]):
        text = cell.strip(WHITESPACE)
        if text.lower() in _MISSING_WORDS:
            continue
        try:
            value_N[row] = to_number(text)
        except ValueError:
            faults.add(
                columns.lines[row],
                f"{name} is {text[:40]!r}, not a number",
                "write numbers with a decimal point; leave the cell of a missing label empty",
            )
    return value_N


def affect(
    columns: Columns,
    column: str | None,
    name: str,
    va_range: tuple[float, float],
    missing: frozenset[float],
    faults: FaultList,
) -> npt.NDArray[np.float64]:
    """Valence or arousal, float64 [N] in [-1, 1], NaN where missing; see `read_manifest`."""
    if column is None:
        return np.full(len(columns.lines), np.nan)
    low, high = va_range
    value_N = _numbers(columns, column, name, faults)
    outside_N = (value_N < low) | (value_N > high)
    value_N[outside_N & np.isin(value_N, list(missing))] = np.nan
    for row in np.flatnonzero((value_N < low) | (value_N > high)).tolist():
        faults.add(
            columns.lines[row],
            f"{name} is {value_N[row]:g}, outside [{low:g}, {high:g}]",
            "set data.manifest.va_range to the scale of the file, or data.manifest.missing_values "
            "to the numbers that mark a missing label",
        )
    # Scaling may round past the ends by one bit.
    return np.clip((value_N - low) / (high - low) * 2 - 1, -1.0, 1.0)


def action_units(
    columns: Columns,
    column: str | None,
    name: str,
    threshold: float | None,
    missing: frozenset[float],
    faults: FaultList,
) -> npt.NDArray[np.float64]:
    """One action unit, float64 [N] of 0 and 1, NaN where missing; see `read_manifest`."""
    if column is None:
        return np.full(len(columns.lines), np.nan)
    value_N = _numbers(columns, column, name, faults)
    valid_N = np.isin(value_N, (0, 1)) if threshold is None else (value_N >= 0) & (value_N <= 5)
    value_N[~valid_N & np.isin(value_N, list(missing))] = np.nan
    for row in np.flatnonzero(~valid_N & ~np.isnan(value_N)).tolist():
        if threshold is None:
            problem = f"{name} is {value_N[row]:g}, neither 0 nor 1"
            remedy = "set data.manifest.au_threshold if the file holds intensities"
        else:
            problem = f"{name} is {value_N[row]:g}, no intensity from 0 to 5"
            remedy = "set data.manifest.missing_values to the numbers that mark a missing label"
        faults.add(columns.lines[row], problem, remedy)
    if threshold is None:
        return value_N
    return np.where(np.isnan(value_N), np.nan, value_N >= threshold)


def expressions(
    columns: Columns,
    column: str | None,
    classes: ExpressionMap,
    map_name: str,
    say: Callable[[str], None],
) -> npt.NDArray[np.int8]:
    """Classes of ours, -1 where missing or without counterpart."""
    expression_N = np.full(len(columns.lines), -1, np.int8)
    if column is None:
        return expression_N
    index = {name: number for number, name in enumerate(tasks.EXPRESSION_NAMES)}
    unmapped: collections.Counter[str] = collections.Counter()
    for row, cell in enumerate(columns.cells[column]):
        label = cell.strip(WHITESPACE).lower()
        whole = label.removesuffix(".0")
        name = classes.get(label, classes.get(whole))
        if name is not None:
            expression_N[row] = index[name]
        elif label not in _MISSING_WORDS and whole != "-1":
            unmapped[whole] += 1
    if unmapped:
        shown = ", ".join(f"{label[:20]!r} {count}" for label, count in unmapped.most_common(8))
        say(
            f"{sum(unmapped.values())} expressions have no counterpart in the map {map_name} and "
            f"count as missing: {shown}"
        )
    return expression_N
