"""Tells what a weights file is by its content, never by its name, and opens it."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mtl_face.errors import WeightsError
from mtl_face.weights import card as cards
from mtl_face.weights import keras_file, matlab_file, our_export, safetensors_reader, torch_file
from mtl_face.weights.file_content import FileContent

FORMATS = (
    "Keras HDF5, PyTorch (zip or legacy), a pickle of NumPy arrays, safetensors, MatConvNet .mat, "
    "or an export of run.py"
)

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_PICKLES = (b"(dp", b"(d", b"}q", b"ccollections\n", b"(lp", b"cnumpy")


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[FileContent]:
    """Opens a weights file of any known format.

    Args:
        path: the file, or the folder of an export.

    Yields:
        Its tensors.

    Raises:
        WeightsError: if there is none, it cannot be read, is something else, or is damaged.
    """
    if os.path.isdir(path):  # `Path.is_dir` raises for names that are too long
        if not (path / cards.FILE).is_file():
            raise WeightsError(
                f"is a folder without {cards.FILE}",
                path=path,
                remedy="give a weights file, or the folder that run.py export wrote",
            )
        with our_export.open_export(path) as content:
            yield content
        return
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
    with _opener(start, path)(path) as content:
        yield content


def _opener(
    start: bytes, path: Path
) -> Callable[[Path], contextlib.AbstractContextManager[FileContent]]:
    """The reader for a file that begins like this."""
    _refuse_what_is_no_weights(start, path)
    if start.startswith((b"MATLAB 5.0", b"MATLAB 7.3")):
        return matlab_file.open_matlab
    if start.startswith(_HDF5):
        return keras_file.open_keras
    if start.startswith(b"PK\x03\x04"):
        return torch_file.open_zip
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return safetensors_reader.open_safetensors
    if (start[0] == 0x80 and start[1:2] in _PROTOCOLS) or start.startswith(_PICKLES):
        return torch_file.open_pickle
    raise WeightsError(
        f"is of no known format; it begins with {start[:8]!r}",
        path=path,
        remedy=f"give a file of one of these: {FORMATS}",
    )


def _refuse_what_is_no_weights(start: bytes, path: Path) -> None:
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
