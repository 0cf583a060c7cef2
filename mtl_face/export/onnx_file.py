"""A program from crops to answers as an ONNX file, to be run by ONNX Runtime alone."""

import json
from pathlib import Path

import numpy as np

from mtl_face.export.onnx_graph import to_onnx
from mtl_face.export.whole_way import KEY, WholeWay
from mtl_face.weights import card as cards
from mtl_face.weights.card import ExportError

_LARGEST = 2**31 - 1  # bytes of a file of Protocol Buffers


def write(path: Path, whole: WholeWay) -> None:
    """Writes the program; the model's metadata hold the card, and the inputs and outputs in it.

    Raises:
        ExportError: as `to_onnx`, or the file would be too large.
        OSError: writing fails.
    """
    model = to_onnx(
        whole.function,
        {name: (np.dtype(one.dtype), one.shape_of_one) for name, one in whole.inputs.items()},
        list(whole.outputs),
        metadata={
            cards.KEY: json.dumps(whole.card),
            **{name: json.dumps(whole.card[KEY][name]) for name in ("inputs", "outputs")},
        },
    )
    if model.ByteSize() > _LARGEST:
        raise ExportError(
            f"the model has {model.ByteSize() / 1e9:.1f} GB, and a file of ONNX at most 2.1",
            remedy="give --format=stablehlo",
        )
    path.write_bytes(model.SerializeToString())
