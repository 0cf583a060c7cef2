"""Numbers of metrics.json as text, each score with its interval."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Scores:
    """What `mtl_face.evaluation.metrics.score` returned, told by dotted path.

    Attributes:
        metrics: the result.
    """

    metrics: Mapping[str, Any]

    @property
    def intervals(self) -> Mapping[str, Any]:
        """Low and high end by path; empty if there are no intervals."""
        bootstrap = self.metrics.get("bootstrap")
        return bootstrap["intervals"] if bootstrap else {}

    def value(self, path: str) -> Any:
        """What stands under a path; None where a part of it is None or absent."""
        found: Any = self.metrics
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    def text(self, path: str, *, none: str = "no labels") -> str:
        """A score with its interval, as `0.852 [0.759, 0.886]`.

        Args:
            path: as in `au.per_au.au12`.
            none: the text if it is None.

        Returns:
            The text. A score without an interval stands alone.
        """
        value = self.value(path)
        if value is None:
            return none
        ends = self.intervals.get(path)
        return (
            plain(value) if ends is None else f"{plain(value)} [{plain(ends[0])}, {plain(ends[1])}]"
        )

    def intervals_in_words(self) -> str:
        """What the intervals are, or why there are none."""
        bootstrap = self.metrics.get("bootstrap")
        if not bootstrap:
            reason = self.metrics.get("unavailable", {}).get("bootstrap", "they were not computed")
            return f"No intervals: {reason}."
        return (
            f"In brackets: {bootstrap['level']:.0%} intervals, from {bootstrap['num_resamples']:,} "
            f"resamples of the {bootstrap['num_videos']:,} videos. They tell how the score would "
            "vary with the videos, not with the seed of the training. A number without brackets "
            "has no interval."
        )

    def why(self, path: str) -> str:
        """Why a number is None."""
        return str(self.metrics.get("unavailable", {}).get(path, "it was not computed"))


def plain(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


def gain(value: float | None, baseline: float | None) -> str:
    """A difference with its sign; empty if one is None."""
    return "" if value is None or baseline is None else f"{value - baseline:+.3f}"


def percent(value: float | None) -> str:
    """A share in percent."""
    return "no labels" if value is None else f"{value:.1%}"
