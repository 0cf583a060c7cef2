"""Sections of the audit's page on labels; each takes the report and yields HTML, split by split."""

import itertools
from collections.abc import Iterable
from typing import Any

from mtl_face import tasks
from mtl_face.report.audit_pieces import bars, heat, percent
from mtl_face.report.html import Html


def expressions(report: dict[str, Any]) -> Iterable[Html]:
    """How often each class occurs, and its mean valence and arousal."""
    for split, part in report["splits"].items():
        counts = part["labels"]["expressions"]
        means = part["labels"]["va_given_expression"]
        yield bars(
            ["Expression", "Rows", "Share", "", "Mean valence", "Mean arousal"],
            [
                (
                    name,
                    [f"{count:,}", percent(count, sum(counts.values()))],
                    count / max(1, *counts.values()),
                    [_signed(means[name]["valence"]), _signed(means[name]["arousal"])],
                )
                for name, count in counts.items()
            ],
            caption=f"{split}: rows of each class.",
        )


def units(report: dict[str, Any]) -> Iterable[Html]:
    """How often each unit is present."""
    names = [
        (name, f"AU{number} {meaning}")
        for name, number, meaning in zip(
            tasks.AU_NAMES, tasks.AU_NUMBERS, tasks.AU_DESCRIPTIONS, strict=True
        )
    ]
    for split, part in report["splits"].items():
        units = part["labels"]["au"]
        yield bars(
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


def valence_arousal(report: dict[str, Any]) -> Iterable[Html]:
    """Where the rows lie in valence and arousal."""
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
        yield heat(
            ["A \\ V", *(f"{edge:+.1f}" for edge in edges[:-1])],
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
            caption=f"{split}: rows by arousal (lines) and valence (columns), each from its lower "
            "edge. " + (f"Means: {words}." if words else "No row is labelled."),
        )


def together(report: dict[str, Any]) -> Iterable[Html]:
    """Which units go with which, and with which expression."""
    units = [f"AU{number}" for number in tasks.AU_NUMBERS]
    for split, part in report["splits"].items():
        labels = part["labels"]
        yield heat(
            ["given", *units],
            [
                (unit, [_cell(share) for share in shares])
                for unit, shares in zip(units, labels["au_given_au"], strict=True)
            ],
            caption=f"{split}: percent of the rows with the unit of the line present that have "
            "the unit of the column present.",
        )
        yield heat(
            ["given", *units],
            [
                (name, [_cell(share) for share in shares])
                for name, shares in zip(
                    tasks.EXPRESSION_NAMES, labels["au_given_expression"], strict=True
                )
            ],
            caption=f"{split}: percent of the rows of an expression that have the unit present.",
        )


def _cell(share: float | None) -> tuple[str, float]:
    return ("", 0.0) if share is None else (f"{100 * share:.0f}", share)


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
