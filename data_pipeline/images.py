"""Image files of training: reading one, and checking those of a whole table before a long run.

JPEG, PNG and BMP are read, as the training input reads them: greyscale, CMYK, palettes, 16 bits
and transparency all become 8-bit RGB (see `mtl_face.pictures`). Crops are used as they are stored,
or turned upright as their EXIF orientation says (`data.exif_orientation`). BMP files are read if
they hold 24 or 32 bits a pixel in the usual order: of others, the training input would take palette
indices for grey levels, or one colour for another. What the training input refuses and Pillow does
not (a wrong check sum, a missing end) is refused here too.

Dimension letters: C channels (3).
"""

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face import files, pictures
from mtl_face.errors import ImageError
from mtl_face.tables import FrameTable

Result = TypeVar("Result")

FORMATS = ("JPEG", "PNG", "BMP")

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded: no face crop comes near it."""

_CHUNK = 1024  # images handed to the threads at a time, and between two reports of progress


@dataclasses.dataclass(frozen=True)
class Checked:
    """What decoding the images of a table showed.

    Attributes:
        faults: one error for each unreadable image, in the order of the table.
        turned: paths of the images whose EXIF orientation is another than upright.
    """

    faults: list[ImageError]
    turned: list[str]


def read(path: str | os.PathLike[str]) -> pictures.Picture:
    """Decodes a JPEG, PNG or BMP file; ImageError if it is missing or no readable image."""
    return decode(pictures.read_bytes(path), path)


def decode(content: bytes, path: str | os.PathLike[str]) -> pictures.Picture:
    """As `read`, of a file's content; `path` is for messages."""
    picture = pictures.decode(content, path, formats=FORMATS, most_pixels=MAX_PIXELS)
    if picture.format == "BMP" and not _is_plain_bmp(content):
        raise ImageError(
            "a BMP image with a palette, 16 bits a pixel or packed colours is not read",
            path=path,
            remedy="convert it to JPEG or PNG",
        )
    check = {"BMP": _flaw_of_bmp, "PNG": _flaw_of_png}.get(picture.format, _flaw_of_jpeg)
    if flaw := check(content):
        raise ImageError(
            f"the image is damaged ({flaw})",
            path=path,
            remedy="copy or download it again; if it is the same elsewhere, save it anew as PNG",
        )
    return picture


def read_image(
    path: str | os.PathLike[str], size: int, *, upright: bool = False
) -> npt.NDArray[np.uint8]:
    """Reads an image file as RGB, resized to a square if it has another size.

    `upright` turns it as its EXIF orientation says. See `resized`; errors are as of `read`.

    uint8 [size, size, C], 0..255.
    """
    picture = read(path)
    return resized(picture.upright() if upright else picture.image, size)


def resized(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """An RGB image as uint8 [size, size, C].

    Resizing uses a triangle filter, widened when shrinking so that it averages; it does not keep
    the aspect ratio.
    """
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def diagnose(path: str | os.PathLike[str]) -> ImageError | None:
    """Decodes an image completely and returns what is wrong with it, or None if it is fine."""
    try:
        read(path)
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
            remedy="check data.image_folder, from which the paths of the labels start",
        )
    return table.take(np.setdiff1d(np.arange(len(table)), missing)), dropped


def check_images(
    table: FrameTable,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Decodes every image of a table once, as training would.

    As many `workers` (threads) as there are cores are sensible: decoding runs beside Python.
    `progress` is called from time to time with (images done, images in all).
    """
    paths = list(dict.fromkeys(table.paths()))  # a duplicate row's image is decoded once
    checked = Checked([], [])
    for path, found in zip(paths, each_of(paths, _check, workers, progress), strict=True):
        if isinstance(found, ImageError):
            checked.faults.append(found)
        elif found != 1:
            checked.turned.append(path)
    return checked


def _check(path: str) -> ImageError | int:
    """What is wrong with an image, or its EXIF orientation."""
    try:
        return read(path).orientation
    except ImageError as error:
        return error


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
            "is a file, not the folder of images"
            if os.path.exists(root)
            else "the image folder does not exist",
            path=root,
            remedy="set data.image_folder (in predict: --images) to the folder, below data.root, "
            "from which the paths of the labels start: data.image_folder=. is data.root itself",
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


def _is_plain_bmp(content: bytes) -> bool:
    """Whether a BMP file has 24 or 32 bits a pixel, each colour one byte, blue first."""
    header_size, bits, packing = content[14:18], content[28:30], content[30:34]
    return (
        int.from_bytes(header_size, "little") >= 40
        and int.from_bytes(bits, "little") in (24, 32)
        and packing == bytes(4)
    )


def _flaw_of_bmp(content: bytes) -> str | None:
    start, width, height = (
        int.from_bytes(content[place : place + 4], "little", signed=True) for place in (10, 18, 22)
    )
    row_size = (content[28] * width + 31) // 32 * 4
    whole = start + row_size * abs(height)
    if len(content) != whole:
        return f"it has {len(content):,} bytes, by its header {whole:,}"
    return None


def _flaw_of_png(content: bytes) -> str | None:
    place = 8
    while place + 12 <= len(content):
        size, kind = int.from_bytes(content[place : place + 4]), content[place + 4 : place + 8]
        end = place + 12 + size
        check_sum = int.from_bytes(content[end - 4 : end])
        is_needed = kind[:1].isupper()
        if is_needed and zlib.crc32(content[place + 4 : end - 4]) != check_sum:
            return f"the check sum of its part {kind.decode('ascii', 'replace')} is wrong"
        if kind == b"IEND":
            return None
        place = end
    return "it lacks its end"


def _flaw_of_jpeg(content: bytes) -> str | None:
    inks, described = 0, False
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] != b"\xda":
        if content[place + 1 : place + 2] == b"\xff":  # before a marker there may be more of them
            place += 1
            continue
        if place + 9 >= len(content):
            return "it lacks its end"
        kind, size = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        described |= kind == 0xEE and content[place + 4 : place + 9] == b"Adobe"
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            inks = content[place + 9]
        place += 2 + size
    if inks == 4 and not described:  # one decoder takes the negative of the other
        return "it has four inks and does not say how they are stored"
    # The end follows the first scan; previews before it have ends of their own.
    return None if b"\xff\xd9" in content[place:] else "it lacks its end"
