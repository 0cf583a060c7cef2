"""The findings of an audit, the most severe first."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from mtl_face import pictures, tasks
from mtl_face.errors import shortened

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")

RARE_SHARE = 0.02
"""Share of labelled rows below which a class or unit is called rare."""

_SHOWN = 5

Finding = dict[str, Any]


def find(report: dict[str, Any]) -> list[Finding]:
    """Draws conclusions from a report of `audit.audit`, whose `findings` need not be there yet.

    Returns:
        Dicts with `severity` (error: training fails or scores are not to be trusted; warning: look
        at it; note: good to know), `what` (a sentence with numbers), `remedy` and `examples` (a
        few in words), by severity.
    """
    found: list[Finding] = []
    for split, part in report["splits"].items():
        found += _in_images(split, part["images"], report["image_size"])
        found += _turned(split, part["images"]["turned"], report["upright"])
        found += _in_rows(split, part)
        found += _in_labels(split, part["labels"])
    found += _between_splits(report)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding["severity"]))


def as_text(findings: list[Finding]) -> str:
    """Findings as lines of text, and how many there are of each severity."""
    lines = []
    for finding in findings:
        lines.append(f"{finding['severity']}: {finding['what']}")
        lines += [f"    {example}" for example in finding["examples"][:3]]
        lines.append(f"  -> {finding['remedy']}")
    counts = Counter(finding["severity"] for finding in findings)
    total = [f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in SEVERITIES]
    lines.append("in all: " + ", ".join(total))
    return "\n".join(lines)


def _finding(severity: str, what: str, remedy: str, examples: Iterable[str] = ()) -> Finding:
    shown = shortened(list(examples), _SHOWN)
    return {"severity": severity, "what": what, "remedy": remedy, "examples": shown}


def _in_images(split: str, images: dict[str, Any], size: int) -> Iterator[Finding]:
    if images["missing"]:
        yield _finding(
            ERROR,
            f"{split}: rows whose image file does not exist: {len(images['missing']):,}",
            "put the crops there, or leave such rows out with data.missing_images=skip",
            (f"line {entry['line']}: {entry['image']}" for entry in images["missing"]),
        )
    if images["broken"]:
        yield _finding(
            ERROR,
            f"{split}: image files that cannot be used: {len(images['broken']):,}",
            "replace those files; or move them away, and set data.missing_images=skip",
            (f"{entry['image']}: {entry['problem']}" for entry in images["broken"]),
        )
    if images["flat"]:
        yield _finding(
            WARNING,
            f"{split}: images nearly of one colour: {len(images['flat']):,}",
            "look at them: they hardly show a face",
            (entry["image"] for entry in images["flat"]),
        )
    if images["other_size"]:
        yield _finding(
            WARNING,
            f"{split}: images that are not {size}x{size}: {images['other_size']:,}",
            "set data.image_size to their size, or crop them again: resizing takes time and blurs",
            (f"{name}: {count:,} images" for name, count in images["sizes"].items()),
        )
    if 0 < images["grey"] < images["readable"]:
        yield _finding(
            NOTE,
            f"{split}: images without colour: {images['grey']:,} of {images['readable']:,}",
            "none needed; they are read as colour",
        )
    if images["identical"]:
        yield _finding(
            NOTE,
            f"{split}: groups of image files with equal bytes and different names: "
            f"{len(images['identical']):,}",
            "look at some: still pictures, or copies with labels of their own",
            (" = ".join(names[:3]) for names in images["identical"]),
        )


def _turned(split: str, turned: list[dict[str, Any]], upright: bool) -> Iterator[Finding]:
    if turned:
        yield _finding(
            NOTE if upright else WARNING,
            f"{split}: images whose EXIF orientation is not upright: {len(turned):,}, "
            + ("which are turned" if upright else "used as they are stored"),
            "set data.exif_orientation=ignore if their faces are upright as stored"
            if upright
            else "look at some: set data.exif_orientation=apply if their faces lie or are mirrored",
            (f"{entry['image']}: {pictures.TURNS[entry['orientation']].words}" for entry in turned),
        )


_DOUBLED = {
    "conflicting": (
        WARNING,
        "frames listed more than once with labels that contradict each other",
        "keep the right rows alone, in a copy of the file: training and the score use all of them",
    ),
    "complementary": (
        NOTE,
        "frames listed more than once, each row with labels that another lacks",
        "none needed; they could be one row",
    ),
    "equal": (
        NOTE,
        "frames listed more than once with the same labels",
        "nothing to do; such a frame counts more in training and in the score",
    ),
}
"""Severity, meaning and remedy of rows of one frame, by what their labels say."""


def _in_rows(split: str, part: dict[str, Any]) -> Iterator[Finding]:
    doubled = part["duplicates"]
    for kind, (severity, meaning, remedy) in _DOUBLED.items():
        if doubled[kind]:
            examples = (
                f"{example['image']}: "
                + "; ".join(f"line {row['line']}: {row['labels']}" for row in example["rows"])
                for example in doubled["examples"]
                if example["kind"] == kind
            )
            yield _finding(severity, f"{split}: {meaning}: {doubled[kind]:,}", remedy, examples)
    counts = part["counts"]
    if 1 < counts["unique_images"] == counts["videos"]:
        yield _finding(
            NOTE,
            f"{split}: each image is a video of its own: {counts['videos']:,}",
            "name videos or people, if images share them: else people in two splits are not found, "
            "intervals are too narrow, and nothing is smoothed",
        )
    if unlabelled := counts["unlabelled"]:
        yield _finding(
            NOTE,
            f"{split}: rows without any label: {unlabelled:,}",
            "none needed; they have no weight in training or in the score",
        )


def _in_labels(split: str, labels: dict[str, Any]) -> Iterator[Finding]:
    classes = labels["expressions"]
    total = sum(classes.values())
    absent = [name for name, count in classes.items() if not count]
    rare = [name for name, count in classes.items() if 0 < count < RARE_SHARE * total]
    share = {name: labels["au"][name]["share"] for name in tasks.AU_NAMES}  # None: not labelled
    one_sided = [name for name in share if share[name] in (0.0, 1.0)]
    rare_units = [name for name in share if share[name] and share[name] < RARE_SHARE]
    if total and absent:
        yield _finding(
            WARNING,
            f"{split}: no row shows {', '.join(absent)}",
            "F1 of a class that never occurs is 0 or undefined; look at the file",
        )
    if rare:
        yield _finding(
            NOTE,
            f"{split}: fewer than {RARE_SHARE:.0%} of the labelled rows show {', '.join(rare)}",
            "their scores are uncertain; consider class weights",
        )
    if one_sided:
        yield _finding(
            WARNING,
            f"{split}: always or never present: {', '.join(one_sided)}",
            "such a unit can be neither learnt nor measured; look at the file",
        )
    if rare_units:
        yield _finding(
            NOTE,
            f"{split}: present in fewer than {RARE_SHARE:.0%} of the labelled rows: "
            f"{', '.join(rare_units)}",
            "their scores are uncertain; a threshold of 0.5 may never be reached",
        )
    if labels["va_half_missing"]:
        yield _finding(
            WARNING,
            f"{split}: rows with only one of valence and arousal: {labels['va_half_missing']:,}",
            "complete the label: the task ignores rows with half of it",
        )
    if labels["au_partly_missing"]:
        yield _finding(
            NOTE,
            f"{split}: rows with some of the action units only: {labels['au_partly_missing']:,}",
            "none needed; each action unit has its own mask",
        )


_SHARED = {
    "videos": (ERROR, "videos in more than one split"),
    "identities": (ERROR, "people in more than one split"),
    "recordings": (
        WARNING,
        "recordings in more than one split, going by the names of their videos",
    ),
}
"""Severity and meaning of what splits share."""


def _between_splits(report: dict[str, Any]) -> Iterator[Finding]:
    for kind, (severity, meaning) in _SHARED.items():
        if shared := report["shared"][kind]:
            yield _finding(
                severity,
                f"{meaning}: {len(shared):,}",
                "keep each in one split; otherwise the score rewards memory",
                (
                    "; ".join(
                        f"{split}: {', '.join(videos[:4])}"
                        for split, videos in entry["splits"].items()
                    )
                    for entry in shared
                ),
            )
    for near in report["near"]:
        if near["images"]:
            first, second = near["splits"]
            yield _finding(
                WARNING,
                f"images of {second} that nearly equal an image of {first}: {near['images']:,} "
                f"(pairs of videos: {len(near['groups']):,})",
                "look at the pictures; if they come from one recording, keep it in one split",
                (
                    f"{' ~ '.join(entry['image'] for entry in group['example']['images'])} "
                    f"(images of these two videos: {group['images']:,})"
                    for group in near["groups"]
                ),
            )
