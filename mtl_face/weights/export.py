"""Exported parameters: the network's arrays alone, with a card that says what they are.

Two forms, with the same arrays and the same card (`mtl_face.weights.card`):

    DIR/params/             orbax: {"params": ..., "batch_stats": ...}
    DIR/model.safetensors   one file: tensors `params/...` and `batch_stats/...`, the card in its
                            metadata; safetensors and numpy alone can read it
    DIR/model.json          the card

JAX is imported only for the first.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WorkdirError
from mtl_face.weights import card as cards
from mtl_face.weights import differences, safetensors_file, storage_errors
from mtl_face.weights.card import ExportError

Format = Literal["orbax", "safetensors"]

FORMATS: tuple[Format, ...] = ("orbax", "safetensors")

PARAMS = "params"
"""Folder of the arrays in an export of the orbax form."""

SAFETENSORS = "model.safetensors"
"""File of the arrays in an export of the safetensors form."""

_COLLECTIONS = ("params", "batch_stats")


def weights_sha256(variables: Mapping[str, Any]) -> str:
    """SHA-256 over the names, shapes and bytes of all arrays, in the order of their names."""
    digest = hashlib.sha256()
    for keys, leaf in _leaves(variables):
        array = np.ascontiguousarray(leaf)
        digest.update("".join(f"[{key!r}]" for key in keys).encode())
        digest.update(str((array.shape, array.dtype.str)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def flatten(variables: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Nested arrays as NumPy arrays by name, the parts joined by `/`: `params/head_va/bias`."""
    return {"/".join(keys): np.asarray(leaf) for keys, leaf in _leaves(variables)}


