"""MobileNet-v1 (Howard et al. 2017) with its batch norms folded into the convolutions.

Shapes: B batch, H W height and width of the image, C channels.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.model.convolution import CONVOLUTIONS, resolve_convolution
from mtl_face.model.geometry import (
    MOBILENET,
    MOBILENET_RANGE,
    check_frozen,
    mobilenet_layers,
    stage_of,
)

_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


def make(model: ModelConfig, devices: int, name: str) -> nn.Module:
    """The network of the settings; without batch norms, `devices` make no difference."""
    del devices
    return MobileNet(model.backbone, jnp.dtype(model.compute_dtype), name=name)


def block_number(settings: BackboneConfig, path: tuple[str, ...]) -> int:
    """The pair of layers of a parameter, from its path; see `mtl_face.model.backbones`."""
    del settings
    return stage_of(path[0])


class MobileNet(nn.Module):
    """The feature map of a MobileNet-v1, up to the layer `end`.

    Layers are `conv1` and 13 pairs of a depthwise and a pointwise convolution, `dw1 pw1` and so on,
    each with a bias and cut to 0..6. There are no batch norms: published weights have them folded
    in, and a network that starts from random weights trains worse than one with them. With width
    32 and all layers it has 3,196,032 parameters.

    The stem and the first pairs have no gradient where the settings freeze them. `dtype` is that
    of computing; parameters are float32.
    """

    settings: BackboneConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """Maps a normalised image to its features; `train` makes no difference.

        Args:
            image_BHWC: [B, H, W, 3], mean and scale already as the weights want them.
            train: of no effect.

        Returns:
            [B, h, w, C] of the compute dtype, in 0..6; 14 x 14 x 512 from 224 x 224 up to `pw11`.

        Raises:
            ValueError: `convolution` is unknown, or more pairs are to be frozen than `end` leaves.
        """
        del train
        settings = self.settings
        check_frozen(settings)
        convolve = functools.partial(
            nn.Conv,
            padding=MOBILENET.conv1_padding,
            kernel_init=_KERNEL_INIT,
            dtype=self.dtype,
            conv_general_dilated=CONVOLUTIONS[resolve_convolution(settings.convolution)],
        )

        map_BHWC = image_BHWC
        for layer in mobilenet_layers(settings):
            convolution = convolve(
                layer.channels,
                (layer.kernel,) * 2,
                strides=(layer.stride,) * 2,
                feature_group_count=layer.channels if layer.depthwise else 1,
                name=layer.name,
            )
            map_BHWC = jnp.clip(convolution(map_BHWC), *MOBILENET_RANGE)
            map_BHWC = self._boundary(map_BHWC, layer.name)
        return map_BHWC

    def _boundary(self, map_BHWC: jax.Array, layer: str) -> jax.Array:
        """The output of a layer; no gradient passes the last of the frozen pairs."""
        frozen = stage_of(layer) == self.settings.last_frozen_block
        return jax.lax.stop_gradient(map_BHWC) if frozen else map_BHWC
