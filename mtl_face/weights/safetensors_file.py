"""Reads safetensors files: exports whole, and the tensors of others one by one.

Such a file is 8 bytes with the length of a JSON header, the header, and the arrays' bytes one after
another. The `safetensors` package refuses a file that is shorter or longer than its header says.
"""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.weights.card import ExportError
from mtl_face.weights.file_content import Entry, FileContent, damaged


def begins_one(start: bytes) -> bool:
    """Whether a file that begins so claims to be of this format."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32


def open_tensors(path: Path, stack: contextlib.ExitStack) -> tuple[FileContent, dict[str, str]]:
    """Opens a file as one of PyTorch's tensors until `stack` closes; returns its metadata too."""
    file = stack.enter_context(_open(path))

    def read(name: str) -> NDArray[Any]:
        try:
            return file.get_tensor(name)
        except AttributeError as error:  # of a module that lacks the type
            raise WeightsError(
                f"{name} is of type {file.get_slice(name).get_dtype()}, which NumPy lacks",
                path=path,
                remedy="give weights that are not quantised",
            ) from error

    tensors = {
        name: Entry(name, tuple(file.get_slice(name).get_shape()), functools.partial(read, name))
        for name in file.keys()  # noqa: SIM118  (no mapping)
    }
    return FileContent("safetensors", "torch", tensors, "OIHW"), file.metadata() or {}


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Reads the arrays and the metadata of an export, each by name.

    Raises:
        ExportError: the file cannot be read, is cut off or damaged.
    """
    with _open(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, file.metadata() or {}


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the texts of a file's header; raises ExportError as `read`."""
    with _open(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Opens a file; what its reader meets is the user's error, a type that NumPy lacks too."""
    import ml_dtypes  # noqa: F401  (makes bfloat16 a type of NumPy)
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except (safetensors.SafetensorError, OSError, TypeError, AttributeError) as error:
        raise damaged(path, error, ExportError) from error
