"""ResNet with bottleneck blocks, in the geometries in which its weights are published.

Shapes: B batch, H W height and width of the image, C channels.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.model import remat
from mtl_face.model.batch_norm import BATCH, FROZEN, make_batch_norm
from mtl_face.model.convolution import CONVOLUTIONS
from mtl_face.model.stages import NOTHING_FROZEN
from mtl_face.model.variants import VARIANTS

# Preserves the variance of the gradient through ReLU (He et al. 2015).
_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class BottleneckBlock(nn.Module):
    """1 x 1 reduce, 3 x 3, 1 x 1 increase, around them a shortcut.

    Attributes:
        features: channels of the two inner convolutions.
        expansion: the block's output has `features * expansion` channels.
        stride: 1, or 2 to halve the map.
        project: whether the shortcut is a 1 x 1 convolution; False for the identity.
        stride_in_reduce: see `variants.BackboneVariant`.
        convolution: makes a convolution without bias; takes features, kernel_size, strides,
            padding and name.
        batch_norm: makes a batch normalisation; takes name.
    """

    features: int
    expansion: int
    stride: int
    project: bool
    stride_in_reduce: bool
    convolution: Callable[..., nn.Module]
    batch_norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, map_BHWC: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features * expansion]."""
        stride = (self.stride, self.stride)
        reduce_stride, spatial_stride = (
            (stride, (1, 1)) if self.stride_in_reduce else ((1, 1), stride)
        )
        features_out = self.features * self.expansion

        y_BHWC = self.convolution(self.features, (1, 1), reduce_stride, "VALID", name="conv1")(
            map_BHWC
        )
        y_BHWC = nn.relu(self.batch_norm(name="bn1")(y_BHWC))
        y_BHWC = self.convolution(
            self.features, (3, 3), spatial_stride, ((1, 1), (1, 1)), name="conv2"
        )(y_BHWC)
        y_BHWC = nn.relu(self.batch_norm(name="bn2")(y_BHWC))
        y_BHWC = self.convolution(features_out, (1, 1), (1, 1), "VALID", name="conv3")(y_BHWC)
        y_BHWC = self.batch_norm(name="bn3")(y_BHWC)

        shortcut_BHWC = map_BHWC
        if self.project:
            shortcut_BHWC = self.convolution(features_out, (1, 1), stride, "VALID", name="proj")(
                map_BHWC
            )
            shortcut_BHWC = self.batch_norm(name="proj_bn")(shortcut_BHWC)
        return nn.relu(y_BHWC + shortcut_BHWC)


class ResNet(nn.Module):
    """The feature map of a residual network, without its final pooling (paper section 3.1).

    Parameters and statistics are named `conv1`, `bn1`, and per block `stage{s}_block{b}` (both
    from 1) with `conv1 bn1 conv2 bn2 conv3 bn3` and, in the first block of a stage, `proj
    proj_bn`. `ResNet()` is ResNet50: 53 convolutions, 23,508,032 parameters.

    Attributes:
        stage_sizes: number of blocks of each stage. A stage doubles the channels; each but the
            first halves the map, so that the total stride is 2 ** (1 + number of stages).
        width: channels of the stem and of the inner convolutions of the first stage.
        expansion: ratio of a block's output to its inner channels.
        variant: geometry, a key of `variants.VARIANTS`.
        convolution: implementation, a key of `convolution.CONVOLUTIONS`; all give the same
            values and gradients.
        batch_norm: source of a training step's statistics, one of `batch_norm.MODES`.
        batch_norm_groups: for `local`, devices over which the batch is split.
        batch_norm_momentum: share of the running statistics that a step keeps.
        frozen_stages: stages that a training step takes as given: -1 for none, 0 for the stem, k
            for the stem and the first k stages. Their gradient is 0 and is not computed, and
            their batch norms are `frozen`, whatever `batch_norm` says.
        dtype: compute dtype; parameters and statistics are float32.
        remat: one of `remat.POLICIES`, for each block.
    """

    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    width: int = 64
    expansion: int = 4
    variant: str = "caffe"
    convolution: str = "xla"
    batch_norm: str = BATCH
    batch_norm_groups: int = 1
    batch_norm_momentum: float = 0.9
    frozen_stages: int = NOTHING_FROZEN
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
        for value, known in ((self.variant, VARIANTS), (self.convolution, CONVOLUTIONS)):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")
        if not NOTHING_FROZEN <= self.frozen_stages <= len(self.stage_sizes):
            raise ValueError(
                f"frozen_stages {self.frozen_stages} is not in {NOTHING_FROZEN}.."
                f"{len(self.stage_sizes)}, the number of stages"
            )
        variant = VARIANTS[self.variant]
        convolution = functools.partial(
            nn.Conv,
            use_bias=False,
            kernel_init=_KERNEL_INIT,
            dtype=self.dtype,
            conv_general_dilated=CONVOLUTIONS[self.convolution],
        )
        batch_norm_at = [
            make_batch_norm(
                # A stage's output is only constant if its normalisation is.
                FROZEN if stage <= self.frozen_stages else self.batch_norm,
                train=train,
                groups=self.batch_norm_groups,
                momentum=self.batch_norm_momentum,
                epsilon=variant.batch_norm_epsilon,
                dtype=self.dtype,
            )
            for stage in range(len(self.stage_sizes) + 1)
        ]

        map_BHWC = convolution(self.width, (7, 7), (2, 2), variant.conv1_padding, name="conv1")(
            image_BHWC
        )
        map_BHWC = nn.relu(batch_norm_at[0](name="bn1")(map_BHWC))
        # Keyword arguments, because the ONNX converter does not see positional ones.
        map_BHWC = nn.max_pool(
            map_BHWC, window_shape=(3, 3), strides=(2, 2), padding=variant.pool_padding
        )
        map_BHWC = self._boundary(map_BHWC, 0)
        for stage, size in enumerate(self.stage_sizes, start=1):
            for block in range(1, size + 1):
                first = block == 1
                residual = BottleneckBlock(
                    features=self.width * 2 ** (stage - 1),
                    expansion=self.expansion,
                    stride=2 if first and stage > 1 else 1,
                    project=first,
                    stride_in_reduce=variant.stride_in_reduce,
                    convolution=convolution,
                    batch_norm=batch_norm_at[stage],
                    name=f"stage{stage}_block{block}",
                )
                map_BHWC = remat.call(residual, self.remat, map_BHWC)
            map_BHWC = self._boundary(map_BHWC, stage)
        return map_BHWC

    def _boundary(self, map_BHWC: jax.Array, stage: int) -> jax.Array:
        """The output of a stage; no gradient passes the last of the frozen ones."""
        return jax.lax.stop_gradient(map_BHWC) if stage == self.frozen_stages else map_BHWC
