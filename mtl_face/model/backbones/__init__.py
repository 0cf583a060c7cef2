"""Backbones: from an image to a map of features, one module a family.

A module has a function `make(model, devices, name)`, which makes its network from the section
`model` of a config. Called with a normalised image [B, H, W, 3] and `train`, the network gives the
map [B, h, w, C] of the compute dtype.
"""

import types

import flax.linen as nn

from mtl_face.config import ModelConfig
from mtl_face.model.backbones import mobilenet, resnet

FAMILIES: dict[str, types.ModuleType] = {"resnet": resnet, "mobilenet": mobilenet}
"""Modules by `model.backbone.kind`."""


def make(model: ModelConfig, devices: int, *, name: str) -> nn.Module:
    """The backbone of the settings, whose training batch is split over `devices`.

    Raises:
        ValueError: the kind is unknown.
    """
    kind = model.backbone.kind
    if kind not in FAMILIES:
        raise ValueError(f"backbone.kind {kind!r} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[kind].make(model, devices, name)
