"""Timeline of a video: valence, arousal, expression and action units of each person over time.

The time of a video is cut into as many columns as can be seen. A column of an action unit has the
largest probability of its frames, of an expression the most frequent answer; of a line the lowest
and the highest value remain. So what is short is still seen, and hours take no more than minutes.

Dimension letters: F frames of a source, C columns, P points, A action units (12).
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mtl_face import files
from mtl_face.errors import UserError, shortened
from mtl_face.evaluation.face_events import FRAME_MS, Track, tracks
from mtl_face.face_table import OK, FaceTable
from mtl_face.report.figures import FIRST, SECOND, TEXT, style, to_svg
from mtl_face.report.page import Drawing, printable, write_page
from mtl_face.report.timelines import BAND_STD, thin
from mtl_face.tasks import AU_NUMBERS, EXPRESSION_NAMES, VA_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".svg", ".png", ".html")

COLUMNS = 1000
"""Columns into which the time of a video is cut at most."""

MAX_PANELS = 12
"""Persons that are drawn, those longest in view."""

EXPRESSION_COLOURS = (
    "#9aa5b1",
    "#d6453d",
    "#7d9a35",
    "#8a63c9",
    "#e6b32e",
    "#3b82c4",
    "#2fa79b",
    "#94694a",
)
"""Colour of each expression, to be seen on a light and on a dark page."""

_WIDTH, _LEFT, _RIGHT = 10.0, 0.8, 0.3  # inches
_HEIGHTS = {"va": 0.72, "face": 0.1, "expression": 0.26, "au": 0.165}
_SPACE, _HEAD, _FOOT = 0.09, 0.42, 0.72
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_MOST_TICKS = 11


class TimelineError(UserError):
    """A table or a file name of which no timeline can be made."""


def check_ending(path: str | os.PathLike[str]) -> Path:
    """The path; TimelineError unless its ending is one of `ENDINGS`."""
    if Path(path).suffix.lower() not in ENDINGS:
        raise TimelineError(
            f"{Path(path).suffix or 'no ending'} is no format of timelines",
            path=path,
            remedy=f"end its name in {', '.join(ENDINGS)}",
        )
    return Path(path)


def write_timeline(path: str | os.PathLike[str], faces: FaceTable) -> None:
    """Draws the timelines of a table's videos to a file, whole or not at all.

    Args:
        path: the file, of one of `ENDINGS`. SVG and HTML follow the reader's light or dark theme.
        faces: rows of whole videos; photos are left out.

    Raises:
        TimelineError: another ending, or no video with a face.
        WorkdirError: the file cannot be written.
    """
    target = check_ending(path)
    panels = _panels(faces)
    ending = target.suffix.lower()
    if ending == ".png":
        with files.replacing(target) as part:
            _figure(faces, panels[:MAX_PANELS]).savefig(part, format="png", dpi=150)
        return
    if ending == ".svg":
        svg = str(_svg(faces, panels[:MAX_PANELS], "timeline"))
        # a file of its own names its language and its colours
        text = svg.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" {_THEME} ', 1)
        files.write_text(target, text.replace(">", f">{_DARK}", 1) + "\n")
        return
    drawings = [
        Drawing(_svg(faces, [panel], f"timeline-{number}"), _words(faces, panel))
        for number, panel in enumerate(panels[:MAX_PANELS], start=1)
    ]
    others = [f"{_title(panel)} ({panel.in_view:.0%} of the time in view)" for panel in panels]
    write_page(
        target,
        "timeline.html",
        title="Timeline",
        notice=None,
        warnings=[],
        drawings=drawings,
        left_out=shortened(others[MAX_PANELS:], 20),
    )


_THEME = 'style="color: #1d2329; background: #ffffff"'
_DARK = (
    "<style>@media (prefers-color-scheme: dark) "
    "{ svg { color: #e4e8ec !important; background: #14181c !important; } }</style>"
)


def figure(faces: FaceTable) -> "Figure":
    """The timelines as a matplotlib figure; raises TimelineError as `write_timeline`."""
    return _figure(faces, _panels(faces)[:MAX_PANELS])


def _panels(faces: FaceTable) -> list[Track]:
    """Persons of videos, by source and number; those longest in view if there are too many."""
    panels = [_in_units_of_the_axis(track) for track in tracks(faces)]
    if not panels:
        raise TimelineError(
            "no video of which a timeline can be drawn: no face, or no second frame",
            remedy="a timeline needs a video; of photos, look at the table",
        )
    if len(panels) > MAX_PANELS:
        panels.sort(key=lambda panel: -panel.lengths[panel.row_F >= 0].sum())
    return panels


def _in_units_of_the_axis(track: Track) -> Track:
    """A track in seconds; in numbers of frames where the source has no times."""
    scale, first = (1000, 0) if track.timed else (FRAME_MS, 1)
    return dataclasses.replace(
        track, start_F=track.start_F / scale + first, end_F=track.end_F / scale + first
    )


def _title(panel: Track) -> str:
    name = printable(panel.source)
    return f"{name if len(name) < 60 else '…' + name[-58:]}, person {panel.person}"


def _svg(faces: FaceTable, panels: list[Track], identifier: str) -> Markup:
    words = " ".join(_words(faces, panel) for panel in panels)
    drawn = _figure(faces, panels)
    with style():
        return to_svg(drawn.axes[0], identifier=identifier, description=words)


def _words(faces: FaceTable, panel: Track) -> str:
    """What a panel shows, in a sentence."""
    rows = panel.row_F[panel.row_F >= 0]
    parts = [f"{_title(panel)}: in view {panel.in_view:.0%} of the time"]
    for name, value in zip(VA_NAMES, faces.va[rows].T, strict=True):
        if np.isfinite(value).any():
            parts.append(f"{name} on average {np.nanmean(value):+.2f}")
    shares = _shares(faces, panel)
    if shares:
        best = max(shares, key=lambda number: shares[number])
        parts.append(f"{EXPRESSION_NAMES[best]} most often ({shares[best]:.0%})")
    return ", ".join(parts) + "."


def _shares(faces: FaceTable, panel: Track) -> dict[int, float]:
    """Expressions that occur, with their share of the time in view."""
    seen = panel.row_F >= 0
    length = panel.lengths[seen]
    answer = faces.expression[panel.row_F[seen]]
    answered = answer >= 0
    if not answered.any():
        return {}
    total = np.bincount(answer[answered], weights=length[answered], minlength=8)
    return {number: float(total[number] / total.sum()) for number in np.flatnonzero(total).tolist()}


def _figure(faces: FaceTable, panels: list[Track]) -> "Figure":
    from matplotlib.figure import Figure

    strips = [list(_strips(faces, panel)) for panel in panels]
    heights = [_HEAD + _FOOT + sum(height + _SPACE for _, height in parts) for parts in strips]
    with style():
        result = Figure(figsize=(_WIDTH, sum(heights)))
        top = sum(heights)
        for panel, parts, height in zip(panels, strips, heights, strict=True):
            _draw_panel(result, faces, panel, parts, top)
            top -= height
    return result


def _strips(faces: FaceTable, panel: Track) -> Iterator[tuple[str, float]]:
    """What the person has answers for, from top to bottom, with heights in inches."""
    rows = panel.row_F[panel.row_F >= 0]
    yield "face", _HEIGHTS["face"]
    if np.isfinite(faces.va[rows]).any():
        for name in VA_NAMES:
            yield name, _HEIGHTS["va"]
    if (faces.expression[rows] >= 0).any():
        yield "expression", _HEIGHTS["expression"]
    if (faces.au_present[rows] >= 0).any():
        yield "au", _HEIGHTS["au"] * len(AU_NUMBERS)


def _draw_panel(
    result: "Figure", faces: FaceTable, panel: Track, parts: list[tuple[str, float]], top: float
) -> None:
    """Draws a person; `top` is the upper edge in inches from the bottom of the figure."""
    whole = result.get_figheight()
    columns = _Columns(panel)
    length = float(panel.end_F[-1] - panel.start_F[0])
    y = top - _HEAD
    result.text(
        _LEFT / _WIDTH, (y + 0.14) / whole, _title(panel), weight="bold", size=10, parse_math=False
    )
    result.text(
        1 - _RIGHT / _WIDTH,
        (y + 0.14) / whole,
        f"in view {panel.in_view:.0%} of {_clock(length, 1 if length < 10 else 0)}"
        if panel.timed
        else f"in view {panel.in_view:.0%} of {len(panel.start_F):,} frames",
        ha="right",
        alpha=0.75,
    )
    axes: Any = None
    for name, height in parts:
        y -= height
        axes = result.add_axes(
            (_LEFT / _WIDTH, y / whole, 1 - (_LEFT + _RIGHT) / _WIDTH, height / whole)
        )
        axes.set_xlim(panel.start_F[0], panel.end_F[-1])
        _DRAW[name](axes, faces, panel, columns)
        axes.tick_params(axis="x", labelbottom=False, length=0)
        y -= _SPACE
    _time_axis(axes, panel)
    if "expression" in dict(parts):
        _legend(result, _shares(faces, panel), (y - 0.36) / whole)


class _Columns:
    """The columns of a panel: which frames are shown in each.

    Attributes:
        extent: left and right edge of all of them, for `imshow`.
        first_C, last_C: frames of a column, both included.
    """

    def __init__(self, panel: Track) -> None:
        left, right = float(panel.start_F[0]), float(panel.end_F[-1])
        shortest = float(panel.lengths.min())
        count = COLUMNS if shortest <= 0 else min(COLUMNS, round((right - left) / shortest))
        edge = np.linspace(left, right, max(count, 1) + 1)
        # Half a millionth of a column keeps a frame out of the one that it only touches.
        margin = 1e-6 * (edge[1] - edge[0])
        self.extent = left, right
        self.first_C = np.searchsorted(panel.end_F, edge[:-1] + margin, "right")
        self.last_C = np.searchsorted(panel.start_F, edge[1:] - margin, "left") - 1

    def largest(self, value_FX: NDArray[Any]) -> NDArray[Any]:
        """The largest value of the frames of each column, NaN where it has none, [C, X]."""
        empty = np.full((1, *value_FX.shape[1:]), -np.inf)
        value = np.concatenate([np.nan_to_num(value_FX, nan=-np.inf), empty])
        ends = np.stack([self.first_C, self.last_C + 1], axis=1).ravel()
        found = np.maximum.reduceat(value, np.minimum(ends, len(value) - 1), axis=0)[::2]
        found[self.last_C < self.first_C] = -np.inf
        return np.where(np.isneginf(found), np.nan, found)

    def most_frequent(self, answer_F: NDArray[Any], classes: int) -> NDArray[np.int64]:
        """The class that most frames of a column have, -1 where none has any, [C]."""
        count_FK = np.zeros((len(answer_F) + 1, classes))
        place = np.flatnonzero(answer_F >= 0)
        count_FK[place + 1, answer_F[place]] = 1
        total = count_FK.cumsum(axis=0)
        last = np.maximum(self.last_C + 1, self.first_C)
        count_CK = total[last] - total[self.first_C]
        return np.where(count_CK.any(axis=1), count_CK.argmax(axis=1), -1)


def _in_frames(values: NDArray[Any], panel: Track, nothing: float) -> NDArray[Any]:
    """A column of the table by frame of the panel; `nothing` where the face is not seen."""
    shown = (panel.row_F >= 0).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(shown, values[panel.row_F], nothing)


def _image(axes: Any, colour_XC4: NDArray[np.float64], columns: _Columns, zorder: float) -> None:
    """Rows of colours over the whole axes, from top to bottom."""
    bottom, top = axes.get_ylim()
    axes.imshow(
        colour_XC4,
        extent=(*columns.extent, bottom, top),
        aspect="auto",
        interpolation="none",
        zorder=zorder,
    )


def _rgba(colour: str, alpha: NDArray[np.float64] | float) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgb

    strength = np.asarray(alpha, np.float64)
    return np.concatenate(
        [np.broadcast_to(to_rgb(colour), (*strength.shape, 3)), strength[..., None]], axis=-1
    )


def _mark_gaps(axes: Any, panel: Track, columns: _Columns) -> None:
    """A grey ground where the face is not seen in any frame of a column."""
    seen_C = columns.largest(np.where(panel.row_F >= 0, 1.0, np.nan)[:, None])[:, 0]
    _image(axes, _rgba("#808080", np.where(np.isnan(seen_C), 0.28, 0.0)[None]), columns, 0.5)


def _draw_face(axes: Any, faces: FaceTable, panel: Track, columns: _Columns) -> None:
    """Whether the face is seen, and where it cannot be trusted."""
    axes.set_ylim(0, 1)
    trusted_F = _in_frames(faces.status == OK, panel, np.nan).astype(np.float64)
    best_C = columns.largest(trusted_F[:, None])[:, 0]
    picture = _rgba(FIRST, np.where(best_C == 1, 0.9, 0.0))
    picture[best_C == 0] = _rgba(SECOND, 0.9)
    picture[np.isnan(best_C)] = _rgba("#808080", 0.28)
    _image(axes, picture[None], columns, 1)
    _label_rows(axes, ["face"], [0.5])


def _draw_line(index: int) -> Any:
    def draw(axes: Any, faces: FaceTable, panel: Track, columns: _Columns) -> None:
        axes.set_ylim(-1, 1)
        axes.set_yticks([-1, 0, 1], ["\N{MINUS SIGN}1", "0", "+1"], size=7)
        bottom, _, upper = axes.get_yticklabels()
        bottom.set_verticalalignment("bottom")  # inside, where they meet no other strip's
        upper.set_verticalalignment("top")
        axes.set_ylabel(VA_NAMES[index], labelpad=3)
        axes.axhline(0, color=TEXT, alpha=0.25, linewidth=0.7, zorder=1)
        _mark_gaps(axes, panel, columns)
        value_F = np.clip(_in_frames(faces.va[:, index], panel, np.nan), -1, 1)
        half_F = BAND_STD * _in_frames(faces.va_std[:, index], panel, np.nan)
        for part, bins in _pieces(value_F, panel):
            middle = (panel.start_F[part] + panel.end_F[part]) / 2
            line = thin(np.stack([middle, value_F[part]], axis=1), bins)
            half = half_F[part]
            if np.isfinite(half).all():
                low, high = (
                    thin(np.stack([middle, np.clip(value_F[part] + side, -1, 1)], axis=1), bins)
                    for side in (-half, half)
                )
                around = np.concatenate([high, low[::-1]])
                axes.fill(*around.T, color=FIRST, alpha=0.22, linewidth=0, zorder=2)
            axes.plot(
                *line.T,
                color=FIRST,
                linewidth=1.1,
                marker="." if len(line) == 1 else "",
                markersize=3,
                zorder=3,
            )

    return draw


def _pieces(value_F: NDArray[np.float64], panel: Track) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Frames of each stretch with answers and without gaps, and how many bins it may have."""
    place = np.flatnonzero(np.isfinite(value_F))
    apart = panel.start_F[place[1:]] > panel.end_F[place[:-1]] + 1e-9
    for part in np.split(place, np.flatnonzero(apart) + 1):
        if len(part):
            yield part, max(2, round(COLUMNS / 2 * len(part) / len(value_F)))


