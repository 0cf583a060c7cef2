"""A run's initial weights: read and checked before anything is computed."""

from pathlib import Path

from mtl_face.config import Config
from mtl_face.run import Say
from mtl_face.run import workdir as workdirs
from mtl_face.weights import LoadedBackbone, load_backbone
from mtl_face.weights.backbone import check_settings, describe


def load(config: Config, say: Say) -> LoadedBackbone | None:
    """Reads `model.backbone.init_from`; None if unset, WeightsError if it does not fit."""
    settings = config.model.backbone
    if settings.init_from is None:
        return None
    backbone = load_backbone(
        settings.init_from,
        variant=settings.variant,
        channel_order=None if settings.init_channels == "auto" else settings.init_channels,  # type: ignore[arg-type]
    )
    check_settings(backbone, config.model, settings.init_from)
    for line in describe(backbone, settings.init_from):
        say(line)
    return backbone


def load_early(config: Config, workdir: Path, say: Say) -> LoadedBackbone | None:
    """`load`, unless the folder holds a run to go on with, which needs no initial weights.

    Called before the data are prepared, so that a wrong file costs seconds.
    """
    if (workdir / workdirs.CHECKPOINTS).is_dir():
        return None
    return load(config, say)
