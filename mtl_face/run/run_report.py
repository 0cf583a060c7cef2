"""The report of a run or an export: what the network itself is needed for is drawn here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import images
from mtl_face import config as config_lib
from mtl_face.evaluation.predictions import PredictionTable
from mtl_face.inference.attention import cross_attention
from mtl_face.report import write_report
from mtl_face.run.session import Pixels, Session
from mtl_face.training import experiment

_RENDERED_NOTICE = (
    "The faces are rendered, not photographed. These numbers show that the system works from end "
    "to end; they are no evidence of accuracy on people."
)


def write(
    path: Path,
    *,
    session: Session,
    variables: Mapping[str, Any],
    validation: Pixels,
    predictions: PredictionTable,
    raw: PredictionTable,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Writes report.html.

    Args:
        path: the file.
        session: the run's parts.
        variables: the network's `params` and `batch_stats`, on the host.
        validation: the validation set.
        predictions: as scored.
        raw: as the network made them.
        metrics: what metrics.json holds.
        history: learning curves, empty if unknown.

    Raises:
        ImageError: a picture cannot be read.
        WorkdirError: the file cannot be written.
    """
    config = session.config

    def attention(image_KHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        prepare = experiment.preparation(config)
        return cross_attention(session.network, variables, image_KHWC, prepare=prepare)

    write_report(
        path,
        metrics=metrics,
        predictions=predictions,
        raw=raw if predictions is not raw else None,
        truth=validation.table,
        history=history,
        images=lambda row: _picture(validation, row, config.data.image_size),
        attention=attention,
        title=config.name,
        config=config_lib.to_dict(config),
        notice=_RENDERED_NOTICE if config.data.kind == "rendered_faces" else None,
        warnings=metrics["warnings"],
        gallery_size=config.evaluation.gallery_size,
    )


def _picture(validation: Pixels, row: int, image_size: int) -> NDArray[np.uint8] | None:
    """A row's picture. Where shards took the place of the files, these may be absent."""
    if isinstance(validation.source, np.ndarray):
        return validation.source[row]
    path = validation.table.paths()[row]
    if validation.source != "files" and not Path(path).is_file():
        return None
    return images.read_image(path, image_size)
