"""Task tokens read the patches (paper section 3.1).

Shapes: B batch, T task tokens, N patches, D width, H heads, M decoder modules.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.model import remat
from mtl_face.model.attention import AttentionLayer, at_least_float32, layer_norm

MLP_PLACES = ("last", "each")
"""Perceptrons of a decoder module: one at its end, or one after each of its two attentions."""


class TokenDecoder(nn.Module):
    """Learned task tokens, refined by modules of self-attention and cross-attention.

    In each of the N_t modules the tokens look at each other, then at the patches. The paper does
    not say where perceptrons stand: `last` is the arrangement of Vaswani et al. (2017), `each`
    that of the same authors' earlier network (arXiv 2203.12531).

    Attributes:
        num_modules: N_t.
        num_heads: heads of each attention; must divide D.
        num_tokens: T, one token a task.
        mlp_ratio: width of a perceptron in units of D.
        mlp_place: one of `MLP_PLACES`.
        dropout: rate on the residual branches.
        norm: `post` or `pre`; with `pre` one more LayerNorm closes the decoder.
        token_init_std: standard deviation of the tokens' normal initial values.
        dtype: compute dtype.
        remat: one of `remat.POLICIES`, for each layer.
    """

    num_modules: int = 2
    num_heads: int = 12
    num_tokens: int = 3
    mlp_ratio: int = 4
    mlp_place: str = "last"
    dropout: float = 0.1
    norm: str = "post"
    token_init_std: float = 0.02
    dtype: Any = jnp.float32
    remat: str = remat.NONE

    @nn.compact
    def __call__(
        self, patch_BND: jax.Array, *, train: bool, return_attention: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Gathers what each task needs from the patches.

        Args:
            patch_BND: [B, N, D], the encoded patches.
            train: whether dropout acts.
            return_attention: whether to return the cross-attention weights.

        Returns:
            The tokens [B, T, D] float32, and the weights [B, M, H, T, N] float32 with which each
            token read each patch in each module (rows sum to 1), or None.

        Raises:
            ValueError: `mlp_place` is unknown.
        """
        if self.mlp_place not in MLP_PLACES:
            raise ValueError(f"mlp_place {self.mlp_place!r} is none of {', '.join(MLP_PLACES)}")
        batch, _, width = patch_BND.shape
        token_TD = self.param(
            "tokens", nn.initializers.normal(self.token_init_std), (self.num_tokens, width)
        )
        dtype = at_least_float32(self.dtype)
        token_BTD = jnp.broadcast_to(token_TD.astype(dtype)[None], (batch, *token_TD.shape))

        def layer(name: str, mlp_ratio: int) -> AttentionLayer:
            return AttentionLayer(
                num_heads=self.num_heads,
                mlp_ratio=mlp_ratio,
                dropout=self.dropout,
                norm=self.norm,
                dtype=self.dtype,
                name=name,
            )

        weights = []
        for module in range(1, self.num_modules + 1):
            self_mlp_ratio = self.mlp_ratio if self.mlp_place == "each" else 0
            reads_tokens = layer(f"module{module}_self", self_mlp_ratio)
            token_BTD, _ = remat.call(reads_tokens, self.remat, token_BTD, train=train)
            reads_patches = layer(f"module{module}_cross", self.mlp_ratio)
            token_BTD, weight_BHTN = remat.call(
                reads_patches, self.remat, token_BTD, patch_BND, train=train
            )
            weights.append(weight_BHTN)
        if self.norm == "pre":
            token_BTD = layer_norm(self.dtype, "final_norm")(token_BTD)
        return token_BTD, jnp.stack(weights, axis=1) if return_attention else None
