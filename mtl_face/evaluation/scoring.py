"""The official multi-task score of the ABAW challenges, what explains it, and both in words.

P = (CCC of valence + CCC of arousal) / 2 + macro F1 over 8 expressions + mean over 12 action
units of binary F1. Labels are left out per task and not per row: a row without an expression
still counts for the others. Rows that occur twice count twice. `docs/evaluation.md` lists every
key of the result.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mtl_face.evaluation import bootstrap
from mtl_face.evaluation.joining import AuMask, Joined, join
from mtl_face.evaluation.measures import mean_of_defined, or_none
from mtl_face.evaluation.sums import Statistic, Videos
from mtl_face.evaluation.task_metrics import METRICS, TaskMetrics
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import AU, EXPR, TASKS, VA


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
        predictions: the predictions; matched by (dataset, video, frame), see `joining.match`.
        au_mask: which rows count for action units; `all` is the official rule.
        lenient: leave out labelled rows without a prediction, instead of raising. Their number is
            in the result: such a score compares with no other.
        before_calibration: the predictions as they were before calibration, to be scored as
            probabilities beside the calibrated ones.
        num_resamples: resamples of the videos for confidence intervals; 0 for none.
        seed: of the resamples.

    Returns:
        JSON values. `p`: the sum of the three scores; `constant_baseline_p`: that of the best
        constant predictions; `num_rows`: rows scored; `num_unpredicted`: rows left out; `va`,
        `au`, `expr`: the metrics of each task, see `task_metrics`; `bootstrap`: see
        `bootstrap.describe`, or None; `unavailable`: by path, why a value is None. A task without
        a valid row has the score None, and then `p` is None, with its reason.

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
    """Scores rows that are joined already, see `score`; `au.mask` is "all".

    `before` has the same rows with the predictions as they were before calibration.
    """
    videos = Videos.together(joined)
    unavailable: dict[str, str] = {}
    if undefined := why_no_sum(joined):
        unavailable["p"] = undefined
    results = {}
    for task, make in METRICS.items():
        metrics = make(joined, videos)
        results[task] = _task_result(task, metrics, joined, unavailable)
        earlier = None if before is None else make(before, videos)
        results[task] |= _uncertainty(task, earlier, "uncertainty_before_calibration", unavailable)
    results[AU]["mask"] = "all"
    return {
        "p": _sum(results, "score"),
        "constant_baseline_p": _sum(results, "constant_baseline"),
        "num_rows": len(joined),
        "num_unpredicted": joined.num_unpredicted,
        **results,
        "bootstrap": _intervals(joined, num_resamples, seed, unavailable),
        "unavailable": unavailable,
    }


_SHORT = {VA: "VA", AU: "AU", EXPR: "expression"}


def why_no_sum(joined: Joined) -> str | None:
    """Why P is not defined, "no VA labels" say; None if it is."""
    reasons = []
    for task in TASKS:
        if joined.counted[task].any():
            continue
        if task in joined.predictions.untrained:
            reasons.append(f"no {_SHORT[task]} labels in training")
        elif joined.num_unanswered[task]:
            reasons.append(f"no {_SHORT[task]} answers")
        else:
            reasons.append(f"no {_SHORT[task]} labels")
    return f"not defined: {', '.join(reasons)}" if reasons else None


def _task_result(
    task: str, metrics: TaskMetrics, joined: Joined, unavailable: dict[str, str]
) -> dict[str, Any]:
    """The entry of a task; adds to `unavailable` what is None in it, and why."""
    silent = joined.num_unanswered[task]
    result = {**_total(metrics.scores(), task), **metrics.details(), "num_unanswered": silent}
    if result["score"] is None:
        unavailable[f"{task}.score"] = (
            f"the network was trained without labels of {task}"
            if task in joined.predictions.untrained
            else f"the predictions have no answer for {task}"
            if silent
            else f"no row has the labels that count for {task}"
        )
    result |= _uncertainty(task, metrics, "uncertainty", unavailable)
    if "pr_auc" in result:
        ranked = np.array(list(result["pr_auc"].values()), np.float64)
        result["mean_pr_auc"] = or_none(mean_of_defined(ranked))
    elif task != VA and metrics.without_uncertainty is not None:
        for key in ("pr_auc", "mean_pr_auc"):
            result[key] = None
            unavailable[f"{task}.{key}"] = metrics.without_uncertainty
    return result


def _uncertainty(
    task: str, metrics: TaskMetrics | None, key: str, unavailable: dict[str, str]
) -> dict[str, Any]:
    """The uncertainty of a task under a key; None, and why in `unavailable`, if there is none."""
    if metrics is None:
        reason: str | None = "the predictions as they were before were not given"
    elif metrics.without_uncertainty is None and not metrics.num_valid:
        reason = "no row counts for this task"
    else:
        reason = metrics.without_uncertainty
    if metrics is None or reason is not None:
        unavailable[f"{task}.{key}"] = str(reason)
        return {key: None}
    scores = _total(metrics.uncertainty(), task)["uncertainty"]
    return {key: _merged(scores, metrics.uncertainty_details())}


def _total(statistics: Iterable[Statistic], task: str) -> dict[str, Any]:
    """The scores of all rows as nested dicts below the task; None for what is undefined."""
    result: dict[str, Any] = {}
    for statistic in statistics:
        for path, (value,) in statistic.total().items():
            *above, last = path.removeprefix(f"{task}.").split(".")
            place = result
            for name in above:
                place = place.setdefault(name, {})
            place[last] = or_none(value)
    return result


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts as one; where both have a value, that of `other`."""
    merged = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], Mapping) and isinstance(other[key], Mapping):
            merged[key] = _merged(one[key], other[key])
    return merged


