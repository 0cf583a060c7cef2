"""How drawings are made: matplotlib figures that become SVG elements in the page's text colour."""

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from mtl_face.report.html import Html, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT = "#010203"
"""Stands for the page's text colour while matplotlib draws; becomes `currentColor`."""

FIRST = "#3b82c4"
SECOND = "#c8701a"
THIRD = "#808080"
"""Middle tones, to be seen on a light and on a dark page (contrast above 3 on both)."""

_RC: Any = {  # matplotlib would have each key typed
    "svg.fonttype": "none",  # text stays text: small, searchable, and in the reader's font
    "svg.hashsalt": "report",  # the same input gives the same file
    "text.parse_math": False,  # names of the user may hold a dollar sign
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,  # "+1.23e2" above an axis is easily overlooked
    "lines.linewidth": 1.4,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), TEXT
    ),
}


@contextmanager
def drawing(
    width: float, height: float, *, grid: Literal["both", "x"] = "both", left: float = 0.66
) -> "Iterator[tuple[Figure, Any]]":
    """A figure and its axes, apart from pyplot and its global state.

    Everything is to be drawn inside the block: texts take their settings when they are made. The
    margins are fixed, since to fit them to the texts takes as long as the drawing itself.

    Args:
        width: of the figure, in inches.
        height: of the figure, in inches.
        grid: along which axes the grid's lines are.
        left: margin for the labels of the y axis, in inches.

    Yields:
        The figure and its axes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes(
            (left / width, 0.44 / height, 1 - (left + 0.1) / width, 1 - 0.62 / height)
        )
        axes.grid(visible=True, axis=grid, color=TEXT, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        yield figure, axes


def opacity_map(colour: str = FIRST) -> Any:
    """One hue whose opacity grows, so that few rows are faint on any page."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    red, green, blue = to_rgb(colour)
    return LinearSegmentedColormap.from_list(
        "opacity", [(red, green, blue, 0.2), (red, green, blue, 1.0)]
    )


def to_svg(figure: "Figure", *, identifier: str, description: str) -> Html:
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
            value = value.replace("url(#", f"url(#{identifier}-").replace(TEXT, "currentColor")
            element.set(name, value)
    root.set("role", "img")
    # the serialiser would leave "<" as it is in an attribute: allowed, but not to be relied on
    text = ElementTree.tostring(root, encoding="unicode", method="html")
    return Html(text.replace("<svg", f'<svg aria-label="{escape(description)}"', 1))
