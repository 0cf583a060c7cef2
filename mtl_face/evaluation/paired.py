"""Two sources of predictions on the same rows: how far their scores differ, and by how much luck.

Both are scored on the same resamples of videos, so that what makes a video hard or easy for both
cancels out: a difference is known better than either score.
"""

from typing import Any

import numpy as np

from mtl_face.evaluation import bootstrap
from mtl_face.evaluation.joining import Joined


def compare(
    first: Joined,
    second: Joined,
    *,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
    seed: int = 0,
    level: float = bootstrap.LEVEL,
    method: bootstrap.Method = "bca",
) -> dict[str, Any]:
    """Scores, differences, their intervals and p-values.

    Args:
        first: rows with one source's answers.
        second: the same rows with the other's, as from `joining.join_both`.
        num_resamples: resamples of the videos.
        seed: of the resamples.
        level: of the intervals.
        method: of the intervals and p-values, see `bootstrap`.

    Returns:
        JSON values: `num_rows`, `num_unpredicted`, `num_videos`, `num_resamples`, `seed`, `level`,
        `method`, and `scores`: by dotted path of a score, `first`, `second`, `difference` (second
        less first), `interval` ([low, high] or None) and `p_value` (or None) of the difference.
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
        ends = bootstrap.interval(difference, path, level=level, method=method)
        scores[path] = {
            "first": samples[0].point[path],
            "second": samples[1].point[path],
            "difference": value,
            "interval": ends and list(ends),
            "p_value": bootstrap.p_value(difference, path, method=method),
        }
    return {
        "num_rows": len(first),
        "num_unpredicted": first.num_unpredicted,
        "num_videos": bootstrap.count_videos(first),
        "num_resamples": num_resamples,
        "seed": seed,
        "level": level,
        "method": method,
        "scores": scores,
    }
