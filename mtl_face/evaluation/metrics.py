"""The official multi-task score of the ABAW challenges, from labels and predictions.

P = (CCC of valence + CCC of arousal) / 2 + macro F1 over 8 expressions + mean over 12 action
units of binary F1. Labels are left out per task and not per row: a row without an expression
still counts for the others. Rows that occur twice count twice.

Dimension letters: N rows, A action units (12).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.match import match
from mtl_face.evaluation.measures import (
    binary_f1,
    concordance,
    confusion_matrix,
    f1_per_class,
    macro_f1,
)
from mtl_face.evaluation.prediction_table import PredictionError, PredictionTable
from mtl_face.evaluation.truth import AuMask, Truth, valid_au, valid_expression, valid_va
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, TASKS, VA

__all__ = [
    "binary_f1",
    "concordance",
    "confusion_matrix",
    "macro_f1",
    "match",
    "score",
    "score_au",
    "score_expression",
    "score_va",
]


def score(
    truth: Truth,
    predictions: PredictionTable,
    *,
    au_mask: AuMask = "all",
    lenient: bool = False,
) -> dict[str, Any]:
    """Scores predictions against labels.

    Decisions: an action unit is present where its logit is above 0 (probability 0.5), the
    expression is the largest logit, valence and arousal are clipped to [-1, 1].

    Args:
        truth: N rows of labels.
        predictions: the predictions; matched by (dataset, video, frame), see `match`.
        au_mask: which rows count for action units; `all` is the official rule.
        lenient: leave out labelled rows without a prediction, instead of raising. Their number is
            in the result: such a score compares with no other.

    Returns:
        JSON values. `p`: the sum of the three scores; `constant_baseline_p`: the same of the best
        constant predictions; `num_rows`: rows scored; `num_unpredicted`: rows left out; `va`,
        `au`, `expr`: what `score_va`, `score_au` and `score_expression` return. A task without a
        valid row has the score None, and then `p` is None.

    Raises:
        PredictionError: a row has no prediction (unless lenient), or a prediction is not finite.
    """
    index = match(truth, predictions, lenient=lenient)
    rows = np.flatnonzero(index >= 0)
    matched = predictions.take(index[rows])
    _check_finite(matched)
    va_N = valid_va(truth)[rows]
    expression_N = valid_expression(truth)[rows]
    va_N2 = np.column_stack([truth.valence, truth.arousal])[rows]
    prediction_N2 = np.column_stack([matched.valence, matched.arousal])
    results: dict[str, dict[str, Any]] = {
        VA: score_va(va_N2[va_N], prediction_N2[va_N]),
        AU: score_au(
            np.asarray(truth.au)[rows], matched.au_present, valid_au(truth, au_mask)[rows]
        ),
        EXPR: score_expression(
            np.asarray(truth.expression)[rows][expression_N], matched.expression[expression_N]
        ),
    }
    results[AU]["mask"] = au_mask
    return {
        "p": _sum(results, "score"),
        "constant_baseline_p": _sum(results, "constant_baseline"),
        "num_rows": len(rows),
        "num_unpredicted": len(index) - len(rows),
        **results,
    }


def score_va(truth_N2: NDArray[Any], prediction_N2: NDArray[Any]) -> dict[str, Any]:
    """Mean concordance of valence and arousal.

    Args:
        truth_N2: valence and arousal, [N, 2], without NaN.
        prediction_N2: predictions, [N, 2]; clipped to [-1, 1] here.

    Returns:
        `score`, `valence`, `arousal` (None if N is 0), `constant_baseline` (0: a constant has no
        concordance), `num_valid`.

    Raises:
        ValueError: a label is outside [-1, 1], such as the -5 that marks a missing one in files.
    """
    num_valid = len(truth_N2)
    if not (np.abs(truth_N2) <= 1.0).all():
        raise ValueError("there are labels of valence or arousal outside [-1, 1]")
    valence = arousal = None
    if num_valid:
        clipped_N2 = np.clip(np.asarray(prediction_N2, np.float64), -1.0, 1.0)
        valence, arousal = (concordance(truth_N2[:, i], clipped_N2[:, i]) for i in range(2))
    return {
        "score": None if valence is None or arousal is None else (valence + arousal) / 2.0,
        "valence": valence,
        "arousal": arousal,
        "constant_baseline": 0.0 if num_valid else None,
        "num_valid": num_valid,
    }


def score_au(
    truth_NA: NDArray[Any], present_NA: NDArray[np.bool_], mask_NA: NDArray[np.bool_]
) -> dict[str, Any]:
    """Mean F1 of the action units.

    Args:
        truth_NA: 0 or 1 where the mask is true, [N, 12].
        present_NA: decisions, bool [N, 12].
        mask_NA: labels that count, bool [N, 12].

    Returns:
        `score`: mean over the action units that have a label (None if none has); `per_au`: F1 by
        name; `prevalence`: share of positive labels by name; `num_positive` and
        `num_valid_per_au` by name; `constant_baseline`: mean F1 of calling every action unit
        present, the best constant; `constant_baseline_per_au`; `num_valid`: rows with a label
        that counts. None stands for an action unit without labels.

    Raises:
        ValueError: a label that counts is neither 0 nor 1.
    """
    per_au: dict[str, float | None] = dict.fromkeys(AU_NAMES)
    prevalence = dict(per_au)
    baseline = dict(per_au)
    num_positive = dict.fromkeys(AU_NAMES, 0)
    num_valid = dict.fromkeys(AU_NAMES, 0)
    for i, name in enumerate(AU_NAMES):
        labels = truth_NA[mask_NA[:, i], i]
        num_valid[name] = len(labels)
        if not len(labels):
            continue
        per_au[name] = binary_f1(labels, present_NA[mask_NA[:, i], i])
        num_positive[name] = int(labels.sum())
        prevalence[name] = num_positive[name] / len(labels)
        baseline[name] = binary_f1(labels, np.ones(len(labels), np.bool_))
    return {
        "score": _mean(per_au),
        "per_au": per_au,
        "prevalence": prevalence,
        "num_positive": num_positive,
        "num_valid_per_au": num_valid,
        "constant_baseline": _mean(baseline),
        "constant_baseline_per_au": baseline,
        "num_valid": int(mask_NA.any(axis=1).sum()),
    }


def score_expression(truth_N: NDArray[Any], prediction_N: NDArray[Any]) -> dict[str, Any]:
    """Macro F1 over the eight expressions; a class in neither truth nor prediction counts 0.

    Args:
        truth_N: classes 0..7, int [N].
        prediction_N: decisions, int [N].

    Returns:
        `score` and `accuracy` (None if N is 0), `per_class`: F1 by name; `support`: true rows by
        name; `confusion_matrix`: counts, 8 lists of 8, row = truth; `constant_baseline`: macro
        F1 of the best constant, `constant_class`: its name; `num_valid`.
    """
    num_valid = len(truth_N)
    num_classes = len(EXPRESSION_NAMES)
    confusion = confusion_matrix(truth_N, prediction_N, num_classes=num_classes)
    support = confusion.sum(axis=1)
    f1 = f1_per_class(confusion)
    # the best constant is the most frequent class: its F1 grows with its share
    commonest = int(np.argmax(support))
    constant_N = np.full(num_valid, commonest)
    return {
        "score": float(f1.mean()) if num_valid else None,
        "accuracy": float(np.trace(confusion) / num_valid) if num_valid else None,
        "per_class": {
            name: float(value) if num_valid else None
            for name, value in zip(EXPRESSION_NAMES, f1, strict=True)
        },
        "support": dict(zip(EXPRESSION_NAMES, support.tolist(), strict=True)),
        "confusion_matrix": confusion.tolist(),
        "constant_baseline": (
            macro_f1(truth_N, constant_N, num_classes=num_classes) if num_valid else None
        ),
        "constant_class": EXPRESSION_NAMES[commonest] if num_valid else None,
        "num_valid": num_valid,
    }


def _check_finite(table: PredictionTable) -> None:
    """Raises PredictionError if a value that is to be scored is NaN or infinite."""
    bad_N = ~np.isfinite(
        np.column_stack([table.valence, table.arousal, table.au_logits, table.expression_logits])
    ).all(axis=1)
    if bad_N.any():
        row = int(np.argmax(bad_N))
        raise PredictionError(
            f"{int(bad_N.sum())} of {len(table)} predictions are not finite, the first at "
            f"{table.dataset[row]}/{table.video[row]} frame {table.frame[row]}",
            remedy="use a checkpoint from before training diverged",
        )


def _mean(values: Mapping[str, float | None]) -> float | None:
    """Mean of the values that there are, or None."""
    present = [value for value in values.values() if value is not None]
    return float(np.mean(present)) if present else None


def _sum(results: Mapping[str, Mapping[str, Any]], key: str) -> float | None:
    """Sum of one entry over the tasks, or None if one is None."""
    values = [results[task][key] for task in TASKS]
    return None if None in values else float(sum(values))
