"""A bottleneck ResNet in a file: its names in each scheme, whether it is whole, and its arrays.

| scheme | first convolution | in a block |
|---|---|---|
| ours | `conv1` | `stage1_block1.conv1` |
| caffe (VGGFace2: Caffe, Keras, MatConvNet, PyTorch) | `conv1_7x7_s2` | `conv2_1_1x1_reduce` |
| torchvision (timm, and the ports that follow it) | `conv1` | `layer1.0.conv1` |

In the network's own trees a dot is a level. Caffe and Keras write `/` where MatConvNet and PyTorch
have to write `_`; here it is `_` for all.

Kernel letters: H W height and width, I O channels in and out.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError, shortened
from mtl_face.weights.families import other_families
from mtl_face.weights.families.renaming import choose, read_tensor
from mtl_face.weights.file_content import Entry, FileContent, shape_text

Scheme = Literal["caffe", "torchvision", "ours"]


@dataclasses.dataclass(frozen=True)
class _Naming:
    """A naming scheme.

    Attributes:
        stem: first convolution and its normalisation.
        block: what stands before the parts of a block; stages and blocks count from 1 in the
            network, and `first` gives what this scheme counts from.
        first: number of the first stage, and of the first block of a stage.
        parts: (convolution, normalisation) of a block, in the order of `_PARTS`.
        backbone: what the names of the backbone's tensors begin with.
    """

    stem: tuple[str, str]
    block: str
    first: tuple[int, int]
    parts: tuple[tuple[str, str], ...]
    backbone: re.Pattern[str]

    @property
    def mark(self) -> str:
        """The tensor that gives the scheme away; `conv1` alone may be anyone's."""
        stage, block = self.first
        return f"{self.block.format(stage=stage, block=block)}{self.parts[0][0]}.weight"

    def numbers(self, name: str) -> re.Match[str] | None:
        """Finds stage and block in a name."""
        pattern = re.escape(self.block).replace(r"\{", "(?P<").replace(r"\}", r">\d+)")
        return re.match(pattern, name)


_PARTS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("proj", "proj_bn"))

_NAMINGS: dict[Scheme, _Naming] = {
    "caffe": _Naming(
        stem=("conv1_7x7_s2", "conv1_7x7_s2_bn"),
        block="conv{stage}_{block}_",
        first=(2, 1),
        parts=tuple((n, f"{n}_bn") for n in ("1x1_reduce", "3x3", "1x1_increase", "1x1_proj")),
        backbone=re.compile(r"conv\d+_\d\w*\.|conv1_7x7_s2(_bn)?\."),
    ),
    "torchvision": _Naming(
        stem=("conv1", "bn1"),
        block="layer{stage}.{block}.",
        first=(1, 0),
        parts=(*_PARTS[:3], ("downsample.0", "downsample.1")),
        backbone=re.compile(r"(conv1|bn1|layer\d+)\."),
    ),
    "ours": _Naming(
        stem=("conv1", "bn1"),
        block="stage{stage}_block{block}.",
        first=(1, 1),
        parts=_PARTS,
        backbone=re.compile(r"(conv1|bn1|stage\d+_block\d+)\."),
    ),
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Size of a bottleneck ResNet: blocks of each stage, and channels.

    `width` is that of the stem, `expansion` the ratio of a block's output to its inner channels.
    """

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    expansion: int = 4

    def __str__(self) -> str:
        blocks = ", ".join(map(str, self.stage_sizes))
        name = _FAMILY.get(self.stage_sizes) if (self.width, self.expansion) == (64, 4) else None
        size = f"stages of {blocks} blocks, width {self.width}, expansion {self.expansion}"
        return f"{name} ({size})" if name else f"a ResNet with {size}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `model` with which the network is built."""
        return {
            "backbone.kind": "resnet",
            "backbone.stage_sizes": self.stage_sizes,
            "backbone.width": self.width,
            "backbone.expansion": self.expansion,
        }


_FAMILY: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "ResNet50",
    (3, 4, 23, 3): "ResNet101",
    (3, 8, 36, 3): "ResNet152",
}