def specification(variables: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each leaf, by the same names; leaves may be arrays or their shapes."""
    return {
        "/".join(keys): (tuple(leaf.shape), np.dtype(leaf.dtype).name)
        for keys, leaf in _leaves(variables)
    }


def save(
    folder: Path, variables: dict[str, Any], card: dict[str, Any], *, form: Format = "orbax"
) -> None:
    """Writes parameters and their card; the folder appears whole or not at all.

    Args:
        folder: absolute path; an export that lies there is replaced, anything else is refused.
        variables: `params` and `batch_stats` of the network.
        card: from `card.make`; `tensors` and `weights_sha256` are added here.
        form: one of `FORMATS`.

    Raises:
        WorkdirError: if the folder holds something else or cannot be written.
        ExportError: if an array holds a value that is not finite.
    """
    if folder.exists() and not _may_be_replaced(folder):
        raise WorkdirError(
            "holds something that is no export",
            path=folder,
            remedy="give a new or empty folder as --output",
        )
    tensors = flatten(variables)
    _check_finite(tensors, folder)
    card = {
        **card,
        "tensors": {
            name: {"shape": list(array.shape), "dtype": array.dtype.name}
            for name, array in tensors.items()
        },
        "weights_sha256": weights_sha256(variables),
    }
    text = json.dumps(card, indent=2)
    cards.parse(text, folder / cards.FILE)  # what is written can be read
    temporary = folder.with_name(folder.name + ".incomplete")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if form == "orbax":
            _save_orbax(temporary / PARAMS, variables)
        else:
            safetensors_file.write(temporary / SAFETENSORS, tensors, {cards.KEY: text})
        (temporary / cards.FILE).write_text(text + "\n", encoding="utf-8")
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


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads an export of either form, and checks it against its card.

    Args:
        path: the folder that `save` wrote, or the safetensors file in it.

    Returns:
        (variables, card): NumPy arrays as `params` and `batch_stats`, bit for bit as they were
        saved, and the card as of this version's schema.

    Raises:
        ExportError: if it is no export, was written by a newer version, has other labels than
            this version, lacks a tensor or has one too many, has one of another shape, holds a
            value that is not finite, or is damaged.
    """
    path = Path(path)
    card, file = _find(path)
    if file is None:
        variables = _load_orbax(path / PARAMS)
        tensors = flatten(variables)
    else:
        tensors = safetensors_file.read(file)[0]
    place = file or path / PARAMS
    _check_against_card(tensors, card, place)
    _check_finite(tensors, place)
    if file is not None:
        variables = _nested(tensors, file)
    found = weights_sha256(variables)
    if found != card["weights_sha256"]:
        raise ExportError(
            f"arrays hash to {found[:12]}..., the card says {card['weights_sha256'][:12]}",
            path=path,
            remedy="the files were changed or damaged; export again",
        )
    return variables, card


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the card of an export alone, which takes no time and no heavy library.

    Args:
        path: as for `load`.

    Returns:
        The card as of this version's schema.

    Raises:
        ExportError: if it is no export, or its card cannot be used.
    """
    return _find(Path(path))[0]


def _find(path: Path) -> tuple[dict[str, Any], Path | None]:
    """The card, and the safetensors file if the export is one."""
    # Not `Path.is_file`, which raises for names that are too long.
    file = path / SAFETENSORS if os.path.isfile(path / SAFETENSORS) else None
    if os.path.isfile(path):
        file = path
    if file is None:
        card_file = path / cards.FILE
        try:
            text = card_file.read_bytes()
        except OSError as error:
            raise ExportError(
                f"is no export: {error.strerror}",
                path=card_file,
                remedy="give what `run.py export` wrote: its folder, or its model.safetensors",
            ) from error
        return cards.parse(text, card_file), None
    metadata = safetensors_file.read_metadata(file)
    if cards.KEY not in metadata:
        raise ExportError(
            f"is a safetensors file without a card (metadata `{cards.KEY}`), so no export",
            path=file,
            remedy="give what `run.py export --format=safetensors` wrote",
        )
    return cards.parse(metadata[cards.KEY], file), file


def _check_against_card(
    tensors: Mapping[str, NDArray[Any]], card: Mapping[str, Any], place: Path
) -> None:
    listed = differences.listed_tensors(card)
    if listed is None:
        return
    found = differences.tensors(specification(tensors), listed, expected_by="the card")
    if found:
        raise ExportError(
            "does not hold what its card lists: " + "; ".join(found),
            path=place,
            remedy="copy it again from where it came, or export again",
        )


def _check_finite(tensors: Mapping[str, NDArray[Any]], place: Path) -> None:
    wrong = [
        f"{name} ({np.count_nonzero(~np.isfinite(array))} of {array.size} values)"
        for name, array in tensors.items()
        if not np.isfinite(array).all()
    ]
    if wrong:
        others = f" and {len(wrong) - 1} more tensors" if len(wrong) > 1 else ""
        raise ExportError(
            f"holds values that are not finite: {wrong[0]}{others}",
            path=place,
            remedy="such weights predict nothing; export a sound checkpoint",
        )


def _leaves(tree: Mapping[str, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """(keys, array) of every leaf, sorted by key at each level as JAX does."""
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping):
            yield from _leaves(value, (*keys, key))
        else:
            yield (*keys, key), value


def _nested(tensors: Mapping[str, NDArray[Any]], file: Path) -> dict[str, Any]:
    variables: dict[str, Any] = {name: {} for name in _COLLECTIONS}
    for name, array in tensors.items():
        collection, *folders = name.split("/")
        *folders, leaf = folders or [""]
        node: Any = variables.get(collection)
        for folder in folders:
            node = node.setdefault(folder, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict) or leaf in node or not leaf:
            raise ExportError(
                f"holds a tensor named {name}, which fits nowhere in `params` and `batch_stats`",
                path=file,
                remedy="export again",
            )
        node[leaf] = array
    return variables


def _save_orbax(folder: Path, variables: dict[str, Any]) -> None:
    import orbax.checkpoint as ocp

    storage_errors.quiet()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, variables)


def _load_orbax(folder: Path) -> dict[str, Any]:
    import jax
    import orbax.checkpoint as ocp

    storage_errors.quiet()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            path = folder.absolute()
            metadata = checkpointer.metadata(path).item_metadata.tree
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), metadata)
            return checkpointer.restore(path, like)
    except Exception as error:  # damaged files fail in whatever part of orbax meets them
        storage_errors.quiet_leftovers()
        raise ExportError(
            f"cannot be read: {storage_errors.first_words(error)}",
            path=folder,
            remedy="copy it again from where it came, or export again",
        ) from error


def _may_be_replaced(folder: Path) -> bool:
    """Whether a folder is empty or an export, and nothing of the user's lies in it."""
    if not folder.is_dir():
        return False
    names = {entry.name for entry in folder.iterdir()}
    return not names or names in ({PARAMS, cards.FILE}, {SAFETENSORS, cards.FILE})
