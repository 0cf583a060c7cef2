"""Smaller ONNX files: the network in float16, or its layers in int8.

What surrounds the network stays as it is: inputs, resizing, the mesh network and the alignment of
its points, probabilities, decisions, outputs. A network lies under the name of its module. The
packages onnx and onnxruntime are imported when they are used.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl_face import pictures
from mtl_face.errors import ImageError
from mtl_face.inputs import BASELINE
from mtl_face.weights import card as cards
from mtl_face.weights import onnx_file
from mtl_face.weights.onnx_file import CROP, WHOLE_WAY

if TYPE_CHECKING:
    import onnx

Precision = Literal["float32", "float16", "int8"]

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

PRECISION = "precision"
"""Entry of `WHOLE_WAY` of a card: one of `PRECISIONS`."""

MOST_CROPS = 256
"""Crops that ranges are measured on; more change little."""

_NETWORK = "MtlFace/"
_HEADS = "MtlFace/head_"
_LAYERS = ("Conv", "MatMul", "Gemm")
_BATCH = 8


def in_float16(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """A model whose network computes in float16, with weights of half the size.

    Inputs and outputs keep their types. Weights beyond the range of float16 are clipped to it.

    Raises:
        ExportError: onnxruntime is not installed.
    """
    onnx_file.package("onnxruntime")
    from onnxruntime.transformers.float16 import convert_float_to_float16

    around = [node.name for node in model.graph.node if not node.name.startswith(_NETWORK)]
    with warnings.catch_warnings():  # of weights that become 0, one by one
        warnings.simplefilter("ignore")
        smaller = convert_float_to_float16(model, keep_io_types=True, node_block_list=around)
    return _with_precision(smaller, "float16", {})


def in_int8(model: "onnx.ModelProto", crop_NSS3: NDArray[np.uint8]) -> "onnx.ModelProto":
    """A model whose convolutions and dense layers compute in int8, but for the last of each head.

    Weights have a scale for each channel. Values between layers have the range that they take on
    the crops, which should be like those to come.

    Args:
        model: as `to_onnx` made it.
        crop_NSS3: R, G, B in 0..255, of the side that the model takes.

    Raises:
        ExportError: onnxruntime is not installed.
    """
    onnx_file.package("onnxruntime")
    from onnxruntime import quantization

    weights = {tensor.name for tensor in model.graph.initializer}
    layers = [
        node.name
        for node in model.graph.node
        if node.name.startswith(_NETWORK) and node.op_type in _LAYERS and node.input[1] in weights
    ]
    last = {name.split("/")[1]: name for name in layers if name.startswith(_HEADS)}
    layers = [name for name in layers if name not in last.values()]
    baselines = [value for value in model.graph.input if value.name == BASELINE]
    sides = [side.dim_value for value in baselines for side in value.type.tensor_type.shape.dim]

    class Crops(quantization.CalibrationDataReader):
        """Batches of the crops, without baselines."""

        def __init__(self) -> None:
            self._batches = self._made()

        def get_next(self) -> Mapping[str, NDArray[Any]] | None:
            return next(self._batches, None)

        @staticmethod
        def _made() -> Iterator[dict[str, NDArray[Any]]]:
            for start in range(0, len(crop_NSS3), _BATCH):
                batch = {CROP: crop_NSS3[start : start + _BATCH]}
                if baselines:
                    batch[BASELINE] = np.zeros((len(batch[CROP]), *sides[1:]), np.float32)
                yield batch

    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        before = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)  # it advises to shrink the graph before
        try:
            quantization.quantize_static(
                model,
                path,
                Crops(),
                op_types_to_quantize=list(_LAYERS),
                nodes_to_quantize=layers,
                per_channel=True,
            )
        finally:
            logging.getLogger().setLevel(before)
        smaller = onnx.load(path)
    return _with_precision(smaller, "int8", {"crops": len(crop_NSS3)})


def _with_precision(
    model: "onnx.ModelProto", precision: Precision, about: Mapping[str, Any]
) -> "onnx.ModelProto":
    """The model with its precision in the card, and how it was made."""
    (entry,) = (entry for entry in model.metadata_props if entry.key == cards.KEY)
    card = json.loads(entry.value)
    card[WHOLE_WAY] |= {PRECISION: {"name": precision, **about}}
    entry.value = json.dumps(cards.sealed(card))
    return model


def read_crops(folder: Path, size: int, *, most: int = MOST_CROPS) -> NDArray[np.uint8]:
    """Crops of a folder and those inside it, spread evenly over their sorted paths.

    Args:
        folder: of pictures that are aligned crops, as the folder of a data set.
        size: side that they are resized to, in pixels.
        most: how many are read.

    Returns:
        uint8 [N, size, size, 3]: R, G, B.

    Raises:
        ImageError: it is no folder, has no pictures, or one cannot be read.
    """
    endings = pictures.endings()
    found = sorted(
        path for path in folder.expanduser().rglob("*") if path.suffix.lower() in endings
    )
    if not found:
        raise ImageError(
            "holds no pictures" if folder.is_dir() else "is no folder",
            path=folder,
            remedy="name a folder of aligned crops like those to come, as of the training",
        )
    chosen = np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)
    crops = [pictures.read(found[place]).upright() for place in chosen]
    return np.stack([_resized(crop, size) for crop in crops])


def _resized(crop: Image.Image, size: int) -> NDArray[np.uint8]:
    if crop.size != (size, size):
        crop = crop.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(crop)