RESNET50 = Architecture()
"""53 convolutions, 53 batch normalisations, 23,508,032 trainable parameters."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution without bias and the batch normalisation that follows it.

    Named as in the scheme; the `own_` names are paths in the network's trees, joined by `/`.
    `kernel_HWIO` is the shape of the kernel.
    """

    convolution: str
    batch_norm: str
    kernel_HWIO: tuple[int, int, int, int]
    own_convolution: str
    own_batch_norm: str


def layers(architecture: Architecture, scheme: Scheme = "ours") -> list[Layer]:
    """All layers in the order in which the image meets them; 53 for ResNet50."""
    naming, own = _NAMINGS[scheme], _NAMINGS["ours"]
    channels = width = architecture.width
    found = [Layer(*naming.stem, (7, 7, 3, width), *own.stem)]
    for stage, size in enumerate(architecture.stage_sizes):
        inner = width * 2**stage
        outer = inner * architecture.expansion
        for block in range(size):
            prefix, own_prefix = (
                one.block.format(stage=one.first[0] + stage, block=one.first[1] + block)
                for one in (naming, own)
            )
            own_prefix = own_prefix.replace(".", "/")
            shapes = [(1, 1, channels, inner), (3, 3, inner, inner), (1, 1, inner, outer)]
            if block == 0:
                shapes.append((1, 1, channels, outer))
            for shape, theirs, ours in zip(shapes, naming.parts, own.parts, strict=False):
                convolution, batch_norm = (prefix + name for name in theirs)
                own_names = (own_prefix + name for name in ours)
                found.append(Layer(convolution, batch_norm, shape, *own_names))
            channels = outer
    return found


_COUNTER = "num_batches_tracked"

BATCH_NORM = (
    ("params", "scale", "weight"),
    ("params", "bias", "bias"),
    ("batch_stats", "mean", "running_mean"),
    ("batch_stats", "var", "running_var"),
)
"""Of a batch normalisation: collection and name in the network, name in PyTorch's words."""


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


def find(
    content: FileContent, architecture: Architecture | None, path: Path, prefix: str | None = None
) -> ResNetInFile:
    """Finds the backbone and checks that it is whole, of the right size, and has nothing more.

    None as `architecture` takes an export's own. `prefix` chooses one of several networks, by what
    stands before its names; `.` is the one without.

    Raises:
        WeightsError: it holds no ResNet, more than one without a prefix, or another one.
    """
    networks = _find_networks(content.tensors)
    if not networks:
        other_families.refuse(content.tensors, path)
        tensors = [f"{entry.shown} {shape_text(entry.shape)}" for entry in content.tensors.values()]
        raise WeightsError(
            f"holds no ResNet backbone; its tensors are {_some(tensors)}",
            path=path,
            remedy="give the weights of a whole ResNet50, in the names of Keras-VGGFace, of the "
            "VGGFace2 release, or of torchvision and timm",
        )
    scheme, prefix = choose(networks, path, prefix)
    backbone: dict[str, Entry] = {}
    left_out: dict[str, Entry] = {}
    for name, entry in content.tensors.items():
        inner = name.removeprefix(prefix)
        if name.endswith(_COUNTER):
            continue
        if name.startswith(prefix) and _NAMINGS[scheme].backbone.match(inner):
            backbone[inner] = entry
        else:
            left_out[name] = entry
    if architecture is None:
        architecture = _own_architecture(scheme, backbone, path)
    found = ResNetInFile(
        scheme,
        architecture,
        layers(architecture, scheme),
        backbone,
        left_out,
        content.kernel_layout,
    )
    fault = _fault(found)
    if fault is not None:
        other_families.refuse(backbone, path)
        raise WeightsError(fault, path=path, remedy=f"give the weights of {architecture}")
    return found


