"""Reads an export of this package as the start of another run: a whole network or a backbone."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.model.variants import VARIANTS, BackboneVariant
from mtl_face.weights.file_content import Entry, FileContent

CARD = "model.json"
"""In an export's folder: what it is."""

SAFETENSORS = "model.safetensors"
"""In an export's folder, of the form that has one: the arrays, and the card again."""

_IN_TORCH_WORDS = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[FileContent]:
    """Opens what `run.py export` wrote.

    Args:
        path: a folder with a card.

    Yields:
        Its tensors.

    Raises:
        UserError: if it is damaged or no export.
    """
    from mtl_face.weights import export  # imports JAX, which the other formats do without

    variables, card = export.load(path)
    tensors = {name: Entry(name, array.shape, _reader(array)) for name, array in _flat(variables)}
    yield content("export of mtl_face (folder)", tensors, card, path)


def content(format_name: str, tensors: dict[str, Entry], card: Any, path: Path) -> FileContent:
    """The tensors of an export in PyTorch's words.

    Args:
        format_name: the format in words.
        tensors: by the names `params/.../kernel` and `batch_stats/.../mean`.
        card: what came with them.
        path: the file or folder, for messages.

    Returns:
        The content.

    Raises:
        WeightsError: if the card is none.
    """
    if not isinstance(card, dict):
        raise WeightsError("its card is no object", path=path, remedy="export it again")
    renamed = {}
    for name, entry in tensors.items():
        parts = name.split("/")[1:]
        parts[-1:] = [_IN_TORCH_WORDS.get(part, part) for part in parts[-1:]]
        renamed[".".join(parts)] = entry
    return FileContent(format_name, "ours", renamed, "HWIO", "rgb", card)


def variant(card: dict[str, Any], path: Path) -> BackboneVariant:
    """The geometry and the input of an export's backbone.

    Args:
        card: the card.
        path: the file or folder, for messages.

    Returns:
        A known geometry with the input that the card states, in RGB.

    Raises:
        WeightsError: if the card does not say them.
    """
    try:
        name = card["config"]["model"]["backbone"]["variant"]
        mean, std = (tuple(map(float, card["input"][field])) for field in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError("input.mean and input.std need three numbers")
        return dataclasses.replace(
            VARIANTS[name], input_mean=mean, input_std=std, channel_order="rgb"
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"its card does not say the backbone's variant and input: {error}",
            path=path,
            remedy="export it again from its run",
        ) from error


def _reader(array: NDArray[Any]) -> Callable[[], NDArray[Any]]:
    return lambda: np.asarray(array)


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
