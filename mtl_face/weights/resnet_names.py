"""Every convolution and batch normalisation of a bottleneck ResNet, in each naming scheme.

| scheme | first convolution | in a block |
|---|---|---|
| ours | `conv1` | `stage1_block1/conv1` |
| caffe (VGGFace2: Caffe, Keras, MatConvNet, PyTorch) | `conv1_7x7_s2` | `conv2_1_1x1_reduce` |
| torchvision (timm, and the ports that follow it) | `conv1` | `layer1.0.conv1` |

In our trees a dot is a level. Caffe and Keras write `/` where MatConvNet and PyTorch have to write
`_`; we write `_` for all.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal

Scheme = Literal["caffe", "torchvision", "ours"]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Size of a bottleneck ResNet.

    Attributes:
        stage_sizes: blocks of each stage.
        width: channels of the stem.
        expansion: ratio of a block's output to its inner channels.
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

    Attributes:
        convolution: path of the convolution in our trees.
        batch_norm: path of the normalisation in our trees.
        kernel_shape: height, width, channels in, channels out.
        names: (convolution, normalisation) by scheme.
    """

    convolution: tuple[str, ...]
    batch_norm: tuple[str, ...]
    kernel_shape: tuple[int, int, int, int]
    names: dict[Scheme, tuple[str, str]]


def layers(architecture: Architecture) -> list[Layer]:
    """All of them, in the order in which the image meets them.

    Args:
        architecture: size of the network.

    Returns:
        For ResNet50 53 layers.
    """
    width, expansion = architecture.width, architecture.expansion
    found = [
        Layer(
            ("conv1",),
            ("bn1",),
            (7, 7, 3, width),
            {
                "caffe": ("conv1_7x7_s2", "conv1_7x7_s2_bn"),
                "torchvision": ("conv1", "bn1"),
                "ours": ("conv1", "bn1"),
            },
        )
    ]
    channels = width
    for stage, size in enumerate(architecture.stage_sizes, start=1):
        inner = width * 2 ** (stage - 1)
        for block in range(1, size + 1):
            ours = f"stage{stage}_block{block}"
            caffe = f"conv{stage + 1}_{block}"
            torch = f"layer{stage}.{block - 1}"
            parts = [
                ("conv1", "bn1", "1x1_reduce", "conv1", "bn1", (1, 1, channels, inner)),
                ("conv2", "bn2", "3x3", "conv2", "bn2", (3, 3, inner, inner)),
                ("conv3", "bn3", "1x1_increase", "conv3", "bn3", (1, 1, inner, inner * expansion)),
            ]
            if block == 1:
                shape = (1, 1, channels, inner * expansion)
                parts.append(("proj", "proj_bn", "1x1_proj", "downsample.0", "downsample.1", shape))
            found += [
                Layer(
                    (ours, convolution),
                    (ours, batch_norm),
                    shape,
                    {
                        "caffe": (f"{caffe}_{in_caffe}", f"{caffe}_{in_caffe}_bn"),
                        "torchvision": (f"{torch}.{torch_convolution}", f"{torch}.{torch_norm}"),
                        "ours": (f"{ours}.{convolution}", f"{ours}.{batch_norm}"),
                    },
                )
                for convolution, batch_norm, in_caffe, torch_convolution, torch_norm, shape in parts
            ]
            channels = inner * expansion
    return found


_MARKS: dict[Scheme, re.Pattern[str]] = {
    "caffe": re.compile(r"(?P<prefix>|.*\.)conv1_7x7_s2\.weight"),
    # conv1 alone may be anyone's
    "torchvision": re.compile(r"(?P<prefix>|.*\.)layer1\.0\.conv1\.weight"),
    "ours": re.compile(r"(?P<prefix>|.*\.)stage1_block1\.conv1\.weight"),
}

_BACKBONE: dict[Scheme, re.Pattern[str]] = {
    "caffe": re.compile(r"conv\d+_\d\w*\.|conv1_7x7_s2(_bn)?\."),
    "torchvision": re.compile(r"(conv1|bn1|layer\d+)\."),
    "ours": re.compile(r"(conv1|bn1|stage\d+_block\d+)\."),
}

_BLOCK: dict[Scheme, re.Pattern[str]] = {
    "caffe": re.compile(r"conv(?P<stage>\d+)_(?P<block>\d+)_"),
    "torchvision": re.compile(r"layer(?P<stage>\d+)\.(?P<block>\d+)\."),
    "ours": re.compile(r"stage(?P<stage>\d+)_block(?P<block>\d+)\."),
}


def find_networks(names: Iterable[str]) -> list[tuple[Scheme, str]]:
    """Where in a file ResNets begin.

    Args:
        names: of the tensors.

    Returns:
        (scheme, prefix) of each: the prefix is what stands before the backbone's own names, such
        as `module.`, `model.` or `state_dict.`; the shortest first.
    """
    found = {
        (scheme, match["prefix"])
        for scheme, mark in _MARKS.items()
        for name in names
        if (match := mark.fullmatch(name)) is not None
    }
    return sorted(found, key=lambda item: (len(item[1]), item))


def is_backbone_name(scheme: Scheme, name: str) -> bool:
    """Whether a name, without the prefix, lies among the backbone's."""
    return _BACKBONE[scheme].match(name) is not None


def stage_sizes(scheme: Scheme, names: Iterable[str]) -> tuple[int, ...]:
    """Blocks of each stage that occur among names without the prefix."""
    blocks: dict[int, set[int]] = {}
    for name in names:
        match = _BLOCK[scheme].match(name)
        if match is not None:
            blocks.setdefault(int(match["stage"]), set()).add(int(match["block"]))
    return tuple(len(blocks[stage]) for stage in sorted(blocks))
