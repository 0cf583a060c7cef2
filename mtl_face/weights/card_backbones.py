"""How the backbones compute, as a card states it: their layers, from a normalised image to tokens.

The numbers come from the modules of the network. No heavy library is imported.
"""

from collections.abc import Callable, Iterator
from typing import Any

from mtl_face.config import ModelConfig
from mtl_face.config.schema import VitConfig
from mtl_face.model.conventions import (
    COLUMN,
    LAYER_NORM_EPSILON,
    LONGEST_WAVE,
    QUICK_GELU_SLOPE,
    ROW,
    attention_scale,
)
from mtl_face.model.geometry import (
    CONVNEXT_KERNEL,
    CONVNEXT_STEM,
    MOBILENET,
    MOBILENET_RANGE,
    POOL_STRIDE,
    POOL_WINDOW,
    SPATIAL_PADDING,
    STAGE_STRIDE,
    STEM_KERNEL,
    STEM_STRIDE,
    VARIANTS,
    convnext_blocks,
    mobilenet_layers,
    padded,
    residual_blocks,
)

Layers = list[dict[str, Any]]

_PATCHES = {"layer": "patches", "order": [ROW, COLUMN]}


def _resnet(model: ModelConfig) -> Iterator[dict[str, Any]]:
    """The layers of `mtl_face.model.backbones.resnet`."""
    variant = VARIANTS[model.backbone.variant]
    epsilon = variant.batch_norm_epsilon

    def normalised(prefix: str, number: str, stride: int, padding: tuple[int, int]) -> Layers:
        convolution, norm = (
            ("proj", "proj_bn")
            if number == "proj"
            else (
                f"conv{number}",
                f"bn{number}",
            )
        )
        return [
            _convolution(f"{prefix}/{convolution}", stride, padding),
            {"layer": "batch_norm", "name": f"{prefix}/{norm}", "epsilon": epsilon},
        ]

    relu = {"layer": "relu"}
    size = model.input_size
    padding = padded(variant.conv1_padding, size, STEM_KERNEL, STEM_STRIDE)
    yield from normalised("backbone", "1", STEM_STRIDE, padding)
    yield relu
    size = (size + sum(padding) - STEM_KERNEL) // STEM_STRIDE + 1
    padding = padded(variant.pool_padding, size, POOL_WINDOW, POOL_STRIDE)
    yield {
        "layer": "max_pool",
        "window": POOL_WINDOW,
        "stride": POOL_STRIDE,
        "padding": padding,
    }
    around = (SPATIAL_PADDING, SPATIAL_PADDING)
    for block in residual_blocks(model.backbone):
        name = f"backbone/{block.name}"
        reduce_stride, spatial_stride = variant.strides(block.stride)
        yield {
            "layer": "residual",
            "branch": [
                *normalised(name, "1", reduce_stride, (0, 0)),
                relu,
                *normalised(name, "2", spatial_stride, around),
                relu,
                *normalised(name, "3", 1, (0, 0)),
            ],
            "shortcut": normalised(name, "proj", block.stride, (0, 0)) if block.project else [],
        }
        yield relu
    yield _PATCHES


def _mobilenet(model: ModelConfig) -> Iterator[dict[str, Any]]:
    """The layers of `mtl_face.model.backbones.mobilenet`."""
    size, (low, high) = model.input_size, MOBILENET_RANGE
    for layer in mobilenet_layers(model.backbone):
        padding = padded(MOBILENET.conv1_padding, size, layer.kernel, layer.stride)
        size = (size + sum(padding) - layer.kernel) // layer.stride + 1
        groups = layer.channels if layer.depthwise else 1
        yield _convolution(f"backbone/{layer.name}", layer.stride, padding, groups)
        yield {"layer": "clip", "minimum": low, "maximum": high}
    yield _PATCHES


