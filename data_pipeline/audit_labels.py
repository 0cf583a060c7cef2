"""What an audit says about labels: which are present, how classes are balanced, what goes together.

Letters: N rows, A action units (12), E expressions (8), B bins.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_face import tasks
from mtl_face.tables import FrameTable

VA_BINS = 10
"""Bins along valence and along arousal, over [-1, 1]."""


def label_statistics(table: FrameTable) -> dict[str, Any]:
    """Counts over rows; duplicates count as often as they are listed, as in training.

    Returns:
        `combinations`: rows by the tasks that they are labelled for, as `va+au`, `none`;
        `expressions`: rows by class; `au`: for each unit `present`, `absent`, `missing` and
        `share` present of those labelled (None if none is);
        `au_given_au`: [A][A], share of the rows with unit i present that have unit j present;
        `au_given_expression`: [E][A], share of the rows of a class with the unit present;
        `va_given_expression`: per class `rows`, mean `valence` and `arousal`;
        `va`: `mean`, `std` of both values and `histogram`, [B][B] rows by arousal (from -1 up),
        then valence;
        `va_half_missing`: rows with one of valence and arousal alone;
        `au_partly_missing`: rows with some units labelled and others not.
        Shares over no rows are None.
    """
    au_NA, expression_N = table.au, table.expression
    has_v, has_a = ~np.isnan(table.valence), ~np.isnan(table.arousal)
    has_va_N = has_v & has_a
    has_au_NA = ~np.isnan(au_NA)
    present_NA = au_NA == 1
    return {
        "combinations": _combinations(has_va_N, has_au_NA.any(axis=1), expression_N >= 0),
        "expressions": {
            name: int((expression_N == index).sum())
            for index, name in enumerate(tasks.EXPRESSION_NAMES)
        },
        "au": {
            name: {
                "present": int(present_NA[:, unit].sum()),
                "absent": int((au_NA[:, unit] == 0).sum()),
                "missing": int((~has_au_NA[:, unit]).sum()),
                "share": _share(present_NA[:, unit].sum(), has_au_NA[:, unit].sum()),
            }
            for unit, name in enumerate(tasks.AU_NAMES)
        },
        "au_given_au": [
            _unit_shares(present_NA, has_au_NA, present_NA[:, unit])
            for unit in range(len(tasks.AU_NAMES))
        ],
        "au_given_expression": [
            _unit_shares(present_NA, has_au_NA, expression_N == index)
            for index in range(len(tasks.EXPRESSION_NAMES))
        ],
        "va_given_expression": {
            name: _means(table, has_va_N & (expression_N == index))
            for index, name in enumerate(tasks.EXPRESSION_NAMES)
        },
        "va": {
            **{
                name: {
                    "mean": _number(values[has].mean(dtype=np.float64)) if has.any() else None,
                    "std": _number(values[has].std(dtype=np.float64)) if has.any() else None,
                }
                for name, values, has in (
                    ("valence", table.valence, has_v),
                    ("arousal", table.arousal, has_a),
                )
            },
            "histogram": _va_histogram(table, has_va_N),
        },
        "va_half_missing": int((has_v != has_a).sum()),
        "au_partly_missing": int((has_au_NA.any(axis=1) & ~has_au_NA.all(axis=1)).sum()),
    }


def _combinations(
    va_N: npt.ArrayLike, au_N: npt.ArrayLike, expr_N: npt.ArrayLike
) -> dict[str, int]:
    code_N = np.stack([va_N, au_N, expr_N]).T @ (1, 2, 4)
    counts = {}
    for code in range(7, -1, -1):
        names = [task for bit, task in enumerate(tasks.TASKS) if code >> bit & 1]
        counts["+".join(names) or "none"] = int((code_N == code).sum())
    return counts


def _unit_shares(
    present_NA: np.ndarray, has_NA: np.ndarray, rows_N: np.ndarray
) -> list[float | None]:
    present_A, labelled_A = present_NA[rows_N].sum(axis=0), has_NA[rows_N].sum(axis=0)
    return [_share(some, all_) for some, all_ in zip(present_A, labelled_A, strict=True)]


def _means(table: FrameTable, rows_N: np.ndarray) -> dict[str, Any]:
    if not rows_N.any():
        return {"rows": 0, "valence": None, "arousal": None}
    return {
        "rows": int(rows_N.sum()),
        "valence": _number(table.valence[rows_N].mean(dtype=np.float64)),
        "arousal": _number(table.arousal[rows_N].mean(dtype=np.float64)),
    }


def _va_histogram(table: FrameTable, has_N: np.ndarray) -> list[list[int]]:
    edges = np.linspace(-1, 1, VA_BINS + 1)
    counts, _, _ = np.histogram2d(table.arousal[has_N], table.valence[has_N], bins=(edges, edges))
    return counts.astype(int).tolist()


def _share(some: Any, all_: Any) -> float | None:
    return _number(some / all_) if all_ else None


def _number(value: Any) -> float:
    return round(float(value), 6)