def _draw_ribbon(axes: Any, faces: FaceTable, panel: Track, columns: _Columns) -> None:
    axes.set_ylim(0, 1)
    answer_F = _in_frames(faces.expression.astype(np.int64), panel, -1)
    best_C = columns.most_frequent(answer_F, len(EXPRESSION_NAMES))
    colours = np.stack([*(_rgba(colour, 0.95) for colour in EXPRESSION_COLOURS), np.zeros(4)])
    _image(axes, colours[best_C][None], columns, 1)
    _mark_gaps(axes, panel, columns)
    _label_rows(axes, ["expression"], [0.5])


def _draw_units(axes: Any, faces: FaceTable, panel: Track, columns: _Columns) -> None:
    """Strong colour: present; the paler, the less probable."""
    count = len(AU_NUMBERS)
    axes.set_ylim(count, 0)
    present_FA = _in_frames(faces.au_present.astype(np.float64), panel, np.nan)
    probability_FA = _in_frames(faces.au_probability, panel, np.nan)
    probability_FA = np.where(np.isnan(probability_FA), present_FA, probability_FA)
    present_CA = columns.largest(present_FA)
    probability_CA = np.nan_to_num(columns.largest(probability_FA))
    strength_CA = np.where(present_CA == 1, 0.55 + 0.45 * probability_CA, 0.4 * probability_CA**1.5)
    axes.set_ylim(0, count)
    _image(axes, _rgba(FIRST, strength_CA.T), columns, 1)
    _mark_gaps(axes, panel, columns)
    for row in range(1, count):
        axes.axhline(row, color=TEXT, alpha=0.12, linewidth=0.5, zorder=2)
    names = [f"AU{unit}" for unit in AU_NUMBERS]
    _label_rows(axes, names, [count - 0.5 - row for row in range(count)])


