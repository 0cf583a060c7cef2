"""What an audit says about rows and their labels, without a look at any image.

Letters: N rows of a table, A action units (12), E expressions (8), B bins.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_face import tasks
from mtl_face.tables import FrameTable

VA_BINS = 10
"""Bins along valence and along arousal, over [-1, 1]."""

_GAP_CLASSES = {"1": 1, "2-4": 2, "5-9": 5, "10-29": 10, "30-99": 30, "100 or more": 100}
"""Classes of gaps, with the shortest gap in each."""

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
    keys = list(zip(table.dataset, table.video, table.frame, strict=True))
    repeated = {keys[row] for row in np.flatnonzero(table.duplicate)}
    groups: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if key in repeated:
            groups[key].append(row)
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
    result = []
    for (dataset, video), frame_N in _frames_by_video(table).items():
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
    """How many gaps there are of each length, by the class that `_GAP_CLASSES` names."""
    gap_N = np.concatenate([np.zeros(0, np.int64), *map(np.diff, _frames_by_video(table).values())])
    place_N = np.searchsorted(list(_GAP_CLASSES.values()), gap_N, side="right") - 1
    counts = np.bincount(place_N, minlength=len(_GAP_CLASSES))
    return dict(zip(_GAP_CLASSES, counts.tolist(), strict=True))


def label_statistics(table: FrameTable) -> dict[str, Any]:
    """Counts over rows; duplicates count as often as they are listed, as in training.

    Returns:
        `combinations`: rows by the tasks that they are labelled for, as `va+au`, `none`;
        `expressions`: rows by class; `au`: for each unit `present`, `absent`, `missing` and
        `share` present of those labelled (None if none is);
        `au_given_au`: [A][A], share of the rows with unit i present that have unit j present;
        `au_given_expression`: [E][A], share of the rows of a class with the unit present;
        `va_given_expression`: per class `rows`, mean `valence` and `arousal`;
        `va`: `mean`, `std` of both values and `histogram`, [B][B] rows by arousal (from -1 up),
        then valence;
        `va_half_missing`: rows with one of valence and arousal alone;
        `au_partly_missing`: rows with some units labelled and others not.
        Shares over no rows are None.
    """
    au_NA, expression_N = table.au, table.expression
    has_v, has_a = ~np.isnan(table.valence), ~np.isnan(table.arousal)
    has_va_N = has_v & has_a
    has_au_NA = ~np.isnan(au_NA)
    present_NA = au_NA == 1
    return {
        "combinations": _combinations(has_va_N, has_au_NA.any(axis=1), expression_N >= 0),
        "expressions": {
            name: int((expression_N == index).sum())
            for index, name in enumerate(tasks.EXPRESSION_NAMES)
        },
        "au": {
            name: {
                "present": int(present_NA[:, unit].sum()),
                "absent": int((au_NA[:, unit] == 0).sum()),
                "missing": int((~has_au_NA[:, unit]).sum()),
                "share": _share(present_NA[:, unit].sum(), has_au_NA[:, unit].sum()),
            }
            for unit, name in enumerate(tasks.AU_NAMES)
        },
        "au_given_au": [
            _unit_shares(present_NA, has_au_NA, present_NA[:, unit])
            for unit in range(len(tasks.AU_NAMES))
        ],
        "au_given_expression": [
            _unit_shares(present_NA, has_au_NA, expression_N == index)
            for index in range(len(tasks.EXPRESSION_NAMES))
        ],
        "va_given_expression": {
            name: _means(table, has_va_N & (expression_N == index))
            for index, name in enumerate(tasks.EXPRESSION_NAMES)
        },
        "va": {
            **{
                name: {
                    "mean": _number(values[has].mean(dtype=np.float64)) if has.any() else None,
                    "std": _number(values[has].std(dtype=np.float64)) if has.any() else None,
                }
                for name, values, has in (
                    ("valence", table.valence, has_v),
                    ("arousal", table.arousal, has_a),
                )
            },
            "histogram": _va_histogram(table, has_va_N),
        },
        "va_half_missing": int((has_v != has_a).sum()),
        "au_partly_missing": int((has_au_NA.any(axis=1) & ~has_au_NA.all(axis=1)).sum()),
    }


def shared_between_splits(
    splits: Mapping[str, FrameTable], identities: Mapping[tuple[str, str], str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """What sits in more than one split.

    `identities` say who is seen in a video, by names of data set and video, as far as known.

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
            # One video in every split is reported among the videos.
            if len(places) > 1
            and not (kind == "recordings" and len(set.union(*places.values())) == 1)
        ]
    return result


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


def _frames_by_video(table: FrameTable) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
    """The distinct frame numbers of each video, ascending; videos in the table's order."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for dataset, video, frame in zip(table.dataset, table.video, table.frame, strict=True):
        numbers[dataset, video].append(frame)
    return {video: np.unique(listed) for video, listed in numbers.items()}


def _combinations(
    va_N: npt.ArrayLike, au_N: npt.ArrayLike, expr_N: npt.ArrayLike
) -> dict[str, int]:
    code_N = np.stack([va_N, au_N, expr_N]).T @ (1, 2, 4)
    counts = {}
    for code in range(7, -1, -1):
        names = [task for bit, task in enumerate(tasks.TASKS) if code >> bit & 1]
        counts["+".join(names) or "none"] = int((code_N == code).sum())
    return counts


def _unit_shares(
    present_NA: np.ndarray, has_NA: np.ndarray, rows_N: np.ndarray
) -> list[float | None]:
    present_A, labelled_A = present_NA[rows_N].sum(axis=0), has_NA[rows_N].sum(axis=0)
    return [_share(some, all_) for some, all_ in zip(present_A, labelled_A, strict=True)]


def _means(table: FrameTable, rows_N: np.ndarray) -> dict[str, Any]:
    if not rows_N.any():
        return {"rows": 0, "valence": None, "arousal": None}
    return {
        "rows": int(rows_N.sum()),
        "valence": _number(table.valence[rows_N].mean(dtype=np.float64)),
        "arousal": _number(table.arousal[rows_N].mean(dtype=np.float64)),
    }


def _va_histogram(table: FrameTable, has_N: np.ndarray) -> list[list[int]]:
    edges = np.linspace(-1, 1, VA_BINS + 1)
    counts, _, _ = np.histogram2d(table.arousal[has_N], table.valence[has_N], bins=(edges, edges))
    return counts.astype(int).tolist()


def _share(some: Any, all_: Any) -> float | None:
    return _number(some / all_) if all_ else None


def _number(value: Any) -> float:
    return round(float(value), 6)
