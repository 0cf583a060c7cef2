"""Scores as sections of the report: the headline, learning curves, one section a task."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_face.evaluation.answers import Answers
from mtl_face.evaluation.truth import Truth, valid_va
from mtl_face.report import figures
from mtl_face.report.curves import learning_curves
from mtl_face.report.html import Html, escape, figure, group, paragraph, table
from mtl_face.report.numbers import Scores, gain, percent, plain
from mtl_face.tasks import AU, AU_DESCRIPTIONS, AU_NAMES, EXPR, EXPRESSION_NAMES, VA, VA_NAMES

_TASK_WORDS = {VA: "valence and arousal", AU: "action units", EXPR: "expressions"}

_HEADLINE = (
    ("P, sum of the three", "p", "constant_baseline_p", "num_rows", "total"),
    ("Valence and arousal, mean CCC", "va.score", "va.constant_baseline", "va.num_valid", ""),
    ("valence, CCC", "va.valence", "va.constant_baseline", "va.num_valid", "part"),
    ("arousal, CCC", "va.arousal", "va.constant_baseline", "va.num_valid", "part"),
    ("Action units, mean F1", "au.score", "au.constant_baseline", "au.num_valid", ""),
    ("Expressions, macro F1", "expr.score", "expr.constant_baseline", "expr.num_valid", ""),
)


def scores(result: Scores) -> Iterator[Html]:
    """The headline numbers, each beside the best constant answer and its number of rows."""
    yield table(
        ("Score", "Value", "Constant baseline", "Gain", "Frames"),
        [
            (
                name,
                result.text(path),
                "none" if result.value(baseline) is None else plain(result.value(baseline)),
                gain(result.value(path), result.value(baseline)),
                f"{result.value(count):,}",
            )
            for name, path, baseline, count, _ in _HEADLINE
        ],
        caption="Scores beside the best constant answer, and the frames that count for each",
        row_classes=[row[-1] for row in _HEADLINE],
    )
    yield paragraph(result.intervals_in_words(), css_class="muted")
    constant = result.value("expr.constant_class")
    answer = f"always {constant}" if constant else "no expression"
    yield paragraph(
        "The constant baseline is what an answer that ignores the image scores: valence and "
        f"arousal 0, every action unit present, {answer}. Only what "
        "lies above it comes from the images.",
        css_class="muted",
    )
    yield from _left_out(result)


def _left_out(result: Scores) -> Iterator[Html]:
    """What does not count, and why."""
    without = [task for task in _TASK_WORDS if result.value(f"{task}.score") is None]
    if without:
        words = " and for ".join(_TASK_WORDS[task] for task in without)
        reasons = "; ".join(dict.fromkeys(result.why(f"{task}.score") for task in without))
        yield paragraph(f"No frame counts for {words} ({reasons}): no score there, and none for P.")
    if result.value("num_unpredicted"):
        yield paragraph(
            f"{result.value('num_unpredicted'):,} labelled frames have no prediction and were left "
            "out: these scores compare with no others.",
            css_class="notice",
        )
    silent = {task: result.value(f"{task}.num_unanswered") for task in _TASK_WORDS}
    told = [
        f"{number:,} for {_TASK_WORDS[task]}"
        for task, number in silent.items()
        if number and task not in without
    ]
    if told:
        yield paragraph(
            f"Labelled frames without an answer were left out, {', '.join(told)}: these scores "
            "compare with no others.",
            css_class="notice",
        )
    if result.value("au.mask") == "any":
        yield paragraph(
            "Each action unit is scored on the frames where it is labelled itself. The official "
            "rule takes only frames where all twelve are.",
            css_class="muted",
        )


def curves(history: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """The learning curves, or a sentence that there are none."""
    drawings = learning_curves(history)
    if not drawings:
        yield paragraph("No learning curves: the history of the training run was not given.")
        return
    yield group((figure(drawing, name) for name, drawing in drawings), css_class="figures")


def valence_arousal(result: Scores, truth: Truth, answers: Answers) -> Iterator[Html]:
    """Densities of valence and arousal, and their numbers. Rows of both belong together."""
    if result.value("va.score") is None:
        yield paragraph(f"No valence and arousal: {result.why('va.score')}.")
        return
    rows = np.flatnonzero(valid_va(truth) & ~np.isnan(answers.valence) & ~np.isnan(answers.arousal))
    true = {name: np.asarray(getattr(truth, name), np.float64)[rows] for name in VA_NAMES}
    predicted = {name: np.asarray(getattr(answers, name), np.float64)[rows] for name in VA_NAMES}
    planes = [
        figure(
            figures.va_plane(*columns.values(), name=name, truth=is_truth),
            f"{name.capitalize()}, {len(rows):,} frames. Stronger colour: more frames "
            "(logarithmic).",
        )
        for name, columns, is_truth in (("truth", true, True), ("prediction", predicted, False))
    ]
    densities = [
        figure(
            figures.density(
                true[name], predicted[name], name=name, score=result.value(f"va.{name}")
            ),
            f"{name.capitalize()}: CCC {result.text(f'va.{name}')}. Stronger colour: more frames "
            "(logarithmic). Dashed: perfect.",
        )
        for name in VA_NAMES
    ]
    yield group([*planes, *densities], css_class="figures two")
    rows_of_table = [
        ("CCC", "va.{}"),
        ("correlation", "va.parts.{}.correlation"),
        ("accuracy", "va.parts.{}.accuracy"),
        ("scale, 1 at best", "va.parts.{}.scale"),
        ("shift, 0 at best", "va.parts.{}.shift"),
        ("root mean square error", "va.rmse.{}"),
        ("share with the right sign", "va.sagr.{}"),
    ]
    yield table(
        ("Measure", *VA_NAMES),
        [
            (words, *(result.text(path.format(name), none="undefined") for name in VA_NAMES))
            for words, path in rows_of_table
        ],
        caption="Valence and arousal in numbers; CCC is correlation times accuracy",
        row_classes=("total", *[""] * (len(rows_of_table) - 1)),
    )


def expressions(result: Scores) -> Iterator[Html]:
    """The confusion matrix and the F1 of each expression."""
    if result.value("expr.score") is None:
        yield paragraph(f"No expressions: {result.why('expr.score')}.")
        return
    yield _confusion_table(result.value("expr.confusion_matrix"))
    yield figure(
        figures.named(
            EXPRESSION_NAMES,
            EXPRESSION_NAMES,
            result.value("expr.per_class"),
            None,
            result.intervals,
            "expr.per_class",
            identifier="expression-bars",
            description="F1 of each expression",
        ),
        f"Bars: F1, macro F1 {result.text('expr.score')}. Whiskers: intervals.",
    )
    yield table(
        ("Expression", "F1", "Precision", "Recall", "Average precision", "Frames"),
        [
            (
                name,
                result.text(f"expr.per_class.{name}", none="undefined"),
                result.text(f"expr.precision.{name}", none="undefined"),
                result.text(f"expr.recall.{name}", none="undefined"),
                result.text(f"expr.pr_auc.{name}", none="none"),
                f"{result.value('expr.support')[name]:,}",
            )
            for name in EXPRESSION_NAMES
        ],
        caption=f"Expressions in numbers; accuracy {result.text('expr.accuracy')}",
    )


def action_units(result: Scores) -> Iterator[Html]:
    """F1 of each action unit beside that of the constant answer."""
    if result.value("au.score") is None:
        yield paragraph(f"No action units: {result.why('au.score')}.")
        return
    labels = [f"{n.upper()} {d}" for n, d in zip(AU_NAMES, AU_DESCRIPTIONS, strict=True)]
    yield figure(
        figures.named(
            labels,
            AU_NAMES,
            result.value("au.per_au"),
            result.value("au.constant_baseline_per_au"),
            result.intervals,
            "au.per_au",
            identifier="au-bars",
            description="F1 of each action unit against the constant answer",
        ),
        f"Bars: F1, mean {result.text('au.score')}. Whiskers: intervals. Marks: F1 of the constant "
        "answer that the action unit is present.",
    )
    yield table(
        (
            "Action unit",
            "F1",
            "Constant baseline",
            "Precision",
            "Recall",
            "Average precision",
            "Share present",
            "Frames",
        ),
        [
            (
                label,
                result.text(f"au.per_au.{name}"),
                "no labels"
                if result.value(f"au.constant_baseline_per_au.{name}") is None
                else plain(result.value(f"au.constant_baseline_per_au.{name}")),
                result.text(f"au.precision.{name}", none="undefined"),
                result.text(f"au.recall.{name}", none="undefined"),
                result.text(f"au.pr_auc.{name}", none="none"),
                percent(result.value(f"au.prevalence.{name}")),
                f"{result.value('au.num_valid_per_au')[name]:,}",
            )
            for name, label in zip(AU_NAMES, labels, strict=True)
        ],
        caption="Action units in numbers",
        css_class="numbers wide",
    )


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
        '<div class="scroll" tabindex="0" role="group" aria-label="Confusion matrix">'
        '<table class="confusion">\n'
        "<caption><span>Confusion matrix: share of each true expression (line) by predicted one "
        "(column), and count</span></caption>\n"
        f'<thead><tr><th scope="col">true \\ predicted</th>{heads}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