_DRAW = {
    "face": _draw_face,
    "valence": _draw_line(0),
    "arousal": _draw_line(1),
    "expression": _draw_ribbon,
    "au": _draw_units,
}


def _label_rows(axes: Any, names: list[str], places: list[float]) -> None:
    axes.set_yticks(places, names, size=7.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _time_axis(axes: Any, panel: Track) -> None:
    """Minutes and seconds, or numbers of frames, below the last strip."""
    axes.tick_params(axis="x", labelbottom=True, length=3)
    axes.spines["bottom"].set_visible(True)
    left, right = axes.get_xlim()
    if not panel.timed:
        axes.set_xlabel("frame", labelpad=1)
        return
    step = next((each for each in _TICKS if (right - left) / each <= _MOST_TICKS), _TICKS[-1])
    ticks = np.arange(np.ceil(left / step), np.floor(right / step) + 1) * step
    axes.set_xticks(ticks, [_clock(tick, 0 if step >= 1 else 1) for tick in ticks.tolist()])


def _clock(seconds: float, digits: int) -> str:
    """A time as mm:ss, with hours before it where there are any."""
    whole = round(seconds * 10**digits)
    minutes, rest = divmod(whole, 60 * 10**digits)
    words = f"{rest / 10**digits:0{2 if digits == 0 else 3 + digits}.{digits}f}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{words}" if hours else f"{minutes:02d}:{words}"


def _legend(result: "Figure", shares: dict[int, float], y: float) -> None:
    """Colours of the expressions that occur, with their share of the time in view."""
    x = _LEFT
    for number in sorted(shares, key=lambda number: -shares[number]):
        share = "<1%" if shares[number] < 0.005 else f"{shares[number]:.0%}"
        words = f"{EXPRESSION_NAMES[number]} {share}"
        result.text(x / _WIDTH, y, "■", color=EXPRESSION_COLOURS[number], size=10, va="center")
        result.text((x + 0.14) / _WIDTH, y, words, size=8, va="center")
        x += 0.32 + 0.068 * len(words)
