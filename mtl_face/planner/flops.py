"""Floating-point operations of the network, counted in closed form from its settings.

The count is of convolutions and matrix products, a multiplication and an addition as two. All else
(norms, activations, augmentation, loss, optimizer) comes to some percent and is left out, so a
compiler counts a little more for the same step. A product of the forward pass costs as much again
for each of its two gradients, with respect to its input and to its kernel, where these are needed.

Imports no JAX.
"""

import dataclasses
import itertools
from collections.abc import Iterator

from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.model.geometry import VARIANTS
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


@dataclasses.dataclass(frozen=True)
class _Product:
    part: str
    flops: int
    trains: bool = True
    input_gradient: bool = True

    def count(self) -> Flops:
        gradients = self.trains * (1 + self.input_gradient)
        return Flops(self.flops, self.flops * (1 + gradients))


def by_part(model: ModelConfig) -> dict[str, Flops]:
    """Operations of one image, by block.

    These are `stem`, `stage1` ..., `projection`, `encoder`, `decoder` and `heads`.
    """
    products = list(_backbone(model.input_size, model.backbone))
    backbone, width, ratio = model.backbone, model.embed_dim, model.mlp_ratio
    stages = len(backbone.stage_sizes)
    side = feature_side(model.input_size, variant=backbone.variant, stages=stages)
    patches = side * side
    channels = backbone.width * 2 ** (stages - 1) * backbone.expansion
    products.append(
        _Product(
            "projection",
            2 * patches * channels * width,
            input_gradient=backbone.frozen_stages < stages,
        )
    )
    tokens = len(TASKS)
    encoder = _attention_layer(patches, patches, width, ratio)
    products += [_Product("encoder", encoder)] * model.encoder_layers
    own = _attention_layer(tokens, tokens, width, ratio if model.decoder_mlp == "each" else 0)
    cross = _attention_layer(tokens, patches, width, ratio)
    products += [_Product("decoder", own + cross)] * model.decoder_modules
    for task in TASKS:
        widths = [width, *[model.head_width] * (model.head_layers - 1), OUTPUT_SIZES[task]]
        products += [_Product("heads", 2 * wide * out) for wide, out in itertools.pairwise(widths)]

    total: dict[str, Flops] = {}
    for product in products:
        total[product.part] = total.get(product.part, Flops(0, 0)) + product.count()
    return total


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


def _backbone(input_size: int, backbone: BackboneConfig) -> Iterator[_Product]:
    width, expansion = backbone.width, backbone.expansion
    frozen_stages = backbone.frozen_stages

    def convolution(part: str, side: int, kernel: int, wide: int, out: int) -> _Product:
        stage = 0 if part == "stem" else int(part.removeprefix("stage"))
        return _Product(
            part, 2 * side * side * kernel * kernel * wide * out, trains=stage > frozen_stages
        )

    side = -(-input_size // 2)
    # No gradient with respect to the image.
    stem = convolution("stem", side, 7, 3, width)
    yield dataclasses.replace(stem, input_gradient=False)
    side = _pooled(side, backbone.variant)
    channels = width
    for stage, size in enumerate(backbone.stage_sizes, start=1):
        part, inner = f"stage{stage}", width * 2 ** (stage - 1)
        for block in range(size):
            before = side
            if block == 0 and stage > 1:
                side = -(-side // 2)
            reduced = side if VARIANTS[backbone.variant].stride_in_reduce else before
            reduce = convolution(part, reduced, 1, channels, inner)
            project = convolution(part, side, 1, channels, inner * expansion)
            if block == 0 and stage - 1 == frozen_stages:
                reduce = dataclasses.replace(reduce, input_gradient=False)
                project = dataclasses.replace(project, input_gradient=False)
            yield reduce
            yield convolution(part, side, 3, inner, inner)
            yield convolution(part, side, 1, inner, inner * expansion)
            if block == 0:
                yield project
            channels = inner * expansion


def _attention_layer(queries: int, memory: int, width: int, mlp_ratio: int) -> int:
    projections = 2 * (2 * queries + 2 * memory) * width * width
    scores_and_answers = 2 * 2 * queries * memory * width
    perceptron = 2 * 2 * queries * width * width * mlp_ratio
    return projections + scores_and_answers + perceptron
