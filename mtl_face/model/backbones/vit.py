"""Vision transformers (Dosovitskiy et al. 2021) in the forms in which their weights are published.

| form | class token, registers | positions | what else |
|---|---|---|---|
| timm, torchvision, MAE, FSFM | 1, 0 | learned | |
| CLIP, FaRL | 1, 0 | learned | a norm before the blocks, QuickGELU |
| SigLIP | 0, 0 | learned | GELU by tanh |
| DINOv2 | 1, 0 or 4 | learned | layer scale |
| DINOv3 | 1, 4 | rotary | layer scale, no bias of keys |

Shapes: B batch, H W height and width of the image, h w rows and columns of patches, N patches,
T tokens (class token, registers, patches), D width, C channels of a half of a code, K width of a
head, Q half of it.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.config.schema import VitConfig
from mtl_face.model import remat
from mtl_face.model.conventions import LONGEST_WAVE, QUICK_GELU_SLOPE
from mtl_face.model.convolution import resolve_convolution
from mtl_face.model.geometry import check_frozen
from mtl_face.model.stochastic_depth import backbone_rate, keep_or_drop
from mtl_face.model.transformer import at_least_float32, dense

_KERNEL_INIT = nn.initializers.xavier_uniform()
_TOKEN_INIT = nn.initializers.normal(0.02)
_LAYER_SCALE_INIT = nn.initializers.constant(1e-5)

_EMBEDDINGS = ("patch", "class_token", "registers", "position", "pre_norm")

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(QUICK_GELU_SLOPE * x),
}
"""By `model.backbone.vit.activation`."""


def make(model: ModelConfig, devices: int, name: str) -> nn.Module:
    """The network of the settings; without batch norms, `devices` make no difference."""
    del devices
    return VisionTransformer(model.backbone, jnp.dtype(model.compute_dtype), model.remat, name=name)


def block_number(settings: BackboneConfig, path: tuple[str, ...]) -> int:
    """The block of a parameter, from its path; see `mtl_face.model.backbones`."""
    match = re.fullmatch(r"block([1-9]\d*)", path[0])
    number = int(match[1]) if match else {"norm": settings.vit.depth}.get(path[0], 0)
    if number > settings.vit.depth or (not match and path[0] not in (*_EMBEDDINGS, "norm")):
        raise ValueError(f"{path[0]!r} is not a part of this backbone")
    return number


class Attention(nn.Module):
    """Self-attention of all tokens; `rotary` holds cosines and signed sines, each [T, K]."""

    settings: VitConfig
    convolution: str
    dtype: Any

    @nn.compact
    def __call__(
        self, token_BTD: jax.Array, rotary: tuple[np.ndarray, np.ndarray] | None
    ) -> jax.Array:
        """Maps [B, T, D] to [B, T, D] of the compute dtype."""
        heads, width = self.settings.num_heads, self.settings.width
        biased = {"all": ("query", "key", "value"), "no_key": ("query", "value"), "none": ()}

        def project(name: str) -> jax.Array:
            use_bias = name in biased[self.settings.qkv_bias]
            layer = dense(width, self.dtype, name, self.convolution, use_bias=use_bias)
            return layer(token_BTD).reshape(*token_BTD.shape[:2], heads, width // heads)

        query_BTHK, key_BTHK, value_BTHK = (project(name) for name in ("query", "key", "value"))
        if rotary is not None:
            query_BTHK, key_BTHK = (_rotated(x, *rotary) for x in (query_BTHK, key_BTHK))
        on_cpu = self.convolution == "matmul"
        attend = _heads_first if on_cpu else jax.nn.dot_product_attention
        answer_BTHK = attend(query_BTHK, key_BTHK, value_BTHK)
        out = dense(width, self.dtype, "out", self.convolution)
        return out(answer_BTHK.reshape(token_BTD.shape))


class Perceptron(nn.Module):
    """Two layers with an activation between, or with a gate: silu(gate) * hidden (SwiGLU)."""

    settings: VitConfig
    convolution: str
    dtype: Any

    @nn.compact
    def __call__(self, token_BTD: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D] of the compute dtype."""
        linear = functools.partial(dense, dtype=self.dtype, convolution=self.convolution)
        hidden = linear(self.settings.mlp_width, name="hidden")(token_BTD)
        if self.settings.gated_mlp:
            hidden = nn.silu(linear(self.settings.mlp_width, name="gate")(token_BTD)) * hidden
        else:
            hidden = ACTIVATIONS[self.settings.activation](hidden)
        return linear(self.settings.width, name="out")(hidden)


