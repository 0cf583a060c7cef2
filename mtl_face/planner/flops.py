"""Floating-point operations of the network, counted in closed form from its settings.

The count is of convolutions and matrix products, a multiplication and an addition as two. All else
(norms, activations, augmentation, loss, optimizer) comes to some percent and is left out, so a
compiler counts a little more for the same step. A product of the forward pass costs as much again
for each of its two gradients, with respect to its input and to its kernel, where these are needed:
that of the kernel where the kernel or an adapter of it learns, that of the input where anything
before it learns. Adapters' own products, one a step, are left out.

Imports no JAX.
"""

import dataclasses
import itertools
from collections.abc import Collection

from mtl_face.config import BackboneConfig, Config, ModelConfig
from mtl_face.inputs import GAPS, IMAGE, POINTS, TOKENS, windows
from mtl_face.model.conventions import DILATIONS, KERNEL
from mtl_face.model.geometry import (
    CONVNEXT_KERNEL,
    CONVNEXT_MLP_RATIO,
    CONVNEXT_STEM,
    MOBILENET_PAIRS,
    STAGE_STRIDE,
    VARIANTS,
    convnext_blocks,
)
from mtl_face.model.regions import REGIONS
from mtl_face.tasks import OUTPUT_SIZES, TASKS


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations of one image, or of one window of frames.

    Attributes:
        forward: in the forward pass.
        training: in forward and backward pass together.
    """

    forward: int
    training: int

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.training + other.training)


class _Pass:
    """Counts products in the order of the forward pass, with the gradients that learning needs.

    Attributes:
        block: of the backbone in which the parts that come next are, 0 the stem; None outside.
        below: whether anything learns that the input of the next part depends on.
    """

    def __init__(self, frozen: int, learned: Collection[str] | None) -> None:
        self._frozen = frozen
        self._learned = learned
        self._parents: set[str] = set()
        for name in learned or ():
            keys = name.split("/")
            self._parents |= {"/".join(keys[:count]) for count in range(1, len(keys))}
        self.block: int | None = None
        self.below = False

    def _learns(self, name: str) -> bool:
        if self._learned is None:
            return self.block is None or self.block > self._frozen
        return name in self._parents or name in self._learned

    def reads(self, *names: str) -> None:
        """Parts without products: norms, tokens, codes."""
        self.below |= any(map(self._learns, names))

    def layers(self, forward: int, *names: str) -> Flops:
        """Layers that read the same input, each with so many operations."""
        found = Flops(0, 0)
        for name in names:
            kernel = self._learns(name if self._learned is None else f"{name}/kernel")
            found += Flops(forward, forward * (1 + kernel + self.below))
        self.reads(*names)
        return found

    def between(self, forward: int) -> Flops:
        """A product of two activations; both count as if they depended on what learns."""
        return Flops(forward, forward * (1 + 2 * self.below))


def by_part(model: ModelConfig, learned: Collection[str] | None = None) -> dict[str, Flops]:
    """Operations of one image, by block.

    Args:
        model: the network.
        learned: names of its arrays that have a gradient, as `backbone/patch/kernel`, with kernels
            that have an adapter; None: all but those of the backbone's frozen blocks.

    Returns:
        Of `stem`, `stage1` ..., `projection`, `points`, `encoder`, `decoder` and `heads`, as far as
        the network has them.
    """
    width = model.embed_dim
    walk = _Pass(model.backbone.last_frozen_block, learned)
    parts: dict[str, Flops] = {}
    patches = 0
    if IMAGE in model.inputs:
        parts, patches = _image(model, walk)
    if POINTS in model.inputs:
        patches += len(REGIONS)
        of_image, walk.below = walk.below, False
        parts["points"] = walk.layers(2 * 6 * REGIONS.size * width, "points")
        walk.below |= of_image
    encoder = Flops(0, 0)
    for layer in range(1, model.encoder_layers + 1):
        encoder += _attention_layer(walk, f"encoder/layer{layer}", model, patches)
    walk.reads("encoder/final_norm")
    parts["encoder"] = encoder
    parts["decoder"] = _decoder(walk, model, patches)
    heads, decoded = Flops(0, 0), walk.below
    for task in TASKS:
        walk.below = decoded
        widths = [width, *[model.head_width] * (model.head_layers - 1), OUTPUT_SIZES[task]]
        for layer, (wide, out) in enumerate(itertools.pairwise(widths), start=1):
            heads += walk.layers(2 * wide * out, f"head_{task}/dense{layer}")
    return parts | {"heads": heads}


def _decoder(walk: _Pass, model: ModelConfig, patches: int) -> Flops:
    found, of_patches = Flops(0, 0), walk.below
    walk.below = False
    walk.reads("decoder/tokens")
    for number in range(1, model.decoder_modules + 1):
        own, cross = f"decoder/module{number}_self", f"decoder/module{number}_cross"
        own_mlp = model.decoder_mlp == "each"
        found += _attention_layer(walk, own, model, len(TASKS), mlp=own_mlp)
        found += _attention_layer(walk, cross, model, len(TASKS), memory=(patches, of_patches))
    walk.reads("decoder/final_norm")
    return found


def _attention_layer(
    walk: _Pass,
    name: str,
    model: ModelConfig,
    queries: int,
    *,
    memory: tuple[int, bool] | None = None,
    mlp: bool = True,
) -> Flops:
    """A layer of encoder or decoder; `memory` is its entries, and whether they depend on learning.

    Without one the queries read each other.
    """
    width, before = model.embed_dim, [f"{name}/attention_norm"] * (model.norm == "pre")
    walk.reads(*before)
    attention = f"{name}/attention"
    if memory is None:
        found = _attention(walk, attention, queries, width)
    else:
        entries, below = memory
        found = walk.layers(2 * queries * width * width, f"{attention}/query")
        of_queries, walk.below = walk.below, below
        projections = [f"{attention}/{each}" for each in ("key", "value")]
        found += walk.layers(2 * entries * width * width, *projections)
        walk.below |= of_queries
        found += walk.between(2 * 2 * queries * entries * width)
        found += walk.layers(2 * queries * width * width, f"{attention}/out")
    walk.reads(f"{name}/attention_norm")
    if mlp:
        hidden = 2 * queries * width * width * model.mlp_ratio
        walk.reads(*([f"{name}/mlp_norm"] * (model.norm == "pre")))
        found += walk.layers(hidden, f"{name}/mlp_hidden")
        found += walk.layers(hidden, f"{name}/mlp_out")
        walk.reads(f"{name}/mlp_norm")
    return found


def _attention(walk: _Pass, name: str, tokens: int, width: int) -> Flops:
    """Tokens that read each other."""
    found = walk.layers(
        2 * tokens * width * width, *(f"{name}/{each}" for each in ("query", "key", "value"))
    )
    found += walk.between(2 * 2 * tokens * tokens * width)
    return found + walk.layers(2 * tokens * width * width, f"{name}/out")


def _image(model: ModelConfig, walk: _Pass) -> tuple[dict[str, Flops], int]:
    """Operations of backbone and projection, and the number of patches."""
    backbone = model.backbone
    walk.block = 0
    if backbone.kind == "mobilenet":
        parts, side, channels = _mobilenet(model.input_size, backbone, walk)
    elif backbone.kind == "vit":
        parts, side, channels = _vit(model.input_size, backbone, walk)
    elif backbone.kind == "convnext":
        parts, side, channels = _convnext(model.input_size, backbone, walk)
    else:
        stages = len(backbone.stage_sizes)
        parts = _backbone(model.input_size, backbone, walk)
        side = feature_side(model.input_size, variant=backbone.variant, stages=stages)
        channels = backbone.width * 2 ** (stages - 1) * backbone.expansion
    walk.block = None
    parts["projection"] = walk.layers(2 * side * side * channels * model.embed_dim, "projection")
    return parts, side * side


def _mobilenet(
    input_size: int, backbone: BackboneConfig, walk: _Pass
) -> tuple[dict[str, Flops], int, int]:
    """Operations by pair of layers, and rows and channels of the feature map."""
    side, channels = -(-input_size // 2), backbone.width
    parts = {"stem": walk.layers(2 * side * side * 9 * 3 * channels, "backbone/conv1")}
    for pair, (stride, factor) in enumerate(MOBILENET_PAIRS[: backbone.num_stages], start=1):
        walk.block = pair
        side = -(-side // stride)
        found = walk.layers(2 * side * side * 9 * channels, f"backbone/dw{pair}")
        if backbone.end != f"dw{pair}":
            out = factor * backbone.width
            found += walk.layers(2 * side * side * channels * out, f"backbone/pw{pair}")
            channels = out
        parts[f"stage{pair}"] = found
    return parts, side, channels


def _vit(
    input_size: int, backbone: BackboneConfig, walk: _Pass
) -> tuple[dict[str, Flops], int, int]:
    """Operations of the embeddings and of each block, and rows and channels of the map."""
    vit = backbone.vit
    side = input_size // vit.patch
    tokens = side * side + vit.class_token + vit.registers
    parts = {"stem": walk.layers(2 * side * side * vit.patch**2 * 3 * vit.width, "backbone/patch")}
    walk.reads(
        *(f"backbone/{name}" for name in ("position", "class_token", "registers", "pre_norm"))
    )
    hidden = 2 * tokens * vit.width * vit.mlp_width
    for number in range(1, vit.depth + 1):
        walk.block, block = number, f"backbone/block{number}"
        walk.reads(f"{block}/attention_norm")
        found = _attention(walk, f"{block}/attention", tokens, vit.width)
        walk.reads(f"{block}/attention_scale", f"{block}/mlp_norm")
        gate = [f"{block}/mlp/gate"] * vit.gated_mlp
        found += walk.layers(hidden, f"{block}/mlp/hidden", *gate)
        found += walk.layers(hidden, f"{block}/mlp/out")
        walk.reads(f"{block}/mlp_scale")
        parts[f"stage{number}"] = found
    walk.reads("backbone/norm")
    return parts, side, vit.width


def _convnext(
    input_size: int, backbone: BackboneConfig, walk: _Pass
) -> tuple[dict[str, Flops], int, int]:
    """Operations of the stem and by stage, and rows and channels of the map."""
    settings = backbone.convnext
    side, channels = input_size // CONVNEXT_STEM, settings.widths[0]
    stem = 2 * side * side * CONVNEXT_STEM**2 * 3 * channels
    parts = {"stem": walk.layers(stem, "backbone/stem")}
    walk.reads("backbone/stem_norm")
    for number, block in enumerate(convnext_blocks(settings), start=1):
        walk.block, name = number, f"backbone/{block.name}"
        found = Flops(0, 0)
        if block.downsamples:
            smaller = f"backbone/stage{block.stage}_downsample"
            side //= STAGE_STRIDE
            walk.reads(f"{smaller}_norm")
            found += walk.layers(
                2 * side * side * STAGE_STRIDE**2 * channels * block.channels, smaller
            )
            channels = block.channels
        found += walk.layers(2 * side * side * CONVNEXT_KERNEL**2 * channels, f"{name}/depthwise")
        walk.reads(f"{name}/norm")
        dense = 2 * side * side * channels**2 * CONVNEXT_MLP_RATIO
        found += walk.layers(dense, f"{name}/hidden")
        walk.reads(f"{name}/grn")
        found += walk.layers(dense, f"{name}/out")
        walk.reads(f"{name}/layer_scale")
        stage = f"stage{block.stage}"
        parts[stage] = parts.get(stage, Flops(0, 0)) + found
    walk.reads("backbone/norm")
    return parts, side, channels


def over_time(config: Config, learned: Collection[str] | None = None) -> dict[str, Flops]:
    """Operations of one window by a network over time, by part.

    Args:
        config: with a `temporal.kind`.
        learned: as of `by_part`, as `read/kernel`; None: all.

    Returns:
        Of `read`, `layer1` ... and `correction`. Padding of convolutions counts as frames do.
    """
    settings, width = config.temporal, config.model.embed_dim
    frames, channels = settings.window, settings.width
    expected = windows(
        frames, width, va_variance=config.model.predicts_variance, patches=settings.reads_patches
    )
    outputs = sum(shape[-1] for name, (_, shape) in expected.items() if name not in (TOKENS, GAPS))
    tokens = expected[TOKENS][1][1]
    square = 2 * frames * channels * channels
    walk = _Pass(-1, learned)
    walk.reads("token_norm")
    features = tokens * width + outputs + 1  # and the distance to the frame before
    parts = {"read": walk.layers(2 * frames * features * channels, "read")}
    for layer in range(1, settings.layers + 1):
        if settings.kind == "gru":
            found = _recurrent(walk, layer, square, directions=2 - settings.causal)
        elif settings.kind == "convolution":
            found = Flops(0, 0)
            for dilation in DILATIONS:
                walk.reads(f"norm{layer}_{dilation}")
                found += walk.layers(KERNEL * square, f"convolution{layer}_{dilation}")
        else:
            walk.reads(f"attention_norm{layer}")
            found = _attention(walk, f"attention{layer}", frames, channels)
            walk.reads(f"mlp_norm{layer}")
            found += walk.layers(2 * square, f"mlp_hidden{layer}")
            found += walk.layers(2 * square, f"mlp_out{layer}")
        parts[f"layer{layer}"] = found
    walk.reads("final_norm")
    return parts | {"correction": walk.layers(2 * frames * channels * outputs, "correction")}


def _recurrent(walk: _Pass, layer: int, square: int, *, directions: int) -> Flops:
    """Gated units of one direction or both, and what joins them; `square` is of one product."""
    walk.reads(f"norm{layer}")
    found, given, learns = Flops(0, 0), walk.below, walk.below
    for direction in range(directions):
        cell = f"GRUCell_{(layer - 1) * directions + direction}"
        walk.below = given
        found += walk.layers(square, *(f"{cell}/i{gate}" for gate in "rzn"))
        states = [f"{cell}/h{gate}" for gate in "rzn"]
        walk.reads(*states)  # a state depends on them through the one before
        found += walk.layers(square, *states)
        learns |= walk.below
    walk.below = learns
    return found + walk.layers(directions * square, f"join{layer}")


def total(parts: dict[str, Flops]) -> Flops:
    """The sum over all parts."""
    return sum(parts.values(), Flops(0, 0))


def feature_side(input_size: int, *, variant: str, stages: int) -> int:
    """Rows of the backbone's feature map."""
    side = _pooled(-(-input_size // 2), variant)
    for _ in range(stages - 1):
        side = -(-side // 2)
    return side


def _pooled(side: int, variant: str) -> int:
    """Rows after the 3 x 3 maximum pooling of stride 2."""
    padding = VARIANTS[variant].pool_padding
    if isinstance(padding, str):
        before, after = 0, 0
    else:
        before, after = padding[0]
    return (side + before + after - 3) // 2 + 1


def _backbone(input_size: int, backbone: BackboneConfig, walk: _Pass) -> dict[str, Flops]:
    width, expansion = backbone.width, backbone.expansion
    parts: dict[str, Flops] = {}

    def convolution(name: str, side: int, kernel: int, wide: int, out: int) -> None:
        """A convolution and its batch norm."""
        *block, last = name.split("/")
        part = block[0].partition("_")[0] if block else "stem"
        found = walk.layers(2 * side * side * kernel * kernel * wide * out, f"backbone/{name}")
        norm = "proj_bn" if last == "proj" else last.replace("conv", "bn")
        walk.reads("/".join(["backbone", *block, norm]))
        parts[part] = parts.get(part, Flops(0, 0)) + found

    side = -(-input_size // 2)
    convolution("conv1", side, 7, 3, width)
    side = _pooled(side, backbone.variant)
    channels = width
    for stage, size in enumerate(backbone.stage_sizes, start=1):
        inner = width * 2 ** (stage - 1)
        for block in range(1, size + 1):
            walk.block = (walk.block or 0) + 1
            name, before, below = f"stage{stage}_block{block}", side, walk.below
            if block == 1 < stage:
                side = -(-side // 2)
            reduced = side if VARIANTS[backbone.variant].stride_in_reduce else before
            convolution(f"{name}/conv1", reduced, 1, channels, inner)
            convolution(f"{name}/conv2", side, 3, inner, inner)
            convolution(f"{name}/conv3", side, 1, inner, inner * expansion)
            if block == 1:
                inside, walk.below = walk.below, below  # it reads what the block does
                convolution(f"{name}/proj", side, 1, channels, inner * expansion)
                walk.below |= inside
            channels = inner * expansion
    return parts
