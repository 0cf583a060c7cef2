"""How good the predicted uncertainties are: proper scores, calibration, ranking, abstention.

The probabilities are those that the logits stand for as they are in the table: sigmoid for action
units, softmax for expressions. Calibration and temperatures act on the logits before.

Dimension letters: N rows, A action units (12), E expressions (8).
"""

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.calibration_error import (
    debiased_calibration_error,
    expected_calibration_error,
    reliability,
)
from mtl_face.evaluation.ranking import average_precision
from mtl_face.evaluation.risk_coverage import risk_coverage
from mtl_face.evaluation.task_scores import mean_of
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES, VA_NAMES

INTERVAL_LEVELS = {"50": 0.5, "80": 0.8, "95": 0.95}
"""Nominal probabilities of the central intervals whose coverage is counted, by name in percent."""


def gaussian_losses(
    truth: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Negative log density of a normal prediction, in nats; same shape as the arguments."""
    return 0.5 * np.log(2.0 * np.pi * std**2) + (truth - mean) ** 2 / (2.0 * std**2)


def inside_interval(
    truth: NDArray[np.float64],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    probability: float,
) -> NDArray[np.bool_]:
    """Whether the truth lies in the central interval of a normal prediction.

    The interval is that of the normal variable clipped to [-1, 1], as the predictions are: an end
    beyond the range takes in the whole range on its side.
    """
    half = NormalDist().inv_cdf(0.5 + probability / 2.0) * std
    return (truth >= np.minimum(mean - half, 1.0)) & (truth <= np.maximum(mean + half, -1.0))


def binary_losses(
    truth: NDArray[np.float64], logits: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Negative log likelihood in nats and Brier score ``(p - y)^2`` of each decision."""
    nll = np.logaddexp(0.0, logits) - truth * logits
    return nll, (sigmoid(logits) - truth) ** 2


def class_losses(
    truth_N: NDArray[np.int64], logits_NE: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Negative log likelihood in nats and Brier score ``sum_k (p_k - y_k)^2``, [N] each."""
    log_NE = log_softmax(logits_NE)
    one_hot_NE = np.arange(logits_NE.shape[1])[None, :] == truth_N[:, None]
    nll_N = -np.take_along_axis(log_NE, truth_N[:, None], axis=1)[:, 0]
    return nll_N, ((np.exp(log_NE) - one_hot_NE) ** 2).sum(axis=1)


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each logit; does not overflow."""
    from scipy.special import expit

    return expit(logits)


def log_softmax(logits_NE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of the class probabilities, [N, E]; does not overflow."""
    from scipy import special

    return special.log_softmax(logits_NE, axis=1)


def score_va_uncertainty(
    truth_N2: NDArray[np.float64], mean_N2: NDArray[np.float64], std_N2: NDArray[np.float64]
) -> dict[str, Any] | None:
    """Scores normal predictions of valence and arousal.

    Args:
        truth_N2: labels, [N, 2].
        mean_N2: predictions, [N, 2].
        std_N2: their standard deviations, [N, 2], positive.

    Returns:
        By name (`valence`, `arousal`): `nll`, `mean_std`, and `coverage`: share of truths inside
        the central interval of 50, 80 and 95 %; `risk_coverage`: mean square error of both when
        the rows with the smallest summed variance are answered first. None if N is 0.
    """
    if not len(truth_N2):
        return None
    nll_N2 = gaussian_losses(truth_N2, mean_N2, std_N2)
    return {
        "nll": dict(zip(VA_NAMES, nll_N2.mean(axis=0).tolist(), strict=True)),
        "mean_std": dict(zip(VA_NAMES, std_N2.mean(axis=0).tolist(), strict=True)),
        "coverage": {
            name: {
                percent: float(
                    inside_interval(truth_N2[:, i], mean_N2[:, i], std_N2[:, i], level).mean()
                )
                for percent, level in INTERVAL_LEVELS.items()
            }
            for i, name in enumerate(VA_NAMES)
        },
        "risk_coverage": risk_coverage(
            -(std_N2**2).sum(axis=1),
            ((np.clip(mean_N2, -1.0, 1.0) - truth_N2) ** 2).mean(axis=1),
        ),
    }


def score_au_uncertainty(
    truth_NA: NDArray[np.float64],
    logits_NA: NDArray[np.float64],
    present_NA: NDArray[Any],
    mask_NA: NDArray[np.bool_],
) -> dict[str, Any] | None:
    """Scores the probabilities of action units.

    Args:
        truth_NA: labels, [N, 12], 0 or 1 where the mask is true.
        logits_NA: logits, [N, 12].
        present_NA: decisions, [N, 12]; they matter for `risk_coverage` only.
        mask_NA: labels that count, bool [N, 12].

    Returns:
        `per_au`: by name `nll`, `brier`, `ece`, `ece_debiased` (None without labels); the means of
        these over the action units under the same names; `reliability`: bins of all action units
        pooled; `risk_coverage`: share of wrong decisions, all pooled, when those of the highest
        probability are answered first. None without labels.
    """
    if not mask_NA.any():
        return None
    per_au: dict[str, dict[str, float] | None] = {}
    for i, name in enumerate(AU_NAMES):
        rows = mask_NA[:, i]
        truth_N, logit_N = truth_NA[rows, i], logits_NA[rows, i]
        if not len(truth_N):
            per_au[name] = None
            continue
        nll_N, brier_N = binary_losses(truth_N, logit_N)
        bins = reliability(sigmoid(logit_N), truth_N)
        per_au[name] = {
            "nll": float(nll_N.mean()),
            "brier": float(brier_N.mean()),
            "ece": float(expected_calibration_error(bins)),
            "ece_debiased": float(debiased_calibration_error(bins)),
        }
    truth, probability = truth_NA[mask_NA], sigmoid(logits_NA[mask_NA])
    decided = np.asarray(present_NA)[mask_NA] == 1
    return {
        **{
            measure: mean_of({n: v[measure] if v else None for n, v in per_au.items()})
            for measure in ("nll", "brier", "ece", "ece_debiased")
        },
        "per_au": per_au,
        "reliability": reliability(probability, truth).to_json(),
        "risk_coverage": risk_coverage(
            np.where(decided, probability, 1.0 - probability), decided != (truth == 1)
        ),
    }


def score_expression_uncertainty(
    truth_N: NDArray[np.int64], logits_NE: NDArray[np.float64], decision_N: NDArray[np.int64]
) -> dict[str, Any] | None:
    """Scores the probabilities of expressions.

    Args:
        truth_N: classes, [N].
        logits_NE: logits, [N, 8].
        decision_N: decided classes, [N]. The confidence of a row is their probability.

    Returns:
        `nll`, `brier`; `ece`, `ece_debiased` and `reliability` of the decided class's probability;
        `risk_coverage`: share of wrong decisions when the most confident are answered first. None
        if N is 0.
    """
    if not len(truth_N):
        return None
    nll_N, brier_N = class_losses(truth_N, logits_NE)
    confidence_N = decided_probability(logits_NE, decision_N)
    bins = reliability(confidence_N, decision_N == truth_N)
    return {
        "nll": float(nll_N.mean()),
        "brier": float(brier_N.mean()),
        "ece": float(expected_calibration_error(bins)),
        "ece_debiased": float(debiased_calibration_error(bins)),
        "reliability": bins.to_json(),
        "risk_coverage": risk_coverage(confidence_N, decision_N != truth_N),
    }


def decided_probability(
    logits_NE: NDArray[np.float64], decision_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probability of the class decided for, [N]."""
    return np.exp(np.take_along_axis(log_softmax(logits_NE), decision_N[:, None], axis=1)[:, 0])


def ranking_au(
    truth_NA: NDArray[np.float64], logits_NA: NDArray[np.float64], mask_NA: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Average precision of each action unit by name; None without a positive label."""
    return {
        name: average_precision(truth_NA[mask_NA[:, i], i], logits_NA[mask_NA[:, i], i])
        for i, name in enumerate(AU_NAMES)
    }


def ranking_expression(
    truth_N: NDArray[np.int64], logits_NE: NDArray[np.float64]
) -> dict[str, float | None]:
    """Average precision of each expression against the rest by name, from its probability."""
    log_NE = log_softmax(logits_NE)
    return {
        name: average_precision(truth_N == i, log_NE[:, i])
        for i, name in enumerate(EXPRESSION_NAMES)
    }
