"""The whole network: from a face crop to valence and arousal, action units and expression.

Paper section 3.1. Shapes: B batch, H W height and width, C channels, N patches, D width of the
embedding, T tasks.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.model import remat
from mtl_face.model.attention import at_least_float32
from mtl_face.model.backbone import ResNet
from mtl_face.model.batch_norm import BATCH
from mtl_face.model.decoder import TokenDecoder
from mtl_face.model.encoder import PatchEncoder
from mtl_face.model.heads import TaskHead, bounded_log_ratio
from mtl_face.model.stages import NOTHING_FROZEN
from mtl_face.tasks import OUTPUT_SIZES, TASKS, VA, VA_LOG_VARIANCE

ATTENTION = "attention"
"""Key of the cross-attention weights among the outputs."""

SHARED = "shared"
PER_EXAMPLE = "per_example"
VA_VARIANCES = (SHARED, PER_EXAMPLE)
"""Whose variance of valence and arousal there is: the task's alone, or each example's too."""


class MtlFace(nn.Module):
    """ResNet features, patch encoder, task tokens, one head a task.

    The defaults are the paper's network. Collections: `params` and `batch_stats`, both float32.
    Parts: `backbone`, `projection`, `encoder`, `decoder`, `head_va`, `head_au`, `head_expr`.

    Attributes:
        input_size: height and width of the image in pixels.
        input_mean: subtracted from R, G, B, in units of 0..255.
        input_std: then divides R, G, B, in units of 0..255.
        stage_sizes: blocks of each stage of the backbone.
        backbone_width: channels of the backbone's stem.
        expansion: ratio of a block's output to its inner channels.
        variant: geometry of the backbone, a key of `backbone.VARIANTS`.
        convolution: implementation, a key of `convolution.CONVOLUTIONS`.
        batch_norm: source of a training step's statistics, one of `batch_norm.MODES`.
        batch_norm_groups: for `local`, devices over which the batch is split.
        batch_norm_momentum: share of the running statistics that a step keeps.
        frozen_stages: stages of the backbone that a training step takes as given, see
            `backbone.ResNet`; -1 for none.
        embed_dim: D, the paper's d.
        encoder_layers: the paper's N_x.
        decoder_modules: the paper's N_t.
        num_heads: heads of every attention; must divide D.
        mlp_ratio: width of the perceptrons in units of D.
        decoder_mlp: where a decoder module has a perceptron, one of `decoder.MLP_PLACES`.
        head_layers: the paper's N_d.
        head_width: width of the heads' hidden layers.
        va_variance: one of `VA_VARIANCES`; `per_example` adds two outputs to the head of valence
            and arousal.
        dropout: rate on the residual branches of encoder and decoder.
        norm: `post` or `pre`.
        position: position codes of the patches, one of `encoder.POSITIONS`.
        token_init_std: standard deviation of the tokens' initial values.
        dtype: compute dtype; norms, softmax and outputs are float32 in any case.
        remat: what the backward pass computes again, one of `remat.POLICIES`.
    """

    input_size: int = 224
    input_mean: tuple[float, float, float] = (131.0912, 103.8827, 91.4953)
    input_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    backbone_width: int = 64
    expansion: int = 4
    variant: str = "caffe"
    convolution: str = "xla"
    batch_norm: str = BATCH
    batch_norm_groups: int = 1
    batch_norm_momentum: float = 0.9
    frozen_stages: int = NOTHING_FROZEN
    embed_dim: int = 768
    encoder_layers: int = 2
    decoder_modules: int = 2
    num_heads: int = 12
    mlp_ratio: int = 4
    decoder_mlp: str = "each"
    head_layers: int = 4
    head_width: int = 768
    va_variance: str = SHARED
    dropout: float = 0.1
    norm: str = "post"
    position: str = "2d"
    token_init_std: float = 0.02
    dtype: Any = jnp.float32
    remat: str = remat.NONE

    @nn.compact
    def __call__(
        self,
        image_BHWC: jax.Array,
        *,
        train: bool,
        return_attention: bool = False,
        sample_dropout: bool = False,
    ) -> dict[str, jax.Array]:
        """Predicts every task from face crops.

        Args:
            image_BHWC: [B, input_size, input_size, 3], R, G, B in 0..255.
            train: whether dropout acts (random stream `dropout`) and batch normalisation uses
                the statistics that `batch_norm` names and updates the running ones (collection
                `batch_stats` must be mutable).
            return_attention: whether to add the cross-attention weights.
            sample_dropout: whether dropout acts outside of training too (random stream
                `dropout`): one sample of Monte Carlo dropout.

        Returns:
            `va` [B, 2] linear, not clipped; `au` [B, 12] and `expr` [B, 8] logits, without any
            temperature (u of eq. 1); with a variance per example `va_log_variance` [B, 2], log of
            the variances of valence and arousal over the task's, in [-8, 8]; and, if asked,
            `attention` [B, decoder_modules, num_heads, 3, N] with the tokens in the order of
            `tasks.TASKS` and the patches in row-major order. All float32.

        Raises:
            ValueError: the image has another shape, or an attribute is out of its set.
        """
        expected = (self.input_size, self.input_size, 3)
        if image_BHWC.ndim != 4 or image_BHWC.shape[1:] != expected:
            raise ValueError(f"image has shape {image_BHWC.shape}, expected (batch, *{expected})")
        if self.va_variance not in VA_VARIANCES:
            raise ValueError(f"va_variance {self.va_variance!r} is none of {VA_VARIANCES}")
        dtype = at_least_float32(self.dtype)
        mean = jnp.asarray(self.input_mean, dtype).reshape(1, 1, 1, 3)
        std = jnp.asarray(self.input_std, dtype).reshape(1, 1, 1, 3)
        image_BHWC = (image_BHWC.astype(dtype) - mean) / std

        map_BHWC = ResNet(
            stage_sizes=self.stage_sizes,
            width=self.backbone_width,
            expansion=self.expansion,
            variant=self.variant,
            convolution=self.convolution,
            batch_norm=self.batch_norm,
            batch_norm_groups=self.batch_norm_groups,
            batch_norm_momentum=self.batch_norm_momentum,
            frozen_stages=self.frozen_stages,
            dtype=self.dtype,
            remat=self.remat,
            name="backbone",
        )(image_BHWC, train=train)
        batch, height, width, channels = map_BHWC.shape
        # The paper's "1D convolution" in place of the pooling: one dense layer for every patch.
        patch_BND = nn.Dense(
            self.embed_dim,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            name="projection",
        )(map_BHWC.reshape(batch, height * width, channels))
        patch_BND = PatchEncoder(
            num_layers=self.encoder_layers,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.dropout,
            norm=self.norm,
            position=self.position,
            dtype=self.dtype,
            remat=self.remat,
            name="encoder",
        )(patch_BND, train=train or sample_dropout, grid=(height, width))
        token_BTD, attention = TokenDecoder(
            num_modules=self.decoder_modules,
            num_heads=self.num_heads,
            num_tokens=len(TASKS),
            mlp_ratio=self.mlp_ratio,
            mlp_place=self.decoder_mlp,
            dropout=self.dropout,
            norm=self.norm,
            token_init_std=self.token_init_std,
            dtype=self.dtype,
            remat=self.remat,
            name="decoder",
        )(patch_BND, train=train or sample_dropout, return_attention=return_attention)

        sizes = dict(OUTPUT_SIZES)
        if self.va_variance == PER_EXAMPLE:
            sizes[VA] *= 2
        outputs = {
            task: TaskHead(
                num_layers=self.head_layers,
                width=self.head_width,
                out=sizes[task],
                dtype=self.dtype,
                name=f"head_{task}",
            )(token_BTD[:, index])
            for index, task in enumerate(TASKS)
        }
        if self.va_variance == PER_EXAMPLE:
            outputs[VA], raw_B2 = jnp.split(outputs[VA], 2, axis=-1)
            outputs[VA_LOG_VARIANCE] = bounded_log_ratio(raw_B2)
        if attention is not None:
            outputs[ATTENTION] = attention
        return outputs