def read(found: ResNetInFile, *, flip_channels: bool, path: Path) -> dict[str, NDArray[np.float32]]:
    """Reads the backbone from the file `path`.

    `flip_channels` turns the input channels of the first kernel.

    Returns:
        The network's arrays by name, as `params/conv1/kernel`, float32, kernels HWIO.

    Raises:
        WeightsError: a tensor cannot be read, is not of floating point, or is not finite.
    """
    arrays = {}
    for layer in found.layers:
        kernel = read_tensor(found.backbone[f"{layer.convolution}.weight"], path)
        if found.kernel_layout == "OIHW":
            kernel = kernel.transpose(2, 3, 1, 0)
        if flip_channels and layer is found.layers[0]:
            kernel = kernel[:, :, ::-1]
        arrays[f"params/{layer.own_convolution}/kernel"] = np.array(kernel, order="C")
        for collection, ours, theirs in BATCH_NORM:
            entry = found.backbone[f"{layer.batch_norm}.{theirs}"]
            values = read_tensor(entry, path)
            if ours == "var" and values.min() < 0:
                raise WeightsError(
                    f"{entry.shown} has a negative variance",
                    path=path,
                    remedy="the file is damaged, or is no batch normalisation's: get it again",
                )
            arrays[f"{collection}/{layer.own_batch_norm}/{ours}"] = values.copy()
    return arrays


def _fault(found: ResNetInFile) -> str | None:
    """Why the backbone is not the wanted network, whole and with nothing more; None if it is."""
    expected: dict[str, tuple[int, ...]] = {}
    for layer in found.layers:
        height, width, inputs, outputs = layer.kernel_HWIO
        oihw = found.kernel_layout == "OIHW"
        shape = (outputs, inputs, height, width) if oihw else layer.kernel_HWIO
        expected[f"{layer.convolution}.weight"] = shape
        expected |= {f"{layer.batch_norm}.{theirs}": (outputs,) for _, _, theirs in BATCH_NORM}
    wanted, present = found.architecture, found.backbone
    sizes = _stage_sizes(found.scheme, present)
    if found.scheme == "torchvision" and "layer1.0.conv3.weight" not in present:
        return (
            f"has blocks of two convolutions and stages of {', '.join(map(str, sizes))} blocks, as "
            "ResNet18 and ResNet34 have, not three"
        )
    if sizes != wanted.stage_sizes and set(expected) & set(present):
        return f"is {dataclasses.replace(wanted, stage_sizes=sizes)}, not {wanted}"
    shapes = [
        f"{entry.shown} has shape {shape_text(entry.shape)}, not {shape_text(shape)}"
        for name, shape in expected.items()
        if (entry := present.get(name)) and entry.shape != shape
    ]
    if shapes:
        return f"is no {wanted}: {len(shapes)} tensors are of another size: {_some(shapes, '; ')}"
    missing = [name for name in expected if name not in present]
    if missing:
        return f"lacks {len(missing)} of the {len(expected)} tensors of {wanted}: {_some(missing)}"
    surplus = [entry.shown for name, entry in present.items() if name not in expected]
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
        return Architecture(_stage_sizes(scheme, backbone), width, outer // inner)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(
            f"lacks a tensor of its backbone: {error}", path=path, remedy="export it again"
        ) from error


def _find_networks(names: Iterable[str]) -> list[tuple[Scheme, str]]:
    """Where ResNets begin among the names of a file's tensors.

    Returns:
        (scheme, prefix) of each: the prefix is what stands before the backbone's own names, such
        as `module.`, `model.` or `state_dict.`; the shortest first.
    """
    found = set()
    for name in names:
        for scheme, naming in _NAMINGS.items():
            prefix = name.removesuffix(naming.mark)
            if prefix != name and (not prefix or prefix.endswith(".")):
                found.add((scheme, prefix))
    return sorted(found, key=lambda item: (len(item[1]), item))


def _stage_sizes(scheme: Scheme, names: Iterable[str]) -> tuple[int, ...]:
    """Blocks of each stage that occur among names without the prefix."""
    blocks: dict[int, set[int]] = {}
    for name in names:
        match = _NAMINGS[scheme].numbers(name)
        if match is not None:
            blocks.setdefault(int(match["stage"]), set()).add(int(match["block"]))
    return tuple(len(blocks[stage]) for stage in sorted(blocks))


def _some(words: list[str], between: str = ", ") -> str:
    return between.join(shortened(words, 3)) or "none"
