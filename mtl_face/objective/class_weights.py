"""Weights of rare classes, from how often an epoch of training shows them.

Dimension letters: N rows, A action units (12), E expressions (8).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_face.tables import FrameTable
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

NONE, INVERSE, EFFECTIVE, SQRT = "none", "inverse", "effective", "sqrt"


@dataclasses.dataclass(frozen=True)
class ClassCounts:
    """How often an epoch shows each class.

    Attributes:
        expr: number of each expression, E numbers.
        au_present, au_labelled: rows with each unit, and rows that are labelled for it, A each.
    """

    expr: tuple[float, ...]
    au_present: tuple[float, ...]
    au_labelled: tuple[float, ...]

    @classmethod
    def of(cls, table: FrameTable, rows_N: NDArray[np.int64]) -> Self:
        """Those of these rows of a table; a row that is there twice counts twice.

        Soft labels count by their shares, and each row by its weight.
        """
        counts_N = np.bincount(rows_N, minlength=len(table)) * table.label_weight.astype(np.float64)
        class_NE = table.expression[:, None] == np.arange(len(EXPRESSION_NAMES))
        share_NE = table.expression_shares()
        share_NE = np.where(np.isnan(share_NE), class_NE, share_NE).astype(np.float64)
        au_NA = np.where(np.isnan(table.au_probability), table.au, table.au_probability)
        return cls(
            tuple((counts_N @ share_NE).tolist()),
            tuple((counts_N @ np.nan_to_num(au_NA.astype(np.float64))).tolist()),
            tuple((counts_N @ ~np.isnan(au_NA)).tolist()),
        )

    @classmethod
    def equal(cls) -> Self:
        """Those of classes that are equally frequent, for a step that is only looked at."""
        units = (1.0,) * len(AU_NAMES)
        return cls((1.0,) * len(EXPRESSION_NAMES), units, (2.0,) * len(AU_NAMES))

    @classmethod
    def from_metadata(cls, values: Any) -> Self | None:
        """Inverse of `dataclasses.asdict`, from JSON; None where that is not what is given."""
        sizes = {"expr": EXPRESSION_NAMES, "au_present": AU_NAMES, "au_labelled": AU_NAMES}
        if not isinstance(values, Mapping):
            return None
        columns: dict[str, tuple[float, ...]] = {}
        for name, names in sizes.items():
            column = values.get(name)
            if not isinstance(column, list | tuple) or len(column) != len(names):
                return None
            if not all(type(number) in (int, float) for number in column):
                return None
            columns[name] = tuple(column)
        return cls(**columns)


def expression_weights(count_E: ArrayLike, kind: str, *, beta: float) -> tuple[float, ...] | None:
    """Weight of each expression, whose mean over the counted labels is 1; None for `NONE`.

    With n labels of a class, the weights are in proportion to 1 / n (`INVERSE`), or to
    (1 - beta) / (1 - beta^n), one over the effective number (`EFFECTIVE`; Cui et al. 2019), with
    beta from 0 to below 1. A class without labels has the weight 1.
    """
    if kind == NONE:
        return None
    count_E = np.asarray(count_E, np.float64)
    seen_E = count_E > 0
    safe_E = np.where(seen_E, count_E, 1.0)
    if kind == INVERSE:
        weight_E = 1.0 / safe_E
    elif kind == EFFECTIVE:
        weight_E = (1.0 - beta) / -np.expm1(safe_E * np.log(beta)) if beta else np.ones(len(safe_E))
    else:
        raise ValueError(f"class weights {kind!r} are none of {NONE}, {INVERSE}, {EFFECTIVE}")
    mean = (count_E * weight_E).sum() / max(count_E.sum(), np.finfo(np.float64).tiny)
    return tuple(np.where(seen_E, weight_E / (mean or 1.0), 1.0).tolist())


def positive_weights(
    present_A: ArrayLike, labelled_A: ArrayLike, kind: str
) -> tuple[float, ...] | None:
    """What errors of present units are multiplied by; None for `NONE`.

    Absent over present rows (`INVERSE`), with which both halves count the same, or the square root
    of it (`SQRT`). A unit that is never or always present has the weight 1.
    """
    if kind == NONE:
        return None
    if kind not in (INVERSE, SQRT):
        raise ValueError(f"positive weights {kind!r} are none of {NONE}, {INVERSE}, {SQRT}")
    present_A = np.asarray(present_A, np.float64)
    absent_A = np.asarray(labelled_A, np.float64) - present_A
    both_A = (present_A > 0) & (absent_A > 0)
    ratio_A = np.where(both_A, absent_A, 1.0) / np.where(both_A, present_A, 1.0)
    return tuple((np.sqrt(ratio_A) if kind == SQRT else ratio_A).tolist())
