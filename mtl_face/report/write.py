"""Composes the report of an evaluation and writes it."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_face.evaluation.answers import Answers
from mtl_face.evaluation.match import match
from mtl_face.evaluation.truth import LabelRows, Truth
from mtl_face.files import replacing
from mtl_face.report import frame_sections, score_sections, settings_sections
from mtl_face.report.frame_sections import Attention, Shown
from mtl_face.report.gallery import Images
from mtl_face.report.html import page, section
from mtl_face.report.numbers import Scores
from mtl_face.report.uncertainty_sections import uncertainties
from mtl_face.tables import PredictionTable


def write_report(
    path: str | os.PathLike[str],
    *,
    metrics: Mapping[str, Any],
    predictions: PredictionTable | Answers,
    truth: Truth,
    title: str,
    raw: PredictionTable | Answers | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    images: Images | None = None,
    attention: Attention | None = None,
    config: Mapping[str, Any] | None = None,
    notice: str | None = None,
    warnings: Sequence[str] = (),
    gallery_size: int = 24,
) -> None:
    """Writes one HTML file that holds everything it shows and loads nothing.

    What is not given is left out, with a sentence that says so.

    Args:
        path: the file; replaced if it exists, missing folders are made.
        metrics: what `mtl_face.evaluation.metrics.score` returned for these tables.
        predictions: the predictions, in any order.
        truth: N rows of labels. Those without a prediction are left out.
        title: heading of the page.
        raw: the predictions before smoothing and calibration, of the same rows.
        history: learning curves: rows with `step`, `epoch` and numbers such as `train/loss` and
            `validation/p`; a number may be absent from a row. Empty if unknown.
        images: gives the picture of a row of `truth`, uint8 [H, W, 3], or None if it has none. It
            is asked for `gallery_size` rows at most. None: no pictures.
        attention: gives the network's cross-attention on pictures, which then must be of one
            size: uint8 [K, H, W, 3] -> [K, modules, heads, 3, patches]. None: no attention.
        config: settings of the run, nested.
        notice: what the reader must know before any number, say that the faces are rendered.
        warnings: on the provenance of the weights and the like, shown before any number too.
        gallery_size: frames shown as examples; 0 for none.

    Raises:
        PredictionError: predictions of one row contradict each other.
        WorkdirError: the place cannot be written.
        ValueError: a picture or the attention has the wrong shape or dtype.
    """
    index = match(truth, predictions, lenient=True)
    rows = np.flatnonzero(index >= 0)
    labels = LabelRows.of(truth, rows)
    answers = Answers.of(predictions.take(index[rows]))
    before = None
    if raw is not None:
        raw_index = match(labels, raw)
        before = Answers.of(raw.take(raw_index))
    metadata = predictions.metadata if isinstance(predictions, PredictionTable) else {}
    result = Scores(metrics)
    shown = Shown.of(
        labels,
        answers,
        num_rows=gallery_size,
        images=None if images is None else lambda row: images(int(rows[row])),
        attention=attention,
    )
    parts = {
        ("scores", "Scores"): score_sections.scores(result),
        ("curves", "Learning curves"): score_sections.curves(history),
        ("va", "Valence and arousal"): score_sections.valence_arousal(result, labels, answers),
        ("expressions", "Expressions"): score_sections.expressions(result),
        ("action-units", "Action units"): score_sections.action_units(result),
        ("uncertainty", "Uncertainty"): uncertainties(result),
        ("timelines", "Timelines"): frame_sections.timelines(labels, answers, before),
        ("attention", "Attention"): frame_sections.attention(shown),
        ("examples", "Examples"): frame_sections.examples(labels, answers, shown, gallery_size),
        ("provenance", "Provenance"): settings_sections.provenance(metadata, warnings),
        ("settings", "Settings"): settings_sections.settings(config or {}, metadata),
        ("absent", "Not computed"): settings_sections.absent(metrics),
    }
    text = page(
        title=title,
        notices=[*([notice] if notice else []), *(f"Warning: {line}." for line in warnings)],
        contents=list(parts),
        sections=[section(name, heading, body) for (name, heading), body in parts.items()],
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
