"""Frames to look at: the best, the worst, the most uncertain and some at random.

Dimension letters: N rows, A action units (12), E expressions (8); pictures `[H, W, 3]`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.answers import Answers
from mtl_face.evaluation.truth import Truth, valid_au, valid_expression, valid_va
from mtl_face.evaluation.uncertainty_scores import binary_losses, log_softmax, sigmoid
from mtl_face.tasks import EXPRESSION_NAMES

Images = Callable[[int], NDArray[np.uint8] | None]
"""Picture of a row of labels, uint8 [H, W, 3], or None if there is none."""

GROUPS = {
    "best": "Best frames",
    "worst": "Worst frames",
    "uncertain": "Most uncertain frames",
    "random": "Frames at random",
}
"""Headings of the groups that `choose` makes."""


def frame_errors(truth: Truth, answers: Answers) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How wrong each row is, on a scale that the three tasks share.

    The error of a row is the mean over its labelled and answered tasks of: half the mean absolute
    error of valence and arousal; the share of labelled action units decided wrongly; one minus the
    softmax probability of the true expression, or without logits whether it was decided wrongly.

    Args:
        truth: N rows of labels.
        answers: the N answers that belong to them, in the same order.

    Returns:
        Error in [0, 1], float64 [N], NaN for a row without labels; and number of such tasks,
        int64 [N].
    """
    va_N = valid_va(truth) & ~(np.isnan(answers.valence) | np.isnan(answers.arousal))
    error_N2 = np.abs(
        np.column_stack([truth.valence, truth.arousal]).astype(np.float64)
        - np.clip(np.column_stack([answers.valence, answers.arousal]), -1, 1)
    )
    au_NA = valid_au(truth, "any") & (answers.au >= 0)
    wrong_NA = au_NA & (answers.au != np.asarray(truth.au))
    expression_N = valid_expression(truth) & (answers.expression >= 0)
    true_class = np.where(expression_N, truth.expression, 0).astype(np.int64)
    if answers.expression_logits is None:
        expression_error_N = (answers.expression != true_class).astype(np.float64)
    else:
        log_NE = log_softmax(answers.expression_logits)
        expression_error_N = 1.0 - np.exp(log_NE[np.arange(len(log_NE)), true_class])
    errors = np.column_stack(
        [
            np.where(va_N, error_N2.mean(axis=1) / 2.0, 0.0),
            wrong_NA.sum(axis=1) / np.maximum(au_NA.sum(axis=1), 1),
            np.where(expression_N, expression_error_N, 0.0),
        ]
    )
    num_tasks = va_N.astype(np.int64) + au_NA.any(axis=1) + expression_N
    with np.errstate(invalid="ignore"):
        return errors.sum(axis=1) / np.where(num_tasks > 0, num_tasks, np.nan), num_tasks


def frame_uncertainties(answers: Answers) -> NDArray[np.float64] | None:
    """How uncertain each row says it is, on a scale that the tasks share.

    The mean over the tasks that tell it of: the entropy of the expression in units of its largest
    possible value; the mean entropy of the action units likewise; the mean standard deviation of
    valence and arousal, 1 at most.

    Args:
        answers: N answers.

    Returns:
        In [0, 1], float64 [N]; None where only decisions are known.
    """
    parts = []
    if answers.expression_logits is not None:
        # the expected loss under the prediction itself is its entropy
        log_NE = log_softmax(answers.expression_logits)
        entropy_N = -(np.exp(log_NE) * log_NE).sum(axis=1)
        parts.append(entropy_N / np.log(len(EXPRESSION_NAMES)))
    if answers.au_logits is not None:
        probability_NA = sigmoid(answers.au_logits)
        entropy_NA, _ = binary_losses(probability_NA, answers.au_logits)
        parts.append(entropy_NA.mean(axis=1) / np.log(2.0))
    if answers.valence_std is not None and answers.arousal_std is not None:
        std_N2 = np.column_stack([answers.valence_std, answers.arousal_std])
        parts.append(np.minimum(std_N2, 1.0).mean(axis=1))
    return np.mean(parts, axis=0) if parts else None


def choose(
    truth: Truth, answers: Answers, *, num_rows: int, seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """Picks rows to show.

    Only rows with the greatest number of labelled tasks are compared, or a row with one easy task
    would pass for the best. Each group takes its rows from different videos while it can, since
    neighbouring frames look alike. No row is in two groups.

    Args:
        truth: N rows of labels.
        answers: the N answers that belong to them, in the same order.
        num_rows: rows of the groups together; shared out evenly, the first get the rest.
        seed: decides the random rows.

    Returns:
        Rows by group, see `GROUPS`; fewer where there are too few rows. `uncertain` is absent
        where only decisions are known.
    """
    error_N, num_tasks_N = frame_errors(truth, answers)
    most = num_tasks_N.max(initial=0)
    candidates = np.flatnonzero(num_tasks_N == most) if most else np.array([], np.int64)
    orders = {
        "best": candidates[np.argsort(error_N[candidates], kind="stable")],
        "worst": candidates[np.argsort(-error_N[candidates], kind="stable")],
        "uncertain": np.array([], np.int64),
        "random": np.random.default_rng(seed).permutation(candidates),
    }
    uncertainty_N = frame_uncertainties(answers)
    if uncertainty_N is None:
        del orders["uncertain"]
    else:
        orders["uncertain"] = candidates[np.argsort(-uncertainty_N[candidates], kind="stable")]
    groups: dict[str, NDArray[np.int64]] = {}
    for number, (name, order) in enumerate(orders.items()):
        taken = np.concatenate([np.array([], np.int64), *groups.values()])
        rest = order[~np.isin(order, taken)]
        groups[name] = _from_different_videos(
            truth, rest, (num_rows + len(orders) - 1 - number) // len(orders)
        )
    return groups


def _from_different_videos(
    truth: Truth, order: NDArray[np.int64], num_rows: int
) -> NDArray[np.int64]:
    """First rows of an order, those of a video already shown last."""
    seen: dict[tuple[str, str], int] = {}
    repeats = []
    for row in order.tolist():
        video = (str(truth.dataset[row]), str(truth.video[row]))
        repeats.append(seen.get(video, 0))
        seen[video] = repeats[-1] + 1
    return order[np.argsort(repeats, kind="stable")][:num_rows]