class Block(nn.Module):
    """Attention, then a perceptron, each behind a norm and added to what it has read.

    `drop_path` is the rate of stochastic depth, 0 outside of training.
    """

    settings: VitConfig
    convolution: str
    dtype: Any
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, token_BTD: jax.Array, *, rotary: Any) -> jax.Array:
        """Maps [B, T, D] to [B, T, D], float32 or wider."""
        attention = Attention(self.settings, self.convolution, self.dtype, name="attention")
        token_BTD = token_BTD + self._scaled(
            attention(self._normal(token_BTD, "attention_norm"), rotary), "attention_scale"
        )
        perceptron = Perceptron(self.settings, self.convolution, self.dtype, name="mlp")
        return token_BTD + self._scaled(
            perceptron(self._normal(token_BTD, "mlp_norm")), "mlp_scale"
        )

    def _normal(self, token_BTD: jax.Array, name: str) -> jax.Array:
        return _layer_norm(self.settings, self.dtype, name)(token_BTD)

    def _scaled(self, branch_BTD: jax.Array, name: str) -> jax.Array:
        """What a branch adds, float32 or wider."""
        branch_BTD = branch_BTD.astype(at_least_float32(self.dtype))
        if self.settings.layer_scale:
            scale_D = self.param(name, _LAYER_SCALE_INIT, (self.settings.width,))
            branch_BTD = branch_BTD * scale_D[None, None]
        return keep_or_drop(branch_BTD, self.drop_path)


class VisionTransformer(nn.Module):
    """The patch tokens of a vision transformer as a map.

    Parameters are `patch`, `class_token`, `registers`, `position`, `pre_norm`, `block1` ... and
    `norm`, as far as the settings have them. The class token's own position, where a file has one,
    is part of the class token. The residual stream, norms and softmax are float32.

    The embeddings and the first blocks have no gradient where the settings freeze them; with all
    blocks, the last norm neither. `dtype` is that of computing; parameters are float32. `remat` is
    one of `remat.POLICIES`, for each block.
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
            [B, H / patch, W / patch, D] of the compute dtype.

        Raises:
            ValueError: the patch does not divide the image, the heads not the width, or more blocks
                are to be frozen than there are.
        """
        check_frozen(self.settings)
        settings = self.settings.vit
        batch, *sides = image_BHWC.shape[:3]
        if any(side % settings.patch for side in sides):
            raise ValueError(f"patches of {settings.patch} pixels do not fill {sides}")
        if settings.width % settings.num_heads:
            raise ValueError(f"{settings.num_heads} heads do not divide the width {settings.width}")
        patch = nn.Conv(
            settings.width,
            (settings.patch,) * 2,
            strides=(settings.patch,) * 2,
            padding="VALID",
            kernel_init=_KERNEL_INIT,
            dtype=self.dtype,
            name="patch",
        )
        map_BhwD = patch(image_BHWC).astype(at_least_float32(self.dtype))
        rows, columns = map_BhwD.shape[1:3]
        token_BTD = self._embedded(map_BhwD)
        prefix = token_BTD.shape[1] - rows * columns
        if settings.pre_norm:
            token_BTD = _layer_norm(settings, self.dtype, "pre_norm")(token_BTD)
        token_BTD = self._boundary(token_BTD, 0)
        rotary = None
        if settings.positions == "rotary":
            rotary = rotations(rows, columns, settings, prefix=prefix)
        convolution = resolve_convolution(self.settings.convolution)
        for number in range(1, settings.depth + 1):
            drop_path = backbone_rate(self.settings, number, train=train)
            block = Block(settings, convolution, self.dtype, drop_path, name=f"block{number}")
            token_BTD = remat.call(block, self.remat, token_BTD, rotary=rotary)
            if number < settings.depth:
                token_BTD = self._boundary(token_BTD, number)
        patch_BND = token_BTD[:, prefix:]
        if settings.final_norm:
            patch_BND = _layer_norm(settings, self.dtype, "norm")(patch_BND)
        patch_BND = self._boundary(patch_BND, settings.depth)
        return patch_BND.astype(self.dtype).reshape(batch, rows, columns, settings.width)

    def _embedded(self, map_BhwD: jax.Array) -> jax.Array:
        """The tokens before the blocks."""
        settings = self.settings.vit
        batch, rows, columns, width = map_BhwD.shape
        token_BND = map_BhwD.reshape(batch, rows * columns, width)
        if settings.positions == "learned":
            code_ND = self.param("position", _TOKEN_INIT, (rows * columns, width))
            token_BND = token_BND + code_ND[None]
        elif settings.positions == "sincos":
            code_ND = jnp.asarray(fixed_positions(rows, columns, width), token_BND.dtype)
            token_BND = token_BND + code_ND[None]
        parts = []
        if settings.class_token:
            parts.append(self.param("class_token", _TOKEN_INIT, (1, width)))
        if settings.registers:
            parts.append(self.param("registers", _TOKEN_INIT, (settings.registers, width)))
        ahead = [
            jnp.broadcast_to(part[None].astype(token_BND.dtype), (batch, *part.shape))
            for part in parts
        ]
        return jnp.concatenate([*ahead, token_BND], axis=1)

    def _boundary(self, token_BTD: jax.Array, block: int) -> jax.Array:
        """The output of a block; no gradient passes the last of the frozen ones."""
        return (
            jax.lax.stop_gradient(token_BTD)
            if block == self.settings.last_frozen_block
            else token_BTD
        )


