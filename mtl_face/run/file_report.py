"""The report of a scored file of predictions. Imports neither JAX nor TensorFlow."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import images
from mtl_face.report import write_report
from mtl_face.run.scored_files import ScoredFile
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.weights import provenance

_IMAGE_SIZE = 112


def write(
    path: Path,
    *,
    file: ScoredFile,
    raw: ScoredFile | None,
    truth: FrameTable,
    metrics: Mapping[str, Any],
    image_folder: Path | None,
    warnings: Sequence[str],
) -> None:
    """Writes the report.

    Args:
        path: the HTML file.
        file: the predictions as scored.
        raw: as they were before a calibration was applied, or None.
        truth: the labels.
        metrics: the scores.
        image_folder: where the paths of the labels start, or None for a report without pictures.
        warnings: what was found when the file was read.

    Raises:
        ImageError: a picture is there and cannot be read.
        WorkdirError: the file cannot be written.
    """
    predictions = file.predictions
    metadata = predictions.metadata if isinstance(predictions, PredictionTable) else {}

    def picture(row: int) -> NDArray[np.uint8] | None:
        assert image_folder is not None
        place = os.path.join(image_folder, *str(truth.image[row]).split("/"))
        return images.read_image(place, _IMAGE_SIZE) if os.path.isfile(place) else None

    write_report(
        path,
        metrics=metrics,
        predictions=predictions,
        raw=None if raw is None else raw.predictions,
        truth=truth,
        images=None if image_folder is None else picture,
        title=f"Predictions of {file.path.name}",
        config=metadata.get("config"),
        notice=f"Scored: {file.path}, {file.kind}.",
        warnings=[*warnings, *provenance.warnings_of_predictions(metadata)],
    )
