"""Targets and weights of a frame table, for comparison with what the devices make of its labels."""

import numpy as np

from mtl_face import tasks


def labels(table):
    """Labels as arrays for a loss or a metric, and a weight for each: 1 present, 0 missing.

    Returns:
        `targets`: float32 arrays `va` [N, 2], `au` [N, A], `expr` [N, 8] (one-hot); 0 where
        missing, never NaN.
        `weights`: float32 arrays `va` [N] (1 only where both values are present), `au` [N, A],
        `expr` [N].
    """
    va_N2 = np.stack([table.valence, table.arousal], axis=1)
    has_va_N = ~(np.isnan(table.valence) | np.isnan(table.arousal))
    has_au_NA = ~np.isnan(table.au)
    class_E = np.arange(len(tasks.EXPRESSION_NAMES), dtype=np.int8)
    targets = {
        tasks.VA: np.where(has_va_N[:, None], va_N2, 0).astype(np.float32),
        tasks.AU: np.where(has_au_NA, table.au, 0).astype(np.float32),
        tasks.EXPR: (table.expression[:, None] == class_E).astype(np.float32),
    }
    weights = {
        tasks.VA: has_va_N.astype(np.float32),
        tasks.AU: has_au_NA.astype(np.float32),
        tasks.EXPR: (table.expression >= 0).astype(np.float32),
    }
    return targets, weights
