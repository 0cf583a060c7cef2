"""Backbones: from an image to a map of features, one module a family.

A module has a function `make(model, devices, name)`, which makes its network from the section
`model` of a config. Called with a normalised image [B, H, W, 3] and `train`, the network gives the
map [B, h, w, C] of the compute dtype.

A function `block_number(settings, path)` says to which block a parameter belongs, from the keys of
its path inside the backbone: 0 is the stem (or embeddings), 1 to `settings.num_blocks` are the
blocks in their order; what comes after the last block belongs to it. Freezing, learning rates
(`layer_decay`) and stochastic depth go by these numbers.
"""

import types

import flax.linen as nn

from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.model.backbones import convnext, mobilenet, resnet, vit

FAMILIES: dict[str, types.ModuleType] = {
    "resnet": resnet,
    "mobilenet": mobilenet,
    "vit": vit,
    "convnext": convnext,
}
"""Modules by `model.backbone.kind`."""


def make(model: ModelConfig, devices: int, *, name: str) -> nn.Module:
    """The backbone of the settings, whose training batch is split over `devices`.

    Raises:
        ValueError: the kind is unknown.
    """
    return _family(model.backbone).make(model, devices, name)


def block_number(settings: BackboneConfig, path: tuple[str, ...]) -> int:
    """The block of a parameter, from its path inside the backbone.

    Raises:
        ValueError: the backbone has no such part, or its kind is unknown.
    """
    return _family(settings).block_number(settings, path)


def _family(settings: BackboneConfig) -> types.ModuleType:
    if settings.kind not in FAMILIES:
        raise ValueError(f"backbone.kind {settings.kind!r} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[settings.kind]
