"""Reads safetensors files: exports whole, and the tensors of others one by one.

Such a file is 8 bytes with the length of a JSON header, the header, and the arrays' bytes one after
another. `read_metadata` parses the header itself: it needs no library, and names the damage. The
`safetensors` package reads the arrays.
"""

import contextlib
import functools
import json
import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mtl_face.weights.card import ExportError
from mtl_face.weights.file_content import Entry, FileContent, damaged

_REMEDY = "copy the file again from where it came, or export again"
_LONGEST_HEADER = 100 * 2**20


def open_tensors(path: Path, stack: contextlib.ExitStack) -> tuple[FileContent, dict[str, str]]:
    """Opens a file as one of PyTorch's tensors until `stack` closes; returns its metadata too.

    Raises:
        WeightsError: it is damaged.
    """
    import safetensors

    try:
        file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
        tensors = {
            name: Entry(
                name,
                tuple(file.get_slice(name).get_shape()),
                functools.partial(file.get_tensor, name),
            )
            for name in file.keys()  # noqa: SIM118  (no mapping)
        }
        return FileContent("safetensors", "torch", tensors, "OIHW"), file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise damaged(path, error) from error


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Reads the arrays and the metadata of an export, each by name.

    Raises:
        ExportError: the file cannot be read, is cut off or damaged.
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

    Raises:
        ExportError: the file cannot be read, is no safetensors file, is cut off or has a damaged
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
        metadata = entries.pop("__metadata__", {})
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
