"""What a user should look at first: the findings of an audit, gravest first."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from mtl_face import tasks

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)

RARE_SHARE = 0.02
"""Share of labelled rows below which a class or unit is called rare."""

_SHOWN = 5


def find(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Draws conclusions from a report of `audit.audit`, whose `findings` need not be there yet.

    Returns:
        Dicts with `severity` (error: training fails or scores are not to be trusted; warning: look
        at it; note: good to know), `what` (a sentence with numbers), `remedy` and `examples` (a
        few in words), by severity.
    """
    findings: list[dict[str, Any]] = []

    def add(severity: str, what: str, remedy: str, examples: Iterable[str] = ()) -> None:
        shown = list(examples)
        if len(shown) > _SHOWN:
            shown = [*shown[:_SHOWN], f"and {len(shown) - _SHOWN:,} more"]
        findings.append({"severity": severity, "what": what, "remedy": remedy, "examples": shown})

    for split, part in report["splits"].items():
        _find_in_images(split, part["images"], report["image_size"], add)
        _find_in_rows(split, part, add)
        _find_in_labels(split, part["labels"], add)
    _find_between_splits(report, add)
    findings.sort(key=lambda finding: SEVERITIES.index(finding["severity"]))
    return findings


def as_text(findings: list[dict[str, Any]]) -> str:
    """Findings as lines of text, and how many there are of each severity."""
    lines = []
    for finding in findings:
        lines.append(f"{finding['severity']}: {finding['what']}")
        lines += [f"    {example}" for example in finding["examples"][:3]]
        lines.append(f"  -> {finding['remedy']}")
    counts = Counter(finding["severity"] for finding in findings)
    lines.append("found: " + ", ".join(f"{name} {counts[name]}" for name in SEVERITIES))
    return "\n".join(lines)


def _find_in_images(split: str, images: dict[str, Any], size: int, add: Any) -> None:
    if images["missing"]:
        add(
            ERROR,
            f"{split}: rows whose image file does not exist: {len(images['missing']):,}",
            "put the crops there, or leave such rows out with data.missing_images=skip",
            (f"line {entry['line']}: {entry['image']}" for entry in images["missing"]),
        )
    if images["broken"]:
        add(
            ERROR,
            f"{split}: image files that cannot be used: {len(images['broken']):,}",
            "replace those files, or delete them and set data.missing_images=skip",
            (f"{entry['image']}: {entry['problem']}" for entry in images["broken"]),
        )
    if images["flat"]:
        add(
            WARNING,
            f"{split}: images nearly of one colour: {len(images['flat']):,}",
            "look at them: a face is hardly there",
            (entry["image"] for entry in images["flat"]),
        )
    if images["other_size"]:
        add(
            WARNING,
            f"{split}: images that are not {size}x{size}: {images['other_size']:,}",
            "other sizes are resized, which costs time and blurs; set data.image_size to theirs, "
            "or cut them again",
            (f"{name}: {count:,} images" for name, count in images["sizes"].items()),
        )
    if 0 < images["grey"] < images["readable"]:
        add(
            NOTE,
            f"{split}: images without colour: {images['grey']:,} of {images['readable']:,}",
            "none needed; they are read as colour",
        )
    if images["identical"]:
        add(
            NOTE,
            f"{split}: groups of image files with equal bytes and different names: "
            f"{len(images['identical']):,}",
            "look at one: a still picture, or a copy with labels of its own",
            (" = ".join(names[:3]) for names in images["identical"]),
        )


