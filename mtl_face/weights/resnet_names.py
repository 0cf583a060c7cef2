"""Every convolution and batch normalisation of a bottleneck ResNet, in each naming scheme.

| scheme | first convolution | in a block |
|---|---|---|
| ours | `conv1` | `stage1_block1.conv1` |
| caffe (VGGFace2: Caffe, Keras, MatConvNet, PyTorch) | `conv1_7x7_s2` | `conv2_1_1x1_reduce` |
| torchvision (timm, and the ports that follow it) | `conv1` | `layer1.0.conv1` |

In the network's own trees a dot is a level. Caffe and Keras write `/` where MatConvNet and PyTorch
have to write `_`; here it is `_` for all.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal

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
        mark: the tensor that gives the scheme away; `conv1` alone may be anyone's.
        backbone: what the names of the backbone's tensors begin with.
        numbers: finds stage and block in a name.
    """

    stem: tuple[str, str]
    block: str
    first: tuple[int, int]
    parts: tuple[tuple[str, str], ...]
    mark: str
    backbone: re.Pattern[str]
    numbers: re.Pattern[str]


_PARTS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("proj", "proj_bn"))

_NAMINGS: dict[Scheme, _Naming] = {
    "caffe": _Naming(
        stem=("conv1_7x7_s2", "conv1_7x7_s2_bn"),
        block="conv{stage}_{block}_",
        first=(2, 1),
        parts=tuple((n, f"{n}_bn") for n in ("1x1_reduce", "3x3", "1x1_increase", "1x1_proj")),
        mark="conv1_7x7_s2.weight",
        backbone=re.compile(r"conv\d+_\d\w*\.|conv1_7x7_s2(_bn)?\."),
        numbers=re.compile(r"conv(?P<stage>\d+)_(?P<block>\d+)_"),
    ),
    "torchvision": _Naming(
        stem=("conv1", "bn1"),
        block="layer{stage}.{block}.",
        first=(1, 0),
        parts=(*_PARTS[:3], ("downsample.0", "downsample.1")),
        mark="layer1.0.conv1.weight",
        backbone=re.compile(r"(conv1|bn1|layer\d+)\."),
        numbers=re.compile(r"layer(?P<stage>\d+)\.(?P<block>\d+)\."),
    ),
    "ours": _Naming(
        stem=("conv1", "bn1"),
        block="stage{stage}_block{block}.",
        first=(1, 1),
        parts=_PARTS,
        mark="stage1_block1.conv1.weight",
        backbone=re.compile(r"(conv1|bn1|stage\d+_block\d+)\."),
        numbers=re.compile(r"stage(?P<stage>\d+)_block(?P<block>\d+)\."),
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

    Named as in the scheme; the `own_` ones are paths in the network's trees. `kernel_shape` is
    height, width, channels in, channels out.
    """

    convolution: str
    batch_norm: str
    kernel_shape: tuple[int, int, int, int]
    own_convolution: tuple[str, ...]
    own_batch_norm: tuple[str, ...]


def layers(architecture: Architecture, scheme: Scheme = "ours") -> list[Layer]:
    """All layers in the order in which the image meets them; 53 for ResNet50."""
    naming, own = _NAMINGS[scheme], _NAMINGS["ours"]
    width, expansion = architecture.width, architecture.expansion
    found = [Layer(*naming.stem, (7, 7, 3, width), own.stem[:1], own.stem[1:])]
    channels = width
    for stage, size in enumerate(architecture.stage_sizes):
        inner = width * 2**stage
        outer = inner * expansion
        for block in range(size):
            prefix, own_prefix = (
                one.block.format(stage=one.first[0] + stage, block=one.first[1] + block)
                for one in (naming, own)
            )
            shapes = [(1, 1, channels, inner), (3, 3, inner, inner), (1, 1, inner, outer)]
            if block == 0:
                shapes.append((1, 1, channels, outer))
            for shape, (convolution, norm), (own_convolution, own_norm) in zip(
                shapes, naming.parts, own.parts, strict=False
            ):
                found.append(
                    Layer(
                        prefix + convolution,
                        prefix + norm,
                        shape,
                        tuple((own_prefix + own_convolution).split(".")),
                        tuple((own_prefix + own_norm).split(".")),
                    )
                )
            channels = outer
    return found


def find_networks(names: Iterable[str]) -> list[tuple[Scheme, str]]:
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


def is_backbone_name(scheme: Scheme, name: str) -> bool:
    """Whether a name, without the prefix, lies among the backbone's."""
    return _NAMINGS[scheme].backbone.match(name) is not None


def stage_sizes(scheme: Scheme, names: Iterable[str]) -> tuple[int, ...]:
    """Blocks of each stage that occur among names without the prefix."""
    blocks: dict[int, set[int]] = {}
    for name in names:
        match = _NAMINGS[scheme].numbers.match(name)
        if match is not None:
            blocks.setdefault(int(match["stage"]), set()).add(int(match["block"]))
    return tuple(len(blocks[stage]) for stage in sorted(blocks))
