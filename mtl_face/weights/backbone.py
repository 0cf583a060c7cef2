"""A backbone's initial weights: read from any known file, with the geometry that they need."""

import dataclasses
import hashlib
import operator
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face import files
from mtl_face.config import ModelConfig
from mtl_face.config.dotted import flat
from mtl_face.errors import WeightsError, shortened
from mtl_face.model.geometry import MOBILENET, VARIANTS, BackboneVariant, ChannelOrder
from mtl_face.weights import exported
from mtl_face.weights.families import (
    convnext_in_file,
    mobilenet_in_file,
    resnet_in_file,
    stated,
    vit_in_file,
)
from mtl_face.weights.families.convnext_in_file import ConvNextSize
from mtl_face.weights.families.mobilenet_in_file import MobileNetSize
from mtl_face.weights.families.resnet_in_file import RESNET50, Architecture, ResNetInFile
from mtl_face.weights.families.vit_in_file import VitSize
from mtl_face.weights.file_content import FileContent, shape_text, shown
from mtl_face.weights.formats import open_weights

_VGGFACE2 = "VGGFace2"
_VGGFACE2_CLASSES = 8631
_IMAGENET_CLASSES = 1000

_CLASSIFIERS = ("fc.weight", "classifier.weight", "classifier_low_dim.weight")

_SAME_NAMES = (
    "names cannot tell torchvision's ResNet50 from timm's resnetblur50 and resnetaa50, nor from "
    "one converted from Caffe or TensorFlow, which compute other maps"
)

_TOLERANCE = 1e-3
"""Of input means and deviations that count as the same, in units of 0..255."""

_MOST_LEFT_OUT = 8

_NAMED: tuple[types.ModuleType, ...] = (vit_in_file, convnext_in_file)
"""Families whose tensors are known by tables of names."""


