"""Reads exports: a network's arrays, and the card that says what they are.

`mtl_face.export` writes them, in two forms (see there); both are read, and those of every older
version. An export is also a file of initial weights, see `content`. JAX and orbax are imported for
the orbax form alone.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face import files, libraries
from mtl_face.config.dotted import of_export
from mtl_face.errors import shortened
from mtl_face.model.geometry import MOBILENET, VARIANTS, BackboneVariant
from mtl_face.weights import card as cards
from mtl_face.weights import safetensors_file
from mtl_face.weights.card import ExportError
from mtl_face.weights.families.resnet_in_file import BATCH_NORM
from mtl_face.weights.file_content import Budget, Entry, FileContent, first_bytes, words_of
from mtl_face.weights.programs import interface, onnx_file, stablehlo_file

FRAMES = "frames"
"""Name of the arrays of the network of frames among those of a network over time that reads it."""

PARAMS = "params"
"""Folder of the arrays in an export of the orbax form."""

SAFETENSORS = "model.safetensors"
"""File of the arrays in an export of the safetensors form."""

Specification = Mapping[str, tuple[tuple[int, ...], str]]
"""Shape and name of the dtype of each tensor, by its name."""

_COLLECTIONS = ("params", "batch_stats")

_IN_TORCH_WORDS = {"kernel": "weight", **{ours: theirs for _, ours, theirs in BATCH_NORM}}

_COPY_AGAIN = "copy it again from where it came, or export again"


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


def specification(variables: Mapping[str, Any]) -> Specification:
    """Shape and dtype of each leaf, by the same names; leaves may be arrays or their shapes."""
    return {
        "/".join(keys): (tuple(leaf.shape), np.dtype(leaf.dtype).name)
        for keys, leaf in _leaves(variables)
    }


def tensor_differences(
    found: Specification, expected: Specification, *, expected_by: str
) -> list[str]:
    """How tensors differ from what `expected_by` ("the card", say) says, a line a tensor."""

    def words(tensor: tuple[tuple[int, ...], str] | None) -> str:
        return "absent" if tensor is None else f"{tensor[1]} {list(tensor[0])}"[:80]

    lines = [
        f"{name:.100} is {words(found.get(name))}, {expected_by} says {words(expected.get(name))}"
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]
    return shortened(lines, 5)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads an export, by its folder or its safetensors file, and checks it against its card.

    Returns:
        (variables, card): NumPy arrays as `params` and `batch_stats`, bit for bit as they were
        saved, and the card as of this version's schema.

    Raises:
        ExportError: it is no export, was written by a newer version, has other labels than this
            version, lacks a tensor or has one too many, has one of another shape, holds a value
            that is not finite, or is damaged.
    """
    path = Path(path)
    if is_program(path):
        raise ExportError(
            "is a program, whose arrays belong to it",
            path=path,
            remedy="give the run or the export that it was made of",
        )
    card, file = _find(path)
    place = file or path / PARAMS
    tensors = safetensors_file.read(file)[0] if file else flatten(_load_orbax(place))
    if card["tensors"] is not None:  # an older schema lists none
        listed = {
            name: (tuple(one["shape"]), one["dtype"]) for name, one in card["tensors"].items()
        }
        wrong = tensor_differences(specification(tensors), listed, expected_by="the card")
        if wrong:
            raise ExportError(
                "does not hold what its card lists: " + "; ".join(wrong),
                path=place,
                remedy=_COPY_AGAIN,
            )
    check_finite(tensors, place)
    variables = nest(tensors, place)
    found = weights_sha256(variables)
    if found != card["weights_sha256"]:
        raise ExportError(
            f"arrays hash to {found[:12]}..., the card says {card['weights_sha256'][:12]}",
            path=path,
            remedy="the files were changed or damaged; export again",
        )
    return variables, card


