"""The drawings of the report, as SVG elements that take the page's text colour.

Dimension letters: N rows.
"""

import io
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.report.html import Html, escape
from mtl_face.tasks import AU_DESCRIPTIONS, AU_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEXT = "#010203"
"""Stands for the page's text colour while matplotlib draws; becomes `currentColor`."""

_FIRST = "#3b82c4"
_SECOND = "#d9822b"
_THIRD = "#8f8f8f"
"""Middle tones, to be seen on a light and on a dark page."""

_MAX_POINTS = 400
"""Points of a curve at most; more become means of neighbours, or the file grows without end."""

_LINES = ("train", "validation", "run")
"""Lines of a learning curve: the two splits, and numbers of the run that belong to neither."""

_RC: Any = {  # matplotlib would have each key typed
    "svg.fonttype": "none",  # text stays text: small, searchable, and in the reader's font
    "svg.hashsalt": "report",  # the same input gives the same file
    "text.parse_math": False,  # names of the user may hold a dollar sign
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT
    ),
}


def density(
    truth_N: NDArray[np.float64], prediction_N: NDArray[np.float64], *, name: str, score: float
) -> Html:
    """Predicted against true values in [-1, 1], as the density of rows in hexagons.

    Args:
        truth_N: true values, [N].
        prediction_N: predicted values, [N]; clipped to [-1, 1] here, as in the score.
        name: `valence` or `arousal`.
        score: their concordance.

    Returns:
        The drawing. Its size does not grow with N.
    """
    with _drawing(3.3, 3.2) as (figure, axes):
        axes.plot([-1, 1], [-1, 1], color=_SECOND, linewidth=1, linestyle="--", zorder=3)
        axes.hexbin(
            truth_N,
            np.clip(prediction_N, -1, 1),
            gridsize=30,
            extent=(-1, 1, -1, 1),
            mincnt=1,
            bins="log" if len(truth_N) > 1 else None,
            cmap=_opacity_map(),
            linewidths=0,
            rasterized=True,
        )
        axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
        axes.set_xlabel(f"true {name}")
        axes.set_ylabel(f"predicted {name}")
        return _to_svg(
            figure,
            identifier=f"density-{name}",
            description=f"Density of {len(truth_N)} frames, predicted against true {name}; "
            f"concordance {score:.3f}. The dashed line is a perfect prediction.",
        )


def au_bars(per_au: Mapping[str, float | None], baseline: Mapping[str, float | None]) -> Html:
    """F1 of each action unit as a bar, and of the constant answer "present" as a mark.

    Args:
        per_au: F1 by name, None without labels.
        baseline: F1 of the constant answer by name, None without labels.

    Returns:
        The drawing.
    """
    with _drawing(4.3, 3.9, grid="x") as (figure, axes):
        words = []
        for position, (name, meaning) in enumerate(zip(AU_NAMES, AU_DESCRIPTIONS, strict=True)):
            f1, mark = per_au[name], baseline[name]
            if f1 is None or mark is None:
                axes.text(0.01, position, "no labels", va="center", alpha=0.7)
                words.append(f"{name.upper()} no labels")
                continue
            axes.barh(position, f1, height=0.62, color=_FIRST)
            axes.plot(
                [mark, mark], [position - 0.42, position + 0.42], color=_SECOND, linewidth=2.5
            )
            axes.text(max(f1, mark) + 0.015, position, f"{f1:.2f}", va="center")
            words.append(f"{name.upper()} {meaning} {f1:.2f} against {mark:.2f}")
        axes.set_yticks(
            range(len(AU_NAMES)),
            [f"{n.upper()} {d}" for n, d in zip(AU_NAMES, AU_DESCRIPTIONS, strict=True)],
        )
        axes.set(xlim=(0, 1.08), xticks=np.linspace(0, 1, 6), ylim=(len(AU_NAMES) - 0.4, -0.6))
        axes.set_xlabel("F1")
        return _to_svg(
            figure,
            identifier="au-bars",
            description=f"F1 of each action unit against the constant answer: {'; '.join(words)}.",
        )


