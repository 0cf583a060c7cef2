"""Two tables of predictions of the same rows: how far their scores differ, and by how much luck.

Both are scored on the same resamples of videos, so that what makes a video hard or easy for both
cancels out: a difference is known better than either score.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_face.evaluation import bootstrap
from mtl_face.evaluation.joining import Joined
from mtl_face.evaluation.scoring import ROWS, ends, number, why_no_sum
from mtl_face.evaluation.sums import Videos


def compare(
    first: Joined,
    second: Joined,
    *,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of the same rows (see `joining.join_both`), differences, intervals and p-values.

    Returns:
        JSON values: `num_rows`, `num_unpredicted`, `num_videos`, `num_resamples`, `seed`, `level`,
        `method`, `undefined` (why there is no P, or None), and `scores`: by dotted path of a score,
        `first`, `second`, `difference` (second less first), `interval` ([low, high] or None) and
        `p_value` (or None) of the difference.
    """
    samples = [
        bootstrap.resample(joined, num_resamples=num_resamples, seed=seed)
        for joined in (first, second)
    ]
    difference = samples[1].minus(samples[0])
    scores = {}
    for path, value in difference.point.items():
        if not np.isfinite(value):
            continue
        interval = bootstrap.interval(difference, path)
        scores[path] = {
            "first": samples[0].point[path],
            "second": samples[1].point[path],
            "difference": value,
            "interval": interval and list(interval),
            "p_value": bootstrap.p_value(difference, path),
        }
    return {
        "num_rows": len(first),
        "num_unpredicted": first.num_unpredicted,
        "undefined": why_no_sum(first) or why_no_sum(second),
        "num_videos": Videos.of(first).count,
        "num_resamples": num_resamples,
        "seed": seed,
        "level": bootstrap.LEVEL,
        "method": bootstrap.METHOD,
        "scores": scores,
    }


def summary(result: Mapping[str, Any]) -> list[str]:
    """A result of `compare`, with the names of both under `files`, in lines, one a score."""
    lines = [f"A: {result['files']['first']}", f"B: {result['files']['second']}"]
    if result["undefined"] is not None:
        lines.append(f"P is {result['undefined']}")
    head = f"{'A':>7} {'B':>7} {'B - A':>8} {result['level']:.0%} interval"
    lines.append(f"{'':25} {head:45}  p-value")
    for path, name, measure in (*ROWS, ("p", "P", "sum")):
        values = result["scores"].get(path)
        if values is None:
            lines.append(f"{name:15} {measure:9} {'none':>7}")
            continue
        chance = values["p_value"]
        lines.append(
            f"{name:15} {measure:9} {number(values['first']):>7} {number(values['second']):>7} "
            f"{number(values['difference'], sign=True):>8} {ends(values['interval'], sign=True)}  "
            f"{'none' if chance is None else f'{chance:.3f}'}"
        )
    lines.append(
        f"{result['num_rows']} rows of {result['num_videos']} videos, "
        f"{result['num_resamples']} paired resamples of the videos; p-values are for each line by "
        "itself"
    )
    if result["num_unpredicted"]:
        lines.append(f"left out: {result['num_unpredicted']} labelled rows that not both predict")
    return lines
