"""Multi-head attention and the residual layer around it, shared by the encoder and the decoder.

Shapes: B batch, Q queries, N memory entries (patches), H heads, K width of a head, D width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

NORM_PLACES = ("post", "pre")
"""Where LayerNorm stands: after the residual sum, or at the start of the residual branch."""

LAYER_NORM_EPSILON = 1e-6


def at_least_float32(dtype: Any) -> Any:
    """The dtype of norms, softmax and outputs: float32, or `dtype` where that is wider."""
    return jnp.promote_types(dtype, jnp.float32)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with biases, without dropout on its weights.

    Attributes:
        num_heads: H; must divide D.
        dtype: compute dtype; the softmax is float32.
    """

    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, query_BQD: jax.Array, memory_BND: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Lets each query read the memory.

        Args:
            query_BQD: [B, Q, D], what asks.
            memory_BND: [B, N, D], what is read.

        Returns:
            The answers [B, Q, D] of the compute dtype, and the attention weights
            [B, H, Q, N] float32, each row of which sums to 1.

        Raises:
            ValueError: the number of heads does not divide D.
        """
        width = query_BQD.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide the width {width}")
        head_width = width // self.num_heads

        def project(inputs: jax.Array, name: str) -> jax.Array:
            outputs = _dense(width, self.dtype, name)(inputs)
            return outputs.reshape(*outputs.shape[:-1], self.num_heads, head_width)

        query_BQHK = project(query_BQD, "query")
        key_BNHK = project(memory_BND, "key")
        value_BNHK = project(memory_BND, "value")
        score_BHQN = jnp.einsum("bqhk,bnhk->bhqn", query_BQHK * head_width**-0.5, key_BNHK)
        weight_BHQN = nn.softmax(score_BHQN.astype(at_least_float32(self.dtype)))
        answer_BQHK = jnp.einsum("bhqn,bnhk->bqhk", weight_BHQN.astype(self.dtype), value_BNHK)
        answer_BQD = answer_BQHK.reshape(query_BQD.shape)
        return _dense(width, self.dtype, "out")(answer_BQD), weight_BHQN


class AttentionLayer(nn.Module):
    """Residual attention, then, if wanted, a residual two-layer perceptron.

    Self-attention when called without a memory, cross-attention with one.

    Attributes:
        num_heads: H; must divide D.
        mlp_ratio: width of the perceptron's hidden layer in units of D; 0 for no perceptron.
        dropout: rate on each residual branch, in [0, 1).
        norm: one of `NORM_PLACES`.
        dtype: compute dtype; the residual stream and its LayerNorms are float32.
    """

    num_heads: int
    mlp_ratio: int = 4
    dropout: float = 0.1
    norm: str = "post"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, query_BQD: jax.Array, memory_BND: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Updates the queries.

        Args:
            query_BQD: [B, Q, D].
            memory_BND: [B, N, D], or None to read the queries themselves.
            train: whether dropout acts; it then needs the random stream `dropout`.

        Returns:
            [B, Q, D] float32, and the attention weights [B, H, Q, N] float32.

        Raises:
            ValueError: `norm` is unknown.
        """
        if self.norm not in NORM_PLACES:
            raise ValueError(f"norm {self.norm!r} is none of {', '.join(NORM_PLACES)}")
        pre = self.norm == "pre"

        def normalised(x_BQD: jax.Array, name: str, when: bool) -> jax.Array:
            return layer_norm(self.dtype, name)(x_BQD) if when else x_BQD

        def dropped(x_BQD: jax.Array) -> jax.Array:
            return nn.Dropout(self.dropout, deterministic=not train)(x_BQD)

        branch_BQD = normalised(query_BQD, "attention_norm", pre)
        branch_BQD, weight_BHQN = MultiHeadAttention(self.num_heads, self.dtype, name="attention")(
            branch_BQD, branch_BQD if memory_BND is None else memory_BND
        )
        query_BQD = query_BQD + dropped(branch_BQD)
        query_BQD = normalised(query_BQD, "attention_norm", not pre)
        if self.mlp_ratio:
            width = query_BQD.shape[-1]
            branch_BQD = normalised(query_BQD, "mlp_norm", pre)
            branch_BQD = _dense(width * self.mlp_ratio, self.dtype, "mlp_hidden")(branch_BQD)
            branch_BQD = nn.gelu(branch_BQD, approximate=False)
            branch_BQD = _dense(width, self.dtype, "mlp_out")(branch_BQD)
            query_BQD = query_BQD + dropped(branch_BQD)
            query_BQD = normalised(query_BQD, "mlp_norm", not pre)
        return query_BQD, weight_BHQN


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm over the last axis, computed and returned in float32 or wider."""
    return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=at_least_float32(dtype), name=name)


def _dense(features: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=nn.initializers.xavier_uniform(), dtype=dtype, name=name)
