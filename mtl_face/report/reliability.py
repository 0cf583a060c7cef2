"""Uncertainties: reliability, coverage of intervals, risk against coverage."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from markupsafe import Markup

from mtl_face.report.figures import FIRST, SECOND, TEXT, THIRD, canvas, to_svg
from mtl_face.report.page import Drawing, Table
from mtl_face.report.scores import TASK_WORDS, Scores
from mtl_face.tasks import AU, EXPR, VA, VA_NAMES

_EVENTS = {
    AU: "an action unit being present",
    EXPR: "the decided expression being true",
}

_RISKS = {
    AU: "share of wrong decisions",
    EXPR: "share of wrong decisions",
    VA: "mean square error",
}

_DECISION_MEASURES = (
    ("negative log likelihood, nats", "nll"),
    ("Brier score", "brier"),
    ("calibration error, debiased", "ece_debiased"),
    ("calibration error, plain (biased upwards)", "ece"),
    ("area under risk-coverage", "risk_coverage.aurc"),
    ("excess over the best order", "risk_coverage.excess_aurc"),
)

_VA_MEASURES = tuple(
    (f"{name}, {words}", path.format(name))
    for name in VA_NAMES
    for words, path in (
        ("negative log likelihood, nats", "nll.{}"),
        ("mean standard deviation", "mean_std.{}"),
        ("inside the 50 % interval", "coverage.{}.50"),
        ("inside the 80 % interval", "coverage.{}.80"),
        ("inside the 95 % interval", "coverage.{}.95"),
    )
)

_RATER_MEASURES = tuple(
    (f"{name}, {words}", f"raters.{key}.{name}")
    for name in VA_NAMES
    for words, key in (
        ("rank correlation with the annotators' standard deviation", "rank_correlation"),
        ("negative log likelihood of one annotator's rating, nats", "nll"),
        ("root mean square error to one annotator's rating", "rmse"),
        ("annotators' mean standard deviation", "mean_std"),
    )
)
"""Where rows have several annotators."""

_TABLES = {
    AU: ("Action units: less is better", _DECISION_MEASURES),
    EXPR: ("Expressions: less is better", _DECISION_MEASURES),
    VA: ("Valence and arousal, as normal predictions", _VA_MEASURES),
}


def uncertainties(result: Scores) -> dict[str, Any]:
    """Whether the predicted uncertainties mean what they say.

    Returns:
        `left_out`: names of tasks by the reason why they have none; `reliability` and `risk`:
        drawings; `calibrated`: whether any of them shows the state before calibration; `tables`.
    """
    left_out: dict[str, list[str]] = {}
    tables = []
    for task in _TABLES:
        if result.value(f"{task}.uncertainty") is None:
            names = left_out.setdefault(result.why(f"{task}.uncertainty"), [])
            names.append(TASK_WORDS[task].capitalize())
        else:
            tables.append(_table(result, task))
    return {
        "left_out": left_out,
        "reliability": list(_reliability(result)),
        "calibrated": any(
            result.value(f"{task}.uncertainty_before_calibration") is not None for task in _EVENTS
        ),
        "risk": [
            Drawing(
                risk_coverage(curve, task=task, risk=risk),
                f"{TASK_WORDS[task].capitalize()}: area "
                f"{result.text(f'{task}.uncertainty.risk_coverage.aurc')}.",
            )
            for task, risk in _RISKS.items()
            if (curve := result.value(f"{task}.uncertainty.risk_coverage")) is not None
        ],
        "tables": tables,
    }


def _reliability(result: Scores) -> Iterator[Drawing]:
    for task, event in _EVENTS.items():
        now = result.value(f"{task}.uncertainty.reliability")
        if now is None:
            continue
        before = result.value(f"{task}.uncertainty_before_calibration.reliability")
        error = result.text(f"{task}.uncertainty.ece_debiased")
        yield Drawing(
            reliability(now, before, task=task, event=event),
            f"{TASK_WORDS[task].capitalize()}, probability of {event}: debiased calibration error "
            f"{error}. Each point holds about equally many rows. Dashed: perfect.",
        )
    coverage = result.value("va.uncertainty.coverage")
    if coverage is not None:
        yield Drawing(
            interval_coverage(coverage, result.value("va.uncertainty_before_calibration.coverage")),
            "Valence and arousal: share of labels inside the predicted 50, 80 and 95 % intervals. "
            "Above the dashed line: intervals wider than need be.",
        )


def _table(result: Scores, task: str) -> Table:
    """Measures of a task as scored, and before calibration where that is known."""
    caption, measures = _TABLES[task]
    now, before = f"{task}.uncertainty", f"{task}.uncertainty_before_calibration"
    if result.value(f"{now}.raters") is not None:
        measures += _RATER_MEASURES
    header = ["Measure", "As scored"]
    # of valence and arousal, None means that there are no labels
    none = "no labels" if task == VA else "undefined"
    rows = [[words, result.text(f"{now}.{name}", none=none)] for words, name in measures]
    if result.value(before) is not None:
        header.append("Before calibration")
        for row, (_, name) in zip(rows, measures, strict=True):
            row.append(result.plain(f"{before}.{name}", none="undefined"))
    return Table(caption, header, rows)


def reliability(
    now: Mapping[str, Any], before: Mapping[str, Any] | None, *, task: str, event: str
) -> Markup:
    """Reliability diagram: how often an event happens against its predicted probability.

    `now`, and `before` calibration, are bins: lists `confidence`, `frequency` and `count`.
    """
    with _unit_square("predicted probability", "observed frequency") as axes:
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
            axes.legend(loc="upper left")
        return to_svg(
            axes,
            identifier=f"reliability-{task}",
            description=f"Reliability diagram, {event}. {'; '.join(words)}. The dashed diagonal "
            "is perfect calibration.",
        )


def interval_coverage(
    now: Mapping[str, Mapping[str, float]], before: Mapping[str, Mapping[str, float]] | None
) -> Markup:
    """Share of the labels inside the central intervals, against what it should be.

    `now`, and `before` calibration, hold those of `valence` and `arousal` by nominal percentage.
    """
    labels = "nominal probability of the interval", "share of labels inside"
    with _unit_square(*labels) as axes:
        words = []
        for values, style, when in ((before, ":", "before calibration"), (now, "-", "as scored")):
            if values is None:
                continue
            for (name, shares), colour, marker in zip(
                values.items(), (FIRST, SECOND), "os", strict=True
            ):
                nominal = [int(percent) / 100 for percent in shares]
                label = name if before is None else f"{name}, {when}"
                looks = {"color": colour, "marker": marker, "markersize": 4}
                axes.plot(nominal, list(shares.values()), style, label=label, **looks)
                words.append(
                    f"{label} " + ", ".join(f"{p} %: {share:.0%}" for p, share in shares.items())
                )
        axes.legend(loc="upper left")
        return to_svg(
            axes,
            identifier="interval-coverage",
            description=f"Labels inside the predicted intervals: {'; '.join(words)}. The dashed "
            "diagonal is perfect calibration.",
        )


def risk_coverage(curve: Mapping[str, Any], *, task: str, risk: str) -> Markup:
    """Risk where only the surest rows are answered, against the share answered.

    `curve` has lists `coverage` and `risk`; `risk` says in words what the risk is.
    """
    coverage, value = np.asarray(curve["coverage"]), np.asarray(curve["risk"])
    with canvas(3.3, 2.6) as axes:
        axes.axhline(value[-1], color=THIRD, linewidth=1, linestyle="--", label="in random order")
        axes.plot(coverage, value, color=FIRST, marker="o", markersize=3, label="surest first")
        axes.legend(loc="lower right")
        axes.set(xlim=(0, 1.02), ylim=(0, max(float(value.max()) * 1.12, 1e-3)))
        axes.set(xlabel="share of rows answered", ylabel=risk)
        half = float(np.interp(0.5, coverage, value))
        return to_svg(
            axes,
            identifier=f"risk-{task}",
            description=f"Risk against coverage: {risk} {value[-1]:.3f} if all are answered, "
            f"{half:.3f} if the surest half is, {value[0]:.3f} for the surest twentieth.",
        )


@contextmanager
def _unit_square(xlabel: str, ylabel: str) -> Iterator[Any]:
    """A canvas of two shares with its diagonal."""
    with canvas(3.3, 3.2) as axes:
        axes.plot([0, 1], [0, 1], color=TEXT, alpha=0.6, linewidth=1, linestyle="--")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        yield axes
