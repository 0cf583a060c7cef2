"""The report of an evaluation: scores, drawings, frames, and where the numbers come from."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_face.evaluation.joining import match
from mtl_face.report import scores
from mtl_face.report.curves import learning_curves
from mtl_face.report.gallery import Attention, Images, choose, examples
from mtl_face.report.page import Table, write_page
from mtl_face.report.reliability import uncertainties
from mtl_face.report.timelines import timelines
from mtl_face.tables import FrameTable, PredictionTable


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What a report shows. What is not given is left out, with a sentence that says so.

    Attributes:
        title: heading of the page.
        metrics: what `mtl_face.evaluation.scoring.score` returned for these tables.
        predictions: the predictions, in any order.
        truth: N rows of labels. Those without a prediction are left out.
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
    """

    title: str
    metrics: Mapping[str, Any]
    predictions: PredictionTable
    truth: FrameTable
    raw: PredictionTable | None = None
    history: Sequence[Mapping[str, Any]] = ()
    images: Images | None = None
    attention: Attention | None = None
    config: Mapping[str, Any] | None = None
    notice: str | None = None
    warnings: Sequence[str] = ()
    gallery_size: int = 24


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Writes the report as one HTML file that holds everything it shows and loads nothing.

    Raises:
        PredictionError: predictions of one row contradict each other.
        WorkdirError: the place cannot be written.
        ValueError: a picture or the attention has the wrong shape or dtype.
    """
    index = match(report.truth, report.predictions, lenient=True)
    rows = np.flatnonzero(index >= 0)
    truth = report.truth.take(rows)
    answers = report.predictions.take(index[rows])
    raw = None if report.raw is None else report.raw.take(match(truth, report.raw))
    metadata = report.predictions.metadata
    provenance = metadata.get("provenance")
    result = scores.Scores(report.metrics)
    reasons = report.metrics.get("unavailable")
    caption = "Numbers that could not be computed, by their place in metrics.json"
    images = report.images
    write_page(
        path,
        "evaluation.html",
        title=report.title,
        notice=report.notice,
        warnings=report.warnings,
        scores=scores.headline(result),
        curves=learning_curves(report.history),
        va=scores.valence_arousal(result, truth, answers),
        expressions=scores.expressions(result),
        action_units=scores.action_units(result),
        uncertainty=uncertainties(result),
        timelines=timelines(truth, answers, raw),
        gallery_size=report.gallery_size,
        examples=examples(
            truth,
            answers,
            choose(truth, answers, num_rows=report.gallery_size),
            None if images is None else lambda row: images(int(rows[row])),
            report.attention,
        ),
        provenance=_properties("Provenance of the weights", "Property", provenance)
        if isinstance(provenance, Mapping)
        else None,
        settings=_settings(report.config or {}, metadata),
        absent=Table(caption, ("Number", "Reason"), list(reasons.items()), kind="words")
        if reasons
        else None,
    )


def _settings(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[Table]:
    """The configuration, and what the prediction table says of its own making."""
    tables = []
    if config:
        tables.append(_properties("Configuration of the run", "Setting", config))
    # the predictions' copy is only shown where the run's own was not given
    others = {
        key: value
        for key, value in metadata.items()
        if key != "provenance" and not (config and key == "config")
    }
    if others:
        tables.append(_properties("Where the predictions come from", "Property", others))
    return tables


def _properties(caption: str, what: str, values: Mapping[str, Any]) -> Table:
    return Table(caption, (what, "Value"), list(_flatten(values)), kind="words")


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
