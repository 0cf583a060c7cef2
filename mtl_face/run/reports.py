"""Reports of what a command scored: of a run or an export, and of a file of predictions.

The report of a file needs neither JAX nor TensorFlow.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import images
from mtl_face import config as config_lib
from mtl_face.report import Report
from mtl_face.run.scored_files import ScoredFile
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.weights import provenance

if TYPE_CHECKING:
    from mtl_face.inference.predictor import Predictor
    from mtl_face.run.pixels import Pixels

_IMAGE_SIZE = 112

_RENDERED_NOTICE = (
    "The faces are rendered, not photographed. These numbers show that the system works from end "
    "to end; they are no evidence of accuracy on people."
)


def of_model(
    predictor: "Predictor",
    validation: "Pixels",
    *,
    predictions: PredictionTable,
    raw: PredictionTable,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> Report:
    """The report of a run or an export. Writing it asks the network for its attention.

    Args:
        predictor: the network.
        validation: what was predicted; ImageError is raised where a picture cannot be read.
        predictions: as scored.
        raw: as the network made them.
        metrics: what metrics.json holds.
        history: learning curves, empty if unknown.
    """
    config = predictor.config

    def picture(row: int) -> NDArray[np.uint8] | None:
        if isinstance(validation.source, np.ndarray):
            return validation.source[row]
        path = validation.table.paths()[row]
        # where shards took the place of the files, these may be absent
        if validation.source != "files" and not Path(path).is_file():
            return None
        return images.read_image(path, config.data.image_size)

    return Report(
        title=config.name,
        metrics=metrics,
        predictions=predictions,
        truth=validation.table,
        raw=raw if predictions is not raw else None,
        history=history,
        images=picture,
        attention=predictor.cross_attention,
        config=config_lib.to_dict(config),
        notice=_RENDERED_NOTICE if config.data.kind == "rendered_faces" else None,
        warnings=metrics["warnings"],
        gallery_size=config.evaluation.gallery_size,
    )


def of_file(
    file: ScoredFile,
    truth: FrameTable,
    metrics: Mapping[str, Any],
    *,
    raw: ScoredFile | None,
    image_folder: Path | None,
    warnings: Sequence[str],
) -> Report:
    """The report of a scored file of predictions.

    Args:
        file: the predictions as scored.
        truth: the labels.
        metrics: the scores.
        raw: the predictions before a calibration was applied, or None.
        image_folder: where the paths of the labels start, or None for a report without pictures.
            Writing the report raises ImageError where a picture is there and cannot be read.
        warnings: what was found when the file was read.
    """
    metadata = file.predictions.metadata

    def picture(row: int) -> NDArray[np.uint8] | None:
        assert image_folder is not None
        place = os.path.join(image_folder, *str(truth.image[row]).split("/"))
        return images.read_image(place, _IMAGE_SIZE) if os.path.isfile(place) else None

    return Report(
        title=f"Predictions of {file.path.name}",
        metrics=metrics,
        predictions=file.predictions,
        truth=truth,
        raw=None if raw is None else raw.predictions,
        images=None if image_folder is None else picture,
        config=metadata.get("config"),
        notice=f"Scored: {file.path}, {file.kind}.",
        warnings=[*warnings, *provenance.warnings_of_predictions(metadata)],
    )
