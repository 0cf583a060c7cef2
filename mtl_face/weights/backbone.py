"""A backbone's initial weights, from any known file, with the geometry that they need."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from mtl_face.errors import WeightsError
from mtl_face.model.variants import VARIANTS, BackboneVariant, ChannelOrder
from mtl_face.weights import match as matching
from mtl_face.weights import our_export
from mtl_face.weights.file_content import FileContent
from mtl_face.weights.match import Match
from mtl_face.weights.recognise import open_weights
from mtl_face.weights.resnet_names import RESNET50, Architecture

_VGGFACE2_CLASSES = 8631
_IMAGENET_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class LoadedBackbone:
    """Weights of a ResNet in our names, and all that is known of them.

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
        notes: what the file leaves open and how it was taken, sentences.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    variant: BackboneVariant
    architecture: Architecture
    source: dict[str, Any]
    left_out: list[tuple[str, tuple[int, ...]]]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What the content tells of the weights' training.

    Attributes:
        variant: geometry, input and channel order.
        trained_on: names of data sets, if known.
        notes: what was open.
    """

    variant: BackboneVariant
    trained_on: list[str] | None
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

    Returns:
        The weights.

    Raises:
        WeightsError: there is no such file, it is damaged or unsafe, holds another network or
            values that are not finite, or tells another channel order.
    """
    path = Path(path).expanduser()
    with open_weights(path) as content:
        ours = content.family == "ours"
        found = matching.match(content, None if ours else architecture, path)
        origin = _origin(content, found, variant, channel_order, path)
        trees = matching.read(found, flip_channels=origin.variant.channel_order == "bgr", path=path)
        source = {
            "file": path.resolve().name,
            "sha256": _sha256(path, content),
            "format": content.format,
            "variant": origin.variant.name,
            "channel_order": origin.variant.channel_order,
            "input_mean": list(origin.variant.input_mean),
            "input_std": list(origin.variant.input_std),
            "convolutions": len(found.layers),
            "batch_norms": len(found.layers),
            "parameters": count(trees["params"]),
            "left_out": len(found.left_out),
        }
        if origin.trained_on is not None:
            source["trained_on"] = origin.trained_on
        if content.card is not None and content.card.get("provenance") is not None:
            source["provenance"] = content.card["provenance"]
        return LoadedBackbone(
            params=trees["params"],
            batch_stats=trees["batch_stats"],
            variant=origin.variant,
            architecture=found.architecture,
            source=source,
            left_out=[(entry.name, entry.shape) for entry in found.left_out.values()],
            notes=origin.notes,
        )


def count(tree: Any) -> int:
    """Number of values in a nested dict of arrays."""
    return sum(count(part) for part in tree.values()) if isinstance(tree, dict) else tree.size


def _origin(
    content: FileContent,
    found: Match,
    variant: str | None,
    channel_order: ChannelOrder | None,
    path: Path,
) -> _Origin:
    if content.card is not None:
        known = our_export.variant(content.card, path)
        return _Origin(_ordered(known, "rgb", True, channel_order, path), None, [])
    if found.scheme == "caffe":
        return _vggface2_origin(content, channel_order, path)
    return _torchvision_origin(content, found, variant, channel_order, path)


def _vggface2_origin(
    content: FileContent, channel_order: ChannelOrder | None, path: Path
) -> _Origin:
    """Caffe's names: a VGGFace2 network, as released or as converted."""
    trained_on = ["VGGFace2"]
    if content.family == "keras":
        known = VARIANTS["keras"]
        return _Origin(
            _ordered(known, known.channel_order, True, channel_order, path), trained_on, []
        )
    certain = content.channel_order is not None
    notes = []
    if not certain and channel_order is None:
        notes.append(
            "the file does not say the channel order of its first convolution; taken as RGB, as "
            "the group's own PyTorch script feeds it. If it is of the BGR kind, set "
            "--config.model.backbone.init_channels=bgr"
        )
    order = content.channel_order or "rgb"
    return _Origin(
        _ordered(VARIANTS["caffe"], order, certain, channel_order, path), trained_on, notes
    )


def _torchvision_origin(
    content: FileContent,
    found: Match,
    variant: str | None,
    channel_order: ChannelOrder | None,
    path: Path,
) -> _Origin:
    """Torchvision's names: ImageNet's networks have them, and ports of VGGFace2."""
    axis = 0 if content.kernel_layout == "OIHW" else -1
    classes = {
        entry.shape[axis]
        for name, entry in found.left_out.items()
        if name.endswith("fc.weight") and entry.shape
    }
    port = content.family == "numpy"
    if _VGGFACE2_CLASSES in classes:
        name, certain, trained_on = "caffe", True, ["VGGFace2"]
    elif _IMAGENET_CLASSES in classes:
        name, certain, trained_on = "torchvision", True, ["ImageNet"]
    else:
        name, certain, trained_on = "caffe" if port else "torchvision", False, None
    notes = []
    if not certain:
        if variant in ("caffe", "torchvision"):
            name = variant
        notes.append(
            "without a known classifier the file does not say whether it is of VGGFace2 (variant "
            f"caffe) or of ImageNet (variant torchvision); taken as {name}"
        )
    known = VARIANTS[name]
    order = _ordered(known, known.channel_order, False, channel_order, path)
    return _Origin(order, trained_on, notes)


def _ordered(
    variant: BackboneVariant,
    order: ChannelOrder,
    certain: bool,
    wanted: ChannelOrder | None,
    path: Path,
) -> BackboneVariant:
    if certain and wanted is not None and wanted != order:
        raise WeightsError(
            f"has its channels in the order {order.upper()}, not {wanted.upper()}",
            path=path,
            remedy="leave --config.model.backbone.init_channels out",
        )
    return dataclasses.replace(variant, channel_order=wanted or order)


def _sha256(path: Path, content: FileContent) -> str:
    """Of the file's bytes; of an export's folder the hash over its arrays."""
    if path.is_dir():
        assert content.card is not None
        return str(content.card.get("weights_sha256"))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
