"""ConvNeXt (Liu et al. 2022), and V2 with global response normalisation (Woo et al. 2023).

Shapes: B batch, H W height and width of a map, C channels.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.config.schema import ConvNextConfig
from mtl_face.model import remat
from mtl_face.model.conventions import LAYER_NORM_EPSILON
from mtl_face.model.convolution import CONVOLUTIONS, PRODUCTS, resolve_convolution
from mtl_face.model.geometry import (
    CONVNEXT_KERNEL,
    CONVNEXT_MLP_RATIO,
    CONVNEXT_STEM,
    STAGE_STRIDE,
    check_frozen,
    convnext_blocks,
)
from mtl_face.model.stochastic_depth import backbone_rate, keep_or_drop
from mtl_face.model.transformer import at_least_float32

_KERNEL_INIT = nn.initializers.truncated_normal(0.02)
_LAYER_SCALE_INIT = nn.initializers.constant(1e-6)


def make(model: ModelConfig, devices: int, name: str) -> nn.Module:
    """The network of the settings; without batch norms, `devices` make no difference."""
    del devices
    return ConvNext(model.backbone, jnp.dtype(model.compute_dtype), model.remat, name=name)


def block_number(settings: BackboneConfig, path: tuple[str, ...]) -> int:
    """The block of a parameter, from its path; see `mtl_face.model.backbones`.

    What makes a stage's map smaller belongs to the stage's first block.
    """
    names = [block.name for block in convnext_blocks(settings.convnext)]
    part = path[0].replace("_downsample_norm", "_block1").replace("_downsample", "_block1")
    if part in names:
        return 1 + names.index(part)
    if path[0] not in ("stem", "stem_norm", "norm"):
        raise ValueError(f"{path[0]!r} is not a part of this backbone")
    return len(names) if path[0] == "norm" else 0


class GlobalResponseNorm(nn.Module):
    """Each channel scaled by its norm over the map, over the mean of all channels' norms.

    x + bias + scale x n / (mean(n) + epsilon), n the Euclidean norm over the map, [B, C] (Woo et
    al. 2023, section 3.1). Norms are float32.
    """

    dtype: Any

    @nn.compact
    def __call__(self, map_BHWC: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, C] of the compute dtype."""
        channels = map_BHWC.shape[-1]
        scale_C = self.param("scale", nn.initializers.zeros, (channels,))
        bias_C = self.param("bias", nn.initializers.zeros, (channels,))
        wide_BHWC = map_BHWC.astype(at_least_float32(self.dtype))
        norm_B11C = jnp.sqrt(jnp.sum(jnp.square(wide_BHWC), axis=(1, 2), keepdims=True))
        mean_B111 = jnp.mean(norm_B11C, axis=-1, keepdims=True)
        response_B11C = norm_B11C / (mean_B111 + LAYER_NORM_EPSILON)
        wide_BHWC += wide_BHWC * response_B11C * _spread(scale_C) + _spread(bias_C)
        return wide_BHWC.astype(self.dtype)


