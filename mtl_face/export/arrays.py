"""Exports as arrays, in two forms with the same arrays and the same card.

    DIR/params/             orbax: {"params": ..., "batch_stats": ...}
    DIR/model.safetensors   one file: tensors `params/...` and `batch_stats/...`, the card in its
                            metadata under `model_json`
    DIR/model.json          the card (`mtl_face.weights.card`)

Only the first form imports JAX and orbax.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_face import files, libraries
from mtl_face.errors import WorkdirError
from mtl_face.weights import card as cards
from mtl_face.weights import exported

Format = Literal["orbax", "safetensors"]

FORMATS: tuple[Format, ...] = ("orbax", "safetensors")


def save(
    folder: Path, variables: dict[str, Any], card: dict[str, Any], *, form: Format = "orbax"
) -> None:
    """Writes `params` and `batch_stats` with their card; the folder appears whole or not at all.

    An export that lies in the folder (absolute path) is replaced, anything else is refused. The
    card is from `card.make`; `tensors`, `weights_sha256` and the card's own hash are added here.

    Raises:
        WorkdirError: the folder holds something else or cannot be written.
        ExportError: an array holds a value that is not finite.
    """
    if folder.exists() and not _may_be_replaced(folder):
        raise WorkdirError(
            "holds something that is no export",
            path=folder,
            remedy="give a new or empty folder as output (--output)",
        )
    tensors = exported.flatten(variables)
    exported.check_finite(tensors, folder)
    card = completed(card, variables)
    text = json.dumps(card, indent=2)
    cards.parse(text, folder / cards.FILE)  # what is written can be read
    with files.replacing_folder(
        folder, otherwise="or choose another output (--output)"
    ) as temporary:
        if form == "orbax":
            _write_orbax(temporary / exported.PARAMS, variables)
        else:
            write_safetensors(temporary / exported.SAFETENSORS, tensors, {cards.KEY: text})
        (temporary / cards.FILE).write_text(text + "\n", encoding="utf-8")


def completed(card: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """A card from `card.make` with what it says of the arrays, and its hash."""
    return cards.sealed(
        {
            **card,
            "tensors": {
                name: {"shape": list(array.shape), "dtype": array.dtype.name}
                for name, array in exported.flatten(variables).items()
            },
            "weights_sha256": exported.weights_sha256(variables),
        }
    )


def write_safetensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Writes arrays bit for bit and forces them to the disk; raises OSError where that fails."""
    from safetensors.numpy import save

    # The package takes the memory as it lies: an array in another order would be scrambled.
    data = save(
        {name: np.asarray(array, order="C") for name, array in tensors.items()}, dict(metadata)
    )
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_orbax(folder: Path, variables: dict[str, Any]) -> None:
    import orbax.checkpoint as ocp

    libraries.quiet_orbax()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder, variables)
    except Exception:
        libraries.quiet_orbax(after_failure=True)
        raise


def _may_be_replaced(folder: Path) -> bool:
    """Whether a folder is empty or an export, and holds nothing of the user's."""
    if not folder.is_dir():
        return False
    names = {entry.name for entry in folder.iterdir()}
    return not names or names in (
        {exported.PARAMS, cards.FILE},
        {exported.SAFETENSORS, cards.FILE},
    )
