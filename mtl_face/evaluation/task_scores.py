"""The scores of each task, from labels and decisions.

Dimension letters: N rows, A action units (12).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.measures import (
    concordance,
    concordance_parts,
    confusion_matrix,
    f1_per_class,
    macro_f1,
    precision_per_class,
    recall_per_class,
    root_mean_square_error,
    sign_agreement,
)
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES, VA_NAMES


def score_va(truth_N2: NDArray[Any], prediction_N2: NDArray[Any]) -> dict[str, Any]:
    """Mean concordance of valence and arousal.

    Args:
        truth_N2: valence and arousal, [N, 2], without NaN.
        prediction_N2: predictions, [N, 2]; clipped to [-1, 1] here.

    Returns:
        `score`, `valence`, `arousal` (None if N is 0), `constant_baseline` (0: a constant has no
        concordance), `num_valid`; and by name (`valence`, `arousal`): `parts` (see
        `measures.concordance_parts`), `rmse`, `sagr`.

    Raises:
        ValueError: a label is outside [-1, 1], such as the -5 that marks a missing one in files.
    """
    num_valid = len(truth_N2)
    if not (np.abs(truth_N2) <= 1.0).all():
        raise ValueError("there are labels of valence or arousal outside [-1, 1]")
    clipped_N2 = np.clip(np.asarray(prediction_N2, np.float64), -1.0, 1.0)

    def by_name(measure: Any) -> dict[str, Any]:
        return {
            name: measure(truth_N2[:, i], clipped_N2[:, i]) if num_valid else None
            for i, name in enumerate(VA_NAMES)
        }

    both = by_name(concordance)
    return {
        "score": (both["valence"] + both["arousal"]) / 2.0 if num_valid else None,
        **both,
        "constant_baseline": 0.0 if num_valid else None,
        "num_valid": num_valid,
        "parts": by_name(concordance_parts),
        "rmse": by_name(root_mean_square_error),
        "sagr": by_name(sign_agreement),
    }


def score_au(
    truth_NA: NDArray[Any], present_NA: NDArray[Any], mask_NA: NDArray[np.bool_]
) -> dict[str, Any]:
    """Mean F1 of the action units.

    Args:
        truth_NA: 0 or 1 where the mask is true, [N, 12].
        present_NA: decisions, 0 or 1 where the mask is true, [N, 12].
        mask_NA: labels that count, bool [N, 12].

    Returns:
        `score`: mean over the action units that have a label (None if none has); `per_au`: F1 by
        name; `prevalence`: share of positive labels by name; `num_positive` and
        `num_valid_per_au` by name; `constant_baseline`: mean F1 of calling every action unit
        present, the best constant; `constant_baseline_per_au`; `num_valid`: rows with a label
        that counts; `precision` and `recall` by name (None where undefined); `confusion`: counts
        by name, each with `true_positive`, `false_positive`, `false_negative`, `true_negative`.
        None stands for an action unit without labels.

    Raises:
        ValueError: a label that counts is neither 0 nor 1.
    """
    empty: dict[str, float | None] = dict.fromkeys(AU_NAMES)
    per_au, prevalence, baseline, precision, recall = (dict(empty) for _ in range(5))
    num_positive = dict.fromkeys(AU_NAMES, 0)
    num_valid = dict.fromkeys(AU_NAMES, 0)
    confusion: dict[str, dict[str, int]] = {}
    for i, name in enumerate(AU_NAMES):
        rows = mask_NA[:, i]
        counts = confusion_matrix(truth_NA[rows, i], present_NA[rows, i], num_classes=2)
        confusion[name] = {
            "true_positive": int(counts[1, 1]),
            "false_positive": int(counts[0, 1]),
            "false_negative": int(counts[1, 0]),
            "true_negative": int(counts[0, 0]),
        }
        num_valid[name] = int(counts.sum())
        if not num_valid[name]:
            continue
        per_au[name] = float(f1_per_class(counts)[1])
        precision[name] = _or_none(precision_per_class(counts)[1])
        recall[name] = _or_none(recall_per_class(counts)[1])
        num_positive[name] = int(counts[1].sum())
        prevalence[name] = num_positive[name] / num_valid[name]
        always_present = np.stack([np.zeros(2, np.int64), counts.sum(axis=1)], axis=1)
        baseline[name] = float(f1_per_class(always_present)[1])
    return {
        "score": mean_of(per_au),
        "per_au": per_au,
        "prevalence": prevalence,
        "num_positive": num_positive,
        "num_valid_per_au": num_valid,
        "constant_baseline": mean_of(baseline),
        "constant_baseline_per_au": baseline,
        "num_valid": int(mask_NA.any(axis=1).sum()),
        "precision": precision,
        "recall": recall,
        "confusion": confusion,
    }


def score_expression(truth_N: NDArray[Any], prediction_N: NDArray[Any]) -> dict[str, Any]:
    """Macro F1 over the eight expressions; a class in neither truth nor prediction counts 0.

    Args:
        truth_N: classes 0..7, int [N].
        prediction_N: decisions, int [N].

    Returns:
        `score` and `accuracy` (None if N is 0), `per_class`: F1 by name; `support`: true rows by
        name; `confusion_matrix`: counts, 8 lists of 8, row = truth; `constant_baseline`: macro
        F1 of the best constant, `constant_class`: its name; `num_valid`; `precision` and `recall`
        by name (None where undefined).
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
        "precision": _by_expression(precision_per_class(confusion)),
        "recall": _by_expression(recall_per_class(confusion)),
    }


def mean_of(values: Mapping[str, float | None]) -> float | None:
    """Mean of the values that there are, or None."""
    present = [value for value in values.values() if value is not None]
    return float(np.mean(present)) if present else None


def _by_expression(values: Iterable[float]) -> dict[str, float | None]:
    return {name: _or_none(value) for name, value in zip(EXPRESSION_NAMES, values, strict=True)}


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
