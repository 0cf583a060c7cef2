"""A network over time: task tokens of neighbouring frames, and what they say of each other.

It reads windows of what a trained network of frames saw, and corrects that network's answers. The
correction comes from a layer that begins at 0, so that training starts from exactly these answers.

Shapes: B windows, W frames of a window, T tokens of a frame (3, or 4 with that of its patches), D
width of a token, F channels of features, C width of the network (`temporal.width`).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.config import Config
from mtl_face.config.schema import TemporalConfig
from mtl_face.inputs import GAPS, TOKENS, answer, windows
from mtl_face.model.conventions import (
    DILATIONS,
    KERNEL,
    LAYER_NORM_EPSILON,
    LONGEST_WAVE,
    MAX_LOG_RATIO,
    TEMPORAL_HEADS,
)
from mtl_face.tasks import OUTPUT_SIZES, VA, VA_LOG_VARIANCE

_SHARED = "shared"


def network_inputs(config: Config) -> dict[str, jax.Array]:
    """An example that is all 0, [1, ...] by name, as `TemporalNetwork` takes it."""
    expected = windows(
        config.temporal.window,
        config.model.embed_dim,
        va_variance=config.model.predicts_variance,
        patches=config.temporal.reads_patches,
    )
    return {name: jnp.zeros((1, *shape), dtype) for name, (dtype, shape) in expected.items()}


class TemporalNetwork(nn.Module):
    """Recurrent units, dilated convolutions or a transformer over the frames of a window.

    All is float32. Parts: `read`, the layers of the kind, `final_norm`, `correction`.

    Attributes:
        settings: section `temporal` of a config.
        va_variance: whose variance of valence and arousal there is, as `model.va_variance`.
    """

    settings: TemporalConfig
    va_variance: str = _SHARED

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Predicts every task for every frame of windows.

        Args:
            inputs: what `mtl_face.inputs.windows` names, [B, ...] each.
            train: whether dropout acts (random stream `dropout`).

        Returns:
            Outputs as those of `network.MtlFace`, [B * W, size] float32: a row for each frame of
            each window, window after window. Rows of padding mean nothing.
        """
        settings = self.settings
        gap_BW = inputs[GAPS]
        seen_BW = gap_BW >= 0
        sizes = dict(OUTPUT_SIZES)
        if self.va_variance != _SHARED:
            sizes[VA_LOG_VARIANCE] = OUTPUT_SIZES[VA]
        answers = {name: inputs[answer(name)] for name in sizes}
        token_BWTD = _layer_norm("token_norm")(inputs[TOKENS].astype(jnp.float32))
        distance_BW = jnp.log1p(jnp.maximum(gap_BW, 0).astype(jnp.float32))
        feature_BWF = jnp.concatenate(
            [
                token_BWTD.reshape(*gap_BW.shape, -1),
                *answers.values(),
                distance_BW[..., None],
            ],
            axis=-1,
        )
        hidden_BWC = nn.gelu(nn.Dense(settings.width, name="read")(feature_BWF))
        hidden_BWC = hidden_BWC * seen_BW[..., None]
        layers = {"gru": self._recurrent, "convolution": self._convolved}
        if settings.kind == "attention":
            hidden_BWC = self._attended(hidden_BWC, gap_BW, train)
        elif settings.kind in layers:
            hidden_BWC = layers[settings.kind](hidden_BWC, seen_BW, train)
        else:
            raise ValueError(f"kind {settings.kind!r} is none of a network over time")
        hidden_BWC = _layer_norm("final_norm")(hidden_BWC)
        correction = nn.Dense(
            sum(sizes.values()), kernel_init=nn.initializers.zeros, name="correction"
        )(hidden_BWC)
        outputs, begin = {}, 0
        for name, size in sizes.items():
            value = answers[name] + correction[..., begin : begin + size]
            if name == VA_LOG_VARIANCE:
                value = jnp.clip(value, -MAX_LOG_RATIO, MAX_LOG_RATIO)
            outputs[name] = value.reshape(-1, size)
            begin += size
        return outputs

    def _dropped(self, branch_BWC: jax.Array, train: bool) -> jax.Array:
        return nn.Dropout(self.settings.dropout, deterministic=not train)(branch_BWC)

    def _recurrent(self, hidden_BWC: jax.Array, seen_BW: jax.Array, train: bool) -> jax.Array:
        width, length_B = self.settings.width, jnp.sum(seen_BW, axis=1)
        for layer in range(1, self.settings.layers + 1):
            given_BWC = _layer_norm(f"norm{layer}")(hidden_BWC)
            parts: list[Any] = [
                nn.RNN(nn.GRUCell(width), reverse=backward, keep_order=True, name=f"{name}{layer}")(
                    given_BWC, seq_lengths=length_B
                )
                for name, backward in (("forward", False), ("backward", True))
                if not (backward and self.settings.causal)
            ]
            branch_BWC = nn.Dense(width, name=f"join{layer}")(jnp.concatenate(parts, axis=-1))
            hidden_BWC = hidden_BWC + self._dropped(branch_BWC, train)
        return hidden_BWC

    def _convolved(self, hidden_BWC: jax.Array, seen_BW: jax.Array, train: bool) -> jax.Array:
        padding = "CAUSAL" if self.settings.causal else "SAME"
        for layer in range(1, self.settings.layers + 1):
            for dilation in DILATIONS:
                name = f"{layer}_{dilation}"
                branch_BWC = _layer_norm(f"norm{name}")(hidden_BWC) * seen_BW[..., None]
                branch_BWC = nn.Conv(
                    self.settings.width,
                    (KERNEL,),
                    kernel_dilation=dilation,
                    padding=padding,
                    name=f"convolution{name}",
                )(branch_BWC)
                hidden_BWC = hidden_BWC + self._dropped(nn.gelu(branch_BWC), train)
        return hidden_BWC

    def _attended(self, hidden_BWC: jax.Array, gap_BW: jax.Array, train: bool) -> jax.Array:
        width, length = self.settings.width, gap_BW.shape[1]
        frame_BW = jnp.cumsum(jnp.maximum(gap_BW, 0), axis=1).astype(jnp.float32)
        hidden_BWC = hidden_BWC + _code(frame_BW, width)
        earlier_WW = jnp.ones((length, length), bool)
        if self.settings.causal:
            earlier_WW = jnp.tril(earlier_WW)
        mask_B1WW = (gap_BW >= 0)[:, None, None, :] & earlier_WW[None, None]
        for layer in range(1, self.settings.layers + 1):
            branch_BWC = _layer_norm(f"attention_norm{layer}")(hidden_BWC)
            branch_BWC = nn.MultiHeadDotProductAttention(TEMPORAL_HEADS, name=f"attention{layer}")(
                branch_BWC, mask=mask_B1WW
            )
            hidden_BWC = hidden_BWC + self._dropped(branch_BWC, train)
            branch_BWC = _layer_norm(f"mlp_norm{layer}")(hidden_BWC)
            branch_BWC = nn.gelu(nn.Dense(2 * width, name=f"mlp_hidden{layer}")(branch_BWC))
            branch_BWC = nn.Dense(width, name=f"mlp_out{layer}")(branch_BWC)
            hidden_BWC = hidden_BWC + self._dropped(branch_BWC, train)
        return hidden_BWC


def _code(frame_BW: jax.Array, channels: int) -> jax.Array:
    """Sines and cosines of frame numbers, [B, W, channels] (Vaswani et al. 2017, section 3.5)."""
    frequency = LONGEST_WAVE ** (-jnp.arange(0, channels, 2) / channels)
    angle = frame_BW[..., None] * frequency[None, None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _layer_norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, name=name)
