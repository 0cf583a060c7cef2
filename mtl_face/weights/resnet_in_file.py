"""Finds a ResNet among a file's tensors, checks that it is whole, and reads it as the network's.

Kernel letters: H W height and width, I O channels in and out.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.weights import resnet_names
from mtl_face.weights.file_content import Entry, FileContent
from mtl_face.weights.resnet_names import Architecture, Layer, Scheme

_COUNTER = "num_batches_tracked"

_BATCH_NORM = (
    ("params", "scale", "weight"),
    ("params", "bias", "bias"),
    ("batch_stats", "mean", "running_mean"),
    ("batch_stats", "var", "running_var"),
)


@dataclasses.dataclass(frozen=True)
class ResNetInFile:
    """A backbone within a file, its shapes checked, nothing read yet.

    Attributes:
        layers: in the names of the scheme.
        backbone: its tensors by name without prefix.
        left_out: the file's other tensors by name.
    """

    scheme: Scheme
    architecture: Architecture
    layers: list[Layer]
    backbone: dict[str, Entry]
    left_out: dict[str, Entry]
    kernel_layout: str


def find(content: FileContent, architecture: Architecture | None, path: Path) -> ResNetInFile:
    """Finds the backbone and checks that it is whole, of the right size, and has nothing more.

    None as `architecture` takes an export's own.

    Raises:
        WeightsError: it holds no ResNet, more than one, or another one.
    """
    networks = resnet_names.find_networks(content.tensors)
    if not networks:
        tensors = [f"{entry.name} {_shape(entry.shape)}" for entry in content.tensors.values()]
        raise WeightsError(
            f"holds no ResNet backbone; its tensors are {_some(tensors)}",
            path=path,
            remedy="give the weights of a whole ResNet50, in the names of Keras-VGGFace, of the "
            "VGGFace2 release, or of torchvision and timm",
        )
    if len(networks) > 1:
        raise WeightsError(
            f"holds {len(networks)} networks, under "
            + ", ".join(repr(prefix or "no prefix") for _, prefix in networks),
            path=path,
            remedy="save the state dict of the one that you want alone",
        )
    scheme, prefix = networks[0]
    backbone: dict[str, Entry] = {}
    left_out: dict[str, Entry] = {}
    for name, entry in content.tensors.items():
        if name.endswith(_COUNTER):
            continue
        inner = name.removeprefix(prefix) if name.startswith(prefix) else None
        if inner is not None and resnet_names.is_backbone_name(scheme, inner):
            backbone[inner] = entry
        else:
            left_out[name] = entry
    if architecture is None:
        architecture = _own_architecture(scheme, backbone, path)
    found = ResNetInFile(
        scheme,
        architecture,
        resnet_names.layers(architecture, scheme),
        backbone,
        left_out,
        content.kernel_layout,
    )
    fault = _fault(found)
    if fault is not None:
        raise WeightsError(fault, path=path, remedy=f"give the weights of {architecture}")
    return found


def read(found: ResNetInFile, *, flip_channels: bool, path: Path) -> dict[str, Any]:
    """Reads the backbone from the file `path`, the first kernel's input channels turned if told to.

    Returns:
        `params` and `batch_stats` as the network nests them, float32, kernels HWIO.

    Raises:
        WeightsError: a tensor cannot be read, is not of floating point, or is not finite.
    """
    trees: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for layer in found.layers:
        kernel = _read(found.backbone[f"{layer.convolution}.weight"], path)
        if found.kernel_layout == "OIHW":
            kernel = kernel.transpose(2, 3, 1, 0)
        if flip_channels and layer is found.layers[0]:
            kernel = kernel[:, :, ::-1]
        _put(trees["params"], (*layer.own_convolution, "kernel"), np.ascontiguousarray(kernel))
        for collection, ours, theirs in _BATCH_NORM:
            entry = found.backbone[f"{layer.batch_norm}.{theirs}"]
            values = _read(entry, path)
            if ours == "var" and values.min() < 0:
                raise WeightsError(
                    f"{entry.name} has a negative variance",
                    path=path,
                    remedy="the file is damaged, or is no batch normalisation's: get it again",
                )
            _put(trees[collection], (*layer.own_batch_norm, ours), values)
    return trees


def _read(entry: Entry, path: Path) -> NDArray[np.float32]:
    try:
        values = np.asarray(entry.read())
    except Exception as error:  # a damaged file fails in whatever its reader meets
        raise WeightsError(
            f"{entry.name} cannot be read: {error}",
            path=path,
            remedy="copy or download the file again",
        ) from error
    if not np.issubdtype(values.dtype, np.floating) and values.dtype.name != "bfloat16":
        raise WeightsError(
            f"{entry.name} is of type {values.dtype}, not floating point",
            path=path,
            remedy="give weights that are not quantised",
        )
    with np.errstate(over="ignore"):
        single = np.array(values, np.float32)
    wrong = single.size - np.count_nonzero(np.isfinite(single))
    if wrong:
        raise WeightsError(
            f"{entry.name} holds {wrong} values that are NaN or infinite, of {single.size}",
            path=path,
            remedy="the training that made the file diverged, or it is damaged: take another",
        )
    return single


def _fault(found: ResNetInFile) -> str | None:
    """Why the backbone is not the wanted network, whole and with nothing more; None if it is."""
    expected: dict[str, tuple[int, ...]] = {}
    for layer in found.layers:
        height, width, inputs, outputs = layer.kernel_shape
        oihw = found.kernel_layout == "OIHW"
        shape = (outputs, inputs, height, width) if oihw else layer.kernel_shape
        expected[f"{layer.convolution}.weight"] = shape
        expected |= {f"{layer.batch_norm}.{theirs}": (outputs,) for _, _, theirs in _BATCH_NORM}
    wanted, present = found.architecture, found.backbone
    sizes = resnet_names.stage_sizes(found.scheme, present)
    if found.scheme == "torchvision" and "layer1.0.conv3.weight" not in present:
        return (
            f"has blocks of two convolutions and stages of {', '.join(map(str, sizes))} blocks, as "
            "ResNet18 and ResNet34 have, not three"
        )
    if sizes != wanted.stage_sizes and set(expected) & set(present):
        return f"is {dataclasses.replace(wanted, stage_sizes=sizes)}, not {wanted}"
    shapes = [
        f"{present[name].name} has shape {_shape(present[name].shape)}, not {_shape(shape)}"
        for name, shape in expected.items()
        if name in present and present[name].shape != shape
    ]
    if shapes:
        return f"is no {wanted}: {len(shapes)} tensors are of another size: {_some(shapes, '; ')}"
    missing = [name for name in expected if name not in present]
    if missing:
        return f"lacks {len(missing)} of the {len(expected)} tensors of {wanted}: {_some(missing)}"
    surplus = [entry.name for name, entry in present.items() if name not in expected]
    if surplus:
        return (
            f"has {len(surplus)} tensors in its backbone that {wanted} has no use for, as one with "
            f"squeeze-and-excitation, biases or another stem has: {_some(surplus)}"
        )
    return None


def _own_architecture(scheme: Scheme, backbone: dict[str, Entry], path: Path) -> Architecture:
    try:
        width = backbone["conv1.weight"].shape[-1]
        inner, outer = (
            backbone[f"stage1_block1.{name}.weight"].shape[-1] for name in ("conv1", "conv3")
        )
        return Architecture(resnet_names.stage_sizes(scheme, backbone), width, outer // inner)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(
            f"lacks a tensor of its backbone: {error}", path=path, remedy="export it again"
        ) from error


def _put(tree: dict[str, Any], keys: tuple[str, ...], value: NDArray[np.float32]) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _some(words: list[str], between: str = ", ", most: int = 3) -> str:
    return between.join(words[:most]) + (f"{between}..." if len(words) > most else "") or "none"
