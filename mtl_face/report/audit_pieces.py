"""Pieces of the audit's page: tables with bars, heat maps, and pictures side by side."""

import base64
import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from mtl_face.report.html import Html, escape, join, paragraph

_LARGEST_EMBEDDED = 20_000  # bytes of a JPEG file that is embedded as it is
_SIDE_PX = 112

STYLE = Html("""<style>
.finding { border-left: .3rem solid var(--line); background: var(--card); padding: .5rem .9rem;
  margin: .6rem 0; }
.finding.error { border-color: var(--wrong); }
.finding.warning { border-color: var(--notice-line); }
.finding p { margin: .15rem 0; max-width: none; }
.finding ul { margin: .3rem 0; padding-left: 1.2rem; font-size: .875rem; overflow-wrap: anywhere; }
.finding b { text-transform: capitalize; }
.pairs { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
.pair { background: var(--card); border-radius: .4rem; padding: .6rem; font-size: .85rem;
  overflow-wrap: anywhere; }
.pair img { width: 48%; max-width: 112px; aspect-ratio: 1; object-fit: contain; }
.pair p { margin: .2rem 0; }
td.bar { min-width: 8rem; text-align: left; }
td.bar span { display: block; height: .8rem; border-radius: .15rem; background: #3b82c4;
  width: calc(var(--share) * 100%); }
@media print { td.bar span { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
</style>""")
"""Style of these pieces, besides that of the page."""


def pair(images: Sequence[dict[str, Any]], words: Sequence[str]) -> Html:
    """Pictures (of dicts with `root` and `image`) side by side, over lines of words."""
    pictures = " ".join(
        picture(os.path.join(image["root"], *image["image"].split("/")), image["image"])
        for image in images
    )
    return Html(f'<div class="pair">{pictures}{join(paragraph(text) for text in words)}</div>')


def picture(path: str, name: str) -> Html:
    """A file as an image in the page, or nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP")) as image:
            if image.format != "JPEG" or len(content) > _LARGEST_EMBEDDED:
                small = image.convert("RGB")
                small.thumbnail((2 * _SIDE_PX, 2 * _SIDE_PX))
                buffer = io.BytesIO()
                small.save(buffer, "JPEG", quality=85)
                content = buffer.getvalue()
    except (OSError, ValueError, SyntaxError):
        return Html("")
    data = base64.b64encode(content).decode("ascii")
    return Html(f'<img src="data:image/jpeg;base64,{data}" alt="{escape(name)}">')


def bars(
    header: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str], float, Sequence[str]]],
    *,
    caption: str,
) -> Html:
    """A table with a bar in it: head of the line, cells, share of the bar, more cells."""
    body = join(
        Html(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in before)
            + f'<td class="bar"><span style="--share: {share:.4f}"></span></td>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in after)
            + "</tr>"
        )
        for name, before, share, after in rows
    )
    return _table("numbers", header, body, caption)


def heat(
    header: Sequence[str],
    rows: Iterable[tuple[str, Sequence[tuple[str, float]]]],
    *,
    caption: str,
) -> Html:
    """A table whose cells are the darker, the larger their share."""
    body = join(
        Html(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(
                f'<td style="--share: {share:.3f}">{escape(text)}</td>' for text, share in cells
            )
            + "</tr>"
        )
        for name, cells in rows
    )
    return _table("confusion", header, body, caption)


def _table(css_class: str, header: Sequence[str], body: Html, caption: str) -> Html:
    """A table under its caption, which does not scroll with it: it could not be read on a phone."""
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    return Html(
        f'{paragraph(caption, css_class="muted")}<div class="scroll">'
        f'<table class="{css_class}" aria-label="{escape(caption)}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def percent(part: int, whole: int) -> str:
    """A share in percent; empty where there is no whole."""
    return f"{100 * part / whole:.1f}%" if whole else ""
