"""ResNet with bottleneck blocks, in the geometries in which its weights are published.

Shapes: B batch, H W height and width of the image, C channels.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.model import remat
from mtl_face.model.batch_norm import FROZEN, make_batch_norm
from mtl_face.model.convolution import CONVOLUTIONS, max_pool, resolve_convolution
from mtl_face.model.geometry import (
    SPATIAL_KERNEL,
    SPATIAL_PADDING,
    STEM_KERNEL,
    STEM_STRIDE,
    VARIANTS,
    BackboneVariant,
    check_frozen,
    residual_blocks,
    stage_of,
)
from mtl_face.model.stochastic_depth import backbone_rate, keep_or_drop

# Preserves the variance of the gradient through ReLU (He et al. 2015).
_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


def make(model: ModelConfig, devices: int, name: str) -> nn.Module:
    """The network of the settings."""
    return ResNet(model.backbone, devices, jnp.dtype(model.compute_dtype), model.remat, name=name)


def block_number(settings: BackboneConfig, path: tuple[str, ...]) -> int:
    """The residual block of a parameter, from its path; see `mtl_face.model.backbones`."""
    if stage_of(path[0]) == 0:
        return 0
    names = [block.name for block in residual_blocks(settings)]
    if path[0] not in names:
        raise ValueError(f"{path[0]!r} is not a part of this backbone")
    return 1 + names.index(path[0])


class BottleneckBlock(nn.Module):
    """1 x 1 reduce, 3 x 3, 1 x 1 increase, around them a shortcut.

    The two inner convolutions have `features` channels. The shortcut is a 1 x 1 convolution with
    `project`, else the identity. `convolution` makes one without bias from features, kernel_size,
    strides, padding and name; `batch_norm` a normalisation from its name. `drop_path` is the rate
    of stochastic depth, 0 outside of training.
    """

    features: int
    expansion: int
    stride: int
    project: bool
    variant: BackboneVariant
    convolution: Callable[..., nn.Module]
    batch_norm: Callable[..., nn.Module]
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, map_BHWC: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features * expansion]."""
        reduce_stride, spatial_stride = self.variant.strides(self.stride)
        features_out = self.features * self.expansion

        y_BHWC = self.convolution(
            self.features, (1, 1), (reduce_stride,) * 2, "VALID", name="conv1"
        )(map_BHWC)
        y_BHWC = nn.relu(self.batch_norm(name="bn1")(y_BHWC))
        y_BHWC = self.convolution(
            self.features,
            (SPATIAL_KERNEL,) * 2,
            (spatial_stride,) * 2,
            ((SPATIAL_PADDING,) * 2,) * 2,
            name="conv2",
        )(y_BHWC)
        y_BHWC = nn.relu(self.batch_norm(name="bn2")(y_BHWC))
        y_BHWC = self.convolution(features_out, (1, 1), (1, 1), "VALID", name="conv3")(y_BHWC)
        y_BHWC = self.batch_norm(name="bn3")(y_BHWC)

        shortcut_BHWC = map_BHWC
        if self.project:
            shortcut_BHWC = self.convolution(
                features_out, (1, 1), (self.stride,) * 2, "VALID", name="proj"
            )(map_BHWC)
            shortcut_BHWC = self.batch_norm(name="proj_bn")(shortcut_BHWC)
        return nn.relu(keep_or_drop(y_BHWC, self.drop_path) + shortcut_BHWC)


class ResNet(nn.Module):
    """The feature map of a residual network, without its final pooling (paper section 3.1).

    Parameters and statistics are named `conv1`, `bn1`, and per block `stage{s}_block{b}` (both
    from 1) with `conv1 bn1 conv2 bn2 conv3 bn3` and, in the first block of a stage, `proj
    proj_bn`. A stage doubles the channels; each but the first halves the map, so that the total
    stride is 2 ** (1 + number of stages). `ResNet(BackboneConfig())` is ResNet50:
    53 convolutions, 23,508,032 parameters.

    The gradient of a frozen block is 0 and is not computed, and its batch norms are `frozen`,
    whatever `batch_norm` says.

    For `batch_norm` "local", a batch is split over `devices`. `dtype` is that of computing;
    parameters and statistics are float32. `remat` is one of `remat.POLICIES`, for each block.
    """

    settings: BackboneConfig
    devices: int = 1
    dtype: Any = jnp.float32
    remat: str = remat.NONE

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """Maps a normalised image to its features.

        Args:
            image_BHWC: [B, H, W, 3], mean and scale already as the weights want them.
            train: normalise with the statistics that `batch_norm` names, and update the running
                ones where it does.

        Returns:
            [B, h, w, width * 2 ** (stages - 1) * expansion] of the compute dtype, not negative;
            7 x 7 x 2048 for ResNet50 at 224 x 224.

        Raises:
            ValueError: `variant`, `convolution` or `batch_norm` is unknown, or there are fewer
                stages than are to be frozen.
        """
        settings, frozen = self.settings, self.settings.last_frozen_block
        if settings.variant not in VARIANTS:
            raise ValueError(f"{settings.variant!r} is not one of {', '.join(VARIANTS)}")
        check_frozen(settings)
        variant = VARIANTS[settings.variant]
        convolution_name = resolve_convolution(settings.convolution)
        convolution = functools.partial(
            nn.Conv,
            use_bias=False,
            kernel_init=_KERNEL_INIT,
            dtype=self.dtype,
            conv_general_dilated=CONVOLUTIONS[convolution_name],
        )

        def batch_norm_of(block: int) -> Callable[..., nn.Module]:
            return make_batch_norm(
                # A block's output is only constant if its normalisation is.
                FROZEN if block <= frozen else settings.batch_norm,
                train=train,
                groups=self.devices,
                momentum=settings.batch_norm_momentum,
                epsilon=variant.batch_norm_epsilon,
                dtype=self.dtype,
            )

        def boundary(map_BHWC: jax.Array, block: int) -> jax.Array:
            """The output of a block; no gradient passes the last of the frozen ones."""
            return jax.lax.stop_gradient(map_BHWC) if block == frozen else map_BHWC

        map_BHWC = convolution(
            settings.width,
            (STEM_KERNEL,) * 2,
            (STEM_STRIDE,) * 2,
            variant.conv1_padding,
            name="conv1",
        )(image_BHWC)
        map_BHWC = nn.relu(batch_norm_of(0)(name="bn1")(map_BHWC))
        map_BHWC = max_pool(
            map_BHWC,
            variant.pool_padding,
            convolution=convolution_name,
            devices=self.devices,
        )
        map_BHWC = boundary(map_BHWC, 0)
        for number, block in enumerate(residual_blocks(settings), start=1):
            residual = BottleneckBlock(
                features=block.features,
                expansion=settings.expansion,
                stride=block.stride,
                project=block.project,
                variant=variant,
                convolution=convolution,
                batch_norm=batch_norm_of(number),
                drop_path=backbone_rate(settings, number, train=train),
                name=block.name,
            )
            map_BHWC = boundary(remat.call(residual, self.remat, map_BHWC), number)
        return map_BHWC
