"""The geometries in which ResNet50's weights are published, and the input that each expects.

The weights of one ResNet50 run in all of them without an error and give different maps, so the
geometry belongs to the weights: `caffe` for the VGGFace2 release (Cao et al. 2018), `keras` for its
Keras port, `torchvision` for torchvision and timm. Imports no JAX: weights are inspected without.
"""

import dataclasses
from typing import Literal

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
        channel_order: order of the published first convolution's input channels. Ours is always
            RGB; weights in the other order are turned round when they are read.
    """

    name: str
    conv1_padding: Padding
    pool_padding: Padding
    stride_in_reduce: bool
    batch_norm_epsilon: float
    input_mean: tuple[float, float, float]
    input_std: tuple[float, float, float]
    channel_order: ChannelOrder


_VGGFACE2_MEAN = (131.0912, 103.8827, 91.4953)
_ONE = (1.0, 1.0, 1.0)

VARIANTS = {
    variant.name: variant
    for variant in (
        # Caffe rounds the size of a pooled map up: for a window of 3 and a stride of 2 that is one
        # more row and column at the far side, which nothing covers when the size is odd.
        BackboneVariant(
            name="caffe",
            conv1_padding=((3, 3), (3, 3)),
            pool_padding=((0, 1), (0, 1)),
            stride_in_reduce=True,
            batch_norm_epsilon=1e-5,
            input_mean=_VGGFACE2_MEAN,
            input_std=_ONE,
            channel_order="bgr",
        ),
        # TensorFlow's "same" pads 2 before and 3 after at even sizes: one pixel off from Caffe.
        BackboneVariant(
            name="keras",
            conv1_padding="SAME",
            pool_padding="VALID",
            stride_in_reduce=True,
            batch_norm_epsilon=1e-3,
            input_mean=_VGGFACE2_MEAN,
            input_std=_ONE,
            channel_order="bgr",
        ),
        BackboneVariant(
            name="torchvision",
            conv1_padding=((3, 3), (3, 3)),
            pool_padding=((1, 1), (1, 1)),
            stride_in_reduce=False,
            batch_norm_epsilon=1e-5,
            input_mean=(123.675, 116.28, 103.53),
            input_std=(58.395, 57.12, 57.375),
            channel_order="rgb",
        ),
    )
}
"""Every known geometry by name."""
