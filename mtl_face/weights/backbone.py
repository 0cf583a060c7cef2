"""A backbone's initial weights: read from any known file, with the geometry that they need."""

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_face import files
from mtl_face.config import ModelConfig
from mtl_face.errors import WeightsError, shortened
from mtl_face.model.geometry import VARIANTS, BackboneVariant, ChannelOrder
from mtl_face.weights import exported, resnet_in_file
from mtl_face.weights.file_content import FileContent
from mtl_face.weights.formats import open_weights
from mtl_face.weights.resnet_in_file import RESNET50, Architecture, ResNetInFile, shape_text

_VGGFACE2_CLASSES = 8631
_IMAGENET_CLASSES = 1000

_TOLERANCE = 1e-3
"""Of input means and deviations that count as the same, in units of 0..255."""

_MOST_LEFT_OUT = 8


@dataclasses.dataclass(frozen=True)
class LoadedBackbone:
    """Weights of a ResNet as the network names them, and where they come from.

    Attributes:
        params: nested dict of float32 NumPy arrays, as `model.backbone.ResNet` has them; kernels
            [H, W, I, O]. The first convolution takes R, G, B.
        batch_stats: the running statistics, likewise.
        variant: geometry and input. `channel_order` is that of the file, before it was turned.
        architecture: number of blocks and channels.
        source: JSON values that say where the weights come from: `file` (name), `sha256`, `format`,
            `variant`, `channel_order`, `input_mean`, `input_std`, counts; `trained_on` and
            `provenance` where they are known.
        left_out: name and shape of each of the file's tensors that is no part of the backbone.
        notes: what the file leaves open and what was assumed, sentences.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    variant: BackboneVariant
    architecture: Architecture
    source: dict[str, Any]
    left_out: list[tuple[str, tuple[int, ...]]]
    notes: list[str]


def load_backbone(
    path: str | Path,
    *,
    variant: str | None = None,
    channel_order: ChannelOrder | None = None,
    architecture: Architecture = RESNET50,
) -> LoadedBackbone:
    """Reads the weights of a ResNet50, whatever the format; the name of the file says nothing.

    Args:
        path: a file of Keras-VGGFace, VGGFace2 (PyTorch, MatConvNet, the port's pickle),
            torchvision or timm, or an export of this package (folder or safetensors).
        variant: key of `VARIANTS` for a file that does not tell its geometry (torchvision's names
            without a classifier); where the file tells it, the file is right.
        channel_order: order of the first convolution's channels, for a file that does not tell it.
        architecture: size that a foreign file must have; an export has its own.

    Raises:
        WeightsError: there is no such file, it is damaged or unsafe, holds another network or
            values that are not finite, or tells another channel order.
    """
    path = Path(path).expanduser()
    with open_weights(path) as content:
        card = content.card or {}
        found = resnet_in_file.find(content, None if card else architecture, path)
        known, trained_on, note = _geometry(content, found, variant, path)
        order = content.channel_order
        if order and channel_order and channel_order != order:
            raise WeightsError(
                f"has its channels in the order {order.upper()}, not {channel_order.upper()}",
                path=path,
                remedy="leave model.backbone.init_channels out",
            )
        if order is None and channel_order is None and found.scheme == "caffe":
            order = "rgb"
            note = (
                "the file does not say the channel order of its first convolution; taken as RGB, "
                "as the group's own PyTorch script feeds it. If it is of the BGR kind, set "
                "--config.model.backbone.init_channels=bgr"
            )
        order = order or channel_order or known.channel_order
        known = dataclasses.replace(known, channel_order=order)
        arrays = resnet_in_file.read(found, flip_channels=order == "bgr", path=path)
        trees = exported.nest(arrays, path)
        source = {
            "file": path.resolve().name,
            # A folder has no bytes: the hash over its arrays stands for it.
            "sha256": card["weights_sha256"] if path.is_dir() else files.sha256(path),
            "format": content.format,
            "variant": known.name,
            "channel_order": known.channel_order,
            "input_mean": list(known.input_mean),
            "input_std": list(known.input_std),
            "convolutions": len(found.layers),
            "batch_norms": len(found.layers),
            "parameters": sum(
                array.size for name, array in arrays.items() if name.startswith("params/")
            ),
            "left_out": len(found.left_out),
        }
        if trained_on is not None:
            source["trained_on"] = [trained_on]
        if card.get("provenance") is not None:
            source["provenance"] = card["provenance"]
        return LoadedBackbone(
            params=trees["params"],
            batch_stats=trees["batch_stats"],
            variant=known,
            architecture=found.architecture,
            source=source,
            left_out=[(entry.name, entry.shape) for entry in found.left_out.values()],
            notes=[] if note is None else [note],
        )


def needed_settings(backbone: LoadedBackbone) -> dict[str, Any]:
    """The settings of `model`, by name, with which a network is built and fed for the weights."""
    known, size = backbone.variant, backbone.architecture
    return {
        "backbone.variant": known.name,
        "input_mean": known.input_mean,
        "input_std": known.input_std,
        "backbone.stage_sizes": size.stage_sizes,
        "backbone.width": size.width,
        "backbone.expansion": size.expansion,
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
    found = {name: operator.attrgetter(name)(model) for name in needed}
    differing = {name: value for name, value in needed.items() if not _same(found[name], value)}
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
    left_out = [f"{name} {shape_text(shape)}" for name, shape in backbone.left_out]
    shown = ", ".join(shortened(left_out, _MOST_LEFT_OUT))
    lines = [
        f"initial weights: {path} (sha256 {source['sha256'][:12]}...)",
        f"  {source['format']}: {backbone.architecture}",
        f"  geometry {variant.name}; first convolution in {variant.channel_order.upper()}{turned}",
        f"  matched {source['convolutions']} convolutions and {source['batch_norms']} batch norms, "
        f"{source['parameters']:,} parameters, all of the right shape",
        f"  left out, not of the backbone: {shown}" if left_out else "  left out: nothing",
    ]
    if "trained_on" in source:
        lines.append(f"  trained on {', '.join(source['trained_on'])}, as its content tells")
    return lines + [f"  note: {note}" for note in backbone.notes]


def _geometry(
    content: FileContent, found: ResNetInFile, asked: str | None, path: Path
) -> tuple[BackboneVariant, str | None, str | None]:
    """Geometry, data set of the training, and what was assumed, as far as the content tells."""
    if content.card is not None:
        return exported.backbone_variant(content.card, path), None, None
    if found.scheme == "caffe":
        return VARIANTS["keras" if content.family == "keras" else "caffe"], "VGGFace2", None
    # Torchvision's names: ImageNet's networks have them, and ports of VGGFace2.
    axis = 0 if content.kernel_layout == "OIHW" else -1
    classes = {
        entry.shape[axis]
        for name, entry in found.left_out.items()
        if name.endswith("fc.weight") and entry.shape
    }
    if _VGGFACE2_CLASSES in classes:
        return VARIANTS["caffe"], "VGGFace2", None
    if _IMAGENET_CLASSES in classes:
        return VARIANTS["torchvision"], "ImageNet", None
    name = "caffe" if content.family == "numpy" else "torchvision"
    if asked in ("caffe", "torchvision"):
        name = asked
    note = (
        "without a known classifier the file does not say whether it is of VGGFace2 (variant "
        f"caffe) or of ImageNet (variant torchvision); taken as {name}"
    )
    return VARIANTS[name], None, note


def _same(found: Any, needed: Any) -> bool:
    if isinstance(needed, tuple) and isinstance(needed[0], float):
        return all(abs(a - b) <= _TOLERANCE for a, b in zip(found, needed, strict=True))
    return found == needed


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        # A trailing comma keeps a single value a list.
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return str(value)
