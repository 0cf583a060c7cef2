"""Reads `.safetensors` files: PyTorch's tensors, or an export of ours."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.weights import card as cards
from mtl_face.weights import our_export
from mtl_face.weights.file_content import Entry, FileContent


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[FileContent]:
    """Opens such a file.

    Args:
        path: the file.

    Yields:
        Its tensors.

    Raises:
        WeightsError: if it is damaged.
    """
    import safetensors

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
            is_export = cards.KEY in (file.metadata() or {})
            tensors = {
                name: Entry(name, tuple(file.get_slice(name).get_shape()), _reader(file, name))
                for name in file.keys()  # noqa: SIM118  (no mapping)
            }
        except safetensors.SafetensorError as error:
            raise WeightsError(
                f"is damaged or cut off: {error}",
                path=path,
                remedy="copy or download the file again",
            ) from error
        if not is_export:
            yield FileContent("safetensors", "torch", tensors, "OIHW")
            return
    with our_export.open_export(path) as content:
        yield content


def _reader(file: Any, name: str) -> Callable[[], NDArray[Any]]:
    return lambda: np.asarray(file.get_tensor(name))