class Block(nn.Module):
    """A depthwise convolution, a norm and a perceptron of each place, added to what was read.

    `drop_path` is the rate of stochastic depth, 0 outside of training.
    """

    settings: ConvNextConfig
    convolution: str
    dtype: Any
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, map_BHWC: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, C], float32 or wider."""
        channels = map_BHWC.shape[-1]
        dense = functools.partial(
            nn.Dense,
            kernel_init=_KERNEL_INIT,
            dtype=self.dtype,
            dot_general=PRODUCTS[self.convolution],
        )
        branch_BHWC = nn.Conv(
            channels,
            (CONVNEXT_KERNEL,) * 2,
            padding=((CONVNEXT_KERNEL // 2,) * 2,) * 2,
            feature_group_count=channels,
            kernel_init=_KERNEL_INIT,
            dtype=self.dtype,
            conv_general_dilated=CONVOLUTIONS[self.convolution],
            name="depthwise",
        )(map_BHWC)
        branch_BHWC = _layer_norm(self.dtype, "norm")(branch_BHWC)
        branch_BHWC = dense(CONVNEXT_MLP_RATIO * channels, name="hidden")(branch_BHWC)
        branch_BHWC = nn.gelu(branch_BHWC, approximate=False)
        if self.settings.global_response_norm:
            branch_BHWC = GlobalResponseNorm(self.dtype, name="grn")(branch_BHWC)
        branch_BHWC = dense(channels, name="out")(branch_BHWC).astype(map_BHWC.dtype)
        if self.settings.layer_scale:
            scale_C = self.param("layer_scale", _LAYER_SCALE_INIT, (channels,))
            branch_BHWC = branch_BHWC * _spread(scale_C)
        return map_BHWC + keep_or_drop(branch_BHWC, self.drop_path)


class ConvNext(nn.Module):
    """The feature map of a ConvNeXt.

    Parameters are `stem`, `stem_norm`, per stage but the first `stage2_downsample_norm` and
    `stage2_downsample`, per block `stage1_block1` ..., and `norm` as far as the settings have it.
    Each stage halves the map, the stem divides it by 4. The residual stream and norms are float32.

    The stem and the first blocks have no gradient where the settings freeze them. `dtype` is that
    of computing; parameters are float32. `remat` is one of `remat.POLICIES`, for each block.
    """

    settings: BackboneConfig
    dtype: Any = jnp.float32
    remat: str = remat.NONE

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """Maps a normalised image to its features.

        Args:
            image_BHWC: [B, H, W, 3], mean and scale already as the weights want them.
            train: whether stochastic depth acts, if the settings have it (random stream `dropout`).

        Returns:
            [B, h, w, C] of the compute dtype; 7 x 7 x 768 for ConvNeXt-T at 224 x 224.

        Raises:
            ValueError: there are more or fewer widths than stages, or more blocks are to be frozen
                than there are.
        """
        check_frozen(self.settings)
        settings = self.settings.convnext
        map_BHWC = self._smaller(image_BHWC, settings.widths[0], CONVNEXT_STEM, "stem")
        map_BHWC = _layer_norm(self.dtype, "stem_norm")(map_BHWC)
        map_BHWC = self._boundary(map_BHWC, 0)
        blocks = convnext_blocks(settings)
        for number, block in enumerate(blocks, start=1):
            if block.downsamples:
                stage = f"stage{block.stage}_downsample"
                map_BHWC = _layer_norm(self.dtype, f"{stage}_norm")(map_BHWC)
                map_BHWC = self._smaller(map_BHWC, block.channels, STAGE_STRIDE, stage)
            convolution = resolve_convolution(self.settings.convolution)
            drop_path = backbone_rate(self.settings, number, train=train)
            module = Block(settings, convolution, self.dtype, drop_path, name=block.name)
            map_BHWC = remat.call(module, self.remat, map_BHWC)
            if number < len(blocks):
                map_BHWC = self._boundary(map_BHWC, number)
        if settings.final_norm:
            map_BHWC = _layer_norm(self.dtype, "norm")(map_BHWC)
        return self._boundary(map_BHWC, len(blocks)).astype(self.dtype)

    def _smaller(self, map_BHWC: jax.Array, channels: int, stride: int, name: str) -> jax.Array:
        """A convolution of windows that do not overlap, float32 or wider."""
        convolution = nn.Conv(
            channels,
            (stride,) * 2,
            strides=(stride,) * 2,
            padding="VALID",
            kernel_init=_KERNEL_INIT,
            dtype=self.dtype,
            name=name,
        )
        return convolution(map_BHWC).astype(at_least_float32(self.dtype))

    def _boundary(self, map_BHWC: jax.Array, block: int) -> jax.Array:
        """The output of a block; no gradient passes the last of the frozen ones."""
        frozen = block == self.settings.last_frozen_block
        return jax.lax.stop_gradient(map_BHWC) if frozen else map_BHWC


def _spread(vector_C: jax.Array) -> jax.Array:
    """Of a map's shape, [1, 1, 1, C]."""
    return vector_C[None, None, None]


def _layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm over the channels, computed and returned in float32 or wider."""
    return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=at_least_float32(dtype), name=name)