def learning_curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, Html]]:
    """Every number of the history against the step, a drawing for each name.

    `train/NAME` and `validation/NAME` share one drawing. Values that are not finite, or None, are
    gaps.

    Args:
        history: rows with `step`, optionally `epoch`, and any of the numbers.

    Returns:
        Name and drawing, `loss` and `p` first, the others in order of appearance.
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in history:
        for key, value in row.items():
            if key in ("step", "epoch") or not isinstance(value, int | float | None):
                continue
            split, _, rest = key.partition("/")
            name, line = (rest, split) if split in _LINES and rest else (key, "run")
            number = float("nan") if value is None else float(value)
            panels.setdefault(name, {}).setdefault(line, []).append((row["step"], number))
    names = sorted(panels, key=lambda name: {"loss": 0, "p": 1}.get(name, 2))
    return [(name, _curve(name, panels[name], number)) for number, name in enumerate(names)]


def _curve(name: str, lines: Mapping[str, list[tuple[float, float]]], number: int) -> Html:
    """One drawing of the learning curves."""
    with _drawing(3.3, 2.2) as (figure, axes):
        words = []
        for line, colour in zip(_LINES, (_FIRST, _SECOND, _THIRD), strict=True):
            if line not in lines:
                continue
            step, value = _thin(np.asarray(lines[line], np.float64))
            # few points are evaluations, which a line alone would hide where there is only one
            marker = "o" if len(step) <= 30 else None
            axes.plot(step, value, color=colour, marker=marker, markersize=3, label=line)
            finite = value[np.isfinite(value)]
            words.append(
                f"{line}, last {finite[-1]:.4g}" if len(finite) else f"{line}, never finite"
            )
        axes.set_xlabel("step")
        if lines.keys() != {"run"}:
            axes.legend(frameon=False, fontsize=8)
        return _to_svg(
            figure,
            identifier=f"curve-{number}",
            description=f"Learning curve of {name}: {'; '.join(words)}.",
        )


def _thin(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a curve, neighbours averaged where there are too many to draw."""
    size = math.ceil(len(points) / _MAX_POINTS)
    if size > 1:
        points = np.stack(
            [points[i : i + size].mean(axis=0) for i in range(0, len(points), size)], axis=0
        )
    return points[:, 0], points[:, 1]


def _opacity_map() -> Any:
    """One hue whose opacity grows, so that few rows are faint on any page."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    red, green, blue = to_rgb(_FIRST)
    return LinearSegmentedColormap.from_list(
        "opacity", [(red, green, blue, 0.2), (red, green, blue, 1.0)]
    )


@contextmanager
def _drawing(
    width: float, height: float, *, grid: Literal["both", "x"] = "both"
) -> "Iterator[tuple[Figure, Any]]":
    """A figure in inches and its axes, apart from pyplot and its global state.

    Everything is to be drawn inside the block: texts take their settings when they are made.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=True, axis=grid, color=_TEXT, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        yield figure, axes


def _to_svg(figure: "Figure", *, identifier: str, description: str) -> Html:
    """The figure as an element to be put into HTML.

    Args:
        figure: what to draw.
        identifier: prefix of every id inside, since ids must be unique in the page.
        description: what the drawing shows, for those who cannot see it.

    Returns:
        An `svg` element without name spaces, style sheet, metadata, or anything to load.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, dpi=144, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in list(parent):
            # matplotlib's style rule is for "*", which would reach the whole page
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            name = key.rpartition("}")[2]
            if name == "id":
                value = f"{identifier}-{value}"
            elif name == "href" and value.startswith("#"):
                value = f"#{identifier}-{value[1:]}"
            value = value.replace("url(#", f"url(#{identifier}-").replace(_TEXT, "currentColor")
            element.set(name, value)
    root.set("role", "img")
    # the serialiser would leave "<" as it is in an attribute: allowed, but not to be relied on
    text = ElementTree.tostring(root, encoding="unicode", method="html")
    return Html(text.replace("<svg", f'<svg aria-label="{escape(description)}"', 1))
