"""From a task's token to its outputs (paper section 3.1).

Shapes: B batch, D width of a token, N patches or other tokens, C channels.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.model.conventions import LAYER_NORM_EPSILON, MAX_LOG_RATIO
from mtl_face.model.transformer import at_least_float32


def bounded_log_ratio(raw: jax.Array) -> jax.Array:
    """Bounds a log variance smoothly, float32: MAX_LOG_RATIO tanh(raw / MAX_LOG_RATIO).

    Near 0 this is the identity. A hard limit would end the gradient where the loss needs it most.
    """
    return MAX_LOG_RATIO * jnp.tanh(raw.astype(jnp.float32) / MAX_LOG_RATIO)


class TaskHead(nn.Module):
    """The paper's N_d dense layers: ReLU after each but the last, which is linear and float32."""

    num_layers: int
    width: int
    out: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, token_BD: jax.Array) -> jax.Array:
        """Maps [B, D] to [B, out] float32: values, or logits."""
        for layer in range(1, self.num_layers):
            token_BD = nn.Dense(
                self.width,
                kernel_init=nn.initializers.he_uniform(),
                dtype=self.dtype,
                name=f"dense{layer}",
            )(token_BD)
            token_BD = nn.relu(token_BD)
        return nn.Dense(
            self.out,
            # Small, so that training starts near valence 0 and probabilities of chance.
            kernel_init=nn.initializers.normal(0.02),
            dtype=at_least_float32(self.dtype),
            name=f"dense{self.num_layers}",
        )(token_BD)


class VarianceHead(nn.Module):
    """Variances of valence and arousal from all features, apart from what the mean learns of them.

    A task's token keeps what the mean needs; where the head is turned or how blurred it is stands
    in the features that it was made from (docs/uncertainty.md). These are normalised by token, and
    no gradient goes back to them, so that the mean learns as without this head.
    """

    out: int

    @nn.compact
    def __call__(self, features: Sequence[jax.Array]) -> jax.Array:
        """Maps features [B, N, C], each with N and C of its own, to [B, out] float32.

        The output is linear in the normalised features, and 0 at the start.
        """
        flat = []
        for feature_BNC in features:
            fixed_BNC = jax.lax.stop_gradient(feature_BNC).astype(jnp.float32)
            normed_BNC = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, use_bias=False, use_scale=False)(
                fixed_BNC
            )
            batch, count, channels = normed_BNC.shape
            flat.append(normed_BNC.reshape(batch, count * channels))
        return nn.Dense(self.out, kernel_init=nn.initializers.zeros, name="dense1")(
            jnp.concatenate(flat, axis=-1)
        )