def _find_in_rows(split: str, part: dict[str, Any], add: Any) -> None:
    doubled = part["duplicates"]
    for kind, severity, meaning, remedy in (
        (
            "conflicting",
            WARNING,
            "frames listed more than once with labels that contradict each other",
            "decide which row holds; training sees both, and the score counts both",
        ),
        (
            "complementary",
            NOTE,
            "frames listed more than once, each row with labels that another lacks",
            "none needed; they could be one row",
        ),
        (
            "equal",
            NOTE,
            "frames listed more than once with the same labels",
            "none needed; such a frame weighs more in training and in the score",
        ),
    ):
        if doubled[kind]:
            add(
                severity,
                f"{split}: {meaning}: {doubled[kind]:,}",
                remedy,
                (
                    f"{example['image']}: "
                    + "; ".join(f"line {row['line']}: {row['labels']}" for row in example["rows"])
                    for example in doubled["examples"]
                    if example["kind"] == kind
                ),
            )
    unlabelled = part["counts"]["unlabelled"]
    if unlabelled:
        add(
            NOTE,
            f"{split}: rows without any label: {unlabelled:,}",
            "none needed; they teach nothing",
        )


def _find_in_labels(split: str, labels: dict[str, Any], add: Any) -> None:
    total = sum(labels["expressions"].values())
    absent = [name for name, count in labels["expressions"].items() if not count]
    rare = [name for name, count in labels["expressions"].items() if 0 < count < RARE_SHARE * total]
    units = labels["au"]
    one_sided = [name for name in tasks.AU_NAMES if units[name]["share"] in (0.0, 1.0)]
    rare_units = [
        name
        for name in tasks.AU_NAMES
        if units[name]["share"] is not None and 0 < units[name]["share"] < RARE_SHARE
    ]
    if total and absent:
        add(
            WARNING,
            f"{split}: no row shows {', '.join(absent)}",
            "F1 of a class that never occurs is 0 or undefined; look at the file",
        )
    if rare:
        add(
            NOTE,
            f"{split}: fewer than {RARE_SHARE:.0%} of the labelled rows show {', '.join(rare)}",
            "their scores are uncertain; consider class weights",
        )
    if one_sided:
        add(
            WARNING,
            f"{split}: always or never present: {', '.join(one_sided)}",
            "nothing can be learnt or measured there; look at the file",
        )
    if rare_units:
        add(
            NOTE,
            f"{split}: present in fewer than {RARE_SHARE:.0%} of the labelled rows: "
            f"{', '.join(rare_units)}",
            "their scores are uncertain; a threshold of 0.5 may never be reached",
        )
    if labels["va_half_missing"]:
        add(
            WARNING,
            f"{split}: rows with only one of valence and arousal: {labels['va_half_missing']:,}",
            "such rows count as unlabelled for that task",
        )
    if labels["au_partly_missing"]:
        add(
            NOTE,
            f"{split}: rows with some of the action units only: {labels['au_partly_missing']:,}",
            "none needed; each unit is masked by itself",
        )


def _find_between_splits(report: dict[str, Any], add: Any) -> None:
    def examples(entries: list[dict[str, Any]]) -> Iterable[str]:
        for entry in entries:
            yield "; ".join(
                f"{split}: {', '.join(videos[:4])}" for split, videos in entry["splits"].items()
            )

    for kind, severity, meaning in (
        ("videos", ERROR, "videos in more than one split"),
        ("identities", ERROR, "people in more than one split"),
        (
            "recordings",
            WARNING,
            "recordings in more than one split, going by the names of their videos",
        ),
    ):
        shared = report["shared"][kind]
        if shared:
            add(
                severity,
                f"{meaning}: {len(shared):,}",
                "move all of it to one split: the score would measure memory",
                examples(shared),
            )
    for near in report["near"]:
        if near["images"]:
            first, second = near["splits"]
            add(
                WARNING,
                f"images of {second} that look almost like one of {first}: {near['images']:,} "
                f"(pairs of videos: {len(near['groups']):,})",
                "look at the pictures; if they are the same recording, move it to one split",
                (
                    f"{' ~ '.join(entry['image'] for entry in group['example']['images'])} "
                    f"(images of these two videos: {group['images']:,})"
                    for group in near["groups"]
                ),
            )
