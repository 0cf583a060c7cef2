"""The scores in a few lines of text, each with its interval and the best constant's score."""

from collections.abc import Mapping
from typing import Any

_ROWS = (
    ("valence/arousal", "mean CCC", "va", "score"),
    ("  valence", "CCC", "va", "valence"),
    ("  arousal", "CCC", "va", "arousal"),
    ("action units", "mean F1", "au", "score"),
    ("expressions", "macro F1", "expr", "score"),
)


def summary(metrics: Mapping[str, Any]) -> list[str]:
    """The scores in lines.

    Args:
        metrics: what `metrics.score` returned.

    Returns:
        A line a score, then P; one more where labelled rows were left out.
    """
    bootstrap = metrics.get("bootstrap")
    intervals = bootstrap["intervals"] if bootstrap else {}
    lines = []
    if bootstrap:
        lines.append(
            f"score with its {bootstrap['level']:.0%} interval over {bootstrap['num_videos']} "
            f"videos ({bootstrap['num_resamples']} resamples)"
        )
    for name, measure, task, key in _ROWS:
        part = metrics[task]
        baseline = part["constant_baseline"]
        lines.append(
            f"{name:16} {measure:9} {number(part[key]):>7} {ends(intervals, f'{task}.{key}')}  "
            f"(constant {number(baseline)}, {part['num_valid']} frames)"
        )
    lines.append(
        f"{'P':16} {'sum':9} {number(metrics['p']):>7} {ends(intervals, 'p')}  "
        f"(constant {number(metrics['constant_baseline_p'])})"
    )
    left_out = metrics["num_unpredicted"]
    unanswered = {
        task: metrics[task].get("num_unanswered", 0)
        for task in ("va", "au", "expr")
        if metrics[task]["score"] is not None
    }
    if left_out or any(unanswered.values()):
        silent = ", ".join(f"{number} {task}" for task, number in unanswered.items() if number)
        lines.append(
            f"left out: {left_out} labelled rows without a prediction"
            + (f", rows without an answer: {silent}" if silent else "")
            + "; such a score compares with no other"
        )
    return lines


def number(value: float | None, *, sign: bool = False) -> str:
    """A score with four digits, or "none"."""
    if value is None:
        return "none"
    return f"{value:+.4f}" if sign else f"{value:.4f}"


def ends(intervals: Mapping[str, Any], path: str, *, sign: bool = False) -> str:
    """An interval in brackets, or blanks of the same width."""
    interval = intervals.get(path)
    if interval is None:
        return " " * (18 if sign else 16)
    low, high = (number(end, sign=sign) for end in interval)
    return f"[{low}, {high}]"
