"""The whole network: from a face to valence and arousal, action units and expression.

Paper section 3.1. Shapes: B batch, H W height and width, C channels, N patches and other tokens, D
width of the embedding, T tasks.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.config import Config, ModelConfig
from mtl_face.inputs import BASELINE, IMAGE, POINTS, specification
from mtl_face.model import backbones, temporal
from mtl_face.model.conventions import TOKEN_ORDER
from mtl_face.model.convolution import PRODUCTS, resolve_convolution
from mtl_face.model.heads import TaskHead, VarianceHead, bounded_log_ratio
from mtl_face.model.points import PointTokens
from mtl_face.model.temporal import TemporalNetwork
from mtl_face.model.transformer import PatchEncoder, TokenDecoder, at_least_float32
from mtl_face.tasks import OUTPUT_SIZES, TASKS, VA, VA_LOG_VARIANCE

ATTENTION = "attention"
"""Key of the cross-attention weights among the outputs."""

TASK_TOKENS = "tokens"
"""Key of the decoder's task tokens among the outputs."""

PATCH_TOKEN = "patches"
"""Key of the mean of the encoder's tokens, of patches and points, among the outputs."""

SHARED = "shared"
PER_EXAMPLE = "per_example"
FROM_FEATURES = "from_features"
VA_VARIANCES = (SHARED, PER_EXAMPLE, FROM_FEATURES)
"""Whose variance of valence and arousal there is: the task's alone, or each example's too, of which
the task's head speaks, or a head that reads what the tokens were made from."""


def network_inputs(settings: ModelConfig) -> dict[str, jax.Array]:
    """An example that is all 0, float32 [1, ...] by name, as the network takes it."""
    expected = specification(settings.inputs, settings.input_size)
    return {name: jnp.zeros((1, *shape), jnp.float32) for name, (_, shape) in expected.items()}


def network_of(config: Config, *, platform: str, devices: int = 1) -> nn.Module:
    """The network of an experiment: of frames, or one over time in its place.

    `platform` (cpu, gpu, tpu) is what it runs on; `devices` share a training batch.
    """
    if config.is_over_time:
        return TemporalNetwork(config.temporal, config.model.va_variance)
    return MtlFace(for_platform(config.model, platform), devices=devices)


def blank_inputs(config: Config) -> dict[str, jax.Array]:
    """An example that is all 0, [1, ...] by name, as the network of an experiment takes it."""
    if config.is_over_time:
        return temporal.network_inputs(config)
    return network_inputs(config.model)


def for_platform(settings: ModelConfig, platform: str) -> ModelConfig:
    """The settings with `auto` settled for the platform (cpu, gpu, tpu) that is compiled for."""
    convolution = resolve_convolution(settings.backbone.convolution, platform)
    backbone = dataclasses.replace(settings.backbone, convolution=convolution)
    return dataclasses.replace(settings, backbone=backbone)


