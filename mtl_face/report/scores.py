"""Sections of the scores: the headline beside constant answers, and one section a task."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_face.evaluation import scoring
from mtl_face.report import figures
from mtl_face.report.figures import Bar
from mtl_face.report.page import Cell, Drawing, Row, Table
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import AU, AU_DESCRIPTIONS, AU_NAMES, EXPR, EXPRESSION_NAMES, VA, VA_NAMES

TASK_WORDS = {VA: "valence and arousal", AU: "action units", EXPR: "expressions"}

AU_LABELS = {
    name: f"{name.upper()} {words}" for name, words in zip(AU_NAMES, AU_DESCRIPTIONS, strict=True)
}

_HEADLINE = (
    ("P, sum of the three", "p", "constant_baseline_p", "num_rows", "total"),
    ("Valence and arousal, mean CCC", "va.score", "va.constant_baseline", "va.num_valid", ""),
    ("valence, CCC", "va.valence", "va.constant_baseline", "va.num_valid", "part"),
    ("arousal, CCC", "va.arousal", "va.constant_baseline", "va.num_valid", "part"),
    ("Action units, mean F1", "au.score", "au.constant_baseline", "au.num_valid", ""),
    ("Expressions, macro F1", "expr.score", "expr.constant_baseline", "expr.num_valid", ""),
)

_VA_MEASURES = (
    ("CCC", "va.{}"),
    ("correlation", "va.parts.{}.correlation"),
    ("accuracy", "va.parts.{}.accuracy"),
    ("scale, 1 at best", "va.parts.{}.scale"),
    ("shift, 0 at best", "va.parts.{}.shift"),
    ("root mean square error", "va.rmse.{}"),
    ("share with the right sign", "va.sagr.{}"),
)

_MEASURES = {
    "Precision": ("precision", "undefined"),
    "Recall": ("recall", "undefined"),
    "Average precision": ("pr_auc", "none"),
}
"""Measures of one decision: key, and the words where it is None."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """What `evaluation.scoring.score` returned, read by dotted path as `au.per_au.au12`."""

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

    def plain(self, path: str, *, none: str = "no labels", form: str = ".3f") -> str:
        """A number, or the text that stands for None."""
        value = self.value(path)
        return none if value is None else format(value, form)

    def text(self, path: str, *, none: str = "no labels") -> str:
        """A score with its interval if it has one, as `0.852 [0.759, 0.886]`."""
        ends = self.intervals.get(path)
        text = self.plain(path, none=none)
        if ends is None or self.value(path) is None:
            return text
        return f"{text} [{ends[0]:.3f}, {ends[1]:.3f}]"

    def why(self, path: str, otherwise: str = "it was not computed") -> str:
        """Why a number is None."""
        return str(self.metrics.get("unavailable", {}).get(path, otherwise))


def headline(result: Scores) -> dict[str, Any]:
    """The official scores beside the best constant answer, and what does not count."""
    undefined = result.why("p", "not defined")
    without = [task for task in TASK_WORDS if result.value(f"{task}.score") is None]
    unanswered = {
        task: result.value(f"{task}.num_unanswered") for task in TASK_WORDS if task not in without
    }
    return {
        "table": Table(
            "Scores beside the best constant answer, and the frames that count for each",
            ("Score", "Value", "Constant baseline", "Gain", "Frames"),
            [
                (
                    name,
                    result.text(path, none=undefined if path == "p" else "no labels"),
                    result.plain(baseline, none="none"),
                    _gain(result.value(path), result.value(baseline)),
                    result.value(count),
                )
                for name, path, baseline, count, _ in _HEADLINE
            ],
            row_kinds=[row[-1] for row in _HEADLINE],
        ),
        "intervals": result.metrics.get("bootstrap"),
        "no_intervals": result.why("bootstrap", "they were not computed"),
        "constant_class": result.value("expr.constant_class"),
        "without": " and for ".join(TASK_WORDS[task] for task in without),
        "undefined": undefined,
        "defined": scoring.defined(result.metrics),
        "ceilings": scoring.ceilings(result.metrics),
        "selection": scoring.selection_words(result.metrics.get("selection")),
        "reasons": "; ".join(dict.fromkeys(result.why(f"{task}.score") for task in without)),
        "num_unpredicted": result.value("num_unpredicted") or 0,
        "unanswered": ", ".join(
            f"{number:,} for {TASK_WORDS[task]}" for task, number in unanswered.items() if number
        ),
        "each_unit_by_itself": result.value("au.mask") == "any",
    }


def valence_arousal(result: Scores, truth: FrameTable, answers: PredictionTable) -> dict[str, Any]:
    """Densities of valence and arousal, and their numbers. Rows of both tables belong together."""
    if result.value("va.score") is None:
        return {"why": result.why("va.score")}
    rows = np.flatnonzero(truth.labelled()[VA] & answers.answered(VA))
    true = {name: getattr(truth, name)[rows].astype(np.float64) for name in VA_NAMES}
    predicted = {name: getattr(answers, name)[rows] for name in VA_NAMES}
    stronger = "Stronger colour: more frames (logarithmic)."
    drawings = []
    for name, columns in {"truth": true, "prediction": predicted}.items():
        svg = figures.va_plane(*columns.values(), name=name, truth=columns is true)
        drawings.append(Drawing(svg, f"{name.capitalize()}, {len(rows):,} frames. {stronger}"))
    for name in VA_NAMES:
        ccc = result.value(f"va.{name}")
        svg = figures.density(true[name], predicted[name], name=name, score=ccc)
        caption = f"{name.capitalize()}: CCC {result.text(f'va.{name}')}."
        drawings.append(Drawing(svg, f"{caption} {stronger} Dashed: perfect."))
    return {
        "drawings": drawings,
        "table": Table(
            "Valence and arousal in numbers; CCC is correlation times accuracy",
            ("Measure", *VA_NAMES),
            [
                (words, *(result.text(path.format(name), none="undefined") for name in VA_NAMES))
                for words, path in _VA_MEASURES
            ],
            row_kinds=("total", *[""] * (len(_VA_MEASURES) - 1)),
        ),
    }


def expressions(result: Scores) -> dict[str, Any]:
    """The confusion matrix and the F1 of each expression."""
    if result.value("expr.score") is None:
        return {"why": result.why("expr.score")}
    f1, ends = result.value("expr.per_class"), result.intervals
    bars = [Bar(n, f1[n], ends.get(f"expr.per_class.{n}")) for n in EXPRESSION_NAMES]
    return {
        "confusion": _confusion(result.value("expr.confusion_matrix")),
        "bars": Drawing(
            figures.bars(bars, identifier="expression-bars", description="F1 of each expression"),
            f"Bars: F1, macro F1 {result.text('expr.score')}. Whiskers: intervals.",
        ),
        "table": Table(
            f"Expressions in numbers; accuracy {result.text('expr.accuracy')}",
            ("Expression", "F1", *_MEASURES, "Frames"),
            [
                (
                    name,
                    result.text(f"expr.per_class.{name}", none="undefined"),
                    *(result.text(f"expr.{key}.{name}", none=n) for key, n in _MEASURES.values()),
                    result.value(f"expr.support.{name}"),
                )
                for name in EXPRESSION_NAMES
            ],
        ),
    }


def action_units(result: Scores) -> dict[str, Any]:
    """F1 of each action unit beside that of the constant answer."""
    if result.value("au.score") is None:
        return {"why": result.why("au.score")}
    f1, baselines = result.value("au.per_au"), result.value("au.constant_baseline_per_au")
    bars = [
        Bar(label, f1[name], result.intervals.get(f"au.per_au.{name}"), baselines[name])
        for name, label in AU_LABELS.items()
    ]
    description = "F1 of each action unit against the constant answer"
    return {
        "bars": Drawing(
            figures.bars(bars, identifier="au-bars", description=description),
            f"Bars: F1, mean {result.text('au.score')}. Whiskers: intervals. Marks: F1 of the "
            "constant answer that the action unit is present.",
        ),
        "table": Table(
            "Action units in numbers",
            ("Action unit", "F1", "Constant baseline", *_MEASURES, "Share present", "Frames"),
            [
                (
                    label,
                    result.text(f"au.per_au.{name}"),
                    result.plain(f"au.constant_baseline_per_au.{name}"),
                    *(result.text(f"au.{key}.{name}", none=n) for key, n in _MEASURES.values()),
                    result.plain(f"au.prevalence.{name}", form=".1%"),
                    result.value(f"au.num_valid_per_au.{name}"),
                )
                for name, label in AU_LABELS.items()
            ],
            kind="numbers wide",
        ),
    }


def _confusion(counts: Sequence[Sequence[int]]) -> Table:
    """Counts and shares of each true class, shaded by the share."""
    matrix = np.asarray(counts, np.int64)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows: list[Row] = []
    for name, shares, numbers in zip(EXPRESSION_NAMES, share, matrix, strict=True):
        cells = zip(shares.tolist(), numbers.tolist(), strict=True)
        rows.append([name, *(Cell(f"{s:.0%}", shade=s, below=f"{n:,}") for s, n in cells)])
    return Table(
        "Confusion matrix: share of each true expression (line) by predicted one (column), and "
        "count",
        ("true \\ predicted", *EXPRESSION_NAMES),
        rows,
        kind="heat",
    )


def _gain(value: float | None, baseline: float | None) -> str:
    return "" if value is None or baseline is None else f"{value - baseline:+.3f}"