def _vit(model: ModelConfig) -> Iterator[dict[str, Any]]:
    """The layers of `mtl_face.model.backbones.vit`."""
    vit = model.backbone.vit
    yield _convolution("backbone/patch", vit.patch, (0, 0))
    yield _PATCHES
    if vit.positions == "learned":
        yield {"layer": "add", "name": "backbone/position"}
    elif vit.positions == "sincos":
        yield {
            "layer": "add_code",
            "parts": [{"counts": each, "channels": vit.width // 2} for each in (COLUMN, ROW)],
            "longest_wave": LONGEST_WAVE,
            "first": "sin",
            "last": "cos",
        }
    ahead = ["backbone/class_token"] if vit.class_token else []
    ahead += ["backbone/registers"] if vit.registers else []
    prefix = vit.class_token + vit.registers
    if ahead:
        yield {"layer": "tokens_before", "names": ahead}
    if vit.pre_norm:
        yield layer_norm("backbone/pre_norm", vit.norm_epsilon)
    for number in range(1, vit.depth + 1):
        yield from _vit_block(vit, f"backbone/block{number}", prefix)
    if prefix:
        yield {"layer": "without_first", "count": prefix}
    if vit.final_norm:
        yield layer_norm("backbone/norm", vit.norm_epsilon)


def _vit_block(vit: VitConfig, name: str, prefix: int) -> Iterator[dict[str, Any]]:
    """A block of a vision transformer, with `prefix` tokens before the patches."""
    attention: dict[str, Any] = {
        "layer": "attention",
        "name": f"{name}/attention",
        "memory": "self",
        "heads": vit.num_heads,
        "scale": attention_scale(vit.width, vit.num_heads),
    }
    if vit.positions == "rotary":
        attention["rotary"] = {"base": vit.rotary_base, "skip": prefix}
    activation: dict[str, Any] = {"layer": vit.activation}
    if vit.activation == "quick_gelu":
        activation["slope"] = QUICK_GELU_SLOPE
    hidden: Layers = [{"layer": "dense", "name": f"{name}/mlp/hidden"}, activation]
    if vit.gated_mlp:
        gate: Layers = [{"layer": "dense", "name": f"{name}/mlp/gate"}, {"layer": "silu"}]
        hidden = [{"layer": "gated", "gate": gate, "branch": hidden[:1]}]
    perceptron = [*hidden, {"layer": "dense", "name": f"{name}/mlp/out"}]
    for branch, layers in (("attention", [attention]), ("mlp", perceptron)):
        scaled = [{"layer": "scale", "name": f"{name}/{branch}_scale"}] if vit.layer_scale else []
        yield {
            "layer": "residual",
            "branch": [layer_norm(f"{name}/{branch}_norm", vit.norm_epsilon), *layers, *scaled],
            "shortcut": [],
        }


def _convnext(model: ModelConfig) -> Iterator[dict[str, Any]]:
    """The layers of `mtl_face.model.backbones.convnext`."""
    settings = model.backbone.convnext

    def norm(name: str) -> dict[str, Any]:
        return layer_norm(f"backbone/{name}", LAYER_NORM_EPSILON)

    yield _convolution("backbone/stem", CONVNEXT_STEM, (0, 0))
    yield norm("stem_norm")
    for block in convnext_blocks(settings):
        if block.downsamples:
            yield norm(f"stage{block.stage}_downsample_norm")
            yield _convolution(f"backbone/stage{block.stage}_downsample", STAGE_STRIDE, (0, 0))
        name, around = f"backbone/{block.name}", (CONVNEXT_KERNEL // 2,) * 2
        branch: Layers = [
            _convolution(f"{name}/depthwise", 1, around, block.channels),
            norm(f"{block.name}/norm"),
            {"layer": "dense", "name": f"{name}/hidden"},
            {"layer": "gelu"},
        ]
        if settings.global_response_norm:
            branch.append(
                {
                    "layer": "global_response_norm",
                    "name": f"{name}/grn",
                    "epsilon": LAYER_NORM_EPSILON,
                }
            )
        branch.append({"layer": "dense", "name": f"{name}/out"})
        if settings.layer_scale:
            branch.append({"layer": "scale", "name": f"{name}/layer_scale"})
        yield {"layer": "residual", "branch": branch, "shortcut": []}
    if settings.final_norm:
        yield norm("norm")
    yield _PATCHES


LAYERS: dict[str, Callable[[ModelConfig], Iterator[dict[str, Any]]]] = {
    "resnet": _resnet,
    "mobilenet": _mobilenet,
    "vit": _vit,
    "convnext": _convnext,
}
"""By `model.backbone.kind`."""


def layer_norm(name: str, epsilon: float) -> dict[str, Any]:
    """A layer norm over the channels."""
    return {"layer": "layer_norm", "name": name, "epsilon": epsilon}


def _convolution(
    name: str, stride: int, padding: tuple[int, int], groups: int = 1
) -> dict[str, Any]:
    return {
        "layer": "convolution",
        "name": name,
        "stride": stride,
        "padding": padding,
        "groups": groups,
    }
