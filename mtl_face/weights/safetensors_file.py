"""Reads safetensors files: exports whole, and the tensors of others one by one.

Such a file is 8 bytes with the length of a JSON header, the header, and the arrays' bytes one after
another. The `safetensors` package refuses a file that is shorter or longer than its header says.
The arrays are read here: the package maps the file into memory, where it would count beside them.
"""

import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.weights.card import ExportError
from mtl_face.weights.file_content import Entry, FileContent, damaged, shown


def begins_one(start: bytes) -> bool:
    """Whether a file that begins so claims to be of this format."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32


_DTYPES: dict[str, Any] = {
    **{name: f"<{name[0].lower()}{int(name[1:]) // 8}" for name in ("F64", "F32", "F16", "C64")},
    **{f"{sign}{bits}": f"<{sign.lower()}{bits // 8}" for sign in "IU" for bits in (8, 16, 32, 64)},
    "BF16": ml_dtypes.bfloat16,
    "BOOL": "?",
}
"""NumPy's names of the format's types of numbers."""

_KEPT = 2
"""Arrays that are kept while others are read: queries, keys and values are parts of one."""


def open_tensors(path: Path, stack: contextlib.ExitStack) -> tuple[FileContent, dict[str, str]]:
    """Opens a file as one of PyTorch's tensors until `stack` closes; returns its metadata too."""
    shapes, read, metadata = stack.enter_context(_open(path))
    kept = functools.lru_cache(_KEPT)(read)
    tensors = {
        name: Entry(name, shape, functools.partial(kept, name)) for name, shape in shapes.items()
    }
    return FileContent("safetensors", "torch", tensors, "OIHW"), metadata


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Reads the arrays and the metadata of an export, each by name.

    Raises:
        ExportError: the file cannot be read, is cut off or damaged.
    """
    with _open(path) as (shapes, read_array, metadata):
        return {name: read_array(name) for name in shapes}, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the texts of a file's header; raises ExportError as `read`."""
    with _open(path) as (_, _, metadata):
        return metadata


@contextlib.contextmanager
def _open(
    path: Path,
) -> Iterator[tuple[dict[str, tuple[int, ...]], Callable[[str], NDArray[Any]], dict[str, str]]]:
    """Opens a file: the arrays' shapes, what reads one by its name, and the metadata."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as checked:
            names = list(checked.keys())
            shapes = {name: tuple(checked.get_slice(name).get_shape()) for name in names}
            metadata = checked.metadata() or {}
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))

            def read_array(name: str) -> NDArray[Any]:
                return _array(file, 8 + length, header[name], name, path)

            yield shapes, read_array, metadata
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error, ExportError) from error


def _array(
    file: BinaryIO, begin: int, described: dict[str, Any], name: str, path: Path
) -> NDArray[Any]:
    """An array of an open file whose arrays begin there, as its header describes it."""
    if described["dtype"] not in _DTYPES:
        raise WeightsError(
            f"{shown(name)} is of type {described['dtype']}, which NumPy lacks",
            path=path,
            remedy="give weights that are not quantised",
        )
    shape = described["shape"]
    file.seek(begin + described["data_offsets"][0])
    values = np.fromfile(file, _DTYPES[described["dtype"]], math.prod(shape))
    return values.reshape(shape)
