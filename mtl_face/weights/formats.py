"""Opens a weights file of any known format: tensors by name, read when they are asked for.

What a file is follows from its content, never from its name. Kernel letters: H W height and width,
I O channels in and out.
"""

import contextlib
import dataclasses
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.model.geometry import ChannelOrder
from mtl_face.weights import card as cards

KernelLayout = Literal["HWIO", "OIHW"]

FORMATS = (
    "Keras HDF5, PyTorch (zip or legacy), a pickle of NumPy arrays, safetensors, MatConvNet .mat, "
    "or an export of run.py"
)

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_PICKLES = (b"(dp", b"(d", b"}q", b"ccollections\n", b"(lp", b"cnumpy")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of a file.

    Attributes:
        name: as the file has it, for messages.
        shape: as stored.
        read: reads it; called only once the shape is known to be the right one, so that a file
            which claims a giant costs nothing.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]

    @classmethod
    def of(cls, name: str, array: NDArray[Any]) -> "Entry":
        """The entry of an array that was read already."""
        return cls(name, array.shape, lambda: array)


@dataclasses.dataclass(frozen=True)
class FileContent:
    """The tensors of a weights file.

    Attributes:
        format: the format in words.
        family: what wrote it, of which geometry and channel order may follow: `keras`,
            `matconvnet`, `numpy` (a pickle of arrays), `torch` (safetensors too) or `ours`.
        tensors: by name in PyTorch's words: `LAYER.weight`, `.bias`, `.running_mean`,
            `.running_var`.
        kernel_layout: axes of a convolution's kernel.
        channel_order: of the first convolution's input, where the file says it.
        card: what an export of this program says of itself.
    """

    format: str
    family: Literal["keras", "matconvnet", "numpy", "torch", "ours"]
    tensors: dict[str, Entry]
    kernel_layout: KernelLayout
    channel_order: ChannelOrder | None = None
    card: dict[str, Any] | None = None


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[FileContent]:
    """Opens a weights file, or the folder of an export, for as long as the block lasts.

    Raises:
        WeightsError: there is none, it cannot be read, is something else, or is damaged.
    """
    with contextlib.ExitStack() as stack:
        yield _open(path, stack)


def damaged(path: Path, error: Exception) -> WeightsError:
    """The error for a file whose reader failed."""
    return WeightsError(
        f"is damaged or cut off: {error}", path=path, remedy="copy or download the file again"
    )


def _open(path: Path, stack: contextlib.ExitStack) -> FileContent:
    # Here, since each reader imports this module for the type that it returns.
    from mtl_face.weights import exported, keras_file, matlab_file, safetensors_file, torch_file

    if os.path.isdir(path):  # `Path.is_dir` raises for names that are too long
        if not (path / cards.FILE).is_file():
            raise WeightsError(
                f"is a folder without {cards.FILE}",
                path=path,
                remedy="give a weights file, or the folder that run.py export wrote",
            )
        return exported.content(path)
    start = _first_bytes(path)
    if start.startswith((b"MATLAB 5.0", b"MATLAB 7.3")):
        return matlab_file.read_matlab(path)
    if start.startswith(_HDF5):
        return keras_file.open_keras(path, stack)
    if start.startswith(b"PK\x03\x04"):
        return torch_file.open_zip(path, stack)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        content, metadata = safetensors_file.open_tensors(path, stack)
        return exported.content(path) if cards.KEY in metadata else content
    if (start[0] == 0x80 and start[1:2] in _PROTOCOLS) or start.startswith(_PICKLES):
        return torch_file.open_pickle(path, stack)
    raise WeightsError(
        f"is of no known format; it begins with {start[:8]!r}",
        path=path,
        remedy=f"give a file of one of these: {FORMATS}",
    )


def _first_bytes(path: Path) -> bytes:
    """A file's beginning, not empty; refuses what is no weights file in any format."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        missing = error.errno == errno.ENOENT
        raise WeightsError(
            "does not exist" if missing else f"cannot be read: {error.strerror}",
            path=path,
            remedy="check the path" if missing else "check the path and its permissions",
        ) from error
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    problem = remedy = None
    if not start:
        problem, remedy = "is empty", "copy or download it again"
    elif start.startswith(b"version https://git-lfs"):
        problem = "is a pointer of Git LFS, not the file itself"
        remedy = "fetch the file with `git lfs pull`"
    elif text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        problem = "is a web page, not a weights file"
        remedy = (
            "the download went to a page of the site (a login, a warning, an error): open it in a "
            "browser, then download the file itself"
        )
    elif start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or start[257:262] == b"ustar":
        problem, remedy = "is an archive", "unpack it and give the weights file in it"
    if problem is not None:
        raise WeightsError(problem, path=path, remedy=remedy)
    return start
