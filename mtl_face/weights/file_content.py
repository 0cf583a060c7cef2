"""What every reader of weights files returns: tensors by name, read when they are asked for.

Kernel letters: H W height and width, I O channels in and out.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.files import unreadable
from mtl_face.model.geometry import ChannelOrder

_LONGEST_SHOWN = 100

LARGEST_JSON = 2**26
"""Bytes that are read of a JSON file."""

RESAVE_KERAS = (
    "then model.save('NEW.h5') of Keras 3, which writes the whole model as HDF5 "
    "(model.save_weights does not)"
)
"""Remedy for the other files of Keras 3."""

RESAVE_NUMPY = (
    "in Python: safetensors.numpy.save_file({name: array, ...}, 'NEW.safetensors') with the arrays "
    "of a state dict; those of an .npz are dict(numpy.load(FILE))"
)
"""Remedy for files of NumPy."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of a file, with its name and shape as stored.

    `read` is called only once the shape is known to be the right one, so that a file which claims a
    giant costs nothing.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]

    @property
    def shown(self) -> str:
        """The name as people may see it."""
        return shown(self.name)

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
            `matconvnet`, `numpy` (a pickle of arrays), `torch` (safetensors too), `tfjs` (a graph
            of TensorFlow.js) or `ours`.
        tensors: by name, of a graph in its own words, else in PyTorch's: `LAYER.weight`, `.bias`,
            `.running_mean`, `.running_var`.
        kernel_layout: axes of a convolution's kernel.
        channel_order: of the first convolution's input, where the file says it.
        card: what an export of this program says of itself.
        stated: what lies beside the tensors, nested JSON values by the name of the file or
            `metadata`; nothing but texts of others.
        files: those that hold the tensors, where they are not the file that was given.
        passed_over: classes and functions that the file names and that are no tensors: nothing of
            them is built or run.
    """

    format: str
    family: Literal["keras", "matconvnet", "numpy", "torch", "tfjs", "ours"]
    tensors: dict[str, Entry]
    kernel_layout: Literal["HWIO", "OIHW"]
    channel_order: ChannelOrder | None = None
    card: dict[str, Any] | None = None
    stated: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: tuple[Path, ...] = ()
    passed_over: tuple[str, ...] = ()


def shown(name: str, longest: int = _LONGEST_SHOWN) -> str:
    """A text that a file gives: what does not print escaped, the beginning of a long one."""
    text = name if name.isprintable() else repr(name)[1:-1]
    return text if len(text) <= longest else text[:longest] + "..."


def reason(error: Exception) -> str:
    """What a reader met, in words that may have bytes of the file in them."""
    return shown(str(error) or type(error).__name__, 2 * _LONGEST_SHOWN)


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as `64x3x3x3`."""
    return "x".join(map(str, shape)) or "one number"


class Budget:
    """Bytes that may be made of a file of `size` bytes: 64 times as many, and 64 MiB.

    Weights hardly compress. What claims more is damaged, or was made to fill the memory.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.left = 2**26 + 64 * size

    def take(self, count: int) -> None:
        """Raises ValueError if `count` bytes more are more than there may be."""
        self.left -= count
        if self.left < 0:
            raise ValueError(f"it claims more memory than a file of {self._size:,} bytes can fill")


def damaged(
    path: Path, error: Exception, failure: type[WeightsError] = WeightsError
) -> WeightsError:
    """The error for a file whose reader failed."""
    return failure(
        f"is damaged or cut off: {reason(error)}",
        path=path,
        remedy="copy or download the file again",
    )


def first_bytes(path: Path, failure: type[WeightsError] = WeightsError) -> bytes:
    """A file's beginning, not empty; `failure` for what is no weights file in any format."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        problem, remedy = unreadable(error, "weights file")
        raise failure(problem, path=path, remedy=remedy) from error
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
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
    else:
        return start
    raise failure(problem, path=path, remedy=remedy)


def is_json_with(word: bytes, path: Path, start: bytes) -> bool:
    """Whether a file that begins so is a JSON object with a word in its first `LARGEST_JSON` bytes.

    OSError if it cannot be read.
    """
    if not start.lstrip().startswith(b"{"):
        return False
    with path.open("rb") as file:
        return word in file.read(LARGEST_JSON)


def words_of(start: bytes) -> str:
    """A file's beginning for a message: a text as it is written, else bytes in hexadecimal."""
    text = start[:20].decode("latin1").partition("\n")[0]
    is_text = text.strip() and text.isascii() and text.isprintable()
    return f"the text {text!r}" if is_text else f"the bytes {start[:8].hex(' ')}"
