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

OURS = "mtl_face"
"""Begin of the names of this program's ways."""

PER_MILLION_FRAMES = "s a million frames"
"""Unit of how times grow."""

HEAD = """# Speed

How fast the parts are, beside other ways of doing the same work. Every table comes from one run in
which the ways took turns; a number is the median of its rounds, with the quartiles in brackets.
**Read the ratios**: how many times as fast as the reference, whose ratio is 1. Times move with the
machine and with what else runs on it.

![Ratios of speed beside other programs, and growth with the number of frames](benchmarks.png)
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
    """Speed beside other programs, a bar a way in groups; and how times grow."""
    comparisons = [
        (f"{title}: {group.name}", group)
        for title, members in results
        for group in members
        if any(way.startswith(OURS) for way in group.times) and len(group.times) > 1
    ]
    growing = [
        group for _, members in results for group in members if group.unit == PER_MILLION_FRAMES
    ]
    rows = sum(len(group.times) + 1 for _, group in comparisons)
    figure, (bars, lines) = plt.subplots(
        2, figsize=(9, 5 + 0.19 * rows), height_ratios=[0.19 * rows, 4.5], layout="constrained"
    )
    _bars(bars, comparisons)
    for group in growing:
        sizes = [int(way.split()[0].replace(",", "")) for way in group.times]
        seconds = [group.spread(way).median for way in group.times]
        lines.loglog(sizes, seconds, marker="o", label=group.name)
    lines.set_title("Growth: a flat line costs the same for every frame", loc="left", weight="bold")
    lines.set_xlabel("frames")
    lines.set_ylabel(PER_MILLION_FRAMES)
    if growing:
        lines.legend(fontsize=8, frameon=False)
    for axes in (bars, lines):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=110)


def _bars(axes: Any, comparisons: list[tuple[str, Group]]) -> None:
    """Ratios on a logarithmic axis, from the reference's 1 on to either side."""
    place, ticks = 0, {}
    for title, group in comparisons:
        axes.text(0, place, title, transform=axes.get_yaxis_transform(), va="center", weight="bold")
        place -= 1
        for way in group.times:
            ratio = group.ratio(way)
            color = "#3b82c4" if way.startswith(OURS) else "#9a9a9a"
            axes.barh(place, ratio.median - 1, left=1, color=color, height=0.7)
            axes.plot([ratio.low, ratio.high], [place] * 2, color="black", linewidth=1)
            side = "left" if ratio.median >= 1 else "right"
            end = ratio.high * 1.05 if ratio.median >= 1 else ratio.low / 1.05
            axes.text(end, place, f"{ratio.median:.2g}", va="center", ha=side, fontsize=8)
            ticks[place] = way
            place -= 1
    axes.set_xscale("log")
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set_xlabel("times as fast as the reference, which is at 1; blue: this program")
    axes.margins(y=0.005)


if __name__ == "__main__":
    main()
