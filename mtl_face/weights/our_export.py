"""Reads an export of this package as the start of another run: a whole network or a backbone."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.model.variants import VARIANTS, BackboneVariant
from mtl_face.weights import export
from mtl_face.weights.file_content import Entry, FileContent

_IN_TORCH_WORDS = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@contextlib.contextmanager
def open_export(path: Path) -> Iterator[FileContent]:
    """Opens what `run.py export` wrote.

    Args:
        path: a folder with a card, or the safetensors file in it.

    Yields:
        Its tensors in PyTorch's words; all are read, since the card has their hash.

    Raises:
        WeightsError: if it is damaged, no export, or one of a newer version.
    """
    variables, card = export.load(path)
    tensors = {}
    for name, array in export.flatten(variables).items():
        parts = name.split("/")[1:]
        parts[-1] = _IN_TORCH_WORDS.get(parts[-1], parts[-1])
        tensors[".".join(parts)] = Entry(name, array.shape, _reader(array))
    form = "folder" if path.is_dir() else "safetensors"
    yield FileContent(f"export of mtl_face ({form})", "ours", tensors, "HWIO", "rgb", card)


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
    return lambda: array