def _heads_first(query_BTHK: jax.Array, key_BTHK: jax.Array, value_BTHK: jax.Array) -> jax.Array:
    """`jax.nn.dot_product_attention` with transposed arrays: on a CPU in half the time."""
    query_BHTK, key_BHTK, value_BHTK = (
        array_BTHK.transpose(0, 2, 1, 3) for array_BTHK in (query_BTHK, key_BTHK, value_BTHK)
    )
    score_BHTT = jnp.einsum(
        "bhtk,bhsk->bhts",
        query_BHTK,
        key_BHTK,
        preferred_element_type=at_least_float32(query_BHTK.dtype),
    )
    weight_BHTT = nn.softmax(score_BHTT * query_BHTK.shape[-1] ** -0.5)
    answer_BHTK = jnp.einsum("bhts,bhsk->bhtk", weight_BHTT.astype(value_BHTK.dtype), value_BHTK)
    return answer_BHTK.transpose(0, 2, 1, 3)


def fixed_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Codes of MAE (He et al. 2022): the first half of the channels counts columns, then rows.

    Channel c of the C of a half is, with c' = c mod C / 2, the sine (first C / 2) or cosine of
    place / 10000 ** (2 c' / C).

    Returns:
        [rows * columns, width] float32 in [-1, 1].

    Raises:
        ValueError: `width` is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sincos codes need a multiple of 4 channels, not {width}")
    patch = np.arange(rows * columns)
    frequency = LONGEST_WAVE ** (-np.arange(width // 4) / (width // 4))
    angles = [place[:, None] * frequency for place in (patch % columns, patch // columns)]
    parts = [function(angle) for angle in angles for function in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def rotations(
    rows: int, columns: int, settings: VitConfig, *, prefix: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines by which DINOv3 turns queries and keys (Simeoni et al. 2025).

    A patch's centre lies at (2 i + 1) / n - 1 in [-1, 1] along each axis. The angles of a half of a
    head, [Q], are those of the row, then of the column: 2 pi place / base ** (4 i / K). Channel i
    of the first half turns with channel i of the second. The `prefix` tokens are not turned.

    Returns:
        cosine and sine [T, K] float32; the sine of the first half is negated.

    Raises:
        ValueError: the width of a head is no multiple of 4.
    """
    width = settings.width // settings.num_heads
    if width % 4:
        raise ValueError(f"rotary positions need heads of a multiple of 4 channels, not {width}")
    frequency = settings.rotary_base ** (-4 * np.arange(width // 4) / width)
    patch = np.arange(rows * columns)
    places = ((2 * (patch // columns) + 1) / rows - 1, (2 * (patch % columns) + 1) / columns - 1)
    angle_NQ = np.concatenate([2 * math.pi * place[:, None] * frequency for place in places], 1)
    angle_TQ = np.pad(angle_NQ, ((prefix, 0), (0, 0)))
    cosine, sine = np.cos(angle_TQ), np.sin(angle_TQ)
    return (
        np.concatenate([cosine, cosine], axis=1).astype(np.float32),
        np.concatenate([-sine, sine], axis=1).astype(np.float32),
    )


def _rotated(x_BTHK: jax.Array, cosine_TK: np.ndarray, sine_TK: np.ndarray) -> jax.Array:
    """Each pair of channels (i, i + K / 2) turned by its angle; computed in float32 or wider."""
    first, second = jnp.split(x_BTHK.astype(at_least_float32(x_BTHK.dtype)), 2, axis=-1)
    cosine, sine = (jnp.asarray(each, first.dtype)[None, :, None] for each in (cosine_TK, sine_TK))
    turned = jnp.concatenate([first, second], -1) * cosine
    turned = turned + jnp.concatenate([second, first], -1) * sine
    return turned.astype(x_BTHK.dtype)


def _layer_norm(settings: VitConfig, dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm over the last axis, computed and returned in float32 or wider."""
    return nn.LayerNorm(epsilon=settings.norm_epsilon, dtype=at_least_float32(dtype), name=name)
