"""Self-attention between the patches of the feature map (paper section 3.1).

Shapes: B batch, N patches in row-major order, D width, P positions, C channels of a code.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.model import remat
from mtl_face.model.attention import AttentionLayer, at_least_float32, layer_norm

POSITIONS = ("2d", "1d", "none")
"""Position codes: of row and column, of the place in row-major order, or no code at all."""

_LONGEST_WAVE = 10_000.0  # of Vaswani et al. 2017, section 3.5, in units of 2 pi positions


def positional_encoding(
    height: int, width: int, features: int, *, position: str = "2d"
) -> np.ndarray:
    """Fixed cosine and sine codes of the patches of a grid.

    Channel 2i of a code is sin(p / 10000 ** (2i / C)) and channel 2i + 1 the cosine of the same
    (Vaswani et al. 2017). `1d` counts p over the patches in row-major order. `2d` gives the first
    half of the channels to the row and the second half to the column.

    Args:
        height: rows of the grid.
        width: columns of the grid.
        features: D, a multiple of 4 for `2d` and of 2 for `1d`.
        position: one of `POSITIONS`.

    Returns:
        [height * width, D] float32 in [-1, 1]; zeros for `none`.

    Raises:
        ValueError: `position` is unknown, or `features` no such multiple.
    """
    if position not in POSITIONS:
        raise ValueError(f"position {position!r} is none of {', '.join(POSITIONS)}")
    if position == "none":
        return np.zeros((height * width, features), np.float32)
    multiple = 4 if position == "2d" else 2
    if features % multiple:
        raise ValueError(f"{position} codes need a multiple of {multiple} channels, not {features}")
    if position == "1d":
        return _line_code(np.arange(height * width), features).astype(np.float32)
    row, column = np.divmod(np.arange(height * width), width)
    half = features // 2
    code_ND = np.concatenate([_line_code(row, half), _line_code(column, half)], axis=1)
    return code_ND.astype(np.float32)


def _line_code(place_P: np.ndarray, channels: int) -> np.ndarray:
    frequency = _LONGEST_WAVE ** (-np.arange(0, channels, 2) / channels)
    angle = place_P[:, None] * frequency[None, :]
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(place_P), channels)


class PatchEncoder(nn.Module):
    """Position codes, then self-attention layers; the paper's N_x layers.

    Attributes:
        num_layers: N_x.
        num_heads: heads of each attention; must divide D.
        mlp_ratio: width of a layer's perceptron in units of D.
        dropout: rate on the residual branches.
        norm: `post` or `pre`; with `pre` one more LayerNorm closes the encoder.
        position: one of `POSITIONS`.
        dtype: compute dtype.
        remat: one of `remat.POLICIES`, for each layer.
    """

    num_layers: int = 2
    num_heads: int = 12
    mlp_ratio: int = 4
    dropout: float = 0.1
    norm: str = "post"
    position: str = "2d"
    dtype: Any = jnp.float32
    remat: str = remat.NONE

    @nn.compact
    def __call__(
        self, patch_BND: jax.Array, *, train: bool, grid: tuple[int, int] | None = None
    ) -> jax.Array:
        """Lets the patches see each other.

        Args:
            patch_BND: [B, N, D], patches in row-major order.
            train: whether dropout acts.
            grid: rows and columns, whose product is N; None for a square.

        Returns:
            [B, N, D] float32.

        Raises:
            ValueError: the grid has not N patches.
        """
        count, features = patch_BND.shape[1:]
        side = math.isqrt(count)
        height, width = (side, side) if grid is None else grid
        if height * width != count:
            raise ValueError(f"{count} patches are no grid of {height} x {width}")
        code_ND = positional_encoding(height, width, features, position=self.position)
        dtype = at_least_float32(self.dtype)
        patch_BND = patch_BND.astype(dtype) + jnp.asarray(code_ND, dtype)[None]
        for layer in range(self.num_layers):
            attention = AttentionLayer(
                num_heads=self.num_heads,
                mlp_ratio=self.mlp_ratio,
                dropout=self.dropout,
                norm=self.norm,
                dtype=self.dtype,
                name=f"layer{layer + 1}",
            )
            patch_BND, _ = remat.call(attention, self.remat, patch_BND, train=train)
        if self.norm == "pre":
            patch_BND = layer_norm(self.dtype, "final_norm")(patch_BND)
        return patch_BND
