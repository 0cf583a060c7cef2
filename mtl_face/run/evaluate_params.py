"""Evaluates exported parameters, without the folder of the run that made them."""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mtl_face import config as config_lib
from mtl_face.errors import ConfigError
from mtl_face.objective import uncertainty
from mtl_face.run import datasets, evaluate_run
from mtl_face.run import provenance as lineage
from mtl_face.run import workdir as workdirs
from mtl_face.run.session import Session, absolute, pixels, say
from mtl_face.training.state import TrainState, placed
from mtl_face.weights import differences, exported
from mtl_face.weights.card import ExportError


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Evaluates an export on the validation set that the config names.

    Args:
        config: the settings: a file's, or those of the export itself.
        options: `params`, `output`.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: no output was named.
        ExportError: the export cannot be read, or its network is not that of the config.
    """
    if options.output is None:
        raise ConfigError(
            "--params needs an --output", remedy="give --output=DIR, a folder for the results"
        )
    exported.read_card(options.params)  # before the data is read, which can take long
    root = datasets.ensure_data(config.data, say)
    table = datasets.load_split(config.data, root, "validation", say)
    session, state, provenance = restore(config, options.params)
    evaluate_run.evaluate_state(
        session,
        state,
        pixels(config, table, say),
        workdirs.make_folder(absolute(options.output)),
        provenance=provenance,
        history=[],
        say=say,
    )
    return 0


def restore(
    config: config_lib.Config, path: Path
) -> tuple[Session, TrainState, dict[str, Any] | None]:
    """Reads an export into a session.

    Args:
        config: the settings; their network is the export's.
        path: the export's folder or file.

    Returns:
        The session, a state without an optimizer's, and the provenance, None if none is recorded.

    Raises:
        ExportError: the export cannot be read, or its network is not that of the config.
    """
    variables, card = exported.load(path)
    _check_settings(config, card, path)
    session = Session(config)
    state = _state(session, variables, card, path)
    say(f"parameters of {path}, step {card['step']} of their run")
    recorded = card["provenance"]
    return session, state, None if recorded is None else lineage.amended(config, recorded)


def _check_settings(config: config_lib.Config, card: dict[str, Any], path: Path) -> None:
    found = differences.model(card, config_lib.to_dict(config)["model"])
    if found:
        raise ExportError(
            "is another network than that of the settings: " + "; ".join(found),
            path=path,
            remedy="leave --config out: the export knows its settings; change those of the data "
            "with --config.data.NAME=VALUE",
        )
    stored = card["input"]["stored_size"]
    if stored != config.data.image_size:
        say(
            f"note: it was trained on crops of {stored} pixels, these are read at "
            f"{config.data.image_size} (data.image_size)"
        )


def _state(
    session: Session, variables: dict[str, Any], card: dict[str, Any], path: Path
) -> TrainState:
    """The arrays where the session has them; nothing of an optimizer."""
    like = session.state_like
    expected = {"params": like.params["network"], "batch_stats": like.batch_stats}
    found = differences.tensors(
        exported.specification(variables),
        exported.specification(expected),
        expected_by="the network",
    )
    if found:
        raise ExportError(
            "does not fit the network of its settings: " + "; ".join(found),
            path=path,
            remedy="evaluate it with the version of mtl_face that exported it "
            f"({card['versions'].get('mtl_face', 'unknown')})",
        )

    arrays = jax.tree.map(placed, expected, variables)
    kind = session.config.uncertainty.kind
    return like.replace(  # type: ignore[attr-defined]
        step=jnp.int32(card["step"]),
        params={
            "network": arrays["params"],
            "uncertainty": uncertainty.init_uncertainty(kind, card["temperatures"]),
        },
        batch_stats=arrays["batch_stats"],
    )
