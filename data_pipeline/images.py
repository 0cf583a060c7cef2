"""Image files: reading one with Pillow, and checking those of a whole table before a long run.

JPEG, PNG and BMP are read, as the training input reads them: greyscale, CMYK, palettes, 16 bits
and transparency all become 8-bit RGB (the upper byte of 16 bits; transparency is dropped, not
blended). An EXIF orientation is ignored: crops are used as they are stored. BMP files are read if
they hold 24 or 32 bits a pixel in the usual order: of others, the training input would take palette
indices for grey levels, or one colour for another. Of an image that cannot be read, the error says
what the file is instead.

Dimension letters: H height, W width, C channels (3).
"""

import functools
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face import files
from mtl_face.errors import ImageError
from mtl_face.tables import FrameTable

Result = TypeVar("Result")

FORMATS = ("JPEG", "PNG", "BMP")

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded: no face crop comes near it."""

_CHUNK = 1024  # images handed to the threads at a time, and between two reports of progress
_CONVERT = "convert it to JPEG or PNG"
_FETCH = "copy or download it again"


def read_image(path: str | os.PathLike[str], size: int) -> npt.NDArray[np.uint8]:
    """Reads a JPEG, PNG or BMP file as RGB, resized to a square if it is stored at another size.

    Resizing uses a triangle filter, widened when shrinking so that it averages; it does not keep
    the aspect ratio.

    uint8 [size, size, C], 0..255; ImageError if the file is missing or no readable image.
    """
    image = _decode(path)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def diagnose(path: str | os.PathLike[str]) -> ImageError | None:
    """Decodes an image completely and returns what is wrong with it, or None if it is fine."""
    try:
        _decode(path)
    except ImageError as error:
        return error
    return None


def find_missing(table: FrameTable) -> npt.NDArray[np.int64]:
    """Rows whose image file does not exist; lists each folder once and opens no file.

    Returns:
        int64 indices into the table, ascending.

    Raises:
        ImageError: the image root itself is missing, a folder may not be listed, or a folder or
            file is a symbolic link to a place outside of the image root (the root may be one).
    """
    real_roots = {}
    for root in sorted(set(table.root)):
        require_root(root)
        real_roots[root] = os.path.realpath(root)
    listed = functools.cache(_list)
    missing = []
    for row, (root, path) in enumerate(zip(table.root, table.paths(), strict=True)):
        folder, name = os.path.split(path)
        names, outside = listed(folder, real_roots[root])
        if name in outside:
            raise _leaves_root(path)
        if name not in names:
            missing.append(row)
    return np.array(missing, dtype=np.int64)


def drop_missing(table: FrameTable) -> tuple[FrameTable, list[str]]:
    """Leaves out the rows whose image does not exist. Only for callers that asked for it.

    Returns:
        The other rows, and the paths of the images that do not exist, one for each row left out;
        ImageError as `find_missing`, or if no image exists at all.
    """
    missing = find_missing(table)
    paths = table.paths()
    dropped = [paths[row] for row in missing]
    if len(dropped) == len(table):
        raise ImageError(
            f"none of the {len(table):,} images exists",
            path=dropped[0] if dropped else None,
            remedy="check the image root: it holds one folder a video",
        )
    return table.take(np.setdiff1d(np.arange(len(table)), missing)), dropped


def check_images(
    table: FrameTable,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[ImageError]:
    """Decodes every image of a table once, as training would.

    As many `workers` (threads) as there are cores are sensible: decoding runs beside Python.
    `progress` is called from time to time with (images done, images in all).

    Returns:
        One error for each unreadable image, in the order of the table.
    """
    paths = list(dict.fromkeys(table.paths()))  # a duplicate row's image is decoded once
    return [error for error in each_of(paths, diagnose, workers, progress) if error]


def each_of(
    paths: Sequence[str],
    function: Callable[[str], Result],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Result]:
    """What `function` returns for each path, in their order; `workers` threads compute it."""
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            yield from pool.map(function, chunk)
            if progress is not None:
                progress(start + len(chunk), len(paths))


def require_root(root: str | os.PathLike[str]) -> None:
    """Raises ImageError where an image folder does not exist."""
    if not os.path.isdir(root):
        raise ImageError(
            "the image folder does not exist",
            path=root,
            remedy="set the image root to the folder that holds one folder a video",
        )


def list_files(folder: str) -> list[os.DirEntry[str]] | None:
    """The files in a folder, None if there is none; ImageError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem, remedy = files.unreadable(error, "folder")
        raise ImageError(problem, path=folder, remedy=remedy) from error


