"""Drawings of the uncertainties: reliability, coverage of intervals, risk against coverage."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_face.report.drawing import FIRST, SECOND, TEXT, THIRD, drawing, to_svg
from mtl_face.report.html import Html


def reliability(
    now: Mapping[str, Any], before: Mapping[str, Any] | None, *, task: str, event: str
) -> Html:
    """Reliability diagram: how often an event happens against the probability told.

    Args:
        now: bins, lists `confidence`, `frequency` and `count`.
        before: the same before calibration, or None.
        task: name of the task, for the ids.
        event: what the probability is of, in words.

    Returns:
        The drawing.
    """
    with drawing(3.3, 3.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=TEXT, alpha=0.6, linewidth=1, linestyle="--")
        words = []
        drawn = [(before, SECOND, "s", "before calibration"), (now, FIRST, "o", "as scored")]
        for bins, colour, marker, name in drawn:
            if bins is None:
                continue
            confidence, frequency = np.asarray(bins["confidence"]), np.asarray(bins["frequency"])
            axes.plot(
                confidence, frequency, color=colour, marker=marker, markersize=3.5, label=name
            )
            share = np.asarray(bins["count"]) / np.sum(bins["count"])
            above = float((share * (confidence - frequency)).sum())
            words.append(
                f"{name}: {len(confidence)} bins, probabilities on average "
                f"{abs(above):.3f} {'above' if above > 0 else 'below'} the frequencies"
            )
        if before is not None:
            axes.legend(frameon=False, fontsize=8, loc="upper left")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("observed frequency")
        return to_svg(
            figure,
            identifier=f"reliability-{task}",
            description=f"Reliability diagram, {event}. {'; '.join(words)}. The dashed diagonal "
            "is perfect calibration.",
        )


def interval_coverage(
    now: Mapping[str, Mapping[str, float]], before: Mapping[str, Mapping[str, float]] | None
) -> Html:
    """Share of the labels inside the central intervals, against what it should be.

    Args:
        now: by `valence` and `arousal` the share by nominal percentage.
        before: the same before calibration, or None.

    Returns:
        The drawing.
    """
    with drawing(3.3, 3.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=TEXT, alpha=0.6, linewidth=1, linestyle="--")
        words = []
        for values, style, when in ((before, ":", "before calibration"), (now, "-", "as scored")):
            if values is None:
                continue
            for (name, shares), colour in zip(values.items(), (FIRST, SECOND), strict=True):
                nominal = [int(percent) / 100 for percent in shares]
                observed = list(shares.values())
                label = name if before is None else f"{name}, {when}"
                axes.plot(
                    nominal,
                    observed,
                    style,
                    color=colour,
                    marker="o" if name == "valence" else "s",
                    markersize=4,
                    label=label,
                )
                pairs = zip(shares, observed, strict=True)
                words.append(f"{label} " + ", ".join(f"{p} %: {o:.0%}" for p, o in pairs))
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.set_xlabel("nominal probability of the interval")
        axes.set_ylabel("share of labels inside")
        return to_svg(
            figure,
            identifier="interval-coverage",
            description=f"Labels inside the predicted intervals: {'; '.join(words)}. The dashed "
            "diagonal is perfect calibration.",
        )


def risk_coverage(curve: Mapping[str, Any], *, task: str, risk: str) -> Html:
    """Risk where only the surest rows are answered, against the share answered.

    Args:
        curve: lists `coverage` and `risk`.
        task: name of the task, for the ids.
        risk: what it is, in words.

    Returns:
        The drawing.
    """
    coverage, value = np.asarray(curve["coverage"]), np.asarray(curve["risk"])
    with drawing(3.3, 2.6) as (figure, axes):
        axes.axhline(value[-1], color=THIRD, linewidth=1, linestyle="--", label="in random order")
        axes.plot(coverage, value, color=FIRST, marker="o", markersize=3, label="surest first")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        axes.set(xlim=(0, 1.02), ylim=(0, max(float(value.max()) * 1.12, 1e-3)))
        axes.set_xlabel("share of rows answered")
        axes.set_ylabel(risk)
        half = float(np.interp(0.5, coverage, value))
        return to_svg(
            figure,
            identifier=f"risk-{task}",
            description=f"Risk against coverage: {risk} {value[-1]:.3f} if all are answered, "
            f"{half:.3f} if the surest half is, {value[0]:.3f} for the surest twentieth.",
        )
