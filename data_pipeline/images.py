"""Reading one image with Pillow, and saying in words what is wrong with one that cannot be read.

JPEG, PNG and BMP are read, as the training input reads them: greyscale, CMYK, palettes, 16 bits
and transparency all become 8-bit RGB (the upper byte of 16 bits; transparency is dropped, not
blended). An EXIF orientation is ignored: crops are used as they are stored. BMP files are read if
they hold 24 or 32 bits a pixel in the usual order: of others, the training input would take palette
indices for grey levels, or one colour for another.

Dimension letters: H height, W width, C channels (3).
"""

import io
import os
import stat

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face.errors import ImageError

FORMATS = ("JPEG", "PNG", "BMP")

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded: no face crop comes near it."""

_CONVERT = "convert it to JPEG or PNG"
_FETCH = "copy or download it again"


def read_image(path: str | os.PathLike[str], size: int) -> npt.NDArray[np.uint8]:
    """Reads an image as RGB, resized to a square if it is stored at another size.

    Args:
        path: JPEG, PNG or BMP file.
        size: height and width of the result in pixels. Resizing uses a triangle filter, widened
            when shrinking so that it averages; it does not keep the aspect ratio.

    Returns:
        uint8 [size, size, C], 0..255.

    Raises:
        ImageError: the file is missing or no readable image.
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
        raise _describe_damage(path, content, error) from error
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
    except (FileNotFoundError, NotADirectoryError) as error:
        folder = os.path.dirname(os.path.abspath(path))
        if os.path.isdir(folder):
            problem, remedy = "the image does not exist", "check that all images were unpacked"
        else:
            problem = f"the image does not exist, nor does its folder {folder}"
            remedy = "check the image root and that all images were unpacked"
        raise ImageError(problem, path=path, remedy=remedy) from error
    except IsADirectoryError as error:
        raise ImageError(
            "this is a folder, not an image", path=path, remedy="name the image file inside it"
        ) from error
    except PermissionError as error:
        raise ImageError(
            "no permission to read the image", path=path, remedy="make it readable (chmod u+r)"
        ) from error
    except OSError as error:
        raise ImageError(
            f"the image cannot be read ({error.strerror})",
            path=path,
            remedy="check the disk or the network share that holds it",
        ) from error


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


def _describe_damage(path: str | os.PathLike[str], content: bytes, error: Exception) -> ImageError:
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        problem = f"the image is truncated: only {len(content):,} bytes are there"
    else:
        problem = f"the image is damaged ({error})"
    return ImageError(problem, path=path, remedy=_FETCH)
