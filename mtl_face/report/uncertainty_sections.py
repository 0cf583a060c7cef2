"""Uncertainties as a section of the report: reliability, coverage of intervals, abstention."""

from collections.abc import Iterator

from mtl_face.report import uncertainty_figures as drawings
from mtl_face.report.html import Html, figure, group, heading, paragraph, table
from mtl_face.report.numbers import Scores, plain
from mtl_face.tasks import AU, EXPR, VA, VA_NAMES

_TASK_WORDS = {VA: "Valence and arousal", AU: "Action units", EXPR: "Expressions"}

_EVENTS = {
    AU: "an action unit being present",
    EXPR: "the decided expression being true",
}

_MEASURES = (
    ("negative log likelihood, nats", "nll"),
    ("Brier score", "brier"),
    ("calibration error, debiased", "ece_debiased"),
    ("calibration error, plain (too large by nature)", "ece"),
    ("area under risk-coverage", "risk_coverage.aurc"),
    ("the same above the best order", "risk_coverage.excess_aurc"),
)


def uncertainties(result: Scores) -> Iterator[Html]:
    """Whether the predicted uncertainties mean what they say."""
    reasons: dict[str, list[str]] = {}
    for task, words in _TASK_WORDS.items():
        if result.value(f"{task}.uncertainty") is None:
            reasons.setdefault(result.why(f"{task}.uncertainty"), []).append(words)
    for reason, names in reasons.items():
        yield paragraph(f"Left out: {', '.join(names)} ({reason}).")
    if sum(map(len, reasons.values())) == len(_TASK_WORDS):
        return
    yield from _reliability(result)
    yield from _risk(result)
    yield heading("In numbers")
    for task in (AU, EXPR):
        if result.value(f"{task}.uncertainty") is not None:
            yield _table(result, task)
    if result.value("va.uncertainty") is not None:
        yield _va_table(result)


def _reliability(result: Scores) -> Iterator[Html]:
    yield heading("Reliability")
    shown = []
    for task, event in _EVENTS.items():
        now = result.value(f"{task}.uncertainty.reliability")
        if now is None:
            continue
        before = result.value(f"{task}.uncertainty_before_calibration.reliability")
        error = result.text(f"{task}.uncertainty.ece_debiased")
        shown.append(
            figure(
                drawings.reliability(now, before, task=task, event=event),
                f"{_TASK_WORDS[task]}, probability of {event}: debiased calibration error {error}. "
                "Each point holds about equally many rows. Dashed: perfect.",
            )
        )
    coverage = result.value("va.uncertainty.coverage")
    if coverage is not None:
        before = result.value("va.uncertainty_before_calibration.coverage")
        shown.append(
            figure(
                drawings.interval_coverage(coverage, before),
                "Valence and arousal: share of labels inside the predicted 50, 80 and 95 % "
                "intervals. Above the dashed line: intervals wider than need be.",
            )
        )
    yield group(shown, css_class="figures")
    plain_tasks = [
        task for task in _EVENTS if result.value(f"{task}.uncertainty_before_calibration") is None
    ]
    if len(plain_tasks) == len(_EVENTS):
        yield paragraph(
            "One line a drawing: these predictions were not calibrated, or what they were before "
            "was not given. `run.py calibrate` fits a calibration.",
            css_class="muted",
        )


def _risk(result: Scores) -> Iterator[Html]:
    yield heading("Risk against coverage")
    yield paragraph(
        "If only the surest rows are answered, how often are they wrong? A curve that rises to the "
        "right means that the uncertainty tells the hard rows from the easy ones.",
        css_class="muted",
    )
    risks = {
        AU: "share of wrong decisions",
        EXPR: "share of wrong decisions",
        VA: "mean square error",
    }
    yield group(
        [
            figure(
                drawings.risk_coverage(curve, task=task, risk=risk),
                f"{_TASK_WORDS[task]}: area "
                f"{result.text(f'{task}.uncertainty.risk_coverage.aurc')}.",
            )
            for task, risk in risks.items()
            if (curve := result.value(f"{task}.uncertainty.risk_coverage")) is not None
        ],
        css_class="figures",
    )


def _table(result: Scores, task: str) -> Html:
    has_before = result.value(f"{task}.uncertainty_before_calibration") is not None
    rows = []
    for words, name in _MEASURES:
        cells = [words, result.text(f"{task}.uncertainty.{name}", none="undefined")]
        if has_before:
            cells.append(_bare(result.value(f"{task}.uncertainty_before_calibration.{name}")))
        rows.append(cells)
    header = ["Measure", "As scored", *(["Before calibration"] if has_before else [])]
    return table(header, rows, caption=f"{_TASK_WORDS[task]}: less is better")


def _va_table(result: Scores) -> Html:
    has_before = result.value("va.uncertainty_before_calibration") is not None
    rows = []
    for name in VA_NAMES:
        for words, path in (
            ("negative log likelihood, nats", "nll.{}"),
            ("mean standard deviation", "mean_std.{}"),
            ("inside the 50 % interval", "coverage.{}.50"),
            ("inside the 80 % interval", "coverage.{}.80"),
            ("inside the 95 % interval", "coverage.{}.95"),
        ):
            place = path.format(name)
            cells = [f"{name}, {words}", result.text(f"va.uncertainty.{place}")]
            if has_before:
                cells.append(_bare(result.value(f"va.uncertainty_before_calibration.{place}")))
            rows.append(cells)
    header = ["Measure", "As scored", *(["Before calibration"] if has_before else [])]
    return table(header, rows, caption="Valence and arousal, as normal predictions")


def _bare(value: float | None) -> str:
    return "undefined" if value is None else plain(value)
