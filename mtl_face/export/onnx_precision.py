"""Smaller ONNX files: the network in float16, or its layers in int8.

What surrounds the network stays as it is: inputs, resizing, the mesh network and the alignment of
its points, probabilities, decisions, outputs. A network lies under the name of its module. The
packages onnx and onnxruntime are imported when they are used.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl_face import pictures
from mtl_face.errors import ImageError
from mtl_face.inputs import BASELINE
from mtl_face.weights import card as cards
from mtl_face.weights.programs import onnx_file
from mtl_face.weights.programs.interface import CROP, WHOLE_WAY

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
_LARGEST = float(np.finfo(np.float16).max)


def in_float16(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """A model whose network computes in float16, with weights of half the size.

    Inputs and outputs keep their types. Weights beyond the range of float16 are clipped to it.

    Raises:
        ExportError: onnx is not installed.
    """
    onnx = onnx_file.package("onnx")
    single, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    graph = model.graph
    insides = [node.name.startswith(_NETWORK) for node in graph.node]
    floats = _floats(model)
    arrays = {tensor.name: tensor for tensor in graph.initializer if tensor.name in floats}
    made_inside = {
        name
        for node, is_inside in zip(graph.node, insides, strict=True)
        if is_inside
        for name in node.output
        if name in floats
    }
    nodes, known = [], set()

    def cast(name: str, kind: int) -> str:
        """The name of a tensor in the other type; the cast is added once."""
        new = f"{name}/{'half' if kind == half else 'single'}"
        if new not in known:
            known.add(new)
            if name in arrays:
                array = np.clip(onnx.numpy_helper.to_array(arrays[name]), -_LARGEST, _LARGEST)
                tensor = onnx.numpy_helper.from_array(array.astype(np.float16), new)
                graph.initializer.append(tensor)
            else:
                nodes.append(onnx.helper.make_node("Cast", [name], [new], name=new, to=kind))
        return new

    for node, is_inside in zip(graph.node, insides, strict=True):
        for place, name in enumerate(node.input):
            if is_inside and name in floats and name not in made_inside:
                node.input[place] = cast(name, half)
            elif not is_inside and name in made_inside:
                node.input[place] = cast(name, single)
        for attribute in node.attribute if is_inside else ():
            if node.op_type == "Cast" and attribute.i == single:
                attribute.i = half
            elif attribute.t.data_type == single:
                array = onnx.numpy_helper.to_array(attribute.t).astype(np.float16)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(array))
        nodes.append(node)
    for output in graph.output:
        if output.name in made_inside:  # under a name of its own inside, cast at the end
            inner = f"{output.name}/inside"
            for node in nodes:
                node.input[:] = [inner if name == output.name else name for name in node.input]
                node.output[:] = [inner if name == output.name else name for name in node.output]
            nodes.append(onnx.helper.make_node("Cast", [inner], [output.name], to=single))
    used = {name for node in nodes for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    for field, values in {"node": nodes, "initializer": initializers, "value_info": ()}.items():
        smaller.graph.ClearField(field)
        getattr(smaller.graph, field).extend(values)
    return _with_precision(smaller, "float16", {})


def inside(model: "onnx.ModelProto") -> list[str]:
    """Names of the values that a model's network computes, but for the model's outputs."""
    outputs = {value.name for value in model.graph.output}
    nodes = [node for node in model.graph.node if node.name.startswith(_NETWORK)]
    return [name for node in nodes for name in node.output if name and name not in outputs]


def _floats(model: "onnx.ModelProto") -> set[str]:
    """Names of the tensors of float32."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    single = onnx.TensorProto.FLOAT
    held = {tensor.name for tensor in graph.initializer if tensor.data_type == single}
    return held | {v.name for v in values if v.type.tensor_type.elem_type == single}


def in_int8(model: "onnx.ModelProto", crop_NSS3: NDArray[np.uint8]) -> "onnx.ModelProto":
    """A model whose convolutions and dense layers compute in int8, but for the last of each head.

    Weights have a scale for each channel, and seven bits, so that no sum is cut off. Values
    between layers have the range that they take on the crops, which should be like those to come.

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
                # Weights of seven bits: a processor without products of int8 adds two products of a
                # value and a weight in 16 bits, where larger ones would be cut off unseen.
                reduce_range=True,
                # With signed ones a convolution that a ReLU follows stays in float32.
                activation_type=quantization.QuantType.QUInt8,
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


def crops_of(folder: Path, *, most: int = MOST_CROPS) -> list[Path]:
    """Pictures of a folder and those inside it, spread evenly over their sorted paths.

    Args:
        folder: of pictures that are aligned crops, as the folder of a data set.
        most: how many are given.

    Raises:
        ImageError: it is no folder, or has no pictures.
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
    return [found[place] for place in chosen]


def read_crops(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Crops, resized to a side in pixels: uint8 [N, size, size, 3]; ImageError as `pictures`."""
    return np.stack([_resized(pictures.read(path).upright(), size) for path in paths])


def _resized(crop: Image.Image, size: int) -> NDArray[np.uint8]:
    if crop.size != (size, size):
        crop = crop.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(crop)
