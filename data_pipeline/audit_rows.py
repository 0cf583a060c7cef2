"""What an audit says about rows: duplicates, gaps between frames, and what two splits share.

Letters: N rows of a table.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_face import tasks
from mtl_face.tables import FrameTable

_PART = re.compile(r"(?:_(?:left|right)|_[0-9]{1,2}|(?<=x[0-9]{3})-[0-9]|(?<=x[0-9]{4})-[0-9])$")


def source_video(name: str) -> str:
    """The recording that a video's name points to: without `_left`, `_right` and a part's number.

    `video45_1` and `video45_2` are parts of `video45`; `46-30-484x360_left` shows one person of
    `46-30-484x360`. Names are all that the format says about who and what is seen.
    """
    shortened = _PART.sub("", name)
    while shortened and shortened != name:
        name, shortened = shortened, _PART.sub("", shortened)
    return name


def duplicates(table: FrameTable) -> dict[str, Any]:
    """Frames that a file lists more than once, by what their labels say.

    Returns:
        Numbers of frames: `frames` in all, of which `equal` (the same labels), `complementary`
        (one row has what another lacks, none contradicts) and `conflicting` (two rows give
        different labels of one task); `examples`: conflicting frames, then complementary ones,
        each with `image`, `root`, `kind` and its `rows` (line and labels in words).
    """
    groups: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for row in np.flatnonzero(_is_repeated(table)):
        groups[table.dataset[row], table.video[row], int(table.frame[row])].append(int(row))
    counts = {"equal": 0, "complementary": 0, "conflicting": 0}
    examples = []
    for rows in groups.values():
        kind = _compare(table, rows)
        counts[kind] += 1
        if kind != "equal":
            examples.append(
                {
                    "image": table.image[rows[0]],
                    "root": table.root[rows[0]],
                    "kind": kind,
                    "rows": [
                        {"line": int(table.row[row]), "labels": describe_labels(table, row)}
                        for row in rows
                    ],
                }
            )
    examples.sort(key=lambda example: example["kind"] != "conflicting")
    return {"frames": len(groups), **counts, "examples": examples}


def describe_labels(table: FrameTable, row: int) -> str:
    """A row's labels in words; what is missing is not named."""
    words = []
    for name, value in (("valence", table.valence[row]), ("arousal", table.arousal[row])):
        if not np.isnan(value):
            words.append(f"{name} {value:+.2f}")
    if table.expression[row] >= 0:
        words.append(tasks.EXPRESSION_NAMES[table.expression[row]])
    if not np.isnan(table.au[row]).all():
        present = [
            str(number)
            for number, value in zip(tasks.AU_NUMBERS, table.au[row], strict=True)
            if value == 1
        ]
        words.append("AU " + (" ".join(present) or "none"))
    return ", ".join(words) or "no label"


def frame_gaps(table: FrameTable) -> list[dict[str, Any]]:
    """Spacing of the labelled frames of each video, in frame numbers.

    Returns:
        One dict a video, in the table's order: `dataset`, `video`, `frames` (distinct), `first`,
        `last`, `median_gap`, `mean_gap`, `longest_gap` and `after`, the frame before the longest
        gap. A gap of 1 means consecutive frames; of one frame alone the gaps are None.
    """
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for dataset, video, frame in zip(table.dataset, table.video, table.frame, strict=True):
        numbers[dataset, video].append(int(frame))
    result = []
    for (dataset, video), listed in numbers.items():
        frame_N = np.unique(listed)
        gap_N = np.diff(frame_N)
        longest = int(gap_N.argmax()) if len(gap_N) else None
        result.append(
            {
                "dataset": dataset,
                "video": video,
                "frames": len(frame_N),
                "first": int(frame_N[0]),
                "last": int(frame_N[-1]),
                "median_gap": None if longest is None else float(np.median(gap_N)),
                "mean_gap": None if longest is None else float(gap_N.mean()),
                "longest_gap": None if longest is None else int(gap_N[longest]),
                "after": None if longest is None else int(frame_N[longest]),
            }
        )
    return result


def gap_histogram(table: FrameTable) -> dict[str, int]:
    """How many gaps there are of each length, in classes: 1, 2-4, 5-9, 10-29, 30-99, 100 on."""
    classes = {"1": 0, "2-4": 0, "5-9": 0, "10-29": 0, "30-99": 0, "100 or more": 0}
    edges = np.array([2, 5, 10, 30, 100])
    names = list(classes)
    by_video: dict[tuple[str, str], list[int]] = defaultdict(list)
    for dataset, video, frame in zip(table.dataset, table.video, table.frame, strict=True):
        by_video[dataset, video].append(int(frame))
    for listed in by_video.values():
        place = np.searchsorted(edges, np.diff(np.unique(listed)), side="right")
        for index, count in zip(*np.unique(place, return_counts=True), strict=True):
            classes[names[index]] += int(count)
    return classes


def shared_between_splits(
    splits: Mapping[str, FrameTable], identities: Mapping[tuple[str, str], str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """What sits in more than one split.

    Args:
        splits: the tables by name of the split.
        identities: who is seen in a video, by names of data set and video, as far as known.

    Returns:
        Lists under `videos` (the same name), `recordings` (parts of one recording, by
        `source_video`, whose names differ) and `identities`; each entry has `name` and `splits`,
        which maps a split to the names of its videos.
    """
    holders: dict[str, dict[str, dict[str, set[str]]]] = {
        kind: defaultdict(lambda: defaultdict(set))
        for kind in ("videos", "recordings", "identities")
    }
    for split, table in splits.items():
        for dataset, video in set(zip(table.dataset, table.video, strict=True)):
            holders["videos"][f"{dataset}: {video}"][split].add(video)
            holders["recordings"][f"{dataset}: {source_video(video)}"][split].add(video)
            if identities and (dataset, video) in identities:
                holders["identities"][identities[dataset, video]][split].add(video)
    result: dict[str, list[dict[str, Any]]] = {}
    for kind, names in holders.items():
        result[kind] = [
            {"name": name, "splits": {split: sorted(videos) for split, videos in places.items()}}
            for name, places in sorted(names.items())
            if len(places) > 1 and not (kind == "recordings" and _one_name(places))
        ]
    return result


def _one_name(places: Mapping[str, set[str]]) -> bool:
    """Whether every split holds the same video: that is reported as a shared video."""
    return len(set.union(*places.values())) == 1


def _is_repeated(table: FrameTable) -> np.ndarray:
    """Rows that share their (dataset, video, frame) with another row, the first included."""
    keys = list(zip(table.dataset, table.video, table.frame, strict=True))
    repeated = {keys[row] for row in np.flatnonzero(table.duplicate)}
    return np.fromiter((key in repeated for key in keys), bool, len(table))


def _compare(table: FrameTable, rows: list[int]) -> str:
    value_RK = np.concatenate(
        [
            table.valence[rows, None],
            table.arousal[rows, None],
            np.where(table.expression[rows] >= 0, table.expression[rows], np.nan)[:, None],
            table.au[rows],
        ],
        axis=1,
    )
    missing_RK = np.isnan(value_RK)
    low = np.where(missing_RK, np.inf, value_RK).min(axis=0)
    high = np.where(missing_RK, -np.inf, value_RK).max(axis=0)
    if (high > low).any():
        return "conflicting"
    return "equal" if (missing_RK == missing_RK[0]).all() else "complementary"
