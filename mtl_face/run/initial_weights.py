"""A run's initial weights: read and checked before anything is computed, placed before step 1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from mtl_face.config import Config
from mtl_face.run import workdir as workdirs
from mtl_face.training.state import TrainState
from mtl_face.weights import LoadedBackbone, load_backbone
from mtl_face.weights.describe import describe
from mtl_face.weights.pairing import check_pairing
from mtl_face.weights.resnet_names import Architecture


def load(config: Config, say: Callable[[str], None]) -> LoadedBackbone | None:
    """Reads `model.backbone.init_from` and checks that the network is built and fed for it.

    Args:
        config: the settings.
        say: prints a line.

    Returns:
        The weights; None if the run starts from random ones.

    Raises:
        WeightsError: if the file cannot be used, or not with these settings.
    """
    settings = config.model.backbone
    if settings.init_from is None:
        return None
    backbone = load_backbone(
        settings.init_from,
        variant=settings.variant,
        channel_order=None if settings.init_channels == "auto" else settings.init_channels,  # type: ignore[arg-type]
    )
    check_pairing(
        backbone,
        path=settings.init_from,
        variant=settings.variant,
        input_mean=config.model.input_mean,
        input_std=config.model.input_std,
        architecture=Architecture(settings.stage_sizes, settings.width, settings.expansion),
    )
    for line in describe(backbone, settings.init_from):
        say(line)
    return backbone


def load_early(config: Config, workdir: Path, say: Callable[[str], None]) -> LoadedBackbone | None:
    """`load`, unless the folder holds a run to go on with, which needs no initial weights.

    Called before the data are prepared, so that a wrong file costs seconds.
    """
    if (workdir / workdirs.CHECKPOINTS).is_dir():
        return None
    return load(config, say)


def place(state: TrainState, backbone: LoadedBackbone) -> TrainState:
    """Puts the weights in place of the backbone's random ones, where each array lies.

    Args:
        state: a fresh state.
        backbone: the weights, of the network's size.

    Returns:
        The state. Everything but the backbone is as it was.
    """
    network = {
        **state.params["network"],
        "backbone": _like(state.params["network"]["backbone"], backbone.params),
    }
    return state.replace(  # type: ignore[attr-defined]
        params={**state.params, "network": network},
        batch_stats={
            **state.batch_stats,
            "backbone": _like(state.batch_stats["backbone"], backbone.batch_stats),
        },
    )


def _like(leaves: Any, arrays: Any) -> Any:
    """The arrays with the types and placements of leaves of the same structure and shapes."""

    def one(leaf: jax.Array, array: Any) -> jax.Array:
        if leaf.shape != array.shape:
            raise ValueError(f"an array of shape {array.shape} in place of {leaf.shape}")
        values = array.astype(leaf.dtype)
        # Each process gives the parts that it holds; no traffic between them.
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: values[index])

    return jax.tree.map(one, leaves, arrays)