def _intervals(
    joined: Joined, num_resamples: int, seed: int, unavailable: dict[str, str]
) -> dict[str, Any] | None:
    if not num_resamples:
        unavailable["bootstrap"] = "no resamples were asked for"
        return None
    num_videos = Videos.of(joined).count
    if num_videos < 2:
        unavailable["bootstrap"] = "intervals need at least two videos"
        return None
    sample = bootstrap.resample(joined, num_resamples=num_resamples, seed=seed)
    return bootstrap.describe(sample, num_videos=num_videos, seed=seed)


def _sum(results: Mapping[str, Mapping[str, Any]], key: str) -> float | None:
    """Sum of one entry over the tasks, or None if one is None."""
    values = [results[task][key] for task in TASKS]
    return None if None in values else float(sum(values))


ROWS = (
    ("va.score", "valence/arousal", "mean CCC"),
    ("va.valence", "  valence", "CCC"),
    ("va.arousal", "  arousal", "CCC"),
    ("au.score", "action units", "mean F1"),
    ("expr.score", "expressions", "macro F1"),
)
"""Scores in a summary: dotted path, what is scored, and by what measure."""


def summary(result: Mapping[str, Any]) -> list[str]:
    """The scores of a result of `score` in lines.

    Returns:
        A line a score, each with its interval and the best constant's score, then P; before them,
        where P is not defined, why, and what is; after them, what the reader must know.
    """
    bootstrapped = result.get("bootstrap")
    intervals = bootstrapped["intervals"] if bootstrapped else {}
    undefined = result["unavailable"].get("p")
    lines = [] if undefined is None else [f"P is {undefined}; {defined(result)}"]
    if bootstrapped:
        lines.append(
            f"score with its {bootstrapped['level']:.0%} interval over "
            f"{bootstrapped['num_videos']} videos ({bootstrapped['num_resamples']} resamples)"
        )
    for path, name, measure in ROWS:
        task, key = path.split(".")
        part = result[task]
        lines.append(
            f"{name:16} {measure:9} {number(part[key]):>7} {ends(intervals.get(path))}  "
            f"(constant {number(part['constant_baseline'])}, {part['num_valid']} frames)"
        )
    lines.append(
        f"{'P':16} {'sum':9} {undefined}"
        if undefined is not None
        else f"{'P':16} {'sum':9} {number(result['p']):>7} {ends(intervals.get('p'))}  "
        f"(constant {number(result['constant_baseline_p'])})"
    )
    lines += ceilings(result)
    if chosen := selection_words(result.get("selection")):
        lines.append(chosen)
    left_out = result["num_unpredicted"]
    unanswered = {
        task: result[task].get("num_unanswered", 0)
        for task in TASKS
        if result[task]["score"] is not None
    }
    if left_out or any(unanswered.values()):
        silent = ", ".join(f"{count} {task}" for task, count in unanswered.items() if count)
        lines.append(
            f"left out: {left_out} labelled rows without a prediction"
            + (f", rows without an answer: {silent}" if silent else "")
            + "; such a score compares with no other"
        )
    return lines


def defined(result: Mapping[str, Any]) -> str:
    """The scores that there are where P is not, in words."""
    words = []
    for path, name, measure in ROWS:
        task, key = path.split(".")
        score = (result.get(task) or {}).get("score")
        if key == "score" and score is not None:
            words.append(f"{name} {measure} {number(score)}")
    return f"defined: {', '.join(words)}" if words else "nothing else is either"


def ceilings(result: Mapping[str, Any]) -> list[str]:
    """Sentences on scores that no prediction can raise to 1, for want of labels of some class."""
    lines = []
    expr, au = result["expr"], result["au"]
    if expr["score"] is not None:
        absent = [name for name, count in expr["support"].items() if not count]
        if absent:
            share = 1 - len(absent) / len(expr["support"])
            lines.append(
                f"expressions: no label is {' or '.join(absent)}, whose F1 counts as 0; the macro "
                f"F1 is at most {share:.3f}"
            )
    if au["score"] is not None:
        labelled = [name for name, count in au["num_valid_per_au"].items() if count]
        absent = [name for name in labelled if not au["num_positive"][name]]
        if absent:
            lines.append(
                f"action units: {', '.join(absent)} present in no label, whose F1 counts as 0; the "
                f"mean F1 is at most {1 - len(absent) / len(labelled):.3f}"
            )
    return lines


def selection_words(selection: Any) -> str | None:
    """That a checkpoint is the best of several looks at its validation set; None if it is not.

    `selection` is as of `training.history.selection`, from a file perhaps.
    """
    numbers = {"looks": int, "step": int, "score": float, "last_step": int, "last_score": float}
    if not isinstance(selection, Mapping) or not isinstance(selection.get("criterion"), str):
        return None
    if any(type(selection.get(name)) is not kind for name, kind in numbers.items()):
        return None
    if selection["looks"] < 2:
        return None
    return (
        f"chosen: step {selection['step']}, the best of {selection['looks']} looks at the "
        f"validation set of its training, {selection['score']:.4f} by {selection['criterion']}; "
        f"the last step, {selection['last_step']}, had {selection['last_score']:.4f}"
    )


def number(value: float | None, *, sign: bool = False) -> str:
    """A score with four digits, or "none"."""
    if value is None:
        return "none"
    return f"{value:+.4f}" if sign else f"{value:.4f}"


def ends(interval: tuple[float, float] | None, *, sign: bool = False) -> str:
    """An interval in brackets, or blanks of the same width."""
    if interval is None:
        return " " * (18 if sign else 16)
    low, high = (number(end, sign=sign) for end in interval)
    return f"[{low}, {high}]"
