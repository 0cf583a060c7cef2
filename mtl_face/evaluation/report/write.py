"""Composes the report of an evaluation and writes it."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_face.evaluation.files import replacing
from mtl_face.evaluation.match import match
from mtl_face.evaluation.prediction_table import PredictionTable
from mtl_face.evaluation.report import sections
from mtl_face.evaluation.report.gallery import Images
from mtl_face.evaluation.report.html import page, section
from mtl_face.evaluation.truth import LabelRows, Truth


def write_report(
    path: str | os.PathLike[str],
    *,
    metrics: Mapping[str, Any],
    predictions: PredictionTable,
    truth: Truth,
    history: Sequence[Mapping[str, Any]],
    images: Images | None,
    title: str,
    config: Mapping[str, Any],
    notice: str | None = None,
    gallery_size: int = 24,
) -> None:
    """Writes one HTML file that holds everything it shows and loads nothing.

    Args:
        path: the file; replaced if it exists, missing folders are made.
        metrics: what `mtl_face.evaluation.metrics.score` returned for these tables.
        predictions: the predictions, in any order.
        truth: N rows of labels. Those without a prediction are left out.
        history: learning curves: rows with `step`, `epoch` and numbers such as `train/loss` and
            `validation/p`; a number may be absent from a row. Empty if unknown.
        images: gives the picture of a row of `truth`, uint8 [H, W, 3], or None if it has none. It
            is asked for `gallery_size` rows at most. None: no pictures.
        title: heading of the page.
        config: settings of the run, nested. Empty if unknown.
        notice: what the reader must know before any number, say that the faces are rendered.
        gallery_size: frames shown as examples; 0 for none.

    Raises:
        PredictionError: predictions of one row contradict each other.
        WorkdirError: the place cannot be written.
        ValueError: a picture has the wrong shape or dtype.
    """
    index = match(truth, predictions, lenient=True)
    rows = np.flatnonzero(index >= 0)
    labels = LabelRows.of(truth, rows)
    matched = predictions.take(index[rows])
    row_images = None if images is None else lambda row: images(int(rows[row]))
    parts = {
        ("scores", "Scores"): sections.scores(metrics),
        ("curves", "Learning curves"): sections.curves(history),
        ("va", "Valence and arousal"): sections.valence_arousal(metrics, labels, matched),
        ("expressions", "Expressions"): sections.expressions(metrics),
        ("action-units", "Action units"): sections.action_units(metrics),
        ("examples", "Examples"): sections.examples(labels, matched, row_images, gallery_size),
        ("settings", "Settings"): sections.settings(config, predictions.metadata),
    }
    text = page(
        title=title,
        notice=notice,
        contents=list(parts),
        sections=[section(name, heading, body) for (name, heading), body in parts.items()],
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
