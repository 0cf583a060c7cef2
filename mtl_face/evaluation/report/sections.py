"""Metrics, settings and history as sections of the report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_face.evaluation.prediction_table import PredictionTable
from mtl_face.evaluation.report import figures
from mtl_face.evaluation.report.gallery import Images, cards, choose
from mtl_face.evaluation.report.html import Html, escape, figure, group, paragraph, table
from mtl_face.evaluation.truth import Truth, valid_va
from mtl_face.tasks import AU, AU_DESCRIPTIONS, AU_NAMES, EXPR, EXPRESSION_NAMES, VA, VA_NAMES

_GROUPS = {
    "best": "Best frames",
    "worst": "Worst frames",
    "random": "Frames at random",
}


def scores(metrics: Mapping[str, Any]) -> Iterator[Html]:
    """The headline numbers, each beside the best constant answer and its number of rows."""
    va, au, expr = metrics[VA], metrics[AU], metrics[EXPR]
    rows = [
        ("P, sum of the three", metrics["p"], metrics["constant_baseline_p"], metrics["num_rows"]),
        ("Valence and arousal, mean CCC", va["score"], va["constant_baseline"], va["num_valid"]),
        ("valence, CCC", va["valence"], va["constant_baseline"], va["num_valid"]),
        ("arousal, CCC", va["arousal"], va["constant_baseline"], va["num_valid"]),
        ("Action units, mean F1", au["score"], au["constant_baseline"], au["num_valid"]),
        ("Expressions, macro F1", expr["score"], expr["constant_baseline"], expr["num_valid"]),
    ]
    yield table(
        ("Score", "Value", "Constant baseline", "Gain", "Frames"),
        [
            (name, _number(value), _number(baseline), _gain(value, baseline), f"{num:,}")
            for name, value, baseline, num in rows
        ],
        caption="Scores beside the best constant answer, and the frames that count for each",
        row_classes=("total", "", "part", "part", "", ""),
    )
    constant = expr["constant_class"]
    answer = f"always {constant}" if constant else "no expression"
    yield paragraph(
        "The constant baseline is what an answer that ignores the image scores: valence and "
        f"arousal 0, every action unit present, {answer}. Only what "
        "lies above it comes from the images.",
        css_class="muted",
    )
    unlabelled = [
        name
        for name, task in (("valence and arousal", va), ("action units", au), ("expressions", expr))
        if task["score"] is None
    ]
    if unlabelled:
        yield paragraph(
            f"No frame counts for {' and for '.join(unlabelled)}: no score there, and none for P."
        )
    if metrics["num_unpredicted"]:
        yield paragraph(
            f"{metrics['num_unpredicted']:,} labelled frames have no prediction and were left out: "
            "these scores compare with no others.",
            css_class="notice",
        )
    if au["mask"] == "any":
        yield paragraph(
            "Each action unit is scored on the frames where it is labelled itself. The official "
            "rule takes only frames where all twelve are.",
            css_class="muted",
        )


def curves(history: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """The learning curves, or a sentence that there are none."""
    drawings = figures.learning_curves(history)
    if not drawings:
        yield paragraph("No learning curves: the history of the training run was not given.")
        return
    yield group((figure(drawing, name) for name, drawing in drawings), css_class="figures")


def valence_arousal(
    metrics: Mapping[str, Any], truth: Truth, predictions: PredictionTable
) -> Iterator[Html]:
    """Predicted against true valence and arousal. Rows of both tables belong together."""
    va = metrics[VA]
    if va["score"] is None:
        yield paragraph("No frame has both a valence and an arousal label.")
        return
    rows = np.flatnonzero(valid_va(truth))
    yield group(
        (
            figure(
                figures.density(
                    np.asarray(getattr(truth, name), np.float64)[rows],
                    getattr(predictions, name)[rows],
                    name=name,
                    score=va[name],
                ),
                f"{name.capitalize()}, CCC {va[name]:.3f}, {len(rows):,} frames. "
                "Stronger colour: more frames (logarithmic). Dashed: perfect.",
            )
            for name in VA_NAMES
        ),
        css_class="figures",
    )


def expressions(metrics: Mapping[str, Any]) -> Iterator[Html]:
    """The confusion matrix and the F1 of each expression."""
    expr = metrics[EXPR]
    if expr["score"] is None:
        yield paragraph("No frame has an expression label.")
        return
    yield _confusion_table(expr["confusion_matrix"])
    yield table(
        ("Expression", "F1", "Frames"),
        [
            (name, _number(expr["per_class"][name]), f"{expr['support'][name]:,}")
            for name in EXPRESSION_NAMES
        ],
        caption=f"F1 of each expression; accuracy {expr['accuracy']:.3f}",
    )


def action_units(metrics: Mapping[str, Any]) -> Iterator[Html]:
    """F1 of each action unit beside that of the constant answer."""
    au = metrics[AU]
    if au["score"] is None:
        yield paragraph("No frame has the action unit labels that count.")
        return
    yield figure(
        figures.au_bars(au["per_au"], au["constant_baseline_per_au"]),
        "Bars: F1. Marks: F1 of the constant answer that the action unit is present.",
    )
    yield table(
        ("Action unit", "F1", "Constant baseline", "Share present", "Frames"),
        [
            (
                f"{name.upper()} {meaning}",
                _number(au["per_au"][name]),
                _number(au["constant_baseline_per_au"][name]),
                _percent(au["prevalence"][name]),
                f"{au['num_valid_per_au'][name]:,}",
            )
            for name, meaning in zip(AU_NAMES, AU_DESCRIPTIONS, strict=True)
        ],
        caption="Action units in numbers",
    )


def examples(
    truth: Truth, predictions: PredictionTable, images: Images | None, num_rows: int
) -> Iterator[Html]:
    """Best, worst and random rows. Rows of both tables belong together."""
    groups = choose(truth, predictions, num_rows=num_rows)
    if not num_rows:
        yield paragraph("No examples were asked for.")
        return
    if not len(groups["best"]):
        yield paragraph("No frame has a label.")
        return
    yield paragraph(
        "Ranked by the mean error over the tasks of a frame, among those with the most labelled "
        "tasks; from different videos where there are enough.",
        css_class="muted",
    )
    for name, rows in groups.items():
        if len(rows):
            yield Html(f"<h3>{_GROUPS[name]}</h3>")
            yield cards(rows.tolist(), truth=truth, predictions=predictions, images=images)


def settings(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> Iterator[Html]:
    """The configuration, and what the prediction table says of its own making."""
    if config:
        yield table(
            ("Setting", "Value"),
            _flatten(config),
            caption="Configuration of the run",
            css_class="words",
        )
    # the predictions' copy is only shown where the run's own was not given
    others = {key: value for key, value in metadata.items() if not (config and key == "config")}
    if others:
        yield table(
            ("Property", "Value"),
            _flatten(others),
            caption="Where the predictions come from",
            css_class="words",
        )
    if not config and not others:
        yield paragraph("No configuration was given.")


def _confusion_table(counts: Sequence[Sequence[int]]) -> Html:
    """Counts and shares of each true class, shaded by the share."""
    matrix = np.asarray(counts, np.int64)
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in EXPRESSION_NAMES)
    lines = []
    for name, row in zip(EXPRESSION_NAMES, matrix, strict=True):
        shares = row / max(int(row.sum()), 1)
        cells = "".join(
            f'<td style="--share: {share:.3f}">{share:.0%}<small>{count:,}</small></td>'
            for share, count in zip(shares, row.tolist(), strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    body = "\n".join(lines)
    return Html(
        '<div class="scroll"><table class="confusion">\n'
        "<caption>Share of each true expression (line) by predicted one (column), and count"
        "</caption>\n"
        f'<thead><tr><th scope="col">true \\ predicted</th>{heads}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names and values."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        else:
            yield name, json.dumps(value, default=str)


def _number(value: float | None) -> str:
    return "no labels" if value is None else f"{value:.3f}"


def _gain(value: float | None, baseline: float | None) -> str:
    return "" if value is None or baseline is None else f"{value - baseline:+.3f}"


def _percent(value: float | None) -> str:
    return "no labels" if value is None else f"{value:.1%}"
