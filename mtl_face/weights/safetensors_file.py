"""Named arrays in a safetensors file: written, read, and told what ails a damaged one.

The layout of such a file is 8 bytes with the length of a JSON header, the header, and the arrays'
bytes one after another. The header is read here by hand, so that a card can be had without any
library and so that damage is named; the arrays are read by the `safetensors` package.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.weights.card import ExportError

_METADATA = "__metadata__"
_REMEDY = "copy the file again from where it came, or export again"
_LONGEST_HEADER = 100 * 2**20


def write(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Writes arrays, bit for bit, and forces them to the disk.

    Args:
        path: the file; replaced if it exists.
        tensors: arrays by name.
        metadata: texts by name.

    Raises:
        OSError: if it cannot be written.
    """
    from safetensors.numpy import save

    # The package takes the memory as it lies: an array in another order would be scrambled.
    data = save(
        {name: np.asarray(array, order="C") for name, array in tensors.items()}, dict(metadata)
    )
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Reads arrays and metadata.

    Args:
        path: the file.

    Returns:
        (tensors, metadata), each by name.

    Raises:
        ExportError: if it cannot be read, is cut off or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    metadata = read_metadata(path)
    try:
        return dict(load_file(path)), metadata
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ExportError(f"is damaged: {error}", path=path, remedy=_REMEDY) from error


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the texts of a file's header, and checks that the file is as long as the header says.

    Args:
        path: the file.

    Returns:
        Texts by name.

    Raises:
        ExportError: if it cannot be read, is no safetensors file, is cut off or has a damaged
            header.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            header = file.read(length) if length <= min(size - 8, _LONGEST_HEADER) else None
    except OSError as error:
        raise ExportError(
            f"cannot be read: {error.strerror}", path=path, remedy="check the path"
        ) from error
    if start == b"version ":
        raise ExportError(
            "is a pointer of Git LFS, not the file itself",
            path=path,
            remedy="fetch the file with `git lfs pull`",
        )
    if len(start) < 8:
        raise ExportError(f"is cut off: it holds {size} bytes", path=path, remedy=_REMEDY)
    if header is None:
        raise ExportError(
            f"is no safetensors file, or cut off: its header would have {length} bytes, "
            f"the file has {size}",
            path=path,
            remedy=_REMEDY,
        )
    try:
        entries = json.loads(header)
        metadata = entries.pop(_METADATA, {})
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if not all(isinstance(text, str) for text in metadata.values()):
            raise TypeError("metadata that are no text")
        surplus = size - 8 - length - end
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ExportError(f"has a damaged header: {error}", path=path, remedy=_REMEDY) from error
    if surplus:
        problem = "is cut off" if surplus < 0 else "has bytes after its end"
        raise ExportError(
            f"{problem}: its header promises {end} bytes of arrays, it holds {end + surplus}",
            path=path,
            remedy=_REMEDY,
        )
    return metadata
