"""The page of a data set's audit: findings, counts, heat maps and pictures.

Each function takes the report of `data_pipeline.audit.audit` and returns the plain values of a
section; `part` is what the report says of one split.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mtl_face import pictures, tasks
from mtl_face.errors import ImageError
from mtl_face.report.page import Cell, Picture, Row, Table, embed, write_page
from mtl_face.report.scores import AU_LABELS

_PAIRS_SHOWN = 24
_CONFLICTS_SHOWN = 12
_VIDEOS_SHOWN = 20

_UNITS = [name.upper() for name in tasks.AU_NAMES]
_SHARED = {"videos": "Videos", "recordings": "Recordings (by name)", "identities": "People"}

Report = dict[str, Any]


def write_audit(path: str | os.PathLike[str], report: Report, *, title: str, where: str) -> None:
    """Writes the page as one HTML file that loads nothing; `where` is the data set's folder.

    Pictures that cannot be read are left out: the report lists them as broken. Raises WorkdirError.
    """
    splits = report["splits"].items()
    write_page(
        path,
        "audit.html",
        title=title,
        notice=None,
        warnings=[],
        where=where,
        findings=report["findings"],
        rows=[_rows(report), _combinations(report)],
        expressions=[_expressions(split, part["labels"]) for split, part in splits],
        units=[_units(split, part["labels"]["au"]) for split, part in splits],
        va=[_valence_arousal(split, part["labels"]["va"]) for split, part in splits],
        together=[table for split, part in splits for table in _together(split, part["labels"])],
        gaps=[table for split, part in splits for table in _gaps(split, part)],
        shared=[_shared(report, kind) for kind in _SHARED],
        near=[_near(near, report["upright"]) for near in report["near"]],
        duplicates={
            split: _duplicates(part["duplicates"], report["upright"]) for split, part in splits
        },
    )


def _rows(report: Report) -> Table:
    counts = [part["counts"] for part in report["splits"].values()]
    images = [part["images"] for part in report["splits"].values()]
    lines = {
        "Rows": [part["rows"] for part in counts],
        "Images": [part["unique_images"] for part in counts],
        "Videos": [part["videos"] for part in counts],
        "Rows of a frame listed before": [part["duplicates"] for part in counts],
        "Missing images (rows)": [len(part["missing"]) for part in images],
        "Broken images": [len(part["broken"]) for part in images],
        "Nearly of one colour": [len(part["flat"]) for part in images],
        "Of another size": [part["other_size"] for part in images],
        "With an EXIF orientation": [len(part["turned"]) for part in images],
        "Grey images": [part["grey"] for part in images],
        "Equal files, other names (groups)": [len(part["identical"]) for part in images],
    }
    rows = [[label, *values] for label, values in lines.items()]
    return Table("Rows and image files of each split.", ["", *report["splits"]], rows)


def _combinations(report: Report) -> Table:
    splits = report["splits"]
    names = list(next(iter(splits.values()))["labels"]["combinations"]) if splits else []
    rows = []
    for name in names:
        row: Row = [name.replace("+", " + ")]
        for part in splits.values():
            count = part["labels"]["combinations"][name]
            row += [count, _percent(count, part["counts"]["rows"])]
        rows.append(row)
    return Table(
        "Rows by the tasks that they have labels for: va, au, expr or several.",
        ["Labelled for", *itertools.chain.from_iterable((split, "") for split in splits)],
        rows,
    )


def _expressions(split: str, labels: Report) -> Table:
    rows = _shares(labels["expressions"])
    for row in rows:
        means = labels["va_given_expression"][row[0]]
        row += [_signed(means[value]) for value in tasks.VA_NAMES]
    return Table(
        f"{split}: rows of each class.",
        ["Expression", "Rows", "Share", "", "Mean valence", "Mean arousal"],
        rows,
    )


def _units(split: str, units: Report) -> Table:
    rows = []
    for name, label in AU_LABELS.items():
        present, absent, share = (units[name][key] for key in ("present", "absent", "share"))
        rows.append([label, present, absent, _percent(share, 1), Cell(bar=share or 0.0)])
    return Table(
        f"{split}: rows with each unit; the bar is the share of the labelled rows.",
        ["Action unit", "Present", "Absent", "Share", ""],
        rows,
    )


def _valence_arousal(split: str, va: Report) -> Table:
    histogram = va["histogram"]
    edges = [-1 + 2 * index / len(histogram) for index in range(len(histogram))]
    most = max(1, *itertools.chain.from_iterable(histogram))
    words = ", ".join(
        f"{name} {_signed(va[name]['mean'])} (spread {va[name]['std']:.2f})"
        for name in tasks.VA_NAMES
        if va[name]["mean"] is not None
    )
    rows: list[Row] = [
        [
            f"{edge:+.1f}",
            *(Cell(f"{count:,}" if count else "", (count / most) ** 0.5) for count in counts),
        ]
        for edge, counts in zip(edges, histogram, strict=True)
    ]
    return Table(
        f"{split}: rows by arousal (lines) and valence (columns), each from its lower edge. "
        + (f"Means: {words}." if words else "No row is labelled."),
        ["A \\ V", *(f"{edge:+.1f}" for edge in edges)],
        rows[::-1],
        kind="heat",
    )


def _together(split: str, labels: Report) -> Iterator[Table]:
    """Which units go with which, and with which expression."""
    for names, shares, caption in (
        (
            _UNITS,
            labels["au_given_au"],
            "percent of the rows with the unit of the line present that have the unit of the "
            "column present.",
        ),
        (
            tasks.EXPRESSION_NAMES,
            labels["au_given_expression"],
            "percent of the rows of an expression that have the unit present.",
        ),
    ):
        rows: list[Row] = [
            [name, *(Cell("", 0.0) if s is None else Cell(f"{100 * s:.0f}", s) for s in line)]
            for name, line in zip(names, shares, strict=True)
        ]
        yield Table(f"{split}: {caption}", ["given", *_UNITS], rows, kind="heat")


def _gaps(split: str, part: Report) -> Iterator[Table]:
    """Spacing of the frames, and the videos with the longest gaps."""
    yield Table(
        f"{split}: spacing of labelled frames inside videos; 1 is no gap.",
        ["Frames from one to the next", "Gaps", "Share", ""],
        _shares(part["gap_histogram"]),
    )
    gaps = [video for video in part["gaps"] if video["longest_gap"] is not None]
    gaps.sort(key=lambda video: -video["longest_gap"])
    more = f", {_VIDEOS_SHOWN} of {len(gaps):,}." if len(gaps) > _VIDEOS_SHOWN else "."
    yield Table(
        f"{split}: the videos with the longest gaps{more}",
        ["Video", "Frames", "First", "Last", "Median gap", "Mean gap", "Longest", "after"],
        [
            [
                video["video"],
                video["frames"],
                str(video["first"]),
                str(video["last"]),
                f"{video['median_gap']:g}",
                f"{video['mean_gap']:.1f}",
                video["longest_gap"],
                str(video["after"]),
            ]
            for video in gaps[:_VIDEOS_SHOWN]
        ],
    )


def _shared(report: Report, kind: str) -> Report:
    """What is in more than one split: `num` is None where that is not known."""
    shared = report["shared"][kind]
    known = kind != "identities" or report["identities_known"]
    rows: list[Row] = []
    for entry in shared[:_VIDEOS_SHOWN]:
        places = (f"{split}: {', '.join(names)}" for split, names in entry["splits"].items())
        rows.append([entry["name"], "; ".join(places)])
    few = len(shared) <= _VIDEOS_SHOWN
    caption = "All of them." if few else f"The first {_VIDEOS_SHOWN} of them."
    return {
        "what": _SHARED[kind],
        "num": len(shared) if known else None,
        "table": Table(caption, ["Name", "Where"], rows, kind="words"),
    }


def _near(near: Report, upright: bool) -> Report:
    """Images of two splits that are nearly equal, with a pair of each pair of videos."""
    pairs = [
        {**entry, "pictures": _pictures(entry["example"]["images"], upright)}
        for entry in near["groups"][:_PAIRS_SHOWN]
    ]
    return {**near, "pairs": pairs}


def _duplicates(found: Report, upright: bool) -> Report:
    """Frames that are listed more than once, with those whose labels contradict each other."""
    examples = [entry for entry in found["examples"] if entry["kind"] == "conflicting"]
    conflicts = [
        {**entry, "pictures": _pictures([entry], upright)} for entry in examples[:_CONFLICTS_SHOWN]
    ]
    return {**found, "conflicts": conflicts}


def _pictures(images: Sequence[Report], upright: bool) -> list[Picture]:
    """Files by `root` and `image`, as training uses them, but for those that cannot be read."""
    found = []
    for entry in images:
        try:
            picture = pictures.read(os.path.join(entry["root"], *entry["image"].split("/")))
            image = picture.upright() if upright else picture.image
            found.append(embed(np.asarray(image), entry["image"]))
        except ImageError:
            continue
    return found


def _shares(counts: dict[str, int]) -> list[Row]:
    """Name, count, share of all, and a bar beside that of the largest count."""
    most, total = max(1, *counts.values()), sum(counts.values())
    return [
        [name, count, _percent(count, total), Cell(bar=count / most)]
        for name, count in counts.items()
    ]


def _percent(part: float | None, whole: int) -> str:
    """A share in percent; empty where it is not known."""
    return f"{100 * part / whole:.1f}%" if part is not None and whole else ""


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