@dataclasses.dataclass(frozen=True)
class LoadedBackbone:
    """Weights of a backbone as the network names them, and where they come from.

    Attributes:
        params: nested dict of float32 NumPy arrays, as the network of
            `mtl_face.model.backbones` has them; kernels [H, W, I, O]. The first convolution takes
            R, G, B.
        batch_stats: the running statistics, likewise; only a ResNet has some.
        variant: geometry and input. `channel_order` is that of the file, before it was turned.
        architecture: number of blocks and channels.
        source: JSON values that say where the weights come from: `file` (name), `sha256`, `format`,
            `variant`, `channel_order`, `input_mean`, `input_std`, counts; `family`, `licence`,
            `trained_on` and `provenance` where they are known.
        left_out: name and shape of each of the file's tensors that is no part of the backbone.
        notes: what the file leaves open and what was assumed, sentences.
        assumed: settings of `model` that the file does not tell; others may be right.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    variant: BackboneVariant
    architecture: Architecture | MobileNetSize | VitSize | ConvNextSize
    source: dict[str, Any]
    left_out: list[tuple[str, tuple[int, ...]]]
    notes: list[str]
    assumed: tuple[str, ...] = ()


def load_backbone(
    path: str | Path,
    *,
    variant: str | None = None,
    channel_order: ChannelOrder | None = None,
    prefix: str | None = None,
    architecture: Architecture = RESNET50,
    end: str | None = None,
) -> LoadedBackbone:
    """Reads the weights of a backbone of any family, whatever the format.

    The name of the file says nothing.

    Args:
        path: a file of Keras-VGGFace, VGGFace2 (PyTorch, MatConvNet, the port's pickle),
            torchvision or timm, a MobileNet-v1 as a graph of TensorFlow.js, a vision transformer
            or a ConvNeXt (see `families.vit_in_file`, `.convnext_in_file`), a folder of Hugging
            Face's, or an export of this package (folder or safetensors).
        variant: key of `VARIANTS` for a file that does not tell its geometry (torchvision's names
            without ImageNet's classifier); where the file tells it, the file is right.
        channel_order: order of the first convolution's channels, for a file that does not tell it.
        prefix: what stands before the names of the network, for a file that holds several.
        architecture: size that a foreign file of a ResNet must have; an export has its own.
        end: last layer of a MobileNet that is read; None: all.

    Raises:
        WeightsError: there is no such file, it is damaged or unsafe, holds another network or
            values that are not finite, or tells another channel order.
    """
    path = Path(path).expanduser()
    with open_weights(path) as content:
        card = content.card or {}
        if mobilenet_in_file.holds_one(content):
            return _mobilenet(content, path, channel_order, end)
        for family in _NAMED:
            if family.holds_one(content):
                return _by_names(family, content, path, channel_order, prefix)
        found = resnet_in_file.find(content, None if card else architecture, path, prefix)
        known, trained_on, notes = _geometry(content, found, variant)
        order = content.channel_order
        if order and channel_order and channel_order != order:
            raise WeightsError(
                f"has its channels in the order {order.upper()}, not {channel_order.upper()}",
                path=path,
                remedy="leave model.backbone.init_channels out",
            )
        if order is None and channel_order is None and found.scheme == "caffe":
            order = "rgb"
            notes.append(
                "the file does not say the channel order of its first convolution; taken as RGB, "
                "as the group's own PyTorch script feeds it. If it is of the BGR kind, set "
                "--config.model.backbone.init_channels=bgr"
            )
        notes += _passed_over(content)
        order = order or channel_order or known.channel_order
        known = dataclasses.replace(known, channel_order=order)
        arrays = resnet_in_file.read(found, flip_channels=order == "bgr", path=path)
        trees = exported.nest(arrays, path)
        source = _source(content, path, known, arrays) | {
            "convolutions": len(found.layers),
            "batch_norms": len(found.layers),
            "left_out": len(found.left_out),
        }
        if trained_on is not None:
            source["trained_on"] = [trained_on]
        return LoadedBackbone(
            params=trees["params"],
            batch_stats=trees["batch_stats"],
            variant=known,
            architecture=found.architecture,
            source=source,
            left_out=[(entry.name, entry.shape) for entry in found.left_out.values()],
            notes=notes,
        )


def _source(
    content: FileContent,
    path: Path,
    known: BackboneVariant,
    arrays: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    """What a file is, as JSON values."""
    card = content.card or {}
    source = {
        "file": path.resolve().name,
        "sha256": _sha256(content, path),
        "format": content.format,
        "variant": known.name,
        "channel_order": known.channel_order,
        "input_mean": list(known.input_mean),
        "input_std": list(known.input_std),
        "parameters": sum(
            array.size for name, array in arrays.items() if name.startswith("params/")
        ),
    }
    if card.get("provenance") is not None:
        source["provenance"] = card["provenance"]
    return source


def _sha256(content: FileContent, path: Path) -> str:
    """Hash of a file. A folder has no bytes: that over its arrays, or its files, stands for it."""
    if content.card is not None and path.is_dir():
        return content.card["weights_sha256"]
    hashes = [files.sha256(file) for file in content.files or (path,)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _passed_over(content: FileContent) -> list[str]:
    """What a file holds beside tensors, as a note."""
    if not content.passed_over:
        return []
    names = ", ".join(shortened(content.passed_over, _MOST_LEFT_OUT, shown))
    return [f"it holds more than tensors, which was passed over and not run: {names}"]


def _by_names(
    family: types.ModuleType,
    content: FileContent,
    path: Path,
    channel_order: ChannelOrder | None,
    prefix: str | None,
) -> LoadedBackbone:
    """A network whose tensors are known by tables of names."""
    said = stated.settings(content.stated)
    network = family.find(content, path, prefix, said)
    arrays, known, size = family.read(network, path), network.known, network.size
    order = channel_order or "rgb"
    if order == "bgr":
        first = f"params/{family.FIRST_KERNEL}"
        arrays[first] = np.ascontiguousarray(arrays[first][:, :, ::-1])
    if content.card is not None:
        variant = exported.backbone_variant(content.card)
    else:
        mean, std = known.colours
        variant = BackboneVariant(
            name=size.settings["backbone.kind"],
            conv1_padding="VALID",
            pool_padding="VALID",
            stride_in_reduce=False,
            batch_norm_epsilon=0.0,
            input_mean=said.get("input_mean", mean),
            input_std=said.get("input_std", std),
            channel_order=order,
        )
    source = _source(content, path, variant, arrays) | {
        "arrays": len(arrays),
        "left_out": len(network.found.left_out),
    }
    notes: list[str] = []
    assumed: tuple[str, ...] = ()
    if content.card is None:
        source |= {"family": known.family, "names": network.found.title}
        licence = stated.licence(content.stated) or known.licence
        affect = stated.affect_data(content.stated)
        if licence is not None:
            source["licence"] = licence
        if known.trained_on or affect:
            source["trained_on"] = [*known.trained_on, *affect]
        if affect:
            notes.append(
                f"what lies beside the weights mentions {', '.join(affect)}: they count as trained "
                "on it, which ABAW's rules forbid"
            )
        assumed = tuple(
            name for name in (*family.UNTOLD, "input_mean", "input_std") if name not in said
        )
        notes += [known.note] if known.note and "input_mean" in assumed else []
    notes += _passed_over(content)
    return LoadedBackbone(
        params=exported.nest(arrays, path)["params"],
        batch_stats={},
        variant=variant,
        architecture=size,
        source=source,
        left_out=[(entry.name, entry.shape) for entry in network.found.left_out.values()],
        notes=notes,
        assumed=assumed,
    )


def fitted(backbone: LoadedBackbone, model: ModelConfig) -> LoadedBackbone:
    """The weights with the learned positions of a vision transformer for the grid of the settings.

    Another grid than the file's is interpolated, and a note says so.
    """
    size = backbone.architecture
    if not isinstance(size, VitSize) or not size.grid:
        return backbone
    side = model.input_size // size.vit.patch
    if side == size.grid:
        return backbone
    position_ND = vit_in_file.resampled(backbone.params["position"], side)
    note = (
        f"its positions are of {size.grid} x {size.grid} patches, interpolated to {side} x {side} "
        f"for model.input_size {model.input_size}"
    )
    return dataclasses.replace(
        backbone,
        params={**backbone.params, "position": position_ND},
        architecture=dataclasses.replace(size, grid=side),
        notes=[*backbone.notes, note],
    )


def _mobilenet(
    content: FileContent, path: Path, channel_order: ChannelOrder | None, end: str | None
) -> LoadedBackbone:
    """A MobileNet-v1, of which a graph of TensorFlow.js is known by the names of its layers."""
    found = mobilenet_in_file.find(content, path, end)
    if content.card is not None:
        known, notes = exported.backbone_variant(content.card), []
    else:
        order = channel_order or MOBILENET.channel_order
        known = dataclasses.replace(MOBILENET, channel_order=order)
        notes = [
            "taken as the MobileNet-v1 that was trained on VGGFace2, whose input is BGR minus a "
            "mean colour: the file does not say so. VGGFace2 has been withdrawn by those who made "
            "it: whether its weights may be used is for you to find out"
        ]
    arrays = mobilenet_in_file.read(found, flip_channels=known.channel_order == "bgr", path=path)
    source = _source(content, path, known, arrays) | {
        "convolutions": len(found.layers),
        "batch_norms": 0,
        "left_out": len(found.left_out),
    }
    if content.card is None:
        source |= {"trained_on": [_VGGFACE2], "withdrawn": [_VGGFACE2]}
        source["sha256_of_tensors"] = exported.weights_sha256(arrays)
    return LoadedBackbone(
        params=exported.nest(arrays, path)["params"],
        batch_stats={},
        variant=known,
        architecture=found.size,
        source=source,
        left_out=[(entry.name, entry.shape) for entry in found.left_out.values()],
        notes=notes,
    )


def needed_settings(backbone: LoadedBackbone) -> dict[str, Any]:
    """The settings of `model`, by name, with which a network is built and fed for the weights."""
    known, size = backbone.variant, backbone.architecture
    colours = {"input_mean": known.input_mean, "input_std": known.input_std}
    settings = size.settings
    if isinstance(size, Architecture):
        del settings["backbone.kind"]
        return {"backbone.variant": known.name, **colours, **settings}
    return settings | colours


def differing_from_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `model` that are not the defaults."""
    usual = flat({"model": dataclasses.asdict(ModelConfig())})
    return {
        name: value
        for name, value in settings.items()
        if not _same(usual.get(f"model.{name}"), value)
    }


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings of `model` as flags of the command line."""
    return [f"--config.model.{name}={_text(value)}" for name, value in settings.items()]


def check_settings(backbone: LoadedBackbone, model: ModelConfig, path: str) -> None:
    """Checks that a network is built and fed as its initial weights, of file `path`, were trained.

    Raises:
        WeightsError: for every difference at once, with the settings to use.
    """
    needed = needed_settings(backbone)
    needed = {"backbone.kind": backbone.architecture.settings["backbone.kind"], **needed}
    found = {name: operator.attrgetter(name)(model) for name in needed}
    chosen = differing_from_defaults({name: found[name] for name in backbone.assumed})
    differing = {
        name: value
        for name, value in needed.items()
        if name not in chosen and not _same(found[name], value)
    }
    if differing:
        raise WeightsError(
            "does not fit the settings: "
            + "; ".join(
                f"model.{name} is {_text(found[name])}, the weights need {_text(value)}"
                for name, value in differing.items()
            ),
            path=path,
            remedy="use " + " ".join(flags(differing)),
        )


def describe(backbone: LoadedBackbone, path: str) -> list[str]:
    """What a file is, what of it is used and what is not, in lines to print."""
    source, variant = backbone.source, backbone.variant
    turned = ", turned to RGB" if variant.channel_order == "bgr" else ""
    left_out = [f"{shown(name)} {shape_text(shape)}" for name, shape in backbone.left_out]
    others = ", ".join(shortened(left_out, _MOST_LEFT_OUT))
    matched = (
        f"{source['arrays']} arrays"
        if "arrays" in source
        else f"{source['convolutions']} convolutions and {source['batch_norms']} batch norms"
    )
    lines = [
        f"initial weights: {path} (sha256 {source['sha256'][:12]}...)",
        f"  {source['format']}: {backbone.architecture}",
        f"  geometry {variant.name}; first convolution in {variant.channel_order.upper()}{turned}",
        f"  matched {matched}, {source['parameters']:,} parameters, all of the right shape",
        f"  left out, not of the backbone: {others}" if left_out else "  left out: nothing",
    ]
    if "family" in source:
        lines.append(f"  names of {source['names']}, parts of {source['family']}")
        lines.append(f"  licence: {source.get('licence', 'not known; ask those who made it')}")
    if "trained_on" in source and "withdrawn" not in source:
        how = "as its makers state" if "family" in source else "as the size of its classifier tells"
        lines.append(f"  trained on {', '.join(source['trained_on'])}, {how}")
    return lines + [f"  note: {note}" for note in backbone.notes]


def _geometry(
    content: FileContent, found: ResNetInFile, asked: str | None
) -> tuple[BackboneVariant, str | None, list[str]]:
    """Geometry, data set of the training, and what was assumed, as far as the content tells."""
    if content.card is not None:
        return exported.backbone_variant(content.card), None, []
    axis = 0 if content.kernel_layout == "OIHW" else -1
    heads = {
        entry.shape[axis]
        for name, entry in found.left_out.items()
        if name.endswith(_CLASSIFIERS) and entry.shape
    }
    trained_on = _VGGFACE2 if _VGGFACE2_CLASSES in heads else None
    if found.scheme == "caffe":
        own = (
            []
            if trained_on
            else [
                "its names are those of the VGGFace2 release, but it has no classifier of "
                f"{_VGGFACE2_CLASSES:,} classes: what it was trained on last, the file does not "
                "say; state it in provenance.pretrained_on"
            ]
        )
        return VARIANTS["keras" if content.family == "keras" else "caffe"], trained_on, own
    # Torchvision's names: ImageNet's networks have them, and ports of VGGFace2.
    if trained_on is None and _IMAGENET_CLASSES in heads:
        return VARIANTS["torchvision"], "ImageNet", [_SAME_NAMES]
    name = "caffe" if trained_on or content.family == "numpy" else "torchvision"
    if asked in ("caffe", "torchvision"):
        name = asked
    note = (
        f"a classifier of {_VGGFACE2_CLASSES:,} classes tells VGGFace2, but not whether the "
        "network is a port of the release (variant caffe, BGR) or torchvision's own (variant "
        "torchvision, RGB)"
        if trained_on
        else "without a known classifier the file does not say whether it is of VGGFace2 (variant "
        "caffe) or of ImageNet (variant torchvision)"
    )
    note += f"; taken as {name}, which --config.model.backbone.variant changes"
    return VARIANTS[name], trained_on, [note, *([_SAME_NAMES] if name == "torchvision" else [])]


def _same(found: Any, needed: Any) -> bool:
    if isinstance(needed, Sequence) and needed and isinstance(needed[0], float):
        return len(found) == len(needed) and all(
            abs(a - b) <= _TOLERANCE for a, b in zip(found, needed, strict=True)
        )
    if isinstance(needed, tuple) and found is not None:
        return tuple(found) == needed
    return found == needed


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        # A trailing comma keeps a single value a list.
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return str(value)
