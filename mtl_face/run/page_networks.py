"""What a page in a browser needs to answer pictures by itself: three ONNX models."""

import dataclasses
from collections.abc import Mapping

import jax

from mtl_face.export import arrays, face_finding, onnx_graph
from mtl_face.export.onnx_precision import PRECISION
from mtl_face.export.whole_way import KEY, whole_way
from mtl_face.inference.predictor import Predictor
from mtl_face.inputs import POINTS
from mtl_face.run import export as exports
from mtl_face.run import models
from mtl_face.weights.card import ExportError
from mtl_face.weights.programs import onnx_file


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """The content of ONNX files, and what the page gives to the last one.

    Attributes:
        detector, mesh: as `export.face_finding` says.
        network: from a `crop`, or from `points` and a `baseline`, to the answers of
            `export.whole_way`.
        crop_size: side of the crops in pixels.
        takes_points: whether the network judges by points, found by it or given.
        decisions: thresholds of action units and biases of expressions, by name.
        precision: of the network, one of `export.onnx_precision.PRECISIONS`.
    """

    detector: bytes
    mesh: bytes
    network: bytes
    crop_size: int
    takes_points: bool
    decisions: Mapping[str, Mapping[str, float]]
    precision: str

    def files(self) -> dict[str, bytes]:
        """The files' contents by name."""
        return {name: getattr(self, name) for name in ("detector", "mesh", "network")}


def networks_of(predictor: Predictor) -> Networks:
    """The models for a predictor.

    A file of ONNX is taken as it is, with the calibration inside it. Of another model that takes
    points, the page gives those that it found in the whole picture, as `Predictor.predict` does.

    Raises:
        ConfigError: it is a network over time.
        ExportError: the predictor runs a file that no browser runs, or its network cannot be
            written as ONNX.
    """
    models.require_of_frames(predictor.config, "pages that answer by themselves run")
    path = predictor.forward.path
    if path is None:
        card = arrays.completed(exports.card_of(predictor), jax.device_get(predictor.variables))
        whole = whole_way(predictor, card, points_given=True)
        network, card = onnx_graph.content(whole), whole.card
    elif onnx_file.is_one(path):
        file = onnx_file.read(path)
        network, card = file.content, file.card
    else:
        raise ExportError(
            "is a program of StableHLO, and browsers run ONNX",
            path=path,
            remedy="give the run or the export that it was made of, or an ONNX file of it "
            "(run.py export --format=onnx)",
        )
    about = card[KEY]
    return Networks(
        face_finding.detector(),
        face_finding.mesh(),
        network,
        predictor.crop_size,
        POINTS in predictor.inputs,
        about["decisions"],
        about[PRECISION]["name"] if PRECISION in about else "float32",
    )
