"""Photographs as 8-bit RGB: one decoder, for the faces of photos and for training images.

Pillow decodes, HEIF through pi-heif (extra `heic`). Pixels come as they are stored; `upright` turns
them as the EXIF orientation says. Of 16 bits a colour the upper byte counts, of an image of floats
0 is black and 1 white; transparency is dropped, not blended. Of a file that cannot be read, the
error says what it is instead.

Dimension letters: H height, W width.
"""

import dataclasses
import functools
import importlib
import io
import os
import stat
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, features

from mtl_face import files
from mtl_face.errors import ImageError

MOST_PIXELS = 200_000_000
"""Larger photographs are refused before they are decoded."""

_ENDINGS = {
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "PNG": ".png .apng",
    "BMP": ".bmp",
    "WEBP": ".webp",
    "TIFF": ".tif .tiff",
    "GIF": ".gif",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "JPEG2000": ".jp2 .j2k .jpf .jpx .jpc .j2c",
    "AVIF": ".avif .avifs",
    "HEIF": ".heic .heics .heif .heifs .hif",
}
"""Formats of photographs, by Pillow's names, and their files' endings in lower case."""

_VIDEOS = (
    "3g2 3gp asf avi divx dv f4v flv m2t m2ts m2v m4v mjpeg mk3d mkv mod mov mp4 mpe mpeg mpg mts "
    "mxf nut ogm ogv qt rm rmvb tod ts vob webm wmv y4m"
)
VIDEO_ENDINGS = frozenset(f".{name}" for name in _VIDEOS.split())
"""Endings of videos, which are no photographs, in lower case."""

_PILLOW_FEATURES = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}
"""Formats that a build of Pillow may lack, by its names of what they need."""

_OTHER_ENDINGS = (
    ".3fr .arw .cr2 .cr3 .crw .dib .dng .erf .exr .hdr .jxl .jxr .kdc .mrw .nef .nrw .orf .pcx "
    ".pef .psb .psd .qoi .raf .raw .rw2 .sgi .sr2 .srf .srw .tga .x3f .xcf"
)
"""Of pictures that are not read: raw files of cameras, layers of image programs, rare formats."""

_CONVERT = "convert it to JPEG or PNG"
_FETCH = "copy or download it again"
_INSTALL_HEIF = (
    'install the extra: python -m pip install "mtl_face[heic]" '
    "(in a clone: python -m pip install -e '.[heic]')"
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_ORIENTED = (b"Exif", b"eXIf", b"exif", b"Orientation", b"XML:com.adobe.xmp")
"""Marks of data in JPEG and PNG files that state an orientation."""

_opening = threading.Lock()

AnyImage = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]
"""A picture as `picture_of` takes it."""


class Turn(NamedTuple):
    """How stored pixels become upright: which of three exchanges are made, in this order.

    Attributes:
        transposed: rows and columns change places.
        left_right: left and right do.
        top_bottom: top and bottom do.
        method: Pillow's name of all of them; None where there is none.
        words: the same for people.
    """

    transposed: bool
    left_right: bool
    top_bottom: bool
    method: Image.Transpose | None
    words: str


