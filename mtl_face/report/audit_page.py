"""The audit's report as one HTML file that loads nothing: numbers, heat maps and pictures."""

import itertools
from collections.abc import Iterable
from typing import Any

from mtl_face.report import audit_labels
from mtl_face.report.audit_pieces import STYLE, bars, pair, percent
from mtl_face.report.html import Html, escape, group, join, page, paragraph, section, table

_PAIRS_SHOWN = 24
_CONFLICTS_SHOWN = 12
_VIDEOS_SHOWN = 20


def compose(report: dict[str, Any], *, title: str, where: str) -> str:
    """Composes the page.

    Args:
        report: from `data_pipeline.audit.audit`.
        title: heading of the page.
        where: folder of the data set.

    Returns:
        HTML5 text. Pictures that cannot be read are left out; they are listed as broken.
    """
    parts = {
        ("findings", "What to look at"): _findings(report, where),
        ("rows", "Rows and images"): _rows(report),
        ("expressions", "Expressions"): audit_labels.expressions(report),
        ("units", "Action units"): audit_labels.units(report),
        ("va", "Valence and arousal"): audit_labels.valence_arousal(report),
        ("together", "What goes together"): audit_labels.together(report),
        ("gaps", "Gaps between frames"): _gaps(report),
        ("splits", "Shared by splits"): _shared(report),
        ("duplicates", "Rows that disagree"): _conflicts(report),
    }
    return page(
        title=title,
        notices=[],
        contents=list(parts),
        sections=[section(name, heading, body) for (name, heading), body in parts.items()],
    )


def _findings(report: dict[str, Any], where: str) -> Iterable[Html]:
    yield STYLE
    yield paragraph(f"Data in {where}.", css_class="muted")
    for finding in report["findings"]:
        examples = join(Html(f"<li>{escape(example)}</li>") for example in finding["examples"])
        yield Html(
            f'<div class="finding {escape(finding["severity"])}">'
            f"<p><b>{escape(finding['severity'])}</b>: {escape(finding['what'])}</p>"
            + (f"<ul>{examples}</ul>" if examples else "")
            + f'<p class="muted">{escape(finding["remedy"])}</p></div>'
        )
    if not report["findings"]:
        yield paragraph("Nothing was found that needs a look.")


def _rows(report: dict[str, Any]) -> Iterable[Html]:
    splits = report["splits"]
    counts = {name: part["counts"] for name, part in splits.items()}
    images = {name: part["images"] for name, part in splits.items()}
    lines: list[tuple[str, list[Any]]] = [
        ("Rows", [counts[name]["rows"] for name in splits]),
        ("Images", [counts[name]["unique_images"] for name in splits]),
        ("Videos", [counts[name]["videos"] for name in splits]),
        ("Rows of a frame listed before", [counts[name]["duplicates"] for name in splits]),
        ("Missing images (rows)", [len(images[name]["missing"]) for name in splits]),
        ("Broken images", [len(images[name]["broken"]) for name in splits]),
        ("Nearly of one colour", [len(images[name]["flat"]) for name in splits]),
        ("Of another size", [images[name]["other_size"] for name in splits]),
        ("Grey images", [images[name]["grey"] for name in splits]),
        ("Equal files, other names (groups)", [len(images[name]["identical"]) for name in splits]),
    ]
    yield table(
        ["", *splits],
        [[label, *(f"{value:,}" for value in values)] for label, values in lines],
        caption="Rows and image files of each split.",
    )
    combinations = list(next(iter(splits.values()))["labels"]["combinations"]) if splits else []
    yield table(
        ["Labelled for", *itertools.chain.from_iterable((name, "") for name in splits)],
        [
            [
                combination.replace("+", " + "),
                *itertools.chain.from_iterable(
                    (
                        f"{part['labels']['combinations'][combination]:,}",
                        percent(
                            part["labels"]["combinations"][combination], part["counts"]["rows"]
                        ),
                    )
                    for part in splits.values()
                ),
            ]
            for combination in combinations
        ],
        caption="Rows by the tasks that they have labels for: va, au, expr or several.",
    )


