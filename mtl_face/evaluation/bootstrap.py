"""Intervals and tests by resampling videos.

Frames of a video are alike, so they are no independent evidence: what is drawn with replacement
are whole videos. Intervals are bias-corrected and accelerated (BCa, Efron 1987), with the
acceleration from leaving out one video at a time.

They are too narrow where there are few videos, for they take the spread of V videos for that of
all: their tails are moved out as a t interval's are against a normal one's (the expanded
percentile interval of Hesterberg 2015).

Dimension letters: V videos, R resamples.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from mtl_face.evaluation.joining import Joined
from mtl_face.evaluation.measures import Floats
from mtl_face.evaluation.sums import Scores, Statistic, Videos, merge
from mtl_face.evaluation.task_metrics import METRICS

NUM_RESAMPLES = 1000
LEVEL = 0.95
METHOD = "bca"
_MIN_DEFINED = 0.9
"""Share of resamples in which a score must be defined to have an interval."""

_NORMAL = NormalDist()


@dataclasses.dataclass(frozen=True, eq=False)
class Resampling:
    """Scores of the data, of resamples of its videos, and of the data without each video.

    Attributes:
        point: value by path.
        resampled: [R] by path; NaN where undefined.
        left_out: [V] by path; NaN where undefined.
    """

    point: dict[str, float]
    resampled: Scores
    left_out: Scores

    def minus(self, other: "Resampling") -> "Resampling":
        """Differences of the scores that both have, resample by resample."""
        paths = [path for path in self.point if path in other.point]
        return Resampling(
            {path: self.point[path] - other.point[path] for path in paths},
            {path: self.resampled[path] - other.resampled[path] for path in paths},
            {path: self.left_out[path] - other.left_out[path] for path in paths},
        )


def draw_weights(num_videos: int, num_resamples: int, seed: int) -> Floats:
    """How often each of V >= 1 videos is in each of R resamples; a seed gives the same always.

    Returns:
        Whole numbers, float64 [R, V]; each row sums to V.
    """
    rng = np.random.default_rng(seed)
    chances = np.full(num_videos, 1.0 / num_videos)
    return rng.multinomial(num_videos, chances, size=num_resamples).astype(np.float64)


def resample(joined: Joined, *, num_resamples: int, seed: int) -> Resampling:
    """Scores R resamples of the videos.

    Two tables of predictions of the same rows get the same resamples from the same seed, so that
    they can be compared in pairs.
    """
    videos = Videos.of(joined)
    weights_RV = draw_weights(max(videos.count, 1), num_resamples, seed)
    return resample_statistics(_statistics(joined, videos), weights_RV)


def _statistics(joined: Joined, videos: Videos) -> Iterator[Statistic]:
    """Those of every task with a row that counts; one at a time, since some are large."""
    for make in METRICS.values():
        metrics = make(joined, videos)
        if metrics.num_valid:
            yield from metrics.scores()
            yield from metrics.uncertainty()


def resample_statistics(parts: Iterable[Statistic], weights_RV: Floats) -> Resampling:
    """Scores of statistics whose V videos are drawn as the weights say."""
    points, resampled, left_out = [], [], []
    for statistic in parts:
        points.append(statistic.total())
        resampled.append(statistic.weighted(weights_RV))
        left_out.append(statistic.without_each())
    point = {path: float(value[0]) for path, value in merge(points).items()}
    return Resampling(point, merge(resampled), merge(left_out))


def interval(sample: Resampling, path: str) -> tuple[float, float] | None:
    """Interval of one score, or difference of scores, that holds its true value with `LEVEL`.

    Returns:
        (low, high), or None where the score is undefined or was so in more than a tenth of the
        resamples, where there are fewer than two videos, and where resampling biases the score by
        so much that the interval would not hold it (a calibration error near its floor).
    """
    values = _defined(sample, path)
    if values is None:
        return None
    z = _expanded(len(sample.left_out[path]))
    bias, acceleration = _bca(sample, path, values)
    low, high = np.quantile(values, [_shift(end, bias, acceleration) for end in (-z, z)])
    slack = 1e-9 * (1.0 + abs(sample.point[path]))
    if not low - slack <= sample.point[path] <= high + slack:
        return None
    return float(low), float(high)


def p_value(sample: Resampling, path: str) -> float | None:
    """Two-sided p-value of the hypothesis that a difference, see `Resampling.minus`, is zero.

    It is the smallest alpha whose interval of level 1 - alpha excludes zero, at least 2 / (R + 1):
    what R resamples cannot show is not claimed.

    Returns:
        A number in (0, 1], or None where there is no interval.
    """
    values = _defined(sample, path)
    if values is None or interval(sample, path) is None:
        return None
    if not values.any() and sample.point[path] == 0.0:
        return 1.0
    z = _NORMAL.inv_cdf(_rank(values, 0.0))
    bias, acceleration = _bca(sample, path, values)
    # the tail whose shifted quantile is zero
    divisor = 1.0 + acceleration * (z - bias)
    z = (z - bias) / divisor - bias if divisor > 0 else math.copysign(math.inf, z - bias)
    smallest = 2.0 / (len(values) + 1)
    return float(min(1.0, max(_two_sided(z, len(sample.left_out[path])), smallest)))


def describe(sample: Resampling, *, num_videos: int, seed: int) -> dict[str, Any]:
    """The intervals of all scores as JSON values.

    Returns:
        `unit` (videos), `num_videos`, `num_resamples`, `seed`, `level`, `method`, and `intervals`:
        [low, high] by path; None as of `interval`, and for a score that is the same in all
        resamples: the videos say nothing of how it would vary.
    """
    found = {path: interval(sample, path) for path in sample.point}
    intervals = {path: ends if ends and ends[0] < ends[1] else None for path, ends in found.items()}
    return {
        "unit": "videos",
        "num_videos": num_videos,
        "num_resamples": len(next(iter(sample.resampled.values()), ())),
        "seed": seed,
        "level": LEVEL,
        "method": METHOD,
        "intervals": {path: ends and list(ends) for path, ends in intervals.items()},
    }


def _defined(sample: Resampling, path: str) -> NDArray[np.float64] | None:
    values = sample.resampled[path]
    finite = values[np.isfinite(values)]
    enough = len(finite) >= _MIN_DEFINED * len(values) and len(finite) > 1
    if not enough or not math.isfinite(sample.point[path]) or len(sample.left_out[path]) < 2:
        return None
    return finite


def _rank(values: NDArray[np.float64], threshold: float) -> float:
    """Share of values below a threshold, ties half, never quite 0 or 1."""
    below = np.count_nonzero(values < threshold) + 0.5 * np.count_nonzero(values == threshold)
    return float((below + 0.5) / (len(values) + 1.0))


def _bca(sample: Resampling, path: str, values: NDArray[np.float64]) -> tuple[float, float]:
    """Bias correction and acceleration."""
    bias = _NORMAL.inv_cdf(_rank(values, sample.point[path]))
    left_out = sample.left_out[path]
    left_out = left_out[np.isfinite(left_out)]
    influence = left_out.mean() - left_out if len(left_out) else left_out
    spread = float((influence**2).sum())
    return bias, float((influence**3).sum() / (6.0 * spread**1.5)) if spread else 0.0


def _expanded(num_videos: int) -> float:
    """How many deviations of the resamples an interval reaches: more with few videos."""
    t = float(stdtrit(num_videos - 1, (1.0 + LEVEL) / 2.0))
    return t * math.sqrt(num_videos / (num_videos - 1))


def _two_sided(z: float, num_videos: int) -> float:
    """Probability of lying further out than z deviations of the resamples; inverts `_expanded`."""
    return 2.0 * float(stdtr(num_videos - 1, -abs(z) * math.sqrt((num_videos - 1) / num_videos)))


def _shift(deviations: float, bias: float, acceleration: float) -> float:
    """The quantile of the resamples that stands for an end of the interval."""
    z = bias + deviations
    divisor = 1.0 - acceleration * z
    # beyond the pole the shift has no meaning: take the end
    return _NORMAL.cdf(bias + z / divisor) if divisor > 0 else float(z > 0)
