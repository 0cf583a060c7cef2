"""What an audit says about rows and their labels, without a look at any image.

Letters: N rows of a table, A action units (12), E expressions (8), B bins.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

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
    keys = pd.DataFrame({name: getattr(table, name) for name in ("dataset", "video", "frame")})
    repeated = keys[keys.duplicated(keep=False)]
    groups = [group.index.tolist() for _, group in repeated.groupby(list(keys), sort=False)]
    counts = {"equal": 0, "complementary": 0, "conflicting": 0}
    examples = []
    for rows in groups:
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
    va = (("valence", table.valence[row]), ("arousal", table.arousal[row]))
    words = [f"{name} {value:+.2f}" for name, value in va if not np.isnan(value)]
    if table.expression[row] >= 0:
        words.append(tasks.EXPRESSION_NAMES[table.expression[row]])
    if not np.isnan(table.au[row]).all():
        present = np.array(tasks.AU_NUMBERS)[table.au[row] == 1]
        words.append("AU " + (" ".join(map(str, present)) or "none"))
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
        some = len(gap_N) > 0
        result.append(
            {
                "dataset": dataset,
                "video": video,
                "frames": len(frame_N),
                "first": int(frame_N[0]),
                "last": int(frame_N[-1]),
                "median_gap": float(np.median(gap_N)) if some else None,
                "mean_gap": float(gap_N.mean()) if some else None,
                "longest_gap": int(gap_N.max()) if some else None,
                "after": int(frame_N[gap_N.argmax()]) if some else None,
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
    of_class_EN = expression_N == np.arange(len(tasks.EXPRESSION_NAMES))[:, None]
    classes = list(zip(tasks.EXPRESSION_NAMES, of_class_EN, strict=True))
    bins = np.linspace(-1, 1, VA_BINS + 1)
    histogram, _, _ = np.histogram2d(table.arousal[has_va_N], table.valence[has_va_N], (bins, bins))
    return {
        "combinations": _combinations(has_va_N, has_au_NA.any(axis=1), expression_N >= 0),
        "expressions": {name: int(rows_N.sum()) for name, rows_N in classes},
        "au": {
            name: {
                "present": int((unit_N == 1).sum()),
                "absent": int((unit_N == 0).sum()),
                "missing": int(np.isnan(unit_N).sum()),
                "share": _share((unit_N == 1).sum(), (~np.isnan(unit_N)).sum()),
            }
            for name, unit_N in zip(tasks.AU_NAMES, au_NA.T, strict=True)
        },
        "au_given_au": [_unit_shares(au_NA[rows_N]) for rows_N in present_NA.T],
        "au_given_expression": [_unit_shares(au_NA[rows_N]) for rows_N in of_class_EN],
        "va_given_expression": {
            name: {
                "rows": int((has_va_N & rows_N).sum()),
                "valence": _mean(table.valence[has_va_N & rows_N]),
                "arousal": _mean(table.arousal[has_va_N & rows_N]),
            }
            for name, rows_N in classes
        },
        "va": {
            "valence": _mean_and_std(table.valence[has_v]),
            "arousal": _mean_and_std(table.arousal[has_a]),
            "histogram": histogram.astype(int).tolist(),
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
        `source_video`, or videos in one of several folders, whose names differ) and `identities`;
        each entry has `name` and `splits`, which maps a split to the names of its videos.
    """
    holders: dict[str, dict[str, dict[str, set[str]]]] = {
        kind: defaultdict(lambda: defaultdict(set))
        for kind in ("videos", "recordings", "identities")
    }
    videos = {split: _videos(table) for split, table in splits.items()}
    folders: dict[str, set[str]] = defaultdict(set)
    for dataset, video in set().union(*videos.values()):
        folders[dataset].add(os.path.dirname(video))
    for split, found in videos.items():
        for dataset, video in found:
            folder = os.path.dirname(video)
            source = source_video(video)
            if folder and len(folders[dataset]) > 1 and not found[dataset, video]:
                source = f"{folder}/"  # as of one person
            holders["videos"][f"{dataset}: {video}"][split].add(video)
            holders["recordings"][f"{dataset}: {source}"][split].add(video)
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


def _videos(table: FrameTable) -> dict[tuple[str, str], bool]:
    """The videos, by names of data set and video, and whether each is no more than one image."""
    rows = zip(table.dataset, table.video, table.image, strict=True)
    return {(dataset, video): os.path.splitext(image)[0] == video for dataset, video, image in rows}


def _compare(table: FrameTable, rows: list[int]) -> str:
    expression_R = np.where(table.expression[rows] < 0, np.nan, table.expression[rows])
    va_R2 = np.column_stack([table.valence[rows], table.arousal[rows]])
    value_RK = np.column_stack([va_R2, expression_R, table.au[rows]])
    missing_RK = np.isnan(value_RK)
    low = np.where(missing_RK, np.inf, value_RK).min(axis=0)
    high = np.where(missing_RK, -np.inf, value_RK).max(axis=0)
    if (high > low).any():
        return "conflicting"
    return "equal" if (missing_RK == missing_RK[0]).all() else "complementary"


def _frames_by_video(table: FrameTable) -> dict[Any, npt.NDArray[np.int64]]:
    """The distinct frame numbers of each video, ascending; videos in the table's order."""
    frames = pd.Series(table.frame).groupby([table.dataset, table.video], sort=False)
    return {video: np.unique(frame_N) for video, frame_N in frames}


def _combinations(
    va_N: npt.ArrayLike, au_N: npt.ArrayLike, expr_N: npt.ArrayLike
) -> dict[str, int]:
    code_N = np.stack([va_N, au_N, expr_N]).T @ (1, 2, 4)
    counts = {}
    for code in range(7, -1, -1):
        names = [task for bit, task in enumerate(tasks.TASKS) if code >> bit & 1]
        counts["+".join(names) or "none"] = int((code_N == code).sum())
    return counts


def _unit_shares(au_NA: np.ndarray) -> list[float | None]:
    return [_share((unit_N == 1).sum(), (~np.isnan(unit_N)).sum()) for unit_N in au_NA.T]


def _mean(value_N: np.ndarray) -> float | None:
    return _number(value_N.mean(dtype=np.float64)) if len(value_N) else None


def _mean_and_std(value_N: np.ndarray) -> dict[str, float | None]:
    std = _number(value_N.std(dtype=np.float64)) if len(value_N) else None
    return {"mean": _mean(value_N), "std": std}


def _share(some: Any, all_: Any) -> float | None:
    return _number(some / all_) if all_ else None


def _number(value: Any) -> float:
    return round(float(value), 6)
