"""The official multi-task score of the ABAW challenges, and what explains it.

P = (CCC of valence + CCC of arousal) / 2 + macro F1 over 8 expressions + mean over 12 action
units of binary F1. Labels are left out per task and not per row: a row without an expression
still counts for the others. Rows that occur twice count twice. `docs/evaluation.md` lists every
key of the result.

Dimension letters: N rows, A action units (12).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_face.evaluation import bootstrap, uncertainty_scores
from mtl_face.evaluation.joining import AuMask, Joined, join
from mtl_face.evaluation.measures import binary_f1, concordance, confusion_matrix, macro_f1
from mtl_face.evaluation.task_scores import mean_of, score_au, score_expression, score_va
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import AU, EXPR, TASKS, VA

LOGITS_REASON = "there are decisions only: this needs logits, as in a .parquet or .csv of ours"
STD_REASON = "the predictions have no valence_std and arousal_std"

__all__ = [
    "binary_f1",
    "concordance",
    "confusion_matrix",
    "macro_f1",
    "score",
    "score_au",
    "score_expression",
    "score_joined",
    "score_va",
]


def score(
    truth: FrameTable,
    predictions: PredictionTable,
    *,
    au_mask: AuMask = "all",
    lenient: bool = False,
    before_calibration: PredictionTable | None = None,
    num_resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores predictions against labels.

    Decisions are those of the table; valence and arousal are clipped to [-1, 1].

    Args:
        truth: N rows of labels.
        predictions: the predictions; matched by (dataset, video, frame), see `match`.
        au_mask: which rows count for action units; `all` is the official rule.
        lenient: leave out labelled rows without a prediction, instead of raising. Their number is
            in the result: such a score compares with no other.
        before_calibration: the predictions as they were before calibration, to be scored as
            probabilities beside the calibrated ones.
        num_resamples: resamples of the videos for confidence intervals; 0 for none.
        seed: of the resamples.

    Returns:
        JSON values. `p`: the sum of the three scores; `constant_baseline_p`: the same of the best
        constant predictions; `num_rows`: rows scored; `num_unpredicted`: rows left out; `va`,
        `au`, `expr`: what `score_va`, `score_au` and `score_expression` return, with `pr_auc`,
        `uncertainty`, `uncertainty_before_calibration` and `num_unanswered`; `bootstrap`: see
        `bootstrap.describe`, or None; `unavailable`: by path, why a value is None. A task without
        a valid row has the score None, and then `p` is None.

    Raises:
        PredictionError: a row has no prediction (unless lenient), or a prediction is not finite.
    """
    joined = join(truth, predictions, au_mask=au_mask, lenient=lenient)
    before = None
    if before_calibration is not None:
        before = join(truth, before_calibration, au_mask=au_mask, lenient=lenient)
    result = score_joined(joined, before=before, num_resamples=num_resamples, seed=seed)
    result[AU]["mask"] = au_mask
    return result


