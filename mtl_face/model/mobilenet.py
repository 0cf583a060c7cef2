"""MobileNet-v1 (Howard et al. 2017) with its batch norms folded into the convolutions.

Shapes: B batch, H W height and width of the image, C channels.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.config import BackboneConfig
from mtl_face.model.convolution import CONVOLUTIONS, resolve_convolution
from mtl_face.model.geometry import MOBILENET_PAIRS, NOTHING_FROZEN

_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class MobileNet(nn.Module):
    """The feature map of a MobileNet-v1, up to the layer `end`.

    Layers are `conv1` and 13 pairs of a depthwise and a pointwise convolution, `dw1 pw1` and so on,
    each with a bias and cut to 0..6. There are no batch norms: published weights have them folded
    in, and a network that starts from random weights trains worse than one with them. With width
    32 and all layers it has 3,196,032 parameters.

    The first `frozen_stages` pairs and the stem have no gradient. `dtype` is that of computing;
    parameters are float32.
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
            ValueError: `convolution` is unknown, or fewer pairs than are to be frozen come before
                `end`.
        """
        del train
        settings = self.settings
        if not NOTHING_FROZEN <= settings.frozen_stages <= settings.num_stages:
            raise ValueError(
                f"frozen_stages {settings.frozen_stages} is not in {NOTHING_FROZEN}.."
                f"{settings.num_stages}, the number of pairs up to {settings.end}"
            )
        convolve = functools.partial(
            nn.Conv,
            padding="SAME",
            kernel_init=_KERNEL_INIT,
            dtype=self.dtype,
            conv_general_dilated=CONVOLUTIONS[resolve_convolution(settings.convolution)],
        )

        def layer(
            map_BHWC: jax.Array, name: str, channels: int, size: int, stride: int
        ) -> jax.Array:
            depthwise = channels if name.startswith("dw") else 1
            convolution = convolve(
                channels,
                (size, size),
                strides=(stride, stride),
                feature_group_count=depthwise,
                name=name,
            )
            return jnp.clip(convolution(map_BHWC), 0, 6)

        map_BHWC = self._boundary(layer(image_BHWC, "conv1", settings.width, 3, 2), 0)
        for number, (stride, factor) in enumerate(MOBILENET_PAIRS, start=1):
            if number > settings.num_stages:
                break
            map_BHWC = layer(map_BHWC, f"dw{number}", map_BHWC.shape[-1], 3, stride)
            if settings.end != f"dw{number}":
                map_BHWC = layer(map_BHWC, f"pw{number}", factor * settings.width, 1, 1)
            map_BHWC = self._boundary(map_BHWC, number)
        return map_BHWC

    def _boundary(self, map_BHWC: jax.Array, stage: int) -> jax.Array:
        """The output of a pair; no gradient passes the last of the frozen ones."""
        return jax.lax.stop_gradient(map_BHWC) if stage == self.settings.frozen_stages else map_BHWC