class MtlFace(nn.Module):
    """Features of a backbone or points of the face, an encoder, task tokens, one head a task.

    `MtlFace(ModelConfig())` is the paper's network: 72,943,446 parameters, 7 x 7 patches of a
    224 pixel image. Collections: `params` and `batch_stats`, both float32. Parts: `backbone` and
    `projection` (for images), `points` (for points), `encoder`, `decoder`, `head_va`, `head_au`,
    `head_expr`, and `head_va_variance` if it is wanted. Without batch norms there are no
    `batch_stats`.

    Attributes:
        settings: section `model` of a config, whose schema says what each setting does. Norms,
            softmax and outputs are float32 whatever `compute_dtype` is.
        devices: over which a training batch is split; matters to `batch_norm` "local" alone.
    """

    settings: ModelConfig
    devices: int = 1

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array | Mapping[str, jax.Array],
        *,
        train: bool,
        return_attention: bool = False,
        return_tokens: bool = False,
        sample_dropout: bool = False,
    ) -> dict[str, jax.Array]:
        """Predicts every task from faces.

        Args:
            inputs: the arrays that the settings name, see `mtl_face.inputs`: `image` float
                [B, input_size, input_size, 3], R, G, B in 0..255; `points` and `baseline`. An
                array alone is `image`.
            train: whether dropout acts (random stream `dropout`) and batch normalisation uses
                the statistics that `batch_norm` names and updates the running ones (collection
                `batch_stats` must be mutable).
            return_attention: whether to add the cross-attention weights.
            return_tokens: whether to add the task tokens, which the heads read, and the mean of the
                tokens that these were made from.
            sample_dropout: whether dropout acts outside of training too (random stream
                `dropout`): one sample of Monte Carlo dropout.

        Returns:
            `va` [B, 2] linear, not clipped; `au` [B, 12] and `expr` [B, 8] logits, without any
            temperature (u of eq. 1); with a variance per example `va_log_variance` [B, 2], log of
            the variances of valence and arousal over the task's, in [-8, 8]; and, if asked,
            `attention` [B, decoder_modules, num_heads, 3, N] with the tokens in the order of
            `tasks.TASKS`; of the N, first the patches in row-major order, then the groups of
            points in the order of `regions.REGIONS`; and, if asked, `tokens` [B, 3, D] in the
            order of `tasks.TASKS` and `patches` [B, D]. All float32.

        Raises:
            ValueError: an input is missing or has another shape, or a setting is out of its set.
        """
        settings = self.settings
        inputs = inputs if isinstance(inputs, Mapping) else {IMAGE: inputs}
        for name, (_, shape) in specification(settings.inputs, settings.input_size).items():
            if name not in inputs:
                raise ValueError(f"there is no {name} among the inputs {sorted(inputs)}")
            found = inputs[name].shape
            if found[1:] != shape:
                raise ValueError(f"{name} has shape {found}, expected (batch, *{shape})")
        if settings.va_variance not in VA_VARIANCES:
            raise ValueError(f"va_variance {settings.va_variance!r} is not one of {VA_VARIANCES}")
        compute_dtype = jnp.dtype(settings.compute_dtype)
        tokens, features, grid = {}, {}, (0, 0)
        if IMAGE in settings.inputs:
            map_BHWC = self._features(inputs[IMAGE], train)
            batch, height, width, channels = map_BHWC.shape
            grid = (height, width)
            features[IMAGE] = map_BHWC.reshape(batch, height * width, channels)
            # The paper's "1D convolution" in place of the pooling: one dense layer for every patch.
            tokens[IMAGE] = nn.Dense(
                settings.embed_dim,
                kernel_init=nn.initializers.xavier_uniform(),
                dtype=compute_dtype,
                dot_general=PRODUCTS[resolve_convolution(settings.backbone.convolution)],
                name="projection",
            )(features[IMAGE])
        if POINTS in settings.inputs:
            points = PointTokens(settings, name="points")
            tokens[POINTS] = features[POINTS] = points(inputs[POINTS], inputs[BASELINE])
        parts = [tokens[name] for name in TOKEN_ORDER if name in tokens]
        patch_BND = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
        drop = train or sample_dropout
        encoder = PatchEncoder(settings, name="encoder")
        patch_BND = encoder(patch_BND, train=drop, grid=grid)
        decoder = TokenDecoder(settings, name="decoder")
        token_BTD, attention = decoder(patch_BND, train=drop, return_attention=return_attention)

        sizes = dict(OUTPUT_SIZES)
        if settings.va_variance == PER_EXAMPLE:
            sizes[VA] *= 2
        outputs = {
            task: TaskHead(
                num_layers=settings.head_layers,
                width=settings.head_width,
                out=sizes[task],
                dtype=compute_dtype,
                name=f"head_{task}",
            )(token_BTD[:, index])
            for index, task in enumerate(TASKS)
        }
        if settings.va_variance == PER_EXAMPLE:
            outputs[VA], raw_B2 = jnp.split(outputs[VA], 2, axis=-1)
            outputs[VA_LOG_VARIANCE] = bounded_log_ratio(raw_B2)
        elif settings.va_variance == FROM_FEATURES:
            head = VarianceHead(OUTPUT_SIZES[VA], name="head_va_variance")
            read = [features[name] for name in TOKEN_ORDER if name in features]
            outputs[VA_LOG_VARIANCE] = bounded_log_ratio(head(read))
        if attention is not None:
            outputs[ATTENTION] = attention
        if return_tokens:
            outputs[TASK_TOKENS] = token_BTD
            outputs[PATCH_TOKEN] = jnp.mean(patch_BND.astype(jnp.float32), axis=1)
        return outputs

    def _features(self, image_BHWC: jax.Array, train: bool) -> jax.Array:
        """The backbone's map of images, [B, H, W, C]."""
        settings = self.settings
        dtype = at_least_float32(jnp.dtype(settings.compute_dtype))
        mean = jnp.asarray(settings.input_mean, dtype).reshape(1, 1, 1, 3)
        std = jnp.asarray(settings.input_std, dtype).reshape(1, 1, 1, 3)
        backbone = backbones.make(settings, self.devices, name="backbone")
        return backbone((image_BHWC.astype(dtype) - mean) / std, train=train)
