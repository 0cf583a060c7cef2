"""Decodes every image of an audit once and keeps what later checks need: a thumbnail and a digest.

Dimension letters: M images, S side of a thumbnail.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_pipeline import images
from mtl_face.errors import ImageError

THUMBNAIL_SIZE = 16
"""Side of the thumbnails, in pixels: 43 MB for 168,000 images."""

_CHUNK = 1024  # images handed to the threads at a time, and between two reports of progress
_GREY_TOLERANCE = 2  # grey levels by which the channels of a grey JPEG's thumbnail may differ


@dataclasses.dataclass(frozen=True, eq=False)
class ImageScan:
    """What decoding M images gave. Rows of images that cannot be read are zero.

    Attributes:
        paths: the M files.
        readable: bool [M].
        thumbnail: uint8 [M, S, S], grey.
        digest: uint64 [M] of the file's bytes.
        size: int32 [M, 2], width and height in pixels.
        grey: bool [M], whether the picture has no colour.
        faults: what is wrong with each unreadable image, in the order of `paths`.
    """

    paths: Sequence[str]
    readable: npt.NDArray[np.bool_]
    thumbnail: npt.NDArray[np.uint8]
    digest: npt.NDArray[np.uint64]
    size: npt.NDArray[np.int32]
    grey: npt.NDArray[np.bool_]
    faults: Sequence[ImageError]


def scan_images(
    paths: Iterable[str],
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ImageScan:
    """Decodes images completely, as training would.

    Args:
        paths: files; one that is named twice is decoded once.
        workers: threads; decoding runs beside Python, so as many as there are cores is sensible.
        progress: called from time to time with (images done, images in all).

    Returns:
        The scan, with each path once, in the order of their first appearance.
    """
    unique = list(dict.fromkeys(paths))
    count = len(unique)
    readable_M = np.zeros(count, bool)
    thumbnail_MSS = np.zeros((count, THUMBNAIL_SIZE, THUMBNAIL_SIZE), np.uint8)
    digest_M = np.zeros(count, np.uint64)
    size_M2 = np.zeros((count, 2), np.int32)
    grey_M = np.zeros(count, bool)
    faults: list[ImageError] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, count, _CHUNK):
            chunk = unique[start : start + _CHUNK]
            for index, found in enumerate(pool.map(_scan, chunk), start):
                if isinstance(found, ImageError):
                    faults.append(found)
                    continue
                readable_M[index] = True
                colour_SS3, digest_M[index], size_M2[index] = found
                spread = np.ptp(colour_SS3.astype(np.int16), axis=2)
                grey_M[index] = spread.max() <= _GREY_TOLERANCE
                thumbnail_MSS[index] = (colour_SS3 @ _LUMA_3).round()
            if progress is not None:
                progress(start + len(chunk), count)
    return ImageScan(unique, readable_M, thumbnail_MSS, digest_M, size_M2, grey_M, faults)


_LUMA_3 = np.array([0.299, 0.587, 0.114], np.float32)


def _scan(
    path: str,
) -> tuple[npt.NDArray[np.uint8], np.uint64, tuple[int, int]] | ImageError:
    try:
        colour_SS3 = images.read_image(path, THUMBNAIL_SIZE)
    except ImageError as error:
        return error
    with open(path, "rb") as file:
        content = file.read()
        digest = np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), np.uint64)[0]
        file.seek(0)
        with Image.open(file) as header:
            return colour_SS3, digest, header.size
