"""HTML as text: escaping, tables, sections and the page around them.

Functions that take text escape it; those that take `Html` insert it as it is. The type keeps the
two apart.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import NewType

import numpy as np
from numpy.typing import NDArray

from mtl_face.report.style import CSS

Html = NewType("Html", str)
"""Text that is HTML already: made here or by a drawing, never by a user."""

_MAX_SIDE_PX = 160


def escape(text: object) -> Html:
    """Any value as HTML text, safe in an element and in a quoted attribute.

    Control characters and lone surrogates, which HTML forbids, become replacement characters.
    """
    printable = "".join(
        character
        if character.isprintable() or character in "\n\t "
        else "\N{REPLACEMENT CHARACTER}"
        for character in str(text)
    )
    return Html(html.escape(printable, quote=True))


def join(parts: Iterable[Html]) -> Html:
    """The parts, a line each."""
    return Html("\n".join(parts))


def paragraph(text: str, *, css_class: str | None = None) -> Html:
    """A paragraph of plain text."""
    attribute = f' class="{escape(css_class)}"' if css_class else ""
    return Html(f"<p{attribute}>{escape(text)}</p>")


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str,
    css_class: str = "numbers",
    row_classes: Sequence[str] = (),
) -> Html:
    """A table whose first column heads its rows.

    Args:
        header: heads of the columns.
        rows: cells of each row, as many as in the header. Plain text.
        caption: what the table shows.
        css_class: `numbers` (aligned right) or `words` (aligned left).
        row_classes: a class of each row, or empty; one may be the empty text.

    Returns:
        The table, which scrolls by itself where the screen is narrow.
    """
    # a box that scrolls must be reachable by keyboard, and thus have a name
    lines = [f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption)}">']
    lines.append(f'<table class="{escape(css_class)}">')
    lines.append(f"<caption><span>{escape(caption)}</span></caption>")
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    lines.append(f"<thead><tr>{heads}</tr></thead>")
    lines.append("<tbody>")
    for number, (first, *others) in enumerate(rows):
        name = row_classes[number] if row_classes else ""
        attribute = f' class="{escape(name)}"' if name else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        lines.append(f'<tr{attribute}><th scope="row">{escape(first)}</th>{cells}</tr>')
    lines.append("</tbody></table></div>")
    return Html("\n".join(lines))


def image(picture: NDArray[np.uint8], description: str) -> Html:
    """A picture inside its own address, reduced where it is large.

    Args:
        picture: uint8 [H, W, 3].
        description: what it shows, for those who cannot see it.

    Returns:
        An `img` element.

    Raises:
        ValueError: another shape or dtype.
    """
    from PIL import Image

    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"picture is {picture.dtype} {picture.shape}, expected uint8 [H, W, 3]")
    drawn = Image.fromarray(picture)
    drawn.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    buffer = io.BytesIO()
    drawn.save(buffer, format="JPEG", quality=88)
    address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Html(
        f'<img src="{address}" alt="{escape(description)}" width="{drawn.width}" '
        f'height="{drawn.height}">'
    )


def details(summary: str, content: Iterable[Html]) -> Html:
    """Parts that are shown when asked for."""
    return Html(f"<details><summary>{escape(summary)}</summary>\n{join(content)}\n</details>")


def heading(text: str) -> Html:
    """A heading inside a section."""
    return Html(f"<h3>{escape(text)}</h3>")


def figure(content: Html, caption: str) -> Html:
    """A drawing with its caption."""
    return Html(f"<figure>\n{content}\n<figcaption>{escape(caption)}</figcaption>\n</figure>")


def group(content: Iterable[Html], *, css_class: str) -> Html:
    """Parts that share a layout."""
    return Html(f'<div class="{escape(css_class)}">\n{join(content)}\n</div>')


def section(identifier: str, heading: str, content: Iterable[Html]) -> Html:
    """A section with a heading that the table of contents links to."""
    return Html(
        f'<section id="{escape(identifier)}">\n<h2>{escape(heading)}</h2>\n{join(content)}\n'
        "</section>"
    )


def page(
    *,
    title: str,
    notices: Sequence[str],
    contents: Sequence[tuple[str, str]],
    sections: Iterable[Html],
) -> str:
    """The whole document.

    Args:
        title: heading of the page and of the window.
        notices: what the reader must know before any number, a paragraph each.
        contents: identifier and heading of each section.
        sections: the sections.

    Returns:
        HTML5 text. It loads nothing.
    """
    links = "\n".join(
        f'<a href="#{escape(identifier)}">{escape(heading)}</a>' for identifier, heading in contents
    )
    warning = "".join(f'<p class="notice" role="note">{escape(text)}</p>\n' for text in notices)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{warning}<nav aria-label="Sections">
{links}
</nav>
</header>
<main>
{join(sections)}
</main>
</body>
</html>
"""
