"""Drawings: matplotlib figures as SVG in the page's text colour; densities and bars of scores.

Dimension letters: N rows.
"""

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mtl_face.report.page import printable

TEXT = "#010203"
"""Stands for the page's text colour while matplotlib draws; becomes `currentColor`."""

FIRST = "#3b82c4"
SECOND = "#c8701a"
THIRD = "#808080"
"""Middle tones, to be seen on a light and on a dark page (contrast above 3 on both)."""

_CELLS = 30
"""Hexagons along an axis from -1 to 1."""

_RC: Any = {  # matplotlib would have each key typed
    "svg.fonttype": "none",  # text stays text: small, searchable, and in the reader's font
    "svg.hashsalt": "report",  # the same input gives the same file
    "text.parse_math": False,  # names of the user may hold a dollar sign
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,  # "+1.23e2" above an axis is easily overlooked
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.4,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), TEXT
    ),
}


def style() -> Any:
    """A block in which matplotlib draws as in all figures."""
    import matplotlib

    return matplotlib.rc_context(_RC)


@contextmanager
def canvas(
    width: float, height: float, *, grid: Literal["both", "x"] = "both", left: float = 0.66
) -> Iterator[Any]:
    """The axes of a figure, apart from pyplot and its global state.

    Everything is drawn inside the block: texts take their settings when they are made. Sizes are
    in inches. The margins are fixed, `left` for the labels of the y axis, since to fit them to the
    texts takes as long as the drawing itself.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes(
            (left / width, 0.44 / height, 1 - (left + 0.1) / width, 1 - 0.62 / height)
        )
        axes.grid(visible=True, axis=grid, color=TEXT, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        yield axes


def to_svg(axes: Any, *, identifier: str, description: str) -> Markup:
    """The figure as an `svg` element without name spaces, style sheet or metadata.

    Every id inside gets the prefix `identifier`, since ids must be unique in the page.
    `description` is read to those who cannot see the drawing.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    axes.figure.savefig(buffer, format="svg", transparent=True, dpi=144, metadata=nothing)
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
            value = value.replace("url(#", f"url(#{identifier}-").replace(TEXT, "currentColor")
            element.set(name, value)
    root.attrib.update({"role": "img", "aria-label": printable(description)})
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # escapes texts and attributes


def density(
    truth_N: NDArray[np.float64], prediction_N: NDArray[np.float64], *, name: str, score: float
) -> Markup:
    """Predicted against true valence or arousal, as the density of rows in hexagons.

    Values are clipped to [-1, 1], as in the score. The size of the drawing does not grow with N.
    """
    with canvas(3.3, 3.1, left=0.8) as axes:
        axes.plot([-1, 1], [-1, 1], color=SECOND, linewidth=1, linestyle="--", zorder=3)
        _hexagons(axes, truth_N, prediction_N, FIRST)
        axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
        return to_svg(
            axes,
            identifier=f"density-{name}",
            description=f"Density of {len(truth_N)} frames, predicted against true {name}; "
            f"concordance {score:.3f}. The dashed line is a perfect prediction.",
        )


def va_plane(
    valence_N: NDArray[np.float64], arousal_N: NDArray[np.float64], *, name: str, truth: bool
) -> Markup:
    """Where the rows lie in the plane of valence and arousal, as their density in hexagons.

    Values are clipped to [-1, 1]. `name` says what they are; labels have another colour.
    """
    valence_N, arousal_N = np.clip([valence_N, arousal_N], -1, 1)
    with canvas(3.3, 3.1, left=0.8) as axes:
        for draw in (axes.axhline, axes.axvline):
            draw(0, color=TEXT, alpha=0.5, linewidth=0.8)
        _hexagons(axes, valence_N, arousal_N, SECOND if truth else FIRST)
        axes.set(xlabel="valence", ylabel="arousal")
        words = " ".join(
            f"{axis}: mean {value.mean():.2f}, standard deviation {value.std():.2f}."
            for axis, value in (("Valence", valence_N), ("Arousal", arousal_N))
        )
        return to_svg(
            axes,
            identifier=f"plane-{'truth' if truth else 'prediction'}",
            description=f"Density of {len(valence_N)} frames in the plane of valence and arousal, "
            f"{name}. {words}",
        )


class Bar(NamedTuple):
    """An F1 score, None without labels, with its interval and that of the constant answer."""

    label: str
    value: float | None
    interval: Sequence[float] | None = None
    baseline: float | None = None


def bars(rows: Sequence[Bar], *, identifier: str, description: str) -> Markup:
    """F1 scores as bars, with whiskers for intervals and marks for constant answers.

    `description` has the first words of the description; the numbers follow.
    """
    height = 0.7 + 0.28 * len(rows)
    left = 0.35 + 0.064 * max(len(bar.label) for bar in rows)
    with canvas(left + 2.3, height, grid="x", left=left) as axes:
        words = []
        for place, (label, value, ends, mark) in enumerate(rows):
            if value is None:
                axes.text(0.01, place, "no labels", va="center", alpha=0.8)
                words.append(f"{label} no labels")
                continue
            axes.barh(place, value, height=0.62, color=FIRST)
            text = f"{label} {value:.2f}"
            if ends is not None:
                axes.plot(ends, [place, place], color=TEXT, linewidth=1.2, solid_capstyle="butt")
                axes.plot(ends, [place, place], "|", color=TEXT, markersize=6)
                text += f" from {ends[0]:.2f} to {ends[1]:.2f}"
            if mark is not None:
                axes.plot([mark, mark], [place - 0.42, place + 0.42], color=SECOND, linewidth=2.5)
                text += f" against {mark:.2f}"
            right = max(value, mark or 0.0, ends[1] if ends is not None else 0.0)
            axes.text(right + 0.02, place, f"{value:.2f}", va="center")
            words.append(text)
        axes.set_yticks(range(len(rows)), [bar.label for bar in rows])
        axes.set(xlim=(0, 1.13), xticks=np.linspace(0, 1, 6), ylim=(len(rows) - 0.4, -0.6))
        axes.set_xlabel("F1")
        return to_svg(
            axes, identifier=identifier, description=f"{description}: {'; '.join(words)}."
        )


def _hexagons(axes: Any, x_N: NDArray[np.float64], y_N: NDArray[np.float64], colour: str) -> None:
    """Density in hexagons of one hue whose opacity grows: few rows are faint on any page."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    axes.hexbin(
        np.clip(x_N, -1, 1),
        np.clip(y_N, -1, 1),
        gridsize=_CELLS,
        extent=(-1, 1, -1, 1),
        mincnt=1,
        bins="log" if len(x_N) > 1 else None,
        cmap=LinearSegmentedColormap.from_list("", [to_rgba(colour, 0.2), to_rgba(colour)]),
        linewidths=0,
        rasterized=True,
    )
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
