"""Audit of a data set: everything that can be said of its rows, labels and images without a model.

`audit` reads every image once and returns one dict, ready for JSON. `findings` in it lists what a
user should look at, gravest first. The parts are `audit_rows`, `audit_labels`, `audit_images` and
`audit_near`.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline import audit_images, audit_labels, audit_near, audit_rows, images
from data_pipeline.audit_findings import find
from mtl_face.tables import FrameTable

VERSION = 1
"""Of the report's layout."""


def audit(
    splits: Mapping[str, FrameTable],
    *,
    image_size: int,
    identities: Mapping[tuple[str, str], str] | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Audits the splits of a data set.

    Args:
        splits: a frame table by name of the split, as read, duplicates and rows without images
            included.
        image_size: side that the crops should have, in pixels.
        identities: who is seen in a video, by names of data set and video, as far as known.
        pairs: splits between which near-duplicate images are looked for; None: all pairs.
        workers: threads that decode.
        progress: called from time to time with (images done, images in all).

    Returns:
        `version`; `images` decoded; `findings` (see `audit_findings.find`); `splits`: for each
        split `counts` (as `FrameTable.counts`), `labels` (`audit_labels.label_statistics`),
        `duplicates`, `gaps` (one dict a video) and `gap_histogram` (`audit_rows`), and `images`;
        `shared` between splits (`audit_rows.shared_between_splits`); `near`: for each
        pair of splits the groups of near-duplicate images by pair of videos.

    Raises:
        ImageError: an image folder is missing or may not be listed.
    """
    missing = {split: images.find_missing(table) for split, table in splits.items()}
    present = {
        split: np.setdiff1d(np.arange(len(table)), missing[split])
        for split, table in splits.items()
    }
    paths = {split: table.paths() for split, table in splits.items()}
    wanted = [paths[split][row] for split in splits for row in present[split]]
    scan = audit_images.scan_images(wanted, workers=workers, progress=progress)
    index_of = {path: index for index, path in enumerate(scan.paths)}
    # The images of each split: index into the scan, and a row that names it.
    rows_of = {
        split: {index_of[paths[split][row]]: int(row) for row in reversed(present[split])}
        for split in splits
    }
    report: dict[str, Any] = {
        "version": VERSION,
        "image_size": image_size,
        "images": len(scan.paths),
        "splits": {
            split: {
                "counts": table.counts(),
                "labels": audit_labels.label_statistics(table),
                "duplicates": audit_rows.duplicates(table),
                "gaps": audit_rows.frame_gaps(table),
                "gap_histogram": audit_rows.gap_histogram(table),
                "images": _describe_images(
                    table, scan, rows_of[split], missing[split], paths[split], image_size
                ),
            }
            for split, table in splits.items()
        },
        "shared": audit_rows.shared_between_splits(splits, identities),
        "identities_known": bool(identities),
        "near": [
            _near(splits, scan, rows_of, first, second)
            for first, second in (itertools.combinations(splits, 2) if pairs is None else pairs)
        ],
    }
    report["findings"] = find(report)
    return report


def _describe_images(
    table: FrameTable,
    scan: audit_images.ImageScan,
    row_of: Mapping[int, int],
    missing: np.ndarray,
    paths: list[str],
    image_size: int,
) -> dict[str, Any]:
    index = np.array(sorted(row_of), np.int64)
    good = index[scan.readable[index]]
    faults = {str(error.path): error.problem for error in scan.faults}
    flat = good[audit_near.is_flat(scan.thumbnail[good])]
    sizes = Counter(f"{width}x{height}" for width, height in scan.size[good].tolist())
    same: dict[int, list[str]] = defaultdict(list)
    for place in good:
        same[int(scan.digest[place])].append(table.image[row_of[int(place)]])
    repeated = [names for names in same.values() if len(names) > 1]
    return {
        "unique": len(set(paths)),
        "readable": len(good),
        "missing": [
            {"image": table.image[row], "line": int(table.row[row])} for row in missing.tolist()
        ],
        "broken": [
            {
                "image": table.image[row_of[int(place)]],
                "line": int(table.row[row_of[int(place)]]),
                "problem": faults[scan.paths[place]],
            }
            for place in index[~scan.readable[index]]
        ],
        "sizes": dict(sizes.most_common()),
        "other_size": sum(
            count for size, count in sizes.items() if size != f"{image_size}x{image_size}"
        ),
        "grey": int(scan.grey[good].sum()),
        "flat": [_place(table, row_of[int(place)]) for place in flat],
        "identical": repeated,
    }


def _near(
    splits: Mapping[str, FrameTable],
    scan: audit_images.ImageScan,
    rows_of: Mapping[str, Mapping[int, int]],
    first: str,
    second: str,
) -> dict[str, Any]:
    """Near-duplicates between two splits, grouped by pair of videos, most pairs first."""
    usable = {}
    for split in (first, second):
        index = np.array(sorted(rows_of[split]), np.int64)
        index = index[scan.readable[index]]
        usable[split] = index[~audit_near.is_flat(scan.thumbnail[index])]
    pairs = audit_near.near_duplicates(
        scan.thumbnail[usable[first]], scan.thumbnail[usable[second]]
    )
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    places = []
    for number, (a, b) in enumerate(
        zip(usable[first][pairs.first], usable[second][pairs.second], strict=True)
    ):
        row_a, row_b = rows_of[first][int(a)], rows_of[second][int(b)]
        places.append((row_a, row_b, bool(scan.digest[a] == scan.digest[b])))
        groups[splits[first].video[row_a], splits[second].video[row_b]].append(number)
    listed = []
    for (video_a, video_b), numbers in sorted(groups.items(), key=lambda group: -len(group[1])):
        best = max(numbers, key=lambda number: pairs.correlation[number])
        listed.append(
            {
                "videos": [video_a, video_b],
                "images": len(numbers),
                "identical": sum(places[number][2] for number in numbers),
                "example": {
                    "images": [
                        _place(splits[first], places[best][0]),
                        _place(splits[second], places[best][1]),
                    ],
                    "bits": int(pairs.bits[best]),
                    "correlation": round(float(pairs.correlation[best]), 4),
                },
            }
        )
    return {"splits": [first, second], "images": len(places), "groups": listed}


def _place(table: FrameTable, row: int) -> dict[str, str]:
    return {"image": table.image[row], "root": table.root[row]}
