"""The single optima of a calibration: thresholds, biases, temperatures, standard deviations.

Each is the optimum on the rows given. Whether it holds on other videos is what `calibration_fit`
finds out.

Dimension letters: N rows, E classes, A action units.
"""

import numpy as np
import scipy
from numpy.typing import NDArray

from mtl_face.evaluation.measures import f1_per_class, macro_f1

HOTTEST = 1e3
"""Largest temperature that is fitted, and the inverse of the smallest."""

_SMALLEST_GAP = 1e-9
"""Scores closer than this are taken for equal, so that no cut hangs on a rounding."""

_MARGIN = 1.0
"""How far beyond the outermost score a cut lies that leaves all scores on one side."""


def best_threshold(truth_N: NDArray[np.int64], score_N: NDArray[np.float64]) -> float:
    """The threshold with the highest F1: a row is positive where its score exceeds it.

    All cuts between different scores are compared, so the optimum is exact. Of equally good cuts
    the one next to 0, where nothing is changed, is taken.

    Args:
        truth_N: 0 or 1, [N].
        score_N: finite scores, [N].

    Returns:
        The threshold, in the middle between two scores; 0 if no row is positive.
    """
    if not truth_N.any():
        return 0.0
    order = np.argsort(-score_N, kind="stable")
    sorted_N, positive_N = score_N[order], truth_N[order]
    hits_N = np.cumsum(positive_N)
    f1_N = 2.0 * hits_N / (np.arange(1, len(order) + 1) + hits_N[-1])
    cut_N = np.append((sorted_N[:-1] + sorted_N[1:]) / 2.0, sorted_N[-1] - _MARGIN)
    allowed_N = np.append(sorted_N[:-1] - sorted_N[1:] > _SMALLEST_GAP, True)
    threshold, best = _best_cut(cut_N[allowed_N], f1_N[allowed_N])
    present_N = score_N > 0.0
    unchanged = 2.0 * (present_N & (truth_N > 0)).sum() / (present_N.sum() + hits_N[-1])
    return 0.0 if unchanged >= best - 1e-12 else threshold


def _best_cut(cut: NDArray[np.float64], score: NDArray[np.float64]) -> tuple[float, float]:
    """The cut with the highest score, of equally good ones the nearest to 0; and that score."""
    best = score.max()
    chosen = cut[score >= best - 1e-12]
    return float(chosen[np.argmin(np.abs(chosen))]), float(best)