TURNS = {
    1: Turn(False, False, False, None, "left as stored"),
    2: Turn(False, True, False, Image.Transpose.FLIP_LEFT_RIGHT, "mirrored"),
    3: Turn(False, True, True, Image.Transpose.ROTATE_180, "turned by 180 degrees"),
    4: Turn(False, False, True, Image.Transpose.FLIP_TOP_BOTTOM, "mirrored from top to bottom"),
    5: Turn(True, False, False, Image.Transpose.TRANSPOSE, "mirrored, turned left by 90 degrees"),
    6: Turn(True, True, False, Image.Transpose.ROTATE_270, "turned right by 90 degrees"),
    7: Turn(True, True, True, Image.Transpose.TRANSVERSE, "mirrored, turned right by 90 degrees"),
    8: Turn(True, False, True, Image.Transpose.ROTATE_90, "turned left by 90 degrees"),
}
"""What makes a picture upright, by EXIF orientation (tag 0x0112)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A decoded photograph.

    Attributes:
        image: RGB, 8 bits, as stored.
        orientation: EXIF orientation, a key of `TURNS`; 1 where the file states none.
        format: Pillow's name of the file's format.
        is_first: whether this is the first of several, as of an animation or of scanned pages.
    """

    image: Image.Image
    orientation: int
    format: str
    is_first: bool

    def upright(self) -> Image.Image:
        """The picture turned as its orientation says, RGB."""
        return turn(self.image, self.orientation)


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The image made upright from an EXIF orientation, a key of `TURNS`."""
    method = TURNS[orientation].method
    return image if method is None else image.transpose(method)


def picture_of(image: AnyImage, name: str = "the image") -> Image.Image:
    """An upright RGB picture out of a file, an open image of Pillow, or an array.

    Args:
        image: a path; an image of any mode of Pillow, which is turned as its EXIF orientation says;
            or uint8 [H, W, 3], R, G, B in 0..255.
        name: what messages call it.

    Raises:
        ImageError: as `read`; or an array has another dtype or shape.
    """
    if isinstance(image, Image.Image):
        try:
            image.load()
            return turn(_to_rgb(image), orientation_of(image))
        except (OSError, _UnknownWhiteError) as error:
            raise ImageError(f"{name}: {error}", remedy=_CONVERT) from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(
                f"{name} is {image.dtype} {list(image.shape)}, expected uint8 [height, width, 3]",
                remedy="give R, G, B in 0..255",
            )
        return Image.fromarray(np.ascontiguousarray(image))
    return read(image).upright()


def endings() -> frozenset[str]:
    """Endings of the photographs that this installation reads, in lower case."""
    return frozenset(" ".join(_ENDINGS[name] for name in _readable()).split())


def remedy(ending: str) -> str | None:
    """What helps to read a picture with an ending that is not in `endings`; None for no picture."""
    ending = ending.lower()
    for name, known in _ENDINGS.items():
        if ending in known.split():
            return _INSTALL_HEIF if name == "HEIF" else "python -m pip install --upgrade pillow"
    return "convert to JPEG or PNG" if ending in _OTHER_ENDINGS.split() else None


def read(path: str | os.PathLike[str]) -> Picture:
    """Reads a photograph of any format in `endings`.

    ImageError if it is missing, damaged, no photograph, above `MOST_PIXELS`, or of integers or
    floats whose white is unknown.
    """
    return decode(read_bytes(path), path)


def decode(
    content: bytes,
    path: str | os.PathLike[str],
    *,
    formats: Sequence[str] | None = None,
    most_pixels: int = MOST_PIXELS,
) -> Picture:
    """Decodes the content of an image file; `path` is for messages, errors are as of `read`.

    `formats` are Pillow's names of those allowed; None: all of photographs.
    """
    allowed = _readable() if formats is None else formats
    try:
        image = _open(content, allowed, most_pixels)
        if image.width * image.height > most_pixels:
            raise Image.DecompressionBombError
        # The further pictures of a camera's JPEG file are its own previews and depth maps.
        is_first = image.format not in ("JPEG", "MPO") and getattr(image, "is_animated", False)
        image.load()
        return Picture(_to_rgb(image), orientation_of(image), str(image.format), is_first)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"the image has more than {most_pixels:,} pixels",
            path=path,
            remedy="crop or shrink it; or its header is damaged",
        ) from error
    except Image.UnidentifiedImageError as error:
        problem, way_out = _name_content(content, formats)
        raise ImageError(problem, path=path, remedy=way_out) from error
    except _UnknownWhiteError as error:
        raise ImageError(
            str(error), path=path, remedy="save it with 8 or 16 bits a colour, black at 0"
        ) from error
    # Pillow's decoders raise whatever damaged data leads to, from OSError to struct.error and
    # TypeError; the reason is in the message.
    except Exception as error:
        problem = f"the image is damaged ({error})"
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            problem = f"the image is truncated: only {len(content):,} bytes are there"
        raise ImageError(problem, path=path, remedy=_FETCH) from error


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of an image file; ImageError if it is missing, unreadable or no regular file."""
    try:
        # Before it is opened: a named pipe would wait for a writer for ever.
        if not stat.S_ISREG(mode := os.stat(path).st_mode) and not stat.S_ISDIR(mode):
            raise ImageError(
                "this is a pipe or a device, not an image", path=path, remedy="name an image file"
            )
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        problem, way_out = files.unreadable(error, "image")
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            way_out = "check the path for a typing mistake, and that all images were unpacked"
            folder = os.path.dirname(os.path.abspath(path))
            if not os.path.isdir(folder):
                problem += f", nor does its folder {folder}"
                way_out = "check the folder of images, and that all were unpacked"
        raise ImageError(problem, path=path, remedy=way_out) from error


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation of an open image, a key of `TURNS`; 1 where none can be read.

    As `PIL.ImageOps.exif_transpose` takes it: from EXIF data, else from XMP.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raise anything; the picture beside them is sound
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def stored_orientation(content: bytes) -> int:
    """EXIF orientation of an encoded JPEG or PNG image, by its header; 1 where none can be read."""
    if not any(mark in content for mark in _ORIENTED):  # a tenth of the time of the header
        return 1
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            return orientation_of(image)
    except Exception:  # of a damaged file; its decoder says what is wrong with it
        return 1