def split_frames(variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays of a network over time without, and those of, the network of frames that it reads."""
    own = {
        collection: {name: arrays for name, arrays in tree.items() if name != FRAMES}
        for collection, tree in variables.items()
    }
    return own, {collection: tree.get(FRAMES, {}) for collection, tree in variables.items()}


def together(own: Mapping[str, Any], frames: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `split_frames`."""
    return {
        collection: {**tree, **({FRAMES: frames[collection]} if frames[collection] else {})}
        for collection, tree in own.items()
    }


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the card alone, as of this version's schema: fast, without a heavy library.

    Raises:
        ExportError: `path` is no export, or its card cannot be used.
    """
    path = Path(path)
    if onnx_file.is_one(path):
        return onnx_file.read(path).card
    if stablehlo_file.is_one(path):
        _, card = stablehlo_file.read(path)
        interface.check_card(card, path)
        return card
    return _find(path)[0]


def is_program(path: Path) -> bool:
    """Whether a file holds a program, from crops to answers, of either format."""
    return onnx_file.is_one(path) or stablehlo_file.is_one(path)


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of an export, nested, without those that only training uses.

    Those of a program are what it does: the side of its crops, and no samples of dropout.

    Raises:
        ExportError: as `read_card`.
    """
    card = read_card(path)
    values = of_export(card["config"])
    if (about := card.get(interface.WHOLE_WAY)) is not None:
        values["data"] = {**values["data"], "image_size": about["crop_size"]}
        values["evaluation"] = {**values["evaluation"], "mc_dropout_samples": 0}
        if about.get("calibration") is not None:  # it is inside
            values["evaluation"]["calibration"] = None
    return values


def content(path: Path) -> FileContent:
    """An export as a file of initial weights, in PyTorch's words; all read, to check their hash.

    Raises:
        WeightsError: as `load`.
    """
    variables, card = load(path)
    if card["frames"] is not None:  # of a network over time nothing else is of use elsewhere
        (_, variables), card = split_frames(variables), card["frames"]
    tensors = {}
    for name, array in flatten(variables).items():
        parts = name.split("/")[1:]
        parts[-1] = _IN_TORCH_WORDS.get(parts[-1], parts[-1])
        tensors[".".join(parts)] = Entry.of(name, array)
    form = "folder" if path.is_dir() else "safetensors"
    return FileContent(f"export of mtl_face ({form})", "ours", tensors, "HWIO", "rgb", card)


def backbone_variant(card: Mapping[str, Any]) -> BackboneVariant:
    """The geometry of an export's backbone, with the input that its card states, in RGB."""

    def colours(entry: str) -> tuple[float, float, float]:
        red, green, blue = map(float, card["input"][entry])
        return red, green, blue

    backbone = card["config"]["model"]["backbone"]
    return dataclasses.replace(
        VARIANTS[backbone["variant"]]
        if backbone["kind"] == "resnet"
        else dataclasses.replace(MOBILENET, name=backbone["kind"]),
        input_mean=colours("mean"),
        input_std=colours("std"),
        channel_order="rgb",
    )


def check_finite(tensors: Mapping[str, NDArray[Any]], place: Path) -> None:
    """Raises ExportError if an array of the export at `place` holds a value that is not finite."""
    wrong = [
        f"{name} ({np.count_nonzero(~np.isfinite(array))} of {array.size} values)"
        for name, array in tensors.items()
        if not np.isfinite(array).all()
    ]
    if wrong:
        raise ExportError(
            f"holds values that are not finite: {', '.join(shortened(wrong, 1))}",
            path=place,
            remedy="such weights predict nothing; export a sound checkpoint",
        )


def _find(path: Path) -> tuple[dict[str, Any], Path | None]:
    """The card, and the safetensors file if the export is one."""
    # Not `Path.is_file`, which raises for names that are too long.
    file = path if os.path.isfile(path) else path / SAFETENSORS
    if not os.path.isfile(file):
        card_file = path / cards.FILE
        try:
            text = card_file.read_bytes()
        except OSError as error:
            raise ExportError(
                f"is no export: {error.strerror}", path=card_file, remedy=cards.GIVE_AN_EXPORT
            ) from error
        return cards.parse(text, card_file), None
    start = first_bytes(file, ExportError)
    if not safetensors_file.begins_one(start):
        raise ExportError(
            f"is neither a run nor an export: it begins with {words_of(start)}",
            path=file,
            remedy="give the folder of a run, or what `run.py export` wrote: its folder, or its "
            f"{SAFETENSORS}",
        )
    metadata = safetensors_file.read_metadata(file)
    if cards.KEY not in metadata:
        raise ExportError(
            f"is a safetensors file without a card (metadata `{cards.KEY}`), so no export",
            path=file,
            remedy="give what `run.py export --format=safetensors` wrote",
        )
    card = cards.parse(metadata[cards.KEY], file)
    if file.name == SAFETENSORS:
        _require_same(metadata[cards.KEY], file.with_name(cards.FILE))
    return card, file


def _require_same(card: str, beside: Path) -> None:
    """Raises ExportError if another card lies beside a safetensors file than that inside it."""
    try:
        same = json.loads(beside.read_bytes()) == json.loads(card)
    except FileNotFoundError:
        return  # the file is an export without it
    except OSError as error:
        problem, remedy = files.unreadable(error, "card")
        raise ExportError(problem, path=beside, remedy=remedy) from error
    except ValueError:  # no JSON, or no UTF-8
        same = False
    if not same:
        raise ExportError(
            f"is not the card that lies inside {SAFETENSORS}, which counts",
            path=beside,
            remedy=f"{_COPY_AGAIN}; or delete this file, {SAFETENSORS} is enough",
        )


def _leaves(tree: Mapping[str, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """(keys, array) of every leaf, sorted by key at each level as JAX does."""
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping):
            yield from _leaves(value, (*keys, key))
        else:
            yield (*keys, key), value


def nest(tensors: Mapping[str, NDArray[Any]], file: Path) -> dict[str, Any]:
    """`params` and `batch_stats` of arrays by name: what `flatten` undoes.

    Raises:
        ExportError: a name fits in neither; `file` holds it.
    """
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


def _load_orbax(folder: Path) -> dict[str, Any]:
    import jax
    import orbax.checkpoint as ocp

    libraries.quiet_orbax()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            path = folder.absolute()
            metadata = checkpointer.metadata(path).item_metadata.tree
            budget = Budget(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))
            for leaf in jax.tree.leaves(metadata):
                budget.take(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize)
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), metadata)
            return checkpointer.restore(path, like)
    except Exception as error:  # damaged files fail in whatever part of orbax meets them
        libraries.quiet_orbax(after_failure=True)
        raise ExportError(
            f"cannot be read: {files.first_words(error)}", path=folder, remedy=_COPY_AGAIN
        ) from error