def _list(folder: str, real_root: str) -> tuple[set[str], set[str]]:
    """Names of the files in a folder, and of those among them that links take from elsewhere."""
    entries = list_files(folder)
    if entries is None:
        return set(), set()
    if not _is_inside(folder, real_root):
        raise _leaves_root(folder)
    links = (entry for entry in entries if entry.is_symlink())
    outside = {entry.name for entry in links if not _is_inside(entry.path, real_root)}
    return {entry.name for entry in entries}, outside


def _is_inside(path: str, real_root: str) -> bool:
    real = os.path.realpath(path)
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)


def _leaves_root(path: str) -> ImageError:
    return ImageError(
        "a symbolic link leads out of the image folder",
        path=path,
        remedy="put the images themselves there, or let the image folder itself be the link",
    )


def _decode(path: str | os.PathLike[str]) -> Image.Image:
    content = _read_bytes(path)
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        is_odd_bmp = image.format == "BMP" and not _is_plain_bmp(content)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"the image has more than {MAX_PIXELS:,} pixels",
            path=path,
            remedy="crop the face first; this is no face crop, or its header is damaged",
        ) from error
    except Image.UnidentifiedImageError as error:
        raise _describe_content(path, content) from error
    # Pillow's decoders raise whatever damaged data leads to, from OSError to struct.error and
    # TypeError; the reason is in the message.
    except Exception as error:
        problem = f"the image is damaged ({error})"
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            problem = f"the image is truncated: only {len(content):,} bytes are there"
        raise ImageError(problem, path=path, remedy=_FETCH) from error
    if is_odd_bmp:
        raise ImageError(
            "a BMP image with a palette, 16 bits a pixel or packed colours is not read",
            path=path,
            remedy=_CONVERT,
        )
    if image.mode.startswith("I"):  # 16-bit greyscale: `convert` would clip to 255 instead
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _is_plain_bmp(content: bytes) -> bool:
    """Whether a BMP file has 24 or 32 bits a pixel, each colour one byte, blue first."""
    header_size, bits, packing = content[14:18], content[28:30], content[30:34]
    return (
        int.from_bytes(header_size, "little") >= 40
        and int.from_bytes(bits, "little") in (24, 32)
        and packing == bytes(4)
    )


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        # Before it is opened: a named pipe would wait for a writer for ever.
        if not stat.S_ISREG(mode := os.stat(path).st_mode) and not stat.S_ISDIR(mode):
            raise ImageError(
                "this is a pipe or a device, not an image", path=path, remedy="name an image file"
            )
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        problem, remedy = files.unreadable(error, "image")
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            remedy = "check that all images were unpacked"
            folder = os.path.dirname(os.path.abspath(path))
            if not os.path.isdir(folder):
                problem += f", nor does its folder {folder}"
                remedy = "check the image root and that all images were unpacked"
        raise ImageError(problem, path=path, remedy=remedy) from error


def _describe_content(path: str | os.PathLike[str], content: bytes) -> ImageError:
    """What a file is that Pillow does not recognise."""
    start = content[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not content:
        problem, remedy = "the file is empty", _FETCH
    elif start.startswith(b"version https://git-lfs"):
        problem, remedy = "this is a Git LFS pointer, not the image", "run git lfs pull"
    elif start.startswith((b"<!doctype html", b"<html")):
        problem = "this is a web page, not an image"
        remedy = "download it again; a log-in or error page was saved in its place"
    elif content.startswith((b"\xff\xd8\xff", b"\x89PNG", b"BM")):
        problem, remedy = "the image is damaged near its beginning", _FETCH
    else:
        problem, remedy = _name_other(content)
    return ImageError(problem, path=path, remedy=remedy)


def _name_other(content: bytes) -> tuple[str, str]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return f"{image.format} images are not read", _CONVERT
    except Exception:  # decoders of rare formats raise anything; all that matters: not an image
        pass
    if not set(content[:512]) - set(range(32, 127)) - set(b"\t\r\n\f"):
        return "this is a text file, not an image", _FETCH
    return "this is not an image", _FETCH