def _gaps(report: dict[str, Any]) -> Iterable[Html]:
    for split, part in report["splits"].items():
        counts = part["gap_histogram"]
        yield bars(
            ["Frames from one to the next", "Gaps", "Share", ""],
            [
                (
                    name,
                    [f"{count:,}", percent(count, sum(counts.values()))],
                    count / max(1, *counts.values()),
                    [],
                )
                for name, count in counts.items()
            ],
            caption=f"{split}: spacing of labelled frames inside videos; 1 is no gap.",
        )
        gaps = [video for video in part["gaps"] if video["longest_gap"] is not None]
        gaps.sort(key=lambda video: -video["longest_gap"])
        yield table(
            ["Video", "Frames", "First", "Last", "Median gap", "Mean gap", "Longest", "after"],
            [
                [
                    video["video"],
                    f"{video['frames']:,}",
                    video["first"],
                    video["last"],
                    f"{video['median_gap']:g}",
                    f"{video['mean_gap']:.1f}",
                    f"{video['longest_gap']:,}",
                    video["after"],
                ]
                for video in gaps[:_VIDEOS_SHOWN]
            ],
            caption=f"{split}: the videos with the longest gaps"
            + (f", {_VIDEOS_SHOWN} of {len(gaps):,}." if len(gaps) > _VIDEOS_SHOWN else "."),
        )


def _shared(report: dict[str, Any]) -> Iterable[Html]:
    names = {"videos": "Videos", "recordings": "Recordings (by name)", "identities": "People"}
    for kind, what in names.items():
        shared = report["shared"][kind]
        if kind == "identities" and not report["identities_known"]:
            yield paragraph("Who is seen in which video is not known.", css_class="muted")
            continue
        yield paragraph(f"{what} in more than one split: {len(shared):,}.")
        if shared:
            yield table(
                ["Name", "Where"],
                [
                    [
                        entry["name"],
                        "; ".join(
                            f"{split}: {', '.join(videos)}"
                            for split, videos in entry["splits"].items()
                        ),
                    ]
                    for entry in shared[:_VIDEOS_SHOWN]
                ],
                caption=f"The first {_VIDEOS_SHOWN} of them."
                if len(shared) > _VIDEOS_SHOWN
                else "All of them.",
                css_class="words",
            )
    for near in report["near"]:
        first, second = near["splits"]
        yield paragraph(
            f"Images of {second} that look almost like one of {first} "
            f"(perceptual hash, confirmed by the correlation of thumbnails): "
            f"{near['images']:,}, in pairs of videos: {len(near['groups']):,}."
        )
        yield group(
            (
                pair(
                    entry["example"]["images"],
                    [
                        " ~ ".join(image["image"] for image in entry["example"]["images"]),
                        f"images of these two videos: {entry['images']:,}"
                        + (
                            f", of equal bytes: {entry['identical']:,}"
                            if entry["identical"]
                            else ""
                        ),
                        f"correlation {entry['example']['correlation']:.3f}, "
                        f"{entry['example']['bits']} of 64 bits differ",
                    ],
                )
                for entry in near["groups"][:_PAIRS_SHOWN]
            ),
            css_class="pairs",
        )


def _conflicts(report: dict[str, Any]) -> Iterable[Html]:
    for split, part in report["splits"].items():
        doubled = part["duplicates"]
        yield paragraph(
            f"{split}: frames listed more than once: {doubled['frames']:,}. Labels equal: "
            f"{doubled['equal']:,}, completing each other: {doubled['complementary']:,}, "
            f"contradicting each other: {doubled['conflicting']:,}."
        )
        examples = [entry for entry in doubled["examples"] if entry["kind"] == "conflicting"]
        yield group(
            (
                pair(
                    [entry],
                    [entry["image"]]
                    + [f"line {row['line']}: {row['labels']}" for row in entry["rows"]],
                )
                for entry in examples[:_CONFLICTS_SHOWN]
            ),
            css_class="pairs",
        )
