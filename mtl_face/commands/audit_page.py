"""The audit's report as one HTML file that loads nothing: numbers, heat maps and pictures."""

import base64
import io
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from mtl_face import tasks
from mtl_face.evaluation.report.html import (
    Html,
    escape,
    group,
    join,
    page,
    paragraph,
    section,
    table,
)

_PAIRS_SHOWN = 24
_CONFLICTS_SHOWN = 12
_VIDEOS_SHOWN = 20
_LARGEST_EMBEDDED = 20_000  # bytes of a JPEG file that is embedded as it is
_SIDE_PX = 112

_STYLE = Html("""<style>
.finding { border-left: .3rem solid var(--line); background: var(--card); padding: .5rem .9rem;
  margin: .6rem 0; }
.finding.error { border-color: var(--wrong); }
.finding.warning { border-color: var(--notice-line); }
.finding p { margin: .15rem 0; max-width: none; }
.finding ul { margin: .3rem 0; padding-left: 1.2rem; font-size: .875rem; overflow-wrap: anywhere; }
.finding b { text-transform: capitalize; }
.pairs { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
.pair { background: var(--card); border-radius: .4rem; padding: .6rem; font-size: .85rem;
  overflow-wrap: anywhere; }
.pair img { width: 48%; max-width: 112px; aspect-ratio: 1; object-fit: contain; }
.pair p { margin: .2rem 0; }
td.bar { min-width: 8rem; text-align: left; }
td.bar span { display: block; height: .8rem; border-radius: .15rem; background: #3b82c4;
  width: calc(var(--share) * 100%); min-width: 1px; }
@media print { td.bar span { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
</style>""")


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
        ("expressions", "Expressions"): _expressions(report),
        ("units", "Action units"): _units(report),
        ("va", "Valence and arousal"): _valence_arousal(report),
        ("together", "What goes together"): _together(report),
        ("gaps", "Gaps between frames"): _gaps(report),
        ("splits", "Shared by splits"): _shared(report),
        ("duplicates", "Rows that disagree"): _conflicts(report),
    }
    return page(
        title=title,
        notice=None,
        contents=list(parts),
        sections=[section(name, heading, body) for (name, heading), body in parts.items()],
    )


