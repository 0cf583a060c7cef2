"""Opens a weights file of any known format, which its content tells, never its name."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mtl_face.errors import WeightsError
from mtl_face.weights import card as cards
from mtl_face.weights import exported, keras_file, matlab_file, safetensors_file, torch_file
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
    """Opens a weights file, or the folder of an export, for as long as the block lasts.

    Raises:
        WeightsError: there is none, it cannot be read, is something else, or is damaged.
    """
    with contextlib.ExitStack() as stack:
        yield _open(path, stack)


def _open(path: Path, stack: contextlib.ExitStack) -> FileContent:
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
