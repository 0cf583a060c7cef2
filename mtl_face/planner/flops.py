"""Floating-point operations of the network, counted in closed form from its settings.

The count is of convolutions and matrix products, a multiplication and an addition as two. All else
(norms, activations, augmentation, loss, optimizer) comes to some percent and is left out, so a
compiler counts a little more for the same step. A product of the forward pass costs as much again
for each of its two gradients, with respect to its input and to its kernel, where these are needed.

Imports no JAX.
"""

import dataclasses
import itertools

from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.inputs import IMAGE, POINTS
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
    """Operations of one image.

    Attributes:
        forward: in the forward pass.
        training: in forward and backward pass together.
    """

    forward: int
    training: int

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.training + other.training)


def _count(forward: int, *, trains: bool = True, input_gradient: bool = True) -> Flops:
    """Operations of products, with those of their gradients."""
    return Flops(forward, forward * (1 + trains * (1 + input_gradient)))


def by_part(model: ModelConfig) -> dict[str, Flops]:
    """Operations of one image, by block.

    These are `stem`, `stage1` ..., `projection`, `points`, `encoder`, `decoder` and `heads`, as far
    as the network has them.
    """
    width, ratio = model.embed_dim, model.mlp_ratio
    parts: dict[str, Flops] = {}
    patches = 0
    if IMAGE in model.inputs:
        parts, patches = _image(model)
    if POINTS in model.inputs:
        patches += len(REGIONS)
        parts["points"] = _count(2 * 6 * REGIONS.size * width, input_gradient=False)
    tokens = len(TASKS)
    own = _attention_layer(tokens, tokens, width, ratio if model.decoder_mlp == "each" else 0)
    cross = _attention_layer(tokens, patches, width, ratio)
    heads = 0
    for task in TASKS:
        widths = [width, *[model.head_width] * (model.head_layers - 1), OUTPUT_SIZES[task]]
        heads += sum(2 * wide * out for wide, out in itertools.pairwise(widths))
    return {
        **parts,
        "encoder": _count(model.encoder_layers * _attention_layer(patches, patches, width, ratio)),
        "decoder": _count(model.decoder_modules * (own + cross)),
        "heads": _count(heads),
    }


def _image(model: ModelConfig) -> tuple[dict[str, Flops], int]:
    """Operations of backbone and projection, and the number of patches."""
    backbone = model.backbone
    if backbone.kind == "mobilenet":
        parts, side, channels = _mobilenet(model.input_size, backbone)
    elif backbone.kind == "vit":
        parts, side, channels = _vit(model.input_size, backbone)
    elif backbone.kind == "convnext":
        parts, side, channels = _convnext(model.input_size, backbone)
    else:
        stages = len(backbone.stage_sizes)
        parts = _backbone(model.input_size, backbone)
        side = feature_side(model.input_size, variant=backbone.variant, stages=stages)
        channels = backbone.width * 2 ** (stages - 1) * backbone.expansion
    parts["projection"] = _count(
        2 * side * side * channels * model.embed_dim,
        input_gradient=backbone.last_frozen_block < backbone.num_blocks,
    )
    return parts, side * side


