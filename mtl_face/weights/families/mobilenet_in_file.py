"""Finds a MobileNet-v1 among the tensors of a file, and reads it as the network names it.

Published graphs have the batch norms folded into the convolutions: the kernels are scaled, and of
each norm one array is left that is added (`sub` in the graph, as it was subtracted negated).
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.config.schema import MOBILENET_LAYERS
from mtl_face.errors import WeightsError, shortened
from mtl_face.model.geometry import MOBILENET_PAIRS
from mtl_face.weights.file_content import Entry, FileContent

_STEM = "conv1/convolution/merged_input"

_NO_WEIGHTS = re.compile(r".*_relu(6)?/(Cast|Const)(_1)?|.*/reduction_indices")
"""Numbers of the graph that belong to no layer."""


@dataclasses.dataclass(frozen=True)
class MobileNetSize:
    """The layers of a MobileNet-v1 that a file holds, up to `end`; `width` is that of the stem."""

    end: str = "pw13"
    width: int = 32

    def __str__(self) -> str:
        return f"MobileNet-v1, layers up to {self.end}, width {self.width}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `model` with which the network is built."""
        return {
            "backbone.kind": "mobilenet",
            "backbone.end": self.end,
            "backbone.width": self.width,
        }


@dataclasses.dataclass(frozen=True)
class MobileNetInFile:
    """A network that was found: entries by layer, those of no layer, and its size."""

    layers: dict[str, dict[str, Entry]]
    left_out: dict[str, Entry]
    size: MobileNetSize


def holds_one(content: FileContent) -> bool:
    """Whether a file's tensors are those of a MobileNet-v1."""
    if content.card is not None:
        return content.card["config"]["model"]["backbone"]["kind"] == "mobilenet"
    return _STEM in content.tensors


def find(content: FileContent, path: Path, end: str | None) -> MobileNetInFile:
    """Finds the layers up to `end`; None: all that there are.

    Raises:
        WeightsError: a layer is missing, or has another shape.
    """
    tensors = dict(content.tensors)
    prefix = "backbone." if content.card is not None else ""
    layers: dict[str, dict[str, Entry]] = {}
    for layer in MOBILENET_LAYERS:
        names = _names(layer, prefix, own=content.card is not None)
        if not set(names.values()) <= tensors.keys():
            break
        layers[layer] = {part: tensors.pop(name) for part, name in names.items()}
    last = next(reversed(layers), None)
    if last is None or (end is not None and end not in layers):
        raise WeightsError(
            f"has no layer {end or 'conv1'} of a MobileNet-v1"
            + (f": it ends with {last}" if last else ""),
            path=path,
            remedy="give a file of the whole network"
            + (f", or set model.backbone.end={last}" if last else ""),
        )
    width = layers["conv1"]["kernel"].shape[-1] if layers["conv1"]["kernel"].shape else 0
    wrong = [
        f"{entry.shown} is {list(entry.shape)}, expected {list(shape)}"
        for layer, entries in layers.items()
        for part, shape in _shapes(layer, width, own=content.card is not None).items()
        if (entry := entries[part]).shape != shape
    ]
    if wrong:
        raise WeightsError(
            "is another network than a MobileNet-v1: " + "; ".join(shortened(wrong, 3)),
            path=path,
            remedy="give a file of MobileNet-v1",
        )
    used = MOBILENET_LAYERS[: MOBILENET_LAYERS.index(end or last) + 1]
    left_out = {name: entry for name, entry in tensors.items() if not _NO_WEIGHTS.fullmatch(name)}
    for layer in layers.keys() - set(used):
        left_out |= {entry.name: entry for entry in layers[layer].values()}
    return MobileNetInFile(
        {layer: layers[layer] for layer in used}, left_out, MobileNetSize(used[-1], width)
    )


def read(found: MobileNetInFile, *, flip_channels: bool, path: Path) -> dict[str, NDArray[Any]]:
    """Arrays by the names of the network's tree, joined by `/`: `params/pw3/kernel`, float32.

    WeightsError where a value is not finite.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for layer, entries in found.layers.items():
        kernel_HWIO = np.asarray(entries["kernel"].read(), np.float32)
        if "scale" in entries:
            scale_C = np.asarray(entries["scale"].read(), np.float32)
            kernel_HWIO = (kernel_HWIO * scale_C[:, None]).swapaxes(2, 3)
        if layer == "conv1" and flip_channels:
            kernel_HWIO = kernel_HWIO[:, :, ::-1]
        arrays[f"params/{layer}/kernel"] = np.ascontiguousarray(kernel_HWIO)
        arrays[f"params/{layer}/bias"] = np.asarray(entries["bias"].read(), np.float32)
    wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if wrong:
        raise WeightsError(
            f"holds values that are not finite: {', '.join(shortened(wrong, 3))}",
            path=path,
            remedy="copy or download the file again",
        )
    return arrays


def _names(layer: str, prefix: str, *, own: bool) -> Mapping[str, str]:
    """Names of a layer's tensors in the file, by what they are."""
    if own:
        return {"kernel": f"{prefix}{layer}.weight", "bias": f"{prefix}{layer}.bias"}
    name = "conv1" if layer == "conv1" else f"conv_{layer[:2]}_{layer[2:]}"
    names = {"bias": f"{name}_bn/batchnorm_1/sub"}
    if layer.startswith("dw"):
        return {
            **names,
            "kernel": f"{name}/depthwise_kernel",
            "scale": f"{name}_bn/batchnorm_1/mul",
        }
    return {**names, "kernel": f"{name}/convolution/merged_input"}


def _shapes(layer: str, width: int, *, own: bool) -> Mapping[str, tuple[int, ...]]:
    """Shapes of a layer's tensors in the file."""
    if layer == "conv1":
        return {"kernel": (3, 3, 3, width), "bias": (width,)}
    pair = int(layer[2:])
    before = width * (1 if pair == 1 else MOBILENET_PAIRS[pair - 2][1])
    if layer.startswith("pw"):
        out = width * MOBILENET_PAIRS[pair - 1][1]
        return {"kernel": (1, 1, before, out), "bias": (out,)}
    if own:
        return {"kernel": (3, 3, 1, before), "bias": (before,)}
    return {"kernel": (3, 3, before, 1), "scale": (before,), "bias": (before,)}
