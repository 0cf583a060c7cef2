"""Draws docs/benchmarks.md and its picture from the results in docs/benchmarks/.

python -m benchmarks.document
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

from benchmarks.comparison import Group

RESULTS = Path("docs/benchmarks")
PAGE = Path("docs/benchmarks.md")
PICTURE = Path("docs/benchmarks.png")

HEAD = """# Speed

How fast the parts are, beside other ways of doing the same work. Every table comes from one run in
which the ways took turns; a number is the median of its rounds, with the quartiles in brackets.
**Read the ratios**: how many times as fast as the reference, whose ratio is 1. Times move with the
machine and with what else runs on it.

![Ratios of speed, 1 is the reference](benchmarks.png)
"""


def main() -> None:
    """Writes the page and the picture."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    PAGE.write_text("\n".join([HEAD, *(section(result) for result in results)]))
    draw([(result["title"], groups(result)) for result in results])
    print(f"page: {PAGE}\npicture: {PICTURE}")


def groups(result: dict[str, Any]) -> list[Group]:
    """What was compared in one run."""
    return [Group(**group) for group in result["groups"]]


def section(result: dict[str, Any]) -> str:
    """A run as Markdown."""
    found = ", ".join(f"{name} {value}" for name, value in result["environment"].items())
    lines = [
        f"## {result['title']}",
        "",
        f"`{result['command']}`, {result['date']}; {found}.",
    ]
    for group in groups(result):
        lines += ["", f"| {group.name} | {group.unit} | ratio |", "| --- | --- | --- |"]
        lines += [f"| {way} | {group.spread(way)} | {group.ratio(way)} |" for way in group.times]
    return "\n".join(lines) + "\n"


def draw(results: list[tuple[str, list[Group]]]) -> None:
    """One bar a way, in groups."""
    rows: list[tuple[str, Any, bool]] = []
    for title, members in results:
        for group in members:
            rows.append((f"{title}: {group.name}", None, False))
            rows += [(way, group.ratio(way), way == group.reference) for way in group.times]
    figure, axes = plt.subplots(figsize=(9, 0.5 + 0.2 * len(rows)), layout="constrained")
    for place, (label, ratio, reference) in enumerate(rows):
        if ratio is None:
            axes.text(
                0, -place, label, transform=axes.get_yaxis_transform(), va="center", weight="bold"
            )
            continue
        axes.barh(-place, ratio.median, color="#808080" if reference else "#3b82c4", height=0.7)
        axes.plot([ratio.low, ratio.high], [-place] * 2, color="black", linewidth=1)
    axes.set_yticks(
        [-place for place, row in enumerate(rows) if row[1]], [row[0] for row in rows if row[1]]
    )
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set_xlabel("times as fast as the reference (grey)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.005)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