def _mobilenet(input_size: int, backbone: BackboneConfig) -> tuple[dict[str, Flops], int, int]:
    """Operations by pair of layers, and rows and channels of the feature map."""
    side, channels, frozen = -(-input_size // 2), backbone.width, backbone.last_frozen_block
    stem = 2 * side * side * 9 * 3 * channels
    parts = {"stem": _count(stem, trains=frozen < 0, input_gradient=False)}
    for pair, (stride, factor) in enumerate(MOBILENET_PAIRS[: backbone.num_stages], start=1):
        side = -(-side // stride)
        depthwise = 2 * side * side * 9 * channels
        found = _count(depthwise, trains=pair > frozen, input_gradient=pair - 1 != frozen)
        if backbone.end != f"dw{pair}":
            out = factor * backbone.width
            found += _count(2 * side * side * channels * out, trains=pair > frozen)
            channels = out
        parts[f"stage{pair}"] = found
    return parts, side, channels


def _vit(input_size: int, backbone: BackboneConfig) -> tuple[dict[str, Flops], int, int]:
    """Operations of the embeddings and of each block, and rows and channels of the map."""
    vit, frozen = backbone.vit, backbone.last_frozen_block
    side = input_size // vit.patch
    tokens = side * side + vit.class_token + vit.registers
    stem = 2 * side * side * vit.patch**2 * 3 * vit.width
    parts = {"stem": _count(stem, trains=frozen < 0, input_gradient=False)}
    inner = _attention_layer(tokens, tokens, vit.width, 0)
    inner += 2 * (2 + vit.gated_mlp) * tokens * vit.width * vit.mlp_width
    # What a block reads first: three projections, with no gradient of their input if it is frozen.
    first = 2 * 3 * tokens * vit.width * vit.width
    for number in range(1, vit.depth + 1):
        trains = number > frozen
        found = _count(inner - first, trains=trains)
        found += _count(first, trains=trains, input_gradient=number - 1 != frozen)
        parts[f"stage{number}"] = found
    return parts, side, vit.width


def _convnext(input_size: int, backbone: BackboneConfig) -> tuple[dict[str, Flops], int, int]:
    """Operations of the stem and by stage, and rows and channels of the map."""
    settings, frozen = backbone.convnext, backbone.last_frozen_block
    side, channels = input_size // CONVNEXT_STEM, settings.widths[0]
    stem = 2 * side * side * CONVNEXT_STEM**2 * 3 * channels
    parts = {"stem": _count(stem, trains=frozen < 0, input_gradient=False)}
    for number, block in enumerate(convnext_blocks(settings), start=1):
        trains, reads_frozen = number > frozen, number - 1 == frozen
        found = Flops(0, 0)
        if block.downsamples:
            side //= STAGE_STRIDE
            forward = 2 * side * side * STAGE_STRIDE**2 * channels * block.channels
            found += _count(forward, trains=trains, input_gradient=not reads_frozen)
            reads_frozen = False
            channels = block.channels
        forward = 2 * side * side * CONVNEXT_KERNEL**2 * channels
        found += _count(forward, trains=trains, input_gradient=not reads_frozen)
        found += _count(2 * 2 * side * side * channels**2 * CONVNEXT_MLP_RATIO, trains=trains)
        name = f"stage{block.stage}"
        parts[name] = parts.get(name, Flops(0, 0)) + found
    return parts, side, channels


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


def _backbone(input_size: int, backbone: BackboneConfig) -> dict[str, Flops]:
    width, expansion = backbone.width, backbone.expansion
    frozen, number = backbone.last_frozen_block, 0
    parts: dict[str, Flops] = {}

    def convolution(
        stage: int, side: int, kernel: int, wide: int, out: int, *, input_gradient: bool = True
    ) -> None:
        part = f"stage{stage}" if stage else "stem"
        forward = 2 * side * side * kernel * kernel * wide * out
        found = _count(forward, trains=number > frozen, input_gradient=input_gradient)
        parts[part] = parts.get(part, Flops(0, 0)) + found

    side = -(-input_size // 2)
    convolution(0, side, 7, 3, width, input_gradient=False)  # not with respect to the image
    side = _pooled(side, backbone.variant)
    channels = width
    for stage, size in enumerate(backbone.stage_sizes, start=1):
        inner = width * 2 ** (stage - 1)
        for block in range(size):
            number += 1
            before = side
            if block == 0 and stage > 1:
                side = -(-side // 2)
            reduced = side if VARIANTS[backbone.variant].stride_in_reduce else before
            first_to_train = number - 1 == frozen
            convolution(stage, reduced, 1, channels, inner, input_gradient=not first_to_train)
            convolution(stage, side, 3, inner, inner)
            convolution(stage, side, 1, inner, inner * expansion)
            if block == 0:
                projected = inner * expansion
                convolution(stage, side, 1, channels, projected, input_gradient=not first_to_train)
            channels = inner * expansion
    return parts


def _attention_layer(queries: int, memory: int, width: int, mlp_ratio: int) -> int:
    projections = 2 * (2 * queries + 2 * memory) * width * width
    scores_and_answers = 2 * 2 * queries * memory * width
    perceptron = 2 * 2 * queries * width * width * mlp_ratio
    return projections + scores_and_answers + perceptron
