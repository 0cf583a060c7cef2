"""Pages from templates: each is one HTML file that holds its style and pictures and loads nothing.

Functions of the other modules prepare plain values: text, numbers, `Table`, `Picture`, `Drawing`.
The templates in `templates/` lay them out and escape all of them; only the SVG of a drawing is
markup already.
"""

import base64
import functools
import io
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mtl_face.errors import escaped
from mtl_face.files import write_text

_MAX_SIDE_PX = 160


class Drawing(NamedTuple):
    """An SVG element with its caption."""

    svg: Markup
    caption: str


class Picture(NamedTuple):
    """A picture inside its own address, with the words for those who cannot see it."""

    address: str
    width: int
    height: int
    description: str


class Cell(NamedTuple):
    """A cell of a table that is more than a text.

    Attributes:
        text: what it says.
        shade: strength of its background, in [0, 1].
        bar: length of a bar in place of the text, in [0, 1].
        below: a second, smaller line.
    """

    text: str = ""
    shade: float | None = None
    bar: float | None = None
    below: str = ""


Row = list[str | int | Cell]


class Table(NamedTuple):
    """A table whose first column heads its rows.

    Attributes:
        caption: what it shows.
        header: heads of the columns.
        rows: cells of each row, as many as in the header; an int is shown with separators.
        kind: CSS classes: `numbers` (aligned right), `words` (aligned left), `heat` (centred).
        row_kinds: CSS class of each row, or empty; one may be the empty text.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | int | Cell]]
    kind: str = "numbers"
    row_kinds: Sequence[str] = ()


def embed(picture: NDArray[np.uint8], description: str) -> Picture:
    """A picture, uint8 [H, W, 3], as a JPEG of 160 pixels at most that the page itself holds.

    ValueError for another shape or dtype.
    """
    from PIL import Image

    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"picture is {picture.dtype} {picture.shape}, expected uint8 [H, W, 3]")
    small = Image.fromarray(picture)
    small.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/jpeg;base64,{data}", small.width, small.height, description)


def write_page(path: str | os.PathLike[str], template: str, **values: Any) -> None:
    """Fills a template, a file of `templates/`, and writes the page; raises WorkdirError."""
    write_text(path, _environment().get_template(template).render(values))


def printable(value: object) -> str:
    """A value as text, `errors.escaped`: HTML forbids control characters and lone surrogates."""
    text = value if isinstance(value, str) else str(value)
    return text if isinstance(text, Markup) else escaped(text)


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("mtl_face.report"),
        autoescape=True,
        finalize=printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
