"""Settings of networks, with those of the backbone beside the others."""

import dataclasses
from pathlib import Path
from typing import Any

from mtl_face import config
from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.model.backbones.resnet import ResNet

_BACKBONE = {field.name for field in dataclasses.fields(BackboneConfig)}


def changed(model: ModelConfig, **changes: Any) -> ModelConfig:
    """The settings with some changed, of the backbone or of the rest."""
    own = {name: value for name, value in changes.items() if name not in _BACKBONE}
    backbone = {name: value for name, value in changes.items() if name in _BACKBONE}
    return dataclasses.replace(
        model, **own, backbone=dataclasses.replace(model.backbone, **backbone)
    )


PAPER = changed(ModelConfig(), convolution="xla")

TINY = changed(
    config.load(Path(__file__).parents[1] / "configs" / "rendered_faces.py").model,
    convolution="xla",
)


def resnet(
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3),
    width: int = 64,
    expansion: int = 4,
    variant: str = "caffe",
    **changes: Any,
) -> Any:
    """A backbone, ResNet50 by default."""
    changes = {"convolution": "xla"} | changes
    return ResNet(BackboneConfig(stage_sizes, width, expansion, variant, **changes))
