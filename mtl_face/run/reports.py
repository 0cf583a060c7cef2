"""The report of a run or an export."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import images
from mtl_face import config as config_lib
from mtl_face.report import Report
from mtl_face.tables import PredictionTable

if TYPE_CHECKING:
    from mtl_face.inference.predictor import Predictor
    from mtl_face.run.predict import Pixels

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

    `predictions` are those that were scored, `raw` those of the network. ImageError is raised where
    a picture cannot be read.
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