class _UnknownWhiteError(ValueError):
    """Which number of an image is white is not known."""


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode of Pillow as 8-bit RGB. Pillow itself clips deep ones at 255."""
    if image.mode.startswith("I") or image.mode == "F":
        grey_HW = _grey(np.asarray(image), image)
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # white is zero
            grey_HW = 255 - grey_HW
        image = Image.fromarray(grey_HW)
    elif image.mode in ("La", "RGBa"):  # multiplied by the transparency
        image = image.convert(image.mode[:-1] + "A")
    return image if image.mode == "RGB" else image.convert("RGB")


_PHOTOMETRIC, _BITS_PER_SAMPLE = 262, 258  # TIFF tags


def _grey(value_HW: npt.NDArray[Any], image: Image.Image) -> npt.NDArray[np.uint8]:
    """Deep grey values as uint8 [H, W]."""
    if image.mode.startswith("I;16"):
        (bits, *_) = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
        return (value_HW >> (bits - 8)).astype(np.uint8)
    low, high = value_HW.min(), value_HW.max()
    if image.mode == "F":
        if low >= 0 and high <= 1:
            return (value_HW * 255 + 0.5).astype(np.uint8)
    elif low >= 0 and high <= 0xFFFF and (image.format == "PPM" or high > 255):
        return (value_HW >> 8).astype(np.uint8)
    if low >= 0 and high <= 255 and (value_HW == np.floor(value_HW)).all():
        return value_HW.astype(np.uint8)
    kind = "floats" if image.mode == "F" else "integers"
    raise _UnknownWhiteError(
        f"the image holds {kind} from {low:.6g} to {high:.6g}: which one is white is unknown"
    )


@functools.cache
def _readable() -> tuple[str, ...]:
    """The formats of `_ENDINGS` that this installation decodes."""
    return tuple(name for name in _ENDINGS if _is_readable(name))


def _is_readable(name: str) -> bool:
    if name in _PILLOW_FEATURES:
        return bool(features.check(_PILLOW_FEATURES[name]))
    if name != "HEIF":
        return True
    for library in ("pi_heif", "pillow_heif"):
        try:
            importlib.import_module(library).register_heif_opener()
            return True
        except ImportError:
            continue
    return False


def _open(content: bytes, formats: Sequence[str], most_pixels: int) -> Image.Image:
    """Reads the header. Pillow's own limit is the process', and may be below `most_pixels`."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or most_pixels <= limit:
        return Image.open(io.BytesIO(content), formats=list(formats))
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(content), formats=list(formats))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _name_content(content: bytes, formats: Sequence[str] | None) -> tuple[str, str]:
    """What a file is that Pillow does not recognise, and what helps."""
    start = content[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not content:
        return "the file is empty", _FETCH
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the image", "run git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return (
            "this is a web page, not an image",
            "download it again; a log-in or error page was saved in its place",
        )
    if content.startswith((b"\xff\xd8\xff", b"\x89PNG", b"BM")):
        return "the image is damaged near its beginning", _FETCH
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        if formats is not None:
            return "HEIF images are not read", _CONVERT
        if "HEIF" not in _readable():
            return "HEIF images are not read without pi-heif", _INSTALL_HEIF
        return "the image is damaged near its beginning", _FETCH
    return _name_other(content, formats)


def _name_other(content: bytes, formats: Sequence[str] | None) -> tuple[str, str]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return f"{image.format} images are not read", _CONVERT
    except Exception:  # decoders of rare formats raise anything; all that matters: not an image
        pass
    if content.startswith((b"II*\0", b"MM\0*")):
        if formats is not None:
            return "TIFF images are not read", _CONVERT
        return "the image is damaged, or a kind of TIFF that is not read", _CONVERT
    if not set(content[:512]) - set(range(32, 127)) - set(b"\t\r\n\f"):
        return "this is a text file, not an image", _FETCH
    return "this is not an image", _FETCH
