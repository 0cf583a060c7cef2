"""The backbones' geometry: published variants of ResNet50, MobileNet-v1, and their stages.

The weights of one ResNet50 run in every variant without an error and give different maps, so the
variant belongs to the weights: `caffe` to the VGGFace2 release (Cao et al. 2018), `keras` to its
Keras port, `torchvision` to torchvision and timm. Imports no JAX: weights are inspected without.
"""

import dataclasses
import re
from typing import Literal

NOTHING_FROZEN = -1
"""As `frozen_stages`: every stage trains, the stem included."""

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
