"""Audit of a data set: its rows, labels and images, without a model.

`audit` reads every image once and returns one dict, ready for JSON. `findings` in it lists what a
user should look at, the most severe first.

Dimension letters: M images, S side of a thumbnail.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline import images
from data_pipeline.audit import near_duplicates, rows
from data_pipeline.audit.findings import find
from mtl_face import pictures
from mtl_face.errors import ImageError
from mtl_face.tables import FrameTable

VERSION = 1
"""Of the report's layout."""

THUMBNAIL_SIZE = 16
"""Side of the thumbnails, in pixels: 43 MB for 168,000 images."""

_GREY_TOLERANCE = 2  # grey levels by which the channels of a grey JPEG's thumbnail may differ
_LUMA_3 = np.array([0.299, 0.587, 0.114], np.float32)

Progress = Callable[[int, int], None]


def audit(
    splits: Mapping[str, FrameTable],
    *,
    image_size: int,
    upright: bool = False,
    identities: Mapping[tuple[str, str], str] | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Audits the splits of a data set: tables as read, with duplicates and rows without images.

    The crops should have a side of `image_size` pixels; `upright` says whether training turns them
    as their EXIF orientation says. `identities` say who is seen in a video, by
    names of data set and video, as far as known. Near-duplicate images are looked for between all
    splits, or between the `pairs` alone. `workers` are threads that decode; `progress` is called
    from time to time with (images done, images in all).

    Returns:
        `version`; `images` decoded; `findings` (see `findings.find`); `splits`: for each split
        `counts` (as `FrameTable.counts`), `labels`, `duplicates`, `gaps` (one dict a video) and
        `gap_histogram` (see `rows`), and `images`; `shared` between splits
        (`rows.shared_between_splits`); `near`: for each pair of splits the groups of near-duplicate
        images by pair of videos.

    Raises:
        ImageError: an image folder is missing or may not be listed.
    """
    missing = {split: images.find_missing(table) for split, table in splits.items()}
    paths = {split: table.paths() for split, table in splits.items()}
    present = {
        split: np.setdiff1d(np.arange(len(table)), missing[split]).tolist()
        for split, table in splits.items()
    }
    scan = scan_images(
        (paths[split][row] for split in splits for row in present[split]),
        upright=upright,
        workers=workers,
        progress=progress,
    )
    index_of = {path: index for index, path in enumerate(scan.paths)}
    seen = {
        split: _Seen(
            table, scan, {index_of[paths[split][row]]: row for row in reversed(present[split])}
        )
        for split, table in splits.items()
    }
    report: dict[str, Any] = {
        "version": VERSION,
        "image_size": image_size,
        "upright": upright,
        "images": len(scan.paths),
        "splits": {
            split: {
                "counts": table.counts(),
                "labels": rows.label_statistics(table),
                "duplicates": rows.duplicates(table),
                "gaps": rows.frame_gaps(table),
                "gap_histogram": rows.gap_histogram(table),
                "images": {
                    "unique": len(set(paths[split])),
                    **seen[split].describe(missing[split], image_size),
                },
            }
            for split, table in splits.items()
        },
        "shared": rows.shared_between_splits(splits, identities),
        "identities_known": bool(identities),
        "near": [
            {"splits": [first, second], **_near(seen[first], seen[second])}
            for first, second in (itertools.combinations(splits, 2) if pairs is None else pairs)
        ],
    }
    report["findings"] = find(report)
    return report


@dataclasses.dataclass(frozen=True, eq=False)
class ImageScan:
    """What decoding M images gave. Rows of images that cannot be read are zero.

    Attributes:
        paths: the M files.
        readable: bool [M].
        thumbnail: uint8 [M, S, S], grey.
        digest: uint64 [M] of the file's bytes.
        size: int32 [M, 2], width and height in pixels, as training uses the image.
        orientation: int8 [M], EXIF orientation, 1 where the file states none.
        grey: bool [M], whether the picture has no colour.
        faults: what is wrong with each unreadable image, in the order of `paths`.
    """

    paths: Sequence[str]
    readable: npt.NDArray[np.bool_]
    thumbnail: npt.NDArray[np.uint8]
    digest: npt.NDArray[np.uint64]
    size: npt.NDArray[np.int32]
    orientation: npt.NDArray[np.int8]
    grey: npt.NDArray[np.bool_]
    faults: Sequence[ImageError]


def scan_images(
    paths: Iterable[str],
    *,
    upright: bool = False,
    workers: int = 2,
    progress: Progress | None = None,
) -> ImageScan:
    """Decodes images completely, as training would; each path once, in the order given."""
    unique = list(dict.fromkeys(paths))
    count = len(unique)
    readable_M = np.zeros(count, bool)
    thumbnail_MSS = np.zeros((count, THUMBNAIL_SIZE, THUMBNAIL_SIZE), np.uint8)
    digest_M = np.zeros(count, np.uint64)
    size_M2 = np.zeros((count, 2), np.int32)
    orientation_M = np.ones(count, np.int8)
    grey_M = np.zeros(count, bool)
    faults: list[ImageError] = []
    scan = functools.partial(_scan, upright=upright)
    for index, found in enumerate(images.each_of(unique, scan, workers, progress)):
        if isinstance(found, ImageError):
            faults.append(found)
            continue
        readable_M[index] = True
        colour_SS3, digest_M[index], size_M2[index], orientation_M[index] = found
        spread = np.ptp(colour_SS3.astype(np.int16), axis=2)
        grey_M[index] = spread.max() <= _GREY_TOLERANCE
        thumbnail_MSS[index] = (colour_SS3 @ _LUMA_3).round()
    return ImageScan(
        unique, readable_M, thumbnail_MSS, digest_M, size_M2, orientation_M, grey_M, faults
    )


def _scan(
    path: str, upright: bool
) -> tuple[npt.NDArray[np.uint8], np.uint64, tuple[int, int], int] | ImageError:
    try:
        content = pictures.read_bytes(path)
        picture = images.decode(content, path)
    except ImageError as error:
        return error
    image = picture.upright() if upright else picture.image
    digest = np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), np.uint64)[0]
    return images.resized(image, THUMBNAIL_SIZE), digest, image.size, picture.orientation


@dataclasses.dataclass(frozen=True, eq=False)
class _Seen:
    """The images of a split: index into the scan, and a row that names it."""

    table: FrameTable
    scan: ImageScan
    row_of: Mapping[int, int]

    def readable(self) -> npt.NDArray[np.int64]:
        """Ascending indices into the scan."""
        index = np.array(sorted(self.row_of), np.int64)
        return index[self.scan.readable[index]]

    def flat(self) -> npt.NDArray[np.bool_]:
        """Which of the readable ones are nearly of one colour."""
        return near_duplicates.is_flat(self.scan.thumbnail[self.readable()])

    def name(self, index: int) -> str:
        return str(self.table.image[self.row_of[index]])

    def place(self, index: int) -> dict[str, str]:
        return {"image": self.name(index), "root": self.table.root[self.row_of[index]]}

    def describe(self, missing: npt.NDArray[np.int64], image_size: int) -> dict[str, Any]:
        """What decoding them showed; `missing` are the rows without an image."""
        scan, good = self.scan, self.readable()
        faults = {str(error.path): error.problem for error in scan.faults}
        sizes = Counter(f"{width}x{height}" for width, height in scan.size[good].tolist())
        same: dict[int, list[str]] = defaultdict(list)
        for index in good.tolist():
            same[int(scan.digest[index])].append(self.name(index))
        return {
            "readable": len(good),
            "missing": [
                {"image": self.table.image[row], "line": int(self.table.row[row])}
                for row in missing.tolist()
            ],
            "broken": [
                {
                    "image": self.name(index),
                    "line": int(self.table.row[self.row_of[index]]),
                    "problem": faults[scan.paths[index]],
                }
                for index in sorted(self.row_of)
                if not scan.readable[index]
            ],
            "sizes": dict(sizes.most_common()),
            "other_size": sizes.total() - sizes[f"{image_size}x{image_size}"],
            "turned": [
                {"image": self.name(index), "orientation": int(scan.orientation[index])}
                for index in good[scan.orientation[good] != 1].tolist()
            ],
            "grey": int(scan.grey[good].sum()),
            "flat": [self.place(index) for index in good[self.flat()].tolist()],
            "identical": [names for names in same.values() if len(names) > 1],
        }


def _near(first: _Seen, second: _Seen) -> dict[str, Any]:
    """Near-duplicates between two splits, grouped by pair of videos, most pairs first."""
    scan = first.scan
    index_a, index_b = (seen.readable()[~seen.flat()] for seen in (first, second))
    pairs = near_duplicates.near_duplicates(scan.thumbnail[index_a], scan.thumbnail[index_b])
    pairs["first"], pairs["second"] = index_a[pairs["first"]], index_b[pairs["second"]]
    pairs["identical"] = scan.digest[pairs["first"]] == scan.digest[pairs["second"]]
    for name, seen in (("first", first), ("second", second)):
        pairs[f"{name}_video"] = [seen.table.video[seen.row_of[index]] for index in pairs[name]]
    groups = list(pairs.groupby(["first_video", "second_video"], sort=False))
    listed = []
    for videos, group in sorted(groups, key=lambda item: -len(item[1])):
        best = group.iloc[int(group["correlation"].argmax())]
        listed.append(
            {
                "videos": list(videos),
                "images": len(group),
                "identical": int(group["identical"].sum()),
                "example": {
                    "images": [first.place(best["first"]), second.place(best["second"])],
                    "bits": int(best["bits"]),
                    "correlation": round(float(best["correlation"]), 4),
                },
            }
        )
    return {"images": len(pairs), "groups": listed}