def _findings(report: dict[str, Any], where: str) -> Iterable[Html]:
    yield _STYLE
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
                        _percent(
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


def _expressions(report: dict[str, Any]) -> Iterable[Html]:
    for split, part in report["splits"].items():
        counts = part["labels"]["expressions"]
        means = part["labels"]["va_given_expression"]
        yield _bars(
            ["Expression", "Rows", "Share", "", "Mean valence", "Mean arousal"],
            [
                (
                    name,
                    [f"{count:,}", _percent(count, sum(counts.values()))],
                    count / max(1, *counts.values()),
                    [_signed(means[name]["valence"]), _signed(means[name]["arousal"])],
                )
                for name, count in counts.items()
            ],
            caption=f"{split}: rows of each class.",
        )


def _units(report: dict[str, Any]) -> Iterable[Html]:
    names = [
        (name, f"AU{number} {meaning}")
        for name, number, meaning in zip(
            tasks.AU_NAMES, tasks.AU_NUMBERS, tasks.AU_DESCRIPTIONS, strict=True
        )
    ]
    for split, part in report["splits"].items():
        units = part["labels"]["au"]
        yield _bars(
            ["Action unit", "Present", "Absent", "Share", ""],
            [
                (
                    label,
                    [
                        f"{units[name]['present']:,}",
                        f"{units[name]['absent']:,}",
                        _share(units[name]["share"]),
                    ],
                    units[name]["share"] or 0.0,
                    [],
                )
                for name, label in names
            ],
            caption=f"{split}: rows with each unit; the bar is the share of the labelled rows.",
        )


def _valence_arousal(report: dict[str, Any]) -> Iterable[Html]:
    for split, part in report["splits"].items():
        va = part["labels"]["va"]
        histogram = va["histogram"]
        bins = len(histogram)
        most = max(1, *itertools.chain.from_iterable(histogram))
        edges = [-1 + 2 * index / bins for index in range(bins + 1)]
        words = ", ".join(
            f"{name} {_signed(va[name]['mean'])} (spread {va[name]['std']:.2f})"
            for name in tasks.VA_NAMES
            if va[name]["mean"] is not None
        )
        yield _heat(
            ["arousal \\ valence", *(f"{edge:+.1f}" for edge in edges[:-1])],
            [
                (
                    f"{edges[row]:+.1f}",
                    [
                        (f"{count:,}" if count else "", (count / most) ** 0.5)
                        for count in histogram[row]
                    ],
                )
                for row in reversed(range(bins))
            ],
            caption=f"{split}: rows by valence and arousal, each class from its lower edge. "
            + (f"Means: {words}." if words else "No row is labelled."),
        )


def _together(report: dict[str, Any]) -> Iterable[Html]:
    units = [f"AU{number}" for number in tasks.AU_NUMBERS]
    for split, part in report["splits"].items():
        labels = part["labels"]
        yield _heat(
            ["given", *units],
            [
                (unit, [_cell(share) for share in shares])
                for unit, shares in zip(units, labels["au_given_au"], strict=True)
            ],
            caption=f"{split}: percent of the rows with the unit of the line present that have "
            "the unit of the column present.",
        )
        yield _heat(
            ["given", *units],
            [
                (name, [_cell(share) for share in shares])
                for name, shares in zip(
                    tasks.EXPRESSION_NAMES, labels["au_given_expression"], strict=True
                )
            ],
            caption=f"{split}: percent of the rows of an expression that have the unit present.",
        )


def _gaps(report: dict[str, Any]) -> Iterable[Html]:
    for split, part in report["splits"].items():
        counts = part["gap_histogram"]
        yield _bars(
            ["Frames from one to the next", "Gaps", "Share", ""],
            [
                (
                    name,
                    [f"{count:,}", _percent(count, sum(counts.values()))],
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
                _pair(
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
                _pair(
                    [entry],
                    [entry["image"]]
                    + [f"line {row['line']}: {row['labels']}" for row in entry["rows"]],
                )
                for entry in examples[:_CONFLICTS_SHOWN]
            ),
            css_class="pairs",
        )


def _pair(images: Sequence[dict[str, Any]], words: Sequence[str]) -> Html:
    pictures = " ".join(
        _picture(os.path.join(image["root"], *image["image"].split("/")), image["image"])
        for image in images
    )
    return Html(f'<div class="pair">{pictures}{join(paragraph(text) for text in words)}</div>')


def _picture(path: str, name: str) -> Html:
    """A file as an image in the page, or nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP")) as image:
            if image.format != "JPEG" or len(content) > _LARGEST_EMBEDDED:
                small = image.convert("RGB")
                small.thumbnail((2 * _SIDE_PX, 2 * _SIDE_PX))
                buffer = io.BytesIO()
                small.save(buffer, "JPEG", quality=85)
                content = buffer.getvalue()
    except (OSError, ValueError, SyntaxError):
        return Html("")
    data = base64.b64encode(content).decode("ascii")
    return Html(f'<img src="data:image/jpeg;base64,{data}" alt="{escape(name)}">')


def _bars(
    header: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str], float, Sequence[str]]],
    *,
    caption: str,
) -> Html:
    """A table with a bar in it: head of the line, cells, share of the bar, more cells."""
    body = join(
        Html(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in before)
            + f'<td class="bar"><span style="--share: {share:.4f}"></span></td>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in after)
            + "</tr>"
        )
        for name, before, share, after in rows
    )
    return _table("numbers", header, body, caption)


def _heat(
    header: Sequence[str],
    rows: Iterable[tuple[str, Sequence[tuple[str, float]]]],
    *,
    caption: str,
) -> Html:
    """A table whose cells are the darker, the larger their share."""
    body = join(
        Html(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(
                f'<td style="--share: {share:.3f}">{escape(text)}</td>' for text, share in cells
            )
            + "</tr>"
        )
        for name, cells in rows
    )
    return _table("confusion", header, body, caption)


def _table(css_class: str, header: Sequence[str], body: Html, caption: str) -> Html:
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    return Html(
        f'<div class="scroll"><table class="{css_class}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(share: float | None) -> tuple[str, float]:
    return ("", 0.0) if share is None else (f"{100 * share:.0f}", share)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else ""


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
