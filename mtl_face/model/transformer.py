"""Patches look at each other, and task tokens at the patches (paper section 3.1).

Shapes: B batch, Q queries, N memory entries or patches (in row-major order), H heads, K width of a
head, D width (`embed_dim`), T task tokens, M decoder modules, P positions, C channels of a code.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.config import ModelConfig
from mtl_face.model import remat
from mtl_face.model.conventions import (
    COLUMN,
    CROSS,
    DECODER_ATTENTIONS,
    LAYER_NORM_EPSILON,
    LONGEST_WAVE,
    PATCH,
    ROW,
    attention_scale,
    has_perceptron,
    position_parts,
)
from mtl_face.model.convolution import PRODUCTS, resolve_convolution
from mtl_face.model.stochastic_depth import keep_or_drop, rate_at
from mtl_face.tasks import TASKS

NORM_PLACES = ("post", "pre")
"""LayerNorm after the residual sum, or at the start of the residual branch."""

POSITIONS = ("2d", "1d")
"""Position codes: of row and column, or of the place in row-major order."""

MLP_PLACES = ("each", "last")
"""Perceptrons of a decoder module: after each of its two attentions, or one at its end."""


def at_least_float32(dtype: Any) -> Any:
    """The dtype of norms, softmax and outputs: float32, or `dtype` where that is wider."""
    return jnp.promote_types(dtype, jnp.float32)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with biases, without dropout on its weights; softmax float32."""

    num_heads: int
    dtype: Any
    convolution: str = "auto"

    @nn.compact
    def __call__(self, query_BQD: jax.Array, memory_BND: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Lets each query read the memory.

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
            outputs = dense(width, self.dtype, name, self.convolution)(inputs)
            return outputs.reshape(*outputs.shape[:-1], self.num_heads, head_width)

        query_BQHK = project(query_BQD, "query")
        key_BNHK = project(memory_BND, "key")
        value_BNHK = project(memory_BND, "value")
        scale = attention_scale(width, self.num_heads)
        score_BHQN = jnp.einsum("bqhk,bnhk->bhqn", query_BQHK * scale, key_BNHK)
        weight_BHQN = nn.softmax(score_BHQN.astype(at_least_float32(self.dtype)))
        answer_BQHK = jnp.einsum("bhqn,bnhk->bqhk", weight_BHQN.astype(self.dtype), value_BNHK)
        answer_BQD = answer_BQHK.reshape(query_BQD.shape)
        return dense(width, self.dtype, "out", self.convolution)(answer_BQD), weight_BHQN


class AttentionLayer(nn.Module):
    """Residual attention, then, with `mlp`, a residual two-layer perceptron.

    Self-attention when called without a memory, cross-attention with one. The residual stream and
    its LayerNorms are float32. Dropout acts on each residual branch, and stochastic depth at the
    rate `drop_path`; the perceptron's hidden layer is `mlp_ratio` D wide.
    """

    settings: ModelConfig
    mlp: bool = True
    drop_path: float = 0.0

    @nn.compact
    def __call__(
        self, query_BQD: jax.Array, memory_BND: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Updates the queries, which read themselves without a memory.

        In training dropout acts, and needs the random stream `dropout`.

        Returns:
            [B, Q, D] float32, and the attention weights [B, H, Q, N] float32.

        Raises:
            ValueError: `norm` is unknown.
        """
        if self.settings.norm not in NORM_PLACES:
            raise ValueError(f"norm {self.settings.norm!r} is not one of {', '.join(NORM_PLACES)}")
        pre = self.settings.norm == "pre"
        dtype = jnp.dtype(self.settings.compute_dtype)

        def normalised(x_BQD: jax.Array, name: str, when: bool) -> jax.Array:
            return _layer_norm(dtype, name)(x_BQD) if when else x_BQD

        def dropped(x_BQD: jax.Array) -> jax.Array:
            x_BQD = nn.Dropout(self.settings.dropout, deterministic=not train)(x_BQD)
            return keep_or_drop(x_BQD, self.drop_path if train else 0.0)

        branch_BQD = normalised(query_BQD, "attention_norm", pre)
        convolution = self.settings.backbone.convolution
        linear = functools.partial(dense, dtype=dtype, convolution=convolution)
        attention = MultiHeadAttention(
            self.settings.num_heads, dtype, convolution, name="attention"
        )
        branch_BQD, weight_BHQN = attention(
            branch_BQD, branch_BQD if memory_BND is None else memory_BND
        )
        query_BQD = query_BQD + dropped(branch_BQD)
        query_BQD = normalised(query_BQD, "attention_norm", not pre)
        if self.mlp:
            width = query_BQD.shape[-1]
            branch_BQD = normalised(query_BQD, "mlp_norm", pre)
            branch_BQD = linear(width * self.settings.mlp_ratio, name="mlp_hidden")(branch_BQD)
            branch_BQD = nn.gelu(branch_BQD, approximate=False)
            branch_BQD = linear(width, name="mlp_out")(branch_BQD)
            query_BQD = query_BQD + dropped(branch_BQD)
            query_BQD = normalised(query_BQD, "mlp_norm", not pre)
        return query_BQD, weight_BHQN


class PatchEncoder(nn.Module):
    """Position codes, then the paper's N_x self-attention layers; with `pre` one more LayerNorm.

    Tokens behind the patches of the grid get no code: they bring their own.
    """

    settings: ModelConfig

    @nn.compact
    def __call__(self, patch_BND: jax.Array, *, train: bool, grid: tuple[int, int]) -> jax.Array:
        """Lets tokens [B, N, D] see each other; `grid` is rows and columns of the patches.

        Returns:
            [B, N, D] float32.

        Raises:
            ValueError: the grid has more than N patches.
        """
        count, features = patch_BND.shape[1:]
        height, width = grid
        if height * width > count:
            raise ValueError(f"{count} patches are not a grid of {height} x {width}")
        code_ND = positional_encoding(height, width, features, position=self.settings.position)
        code_ND = np.pad(code_ND, ((0, count - height * width), (0, 0)))
        dtype = at_least_float32(self.settings.compute_dtype)
        patch_BND = patch_BND.astype(dtype) + jnp.asarray(code_ND, dtype)[None]
        for layer in range(self.settings.encoder_layers):
            attention = AttentionLayer(
                self.settings,
                drop_path=_drop_path(self.settings, layer + 1),
                name=f"layer{layer + 1}",
            )
            patch_BND, _ = remat.call(attention, self.settings.remat, patch_BND, train=train)
        if self.settings.norm == "pre":
            patch_BND = _layer_norm(dtype, "final_norm")(patch_BND)
        return patch_BND


class TokenDecoder(nn.Module):
    """One learned token a task, refined by the paper's N_t modules of self- and cross-attention.

    In each module the tokens look at each other, then at the patches; with `pre` one more LayerNorm
    closes the decoder. The paper does not say where perceptrons stand: `last` is the arrangement of
    Vaswani et al. (2017), `each` that of the same authors' earlier network (arXiv 2203.12531).
    """

    settings: ModelConfig

    @nn.compact
    def __call__(
        self, patch_BND: jax.Array, *, train: bool, return_attention: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Gathers what each task needs from the encoded patches [B, N, D].

        Returns:
            The tokens [B, T, D] float32, and if asked for the weights [B, M, H, T, N] float32 with
            which each token read each patch in each module (rows sum to 1).

        Raises:
            ValueError: `decoder_mlp` is unknown.
        """
        settings = self.settings
        if settings.decoder_mlp not in MLP_PLACES:
            raise ValueError(
                f"decoder_mlp {settings.decoder_mlp!r} is not one of {', '.join(MLP_PLACES)}"
            )
        batch, _, width = patch_BND.shape
        token_TD = self.param(
            "tokens", nn.initializers.normal(settings.token_init_std), (len(TASKS), width)
        )
        dtype = at_least_float32(settings.compute_dtype)
        token_BTD = jnp.broadcast_to(token_TD.astype(dtype)[None], (batch, *token_TD.shape))
        weights = []
        depth = settings.encoder_layers
        for module in range(1, settings.decoder_modules + 1):
            for kind in DECODER_ATTENTIONS:
                depth += 1
                attention = AttentionLayer(
                    settings,
                    mlp=has_perceptron(kind, settings.decoder_mlp),
                    drop_path=_drop_path(settings, depth),
                    name=f"module{module}_{kind}",
                )
                memory = (patch_BND,) if kind == CROSS else ()
                token_BTD, weight_BHTN = remat.call(
                    attention, settings.remat, token_BTD, *memory, train=train
                )
                if kind == CROSS:
                    weights.append(weight_BHTN)
        if settings.norm == "pre":
            token_BTD = _layer_norm(dtype, "final_norm")(token_BTD)
        return token_BTD, jnp.stack(weights, axis=1) if return_attention else None


def positional_encoding(height: int, width: int, features: int, *, position: str) -> np.ndarray:
    """Fixed cosine and sine codes of the patches of a grid.

    Channel 2i of a code is sin(p / 10000 ** (2i / C)) and channel 2i + 1 the cosine of the same
    (Vaswani et al. 2017). `1d` counts p over the patches in row-major order. `2d` gives the first
    half of the channels to the row and the second half to the column. D is `features`, a multiple
    of 4 for `2d` and of 2 for `1d`.

    Returns:
        [height * width, D] float32 in [-1, 1].

    Raises:
        ValueError: `position` is unknown, or `features` no such multiple.
    """
    if position not in POSITIONS:
        raise ValueError(f"position {position!r} is not one of {', '.join(POSITIONS)}")
    multiple = 4 if position == "2d" else 2
    if features % multiple:
        raise ValueError(f"{position} codes need a multiple of {multiple} channels, not {features}")
    patch = np.arange(height * width)
    places = {ROW: patch // width, COLUMN: patch % width, PATCH: patch}
    parts = position_parts(position, features)
    codes = [_line_code(places[counted], channels) for counted, channels in parts]
    return np.concatenate(codes, axis=1).astype(np.float32)


def _line_code(place_P: np.ndarray, channels: int) -> np.ndarray:
    frequency = LONGEST_WAVE ** (-np.arange(0, channels, 2) / channels)
    angle = place_P[:, None] * frequency[None, :]
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(place_P), channels)


def _drop_path(settings: ModelConfig, depth: int) -> float:
    """Rate of an attention layer, counted from 1 through encoder and decoder."""
    count = settings.encoder_layers + len(DECODER_ATTENTIONS) * settings.decoder_modules
    return rate_at(depth, count, settings.drop_path)


def _layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm over the last axis, computed and returned in float32 or wider."""
    return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=at_least_float32(dtype), name=name)


def dense(
    features: int, dtype: Any, name: str, convolution: str, *, use_bias: bool = True
) -> nn.Dense:
    """A dense layer; `convolution` says for which platform, as `model.backbone.convolution`."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        kernel_init=nn.initializers.xavier_uniform(),
        dtype=dtype,
        dot_general=PRODUCTS[resolve_convolution(convolution)],
        name=name,
    )
