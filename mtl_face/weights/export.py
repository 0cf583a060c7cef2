"""Exported parameters: the network's arrays alone, with a card that says what they are.

DIR/params/       orbax: {"params": ..., "batch_stats": ...}, float32
DIR/model.json    the card: labels and their order, value ranges, input, settings, versions
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mtl_face.errors import WorkdirError
from mtl_face.weights import storage_errors

SCHEMA = 1
"""Version of the card; a reader refuses a newer one."""

PARAMS = "params"
CARD = "model.json"


def weights_sha256(variables: Any) -> str:
    """SHA-256 over the names, shapes and bytes of all arrays, in the order of their names."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        array = np.ascontiguousarray(leaf)
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(str((array.shape, array.dtype.str)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save(folder: Path, variables: dict[str, Any], card: dict[str, Any]) -> None:
    """Writes parameters and their card; the folder appears whole or not at all.

    Args:
        folder: absolute path; an export that lies there is replaced, anything else is refused.
        variables: `params` and `batch_stats` of the network.
        card: JSON values; `schema` and `weights_sha256` are added here.

    Raises:
        WorkdirError: if the folder holds something else or cannot be written.
    """
    storage_errors.quiet()
    if folder.exists() and not _may_be_replaced(folder):
        raise WorkdirError(
            "holds something that is no export",
            path=folder,
            remedy="give a new or empty folder as --output",
        )
    temporary = folder.with_name(folder.name + ".incomplete")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary / PARAMS, variables)
        text = json.dumps(
            {"schema": SCHEMA, **card, "weights_sha256": weights_sha256(variables)}, indent=2
        )
        (temporary / CARD).write_text(text + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except (OSError, ValueError) as error:
        reason = storage_errors.disk_failure(error)
        if reason is None:
            raise
        storage_errors.quiet_leftovers()
        raise WorkdirError(
            f"cannot be written: {reason}",
            path=folder,
            remedy="free some space, mend the permissions, or choose another --output",
        ) from error


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads an export onto this machine's default device.

    Args:
        folder: what `save` wrote.

    Returns:
        (variables, card): NumPy arrays as `params` and `batch_stats`, and the card.

    Raises:
        WorkdirError: if it is no export, is damaged, or was written by a newer version.
    """
    storage_errors.quiet()
    card_file = folder / CARD
    remedy = "give the folder that run.py export wrote"
    try:
        card = json.loads(card_file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WorkdirError(f"is no export: {error}", path=card_file, remedy=remedy) from error
    if not isinstance(card, dict) or not isinstance(card.get("schema"), int):
        raise WorkdirError("has no schema number", path=card_file, remedy=remedy)
    if card["schema"] > SCHEMA:
        raise WorkdirError(
            f"has schema {card['schema']}, this version reads up to {SCHEMA}",
            path=card_file,
            remedy="install a newer mtl_face",
        )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            path = folder.absolute() / PARAMS
            metadata = checkpointer.metadata(path).item_metadata.tree
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), metadata)
            variables = checkpointer.restore(path, like)
    except Exception as error:  # damaged files fail in whatever part of orbax meets them
        storage_errors.quiet_leftovers()
        raise WorkdirError(
            f"cannot be read: {storage_errors.first_words(error)}",
            path=folder / PARAMS,
            remedy="export it again",
        ) from error
    found = weights_sha256(variables)
    if found != card.get("weights_sha256"):
        raise WorkdirError(
            f"arrays hash to {found[:12]}..., the card says {str(card.get('weights_sha256'))[:12]}",
            path=folder,
            remedy="the files were changed or damaged; export again",
        )
    return variables, card


def _may_be_replaced(folder: Path) -> bool:
    """Whether a folder is empty or an export, and nothing of the user's lies in it."""
    if not folder.is_dir():
        return False
    names = {entry.name for entry in folder.iterdir()}
    return not names or names == {PARAMS, CARD}