def score_joined(
    joined: Joined, *, before: Joined | None = None, num_resamples: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Scores rows that are joined already; see `score`.

    Args:
        joined: labels and answers.
        before: the same with the answers as they were before calibration.
        num_resamples: as in `score`.
        seed: as in `score`.

    Returns:
        As `score`, without the mask of the action units.
    """
    truth, answers = joined.truth, joined.predictions
    results: dict[str, dict[str, Any]] = {
        VA: score_va(_va(truth)[joined.va_rows], _va(answers)[joined.va_rows]),
        AU: score_au(np.asarray(truth.au), answers.au, joined.au_labels),
        EXPR: score_expression(
            np.asarray(truth.expression)[joined.expr_rows], answers.expression[joined.expr_rows]
        ),
    }
    unavailable: dict[str, str] = {}
    for task, (values, reason) in _uncertainty(joined).items():
        results[task]["num_unanswered"] = joined.num_unanswered[task]
        results[task]["uncertainty"] = values
        if values is None:
            unavailable[f"{task}.uncertainty"] = reason
        if results[task]["score"] is None:
            unavailable[f"{task}.score"] = _why_no_score(joined, task)
    earlier = dict.fromkeys(TASKS, (None, "the predictions as they were before were not given"))
    for task, (values, reason) in (earlier if before is None else _uncertainty(before)).items():
        results[task]["uncertainty_before_calibration"] = values
        if values is None:
            unavailable[f"{task}.uncertainty_before_calibration"] = reason
    for task, ranking in _ranking(joined).items():
        results[task]["pr_auc"] = ranking
        results[task]["mean_pr_auc"] = mean_of(ranking) if ranking else None
        if ranking is None:
            unavailable[f"{task}.pr_auc"] = unavailable[f"{task}.mean_pr_auc"] = LOGITS_REASON
    return {
        "p": _sum(results, "score"),
        "constant_baseline_p": _sum(results, "constant_baseline"),
        "num_rows": len(joined),
        "num_unpredicted": joined.num_unpredicted,
        **results,
        "bootstrap": _intervals(joined, num_resamples, seed, unavailable),
        "unavailable": unavailable,
    }


def _intervals(
    joined: Joined, num_resamples: int, seed: int, unavailable: dict[str, str]
) -> dict[str, Any] | None:
    num_videos = bootstrap.count_videos(joined)
    if not num_resamples:
        unavailable["bootstrap"] = "no resamples were asked for"
        return None
    if num_videos < 2:
        unavailable["bootstrap"] = "intervals need at least two videos"
        return None
    sample = bootstrap.resample(joined, num_resamples=num_resamples, seed=seed)
    return bootstrap.describe(sample, num_videos=num_videos, seed=seed)


def _uncertainty(joined: Joined) -> dict[str, tuple[dict[str, Any] | None, str]]:
    """By task the scores of the uncertainties, or None and why."""
    truth, answers = joined.truth, joined.predictions
    values: dict[str, dict[str, Any] | None] = dict.fromkeys(TASKS)
    reasons = dict.fromkeys(TASKS, "no row counts for this task")
    if answers.valence_std is None or answers.arousal_std is None:
        reasons[VA] = STD_REASON
    else:
        std_N2 = np.column_stack([answers.valence_std, answers.arousal_std])
        rows = joined.va_rows
        values[VA] = uncertainty_scores.score_va_uncertainty(
            _va(truth)[rows], _va(answers)[rows], std_N2[rows]
        )
    if answers.au_logits is None:
        reasons[AU] = LOGITS_REASON
    else:
        values[AU] = uncertainty_scores.score_au_uncertainty(
            np.asarray(truth.au, np.float64), answers.au_logits, answers.au, joined.au_labels
        )
    if answers.expression_logits is None:
        reasons[EXPR] = LOGITS_REASON
    else:
        rows = joined.expr_rows
        values[EXPR] = uncertainty_scores.score_expression_uncertainty(
            np.asarray(truth.expression, np.int64)[rows],
            answers.expression_logits[rows],
            answers.expression[rows],
        )
    return {task: (values[task], reasons[task]) for task in TASKS}


def _ranking(joined: Joined) -> dict[str, dict[str, float | None] | None]:
    """Average precisions of action units and expressions by name, or None without logits."""
    truth, answers = joined.truth, joined.predictions
    rows = joined.expr_rows
    return {
        AU: None
        if answers.au_logits is None
        else uncertainty_scores.ranking_au(
            np.asarray(truth.au, np.float64), answers.au_logits, joined.au_labels
        ),
        EXPR: None
        if answers.expression_logits is None
        else uncertainty_scores.ranking_expression(
            np.asarray(truth.expression, np.int64)[rows], answers.expression_logits[rows]
        ),
    }


def _why_no_score(joined: Joined, task: str) -> str:
    if joined.num_unanswered[task]:
        return f"the predictions have no answer for {task}"
    return f"no row has the labels that count for {task}"


def _va(columns: Any) -> Any:
    """Valence and arousal side by side, float64 [N, 2]."""
    return np.column_stack([columns.valence, columns.arousal]).astype(np.float64)


def _sum(results: Mapping[str, Mapping[str, Any]], key: str) -> float | None:
    """Sum of one entry over the tasks, or None if one is None."""
    values = [results[task][key] for task in TASKS]
    return None if None in values else float(sum(values))
