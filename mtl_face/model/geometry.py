"""The backbones' geometry: published variants of ResNet50, MobileNet-v1, and their stages.

The weights of one ResNet50 run in every variant without an error and give different maps, so the
variant belongs to the weights: `caffe` to the VGGFace2 release (Cao et al. 2018), `keras` to its
Keras port, `torchvision` to torchvision and timm. Imports no JAX: weights are inspected without.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from mtl_face.config import BackboneConfig
from mtl_face.config.schema import ConvNextConfig

STEM_KERNEL, STEM_STRIDE = 7, 2
"""The first convolution of a ResNet."""

POOL_WINDOW, POOL_STRIDE = 3, 2
"""The maximum pooling of a ResNet, padded with minus infinity."""

SPATIAL_KERNEL, SPATIAL_PADDING = 3, 1
"""The middle convolution of a residual block, padded on each side."""

STAGE_STRIDE = 2
"""Of the first block of each stage but the first."""

NOTHING_FROZEN = -1
"""As `frozen_stages` or `frozen_blocks`: all train, the stem included."""

Padding = str | tuple[tuple[int, int], tuple[int, int]]

ChannelOrder = Literal["rgb", "bgr"]


@dataclasses.dataclass(frozen=True)
class BackboneVariant:
    """Where the published ResNets differ.

    Attributes:
        name: its key in `VARIANTS`.
        conv1_padding: padding of the 7 x 7 convolution of stride 2.
        pool_padding: padding, with minus infinity, of the 3 x 3 maximum pooling of stride 2.
        stride_in_reduce: whether a block that halves the map does so in its first, 1 x 1
            convolution (as He et al. 2016 did) or in its 3 x 3 one.
        batch_norm_epsilon: added to the variance.
        input_mean: subtracted from R, G, B in 0..255 where the weights were trained.
        input_std: divides what is left, R, G, B.
        channel_order: input channels of the published first convolution. This backbone takes RGB;
            weights in the other order are reversed when they are read.
    """

    name: str
    conv1_padding: Padding
    pool_padding: Padding
    stride_in_reduce: bool
    batch_norm_epsilon: float
    input_mean: tuple[float, float, float]
    input_std: tuple[float, float, float]
    channel_order: ChannelOrder

    def strides(self, stride: int) -> tuple[int, int]:
        """Strides of the first two convolutions of a residual block of a stride."""
        return (stride, 1) if self.stride_in_reduce else (1, stride)


_CAFFE = BackboneVariant(
    name="caffe",
    conv1_padding=((3, 3), (3, 3)),
    # Caffe rounds the size of a pooled map up: for a window of 3 and a stride of 2 that is one
    # more row and column at the far side, which nothing covers when the size is odd.
    pool_padding=((0, 1), (0, 1)),
    stride_in_reduce=True,
    batch_norm_epsilon=1e-5,
    input_mean=(131.0912, 103.8827, 91.4953),
    input_std=(1.0, 1.0, 1.0),
    channel_order="bgr",
)
_KERAS = dataclasses.replace(
    _CAFFE,
    name="keras",
    # TensorFlow's "same" pads 2 before and 3 after at even sizes: one pixel off from Caffe.
    conv1_padding="SAME",
    pool_padding="VALID",
    batch_norm_epsilon=1e-3,
)
_TORCHVISION = BackboneVariant(
    name="torchvision",
    conv1_padding=((3, 3), (3, 3)),
    pool_padding=((1, 1), (1, 1)),
    stride_in_reduce=False,
    batch_norm_epsilon=1e-5,
    input_mean=(123.675, 116.28, 103.53),
    input_std=(58.395, 57.12, 57.375),
    channel_order="rgb",
)

VARIANTS = {variant.name: variant for variant in (_CAFFE, _KERAS, _TORCHVISION)}
"""Every known variant by name."""


MOBILENET = BackboneVariant(
    name="mobilenet",
    conv1_padding="SAME",
    pool_padding="VALID",
    stride_in_reduce=False,
    batch_norm_epsilon=0.0,
    input_mean=(123.68, 116.78, 103.94),
    input_std=(1.0, 1.0, 1.0),
    channel_order="bgr",
)
"""What is known of the MobileNet-v1 trained on VGGFace2: its input. It has no pooling."""

MOBILENET_PAIRS = (
    *((1, 2), (2, 4), (1, 4), (2, 8), (1, 8), (2, 16)),
    *((1, 16), (1, 16), (1, 16), (1, 16), (1, 16), (2, 32), (1, 32)),
)
"""Of each pair of layers of MobileNet-v1: stride, and channels out over those of the stem."""

MOBILENET_KERNEL, MOBILENET_STEM_STRIDE = 3, 2
"""Side of the first and of the depthwise kernels of MobileNet-v1, and the stride of the first."""

MOBILENET_RANGE = (0, 6)
"""What every layer of MobileNet-v1 is cut to."""


class ResidualBlock(NamedTuple):
    """A block of a ResNet; its shortcut is the identity without `project`."""

    name: str
    stage: int
    features: int
    stride: int
    project: bool


def residual_blocks(settings: BackboneConfig) -> Iterator[ResidualBlock]:
    """The blocks of a ResNet in their order, stages and blocks counted from 1."""
    for stage, size in enumerate(settings.stage_sizes, start=1):
        for block in range(1, size + 1):
            yield ResidualBlock(
                f"stage{stage}_block{block}",
                stage,
                features=settings.width * 2 ** (stage - 1),
                stride=STAGE_STRIDE if block == 1 and stage > 1 else 1,
                project=block == 1,
            )


CONVNEXT_STEM, CONVNEXT_KERNEL, CONVNEXT_MLP_RATIO = 4, 7, 4
"""Of a ConvNeXt: stride and side of its stem, side of its depthwise kernels, and the hidden
channels of a block over its channels."""


class ConvNextBlock(NamedTuple):
    """A block of a ConvNeXt; before some, a convolution halves the map."""

    name: str
    stage: int
    channels: int
    downsamples: bool


def convnext_blocks(settings: ConvNextConfig) -> list[ConvNextBlock]:
    """The blocks of a ConvNeXt in their order, stages and blocks counted from 1.

    Raises:
        ValueError: there are more or fewer widths than stages.
    """
    sizes = zip(settings.depths, settings.widths, strict=True)
    return [
        ConvNextBlock(f"stage{stage}_block{block}", stage, width, block == 1 < stage)
        for stage, (depth, width) in enumerate(sizes, start=1)
        for block in range(1, depth + 1)
    ]


class MobileNetLayer(NamedTuple):
    """A convolution of a MobileNet: its name, channels out, side of its kernel, and stride."""

    name: str
    channels: int
    kernel: int
    stride: int

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return self.name.startswith("dw")


def mobilenet_layers(settings: BackboneConfig) -> Iterator[MobileNetLayer]:
    """The layers of a MobileNet in their order, up to `settings.end`."""
    channels = settings.width
    found = [MobileNetLayer("conv1", channels, MOBILENET_KERNEL, MOBILENET_STEM_STRIDE)]
    for pair, (stride, factor) in enumerate(MOBILENET_PAIRS, start=1):
        found.append(MobileNetLayer(f"dw{pair}", channels, MOBILENET_KERNEL, stride))
        channels = factor * settings.width
        found.append(MobileNetLayer(f"pw{pair}", channels, 1, 1))
    for layer in found:
        yield layer
        if layer.name == settings.end:
            return


def padded(padding: Padding, size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after a square map of a side, the same for rows and columns."""
    if padding == "VALID":
        return 0, 0
    if isinstance(padding, str):  # "SAME": as little as it takes, the odd pixel after
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return missing // 2, missing - missing // 2
    rows, columns = padding
    if rows != columns:
        raise ValueError(f"padding {padding!r} is not that of a square map")
    return int(rows[0]), int(rows[1])


def check_frozen(settings: BackboneConfig) -> None:
    """Raises ValueError if more stages or blocks are to be frozen than there are."""
    for name, count in (("stages", settings.num_stages), ("blocks", settings.num_blocks)):
        frozen = getattr(settings, f"frozen_{name}")
        if not NOTHING_FROZEN <= frozen <= count:
            raise ValueError(
                f"frozen_{name} {frozen} is not in {NOTHING_FROZEN}..{count}, the number of {name}"
            )


def stage_of(part: str) -> int:
    """The stage of a part as `bn1`, `stage2_block3` or `pw3`: 0 for the stem, the others from 1.

    Raises:
        ValueError: the backbone has no such part.
    """
    if part in ("conv1", "bn1"):
        return 0
    match = re.fullmatch(r"stage([1-9]\d*)_block[1-9]\d*|[dp]w([1-9]\d*)", part)
    if match is None:
        raise ValueError(f"{part!r} is not a part of the backbone")
    return int(match[1] or match[2])