def best_biases(
    truth_N: NDArray[np.int64], logits_NE: NDArray[np.float64], *, num_starts: int | None = None
) -> NDArray[np.float64]:
    """Biases added to the logits for the highest macro F1 of the largest sum.

    Coordinate ascent: one bias at a time goes to its exact optimum, over all cuts at which a row
    changes its class, until none of them gains. Several starts, the first of them 0, guard
    against local optima; the first start with the highest macro F1 wins.

    Args:
        truth_N: classes 0..E-1, [N].
        logits_NE: finite logits, [N, E].
        num_starts: number of starts, at least 1; None: 8, and up to 200 where rows are so few
            that many local optima lie close together.

    Returns:
        float64 [E], with mean 0; all 0 if nothing gains or there are no rows.
    """
    num_classes = logits_NE.shape[1]
    best_E = np.zeros(num_classes)
    if not len(truth_N):
        return best_E
    if num_starts is None:
        num_starts = min(max(8, 2_000 // len(truth_N)), 200)
    best = _macro_f1(truth_N, logits_NE)
    for start_E in _starts(truth_N, logits_NE, num_starts):
        bias_E = _ascend(truth_N, logits_NE, start_E)
        bias_E -= bias_E.mean()
        reached = _macro_f1(truth_N, logits_NE + bias_E)
        if reached > best + 1e-12:
            best, best_E = reached, bias_E
    return best_E


def _macro_f1(truth_N: NDArray[np.int64], score_NE: NDArray[np.float64]) -> float:
    return macro_f1(truth_N, np.argmax(score_NE, axis=1), num_classes=score_NE.shape[1])


def _starts(
    truth_N: NDArray[np.int64], logits_NE: NDArray[np.float64], num_starts: int
) -> list[NDArray[np.float64]]:
    """0, biases that favour rare classes, and random ones (always the same)."""
    num_classes = logits_NE.shape[1]
    share_E = (np.bincount(truth_N, minlength=num_classes) + 1.0) / (len(truth_N) + num_classes)
    spread = float(np.mean(logits_NE.max(axis=1) - np.median(logits_NE, axis=1))) or 1.0
    rng = np.random.default_rng(0)
    starts = [np.zeros(num_classes), -0.5 * np.log(share_E)]
    starts += [rng.normal(0.0, spread, num_classes) for _ in range(num_starts - len(starts))]
    return starts[:num_starts]


def _ascend(
    truth_N: NDArray[np.int64], logits_NE: NDArray[np.float64], start_E: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Moves one bias at a time to its optimum until no move gains."""
    bias_E = start_E.copy()
    reached = _macro_f1(truth_N, logits_NE + bias_E)
    last_gain, which = 0, 0
    while which - last_gain < len(bias_E):
        moved, score = _best_move(truth_N, logits_NE + bias_E, which % len(bias_E))
        which += 1
        if score > reached + 1e-12:
            bias_E[(which - 1) % len(bias_E)] += moved
            reached, last_gain = score, which
    return bias_E


def _best_move(
    truth_N: NDArray[np.int64], score_NE: NDArray[np.float64], which: int
) -> tuple[float, float]:
    """What to add to one class's scores for the highest macro F1, and that F1.

    A row goes from its best other class to this one where the addition exceeds the lead of the
    other. Rows sorted by that lead make every outcome a prefix: counts are running sums.
    """
    num_rows, num_classes = score_NE.shape
    others_NE = score_NE.copy()
    others_NE[:, which] = -np.inf
    other_N = np.argmax(others_NE, axis=1)
    lead_N = others_NE[np.arange(num_rows), other_N] - score_NE[:, which]
    order = np.argsort(lead_N, kind="stable")
    lead_N, other_N, truth_N = lead_N[order], other_N[order], truth_N[order]

    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (truth_N, other_N), 1)  # nobody in this class yet
    total = confusion.sum(axis=0) + confusion.sum(axis=1)
    leaves_NE = other_N[:, None] == np.arange(num_classes)
    lost_NE = leaves_NE & (truth_N == other_N)[:, None]
    hits_NE = np.diag(confusion) - np.cumsum(lost_NE, axis=0)
    total_NE = total - np.cumsum(leaves_NE, axis=0)
    hits_NE[:, which] = np.cumsum(truth_N == which)
    total_NE[:, which] = total[which] + np.arange(1, num_rows + 1)
    mean_N = (2.0 * hits_NE / np.maximum(total_NE, 1)).mean(axis=1)

    score_of_cut = np.append(f1_per_class(confusion).mean(), mean_N)
    inner = (lead_N[:-1] + lead_N[1:]) / 2.0
    cut = np.concatenate([[lead_N[0] - _MARGIN], inner, [lead_N[-1] + _MARGIN]])
    allowed = np.concatenate([[True], np.diff(lead_N) > _SMALLEST_GAP, [True]])
    return _best_cut(cut[allowed], score_of_cut[allowed])


def best_temperature(truth_N: NDArray[np.int64], logits_NE: NDArray[np.float64]) -> float:
    """Temperature T with the least negative log-likelihood of softmax(logits / T).

    The likelihood is convex in 1 / T, so that the root of its derivative is the optimum.

    Args:
        truth_N: classes, [N].
        logits_NE: finite logits, [N, E].

    Returns:
        A number in 1 / `HOTTEST` .. `HOTTEST`; 1 without rows.
    """
    if not len(truth_N):
        return 1.0
    own_N = logits_NE[np.arange(len(truth_N)), truth_N]

    def slope(log_inverse: float) -> float:
        probability_NE = scipy.special.softmax(np.exp(log_inverse) * logits_NE, axis=1)
        return float(np.mean((probability_NE * logits_NE).sum(axis=1) - own_N))

    longest = np.log(HOTTEST)
    if slope(-longest) >= 0.0:  # the logits say nothing, or the opposite
        return HOTTEST
    if slope(longest) <= 0.0:  # the logits are never wrong
        return 1.0 / HOTTEST
    return float(np.exp(-scipy.optimize.brentq(slope, -longest, longest, xtol=1e-10)))


def meaning_of_end(temperature: float) -> str | None:
    """What a temperature at an end of its range says, in words; None within."""
    if temperature == HOTTEST:
        return (
            f"{HOTTEST:g}, the largest that is fitted: these logits say nothing of the labels, and "
            "every probability becomes the same"
        )
    if temperature == 1.0 / HOTTEST:
        return (
            f"{1.0 / HOTTEST:g}, the smallest that is fitted: no decision is wrong, and so few "
            "rows cannot tell how sure they may be"
        )
    return None


def residual_std(
    truth_NC: NDArray[np.floating],
    prediction_NC: NDArray[np.float64],
    std_NC: NDArray[np.float64] | float = 1.0,
) -> NDArray[np.float64]:
    """The factor of predicted standard deviations with the least Gaussian negative log-likelihood.

    Args:
        truth_NC: labels, [N, C].
        prediction_NC: predictions, [N, C]; clipped to [-1, 1] here, as they are scored.
        std_NC: predicted standard deviations, positive, [N, C]; 1: the factor is the standard
            deviation itself.

    Returns:
        The root mean square of the standardised error, at least 1e-6; 1 without rows. [C].
    """
    if not len(truth_NC):
        return np.ones(truth_NC.shape[1])
    error_NC = (truth_NC - np.clip(prediction_NC, -1.0, 1.0)) / std_NC
    return np.maximum(np.sqrt(np.mean(error_NC**2, axis=0)), 1e-6)
