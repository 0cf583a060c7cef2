"""Timelines: valence and arousal of each video over its frames, true and predicted.

The drawings are plain SVG that stretches to the width of the page; their texts stand beside them,
so that these can be read on a phone. Dimension letters: N rows, P points.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.answers import Answers
from mtl_face.evaluation.truth import Truth
from mtl_face.report.html import Html, escape, join
from mtl_face.tasks import VA_NAMES

MAX_VIDEOS = 60
"""Timelines at most: the rest would make the file large, and no one would look at them."""

BAND_STD = 1.96
"""Half the height of the band in standard deviations: a central 95 % interval."""

_MAX_BINS = 250
"""A longer line becomes the lowest and the highest point of so many stretches."""

_GAP = 10.0
"""A line breaks where frames are this many times farther apart than usual."""

Line = NDArray[np.float64]
"""Points [P, 2]: frame and value."""


@dataclasses.dataclass(frozen=True)
class Timeline:
    """A video of the report.

    Attributes:
        name: data set and video.
        rows: its rows in the order of their frames, each frame once, int64 [N].
        rmse: root mean square error of valence and arousal together over its labelled rows; NaN
            without any.
    """

    name: str
    rows: NDArray[np.int64]
    rmse: float


def choose_videos(truth: Truth, answers: Answers) -> list[Timeline]:
    """The videos with at least two different frames and a prediction, the worst first.

    Args:
        truth: N rows of labels.
        answers: the N answers that belong to them.

    Returns:
        All such videos; those without labels are the last.
    """
    answered = ~(np.isnan(answers.valence) | np.isnan(answers.arousal))
    squares = [
        (np.clip(getattr(answers, name), -1, 1) - np.asarray(getattr(truth, name), np.float64)) ** 2
        for name in VA_NAMES
    ]
    square_N = np.mean(squares, axis=0)
    order = np.lexsort((np.asarray(truth.frame), answers.video, answers.dataset))
    order = order[answered[order]]
    found = []
    for rows in np.split(order, _starts(answers, order)):
        if len(rows) == 0:
            continue
        frames = np.asarray(truth.frame)[rows]
        distinct = rows[np.append(True, np.diff(frames) > 0)]
        if len(distinct) < 2:
            continue
        errors = square_N[rows][~np.isnan(square_N[rows])]
        found.append(
            Timeline(
                name=f"{answers.dataset[rows[0]]} / {answers.video[rows[0]]}",
                rows=distinct,
                rmse=float(np.sqrt(errors.mean())) if len(errors) else float("nan"),
            )
        )
    return sorted(found, key=lambda video: -1.0 if np.isnan(video.rmse) else -2.0 - video.rmse)


def draw(video: Timeline, truth: Truth, answers: Answers, raw: Answers | None) -> Html:
    """The two strips of a video, valence above arousal.

    Args:
        video: which rows.
        truth: N rows of labels.
        answers: the N answers as scored.
        raw: the N answers before smoothing and calibration, or None.

    Returns:
        A figure.
    """
    frames = np.asarray(truth.frame, np.float64)[video.rows]
    strips = [_strip(name, frames, video, truth, answers, raw) for name in VA_NAMES]
    error = "no labels" if np.isnan(video.rmse) else f"root mean square error {video.rmse:.3f}"
    caption = f"{video.name}: {len(video.rows):,} frames, {error}"
    return Html(
        f'<figure class="timeline">\n<figcaption>{escape(caption)}</figcaption>\n{join(strips)}\n'
        f'<div class="frames"><span>frame {int(frames[0])}</span>'
        f"<span>frame {int(frames[-1])}</span></div>\n</figure>"
    )


def legend(*, raw: bool, band: bool) -> Html:
    """What the lines mean."""
    entries = [("truth", "truth"), ("final", "prediction as scored")]
    if raw:
        entries.append(("raw", "prediction before smoothing"))
    if band:
        entries.append(("band", "its central 95 % interval"))
    lines = []
    for css_class, words in entries:
        shape = "M 0 8 H 32" if css_class != "band" else "M 0 2 H 32 V 14 H 0 Z"
        lines.append(
            f'<span><svg viewBox="0 0 32 16" width="32" height="16" aria-hidden="true">'
            f'<path class="{css_class}" d="{shape}"/></svg> {escape(words)}</span>'
        )
    return Html(f'<p class="legend">{" ".join(lines)}</p>')


def _strip(
    name: str,
    frames: NDArray[np.float64],
    video: Timeline,
    truth: Truth,
    answers: Answers,
    raw: Answers | None,
) -> Html:
    """One value of a video over its frames."""

    def line(columns: Any) -> Line:
        values = np.asarray(getattr(columns, name), np.float64)[video.rows]
        return np.column_stack([frames, np.clip(values, -1, 1)])

    parts = []
    std = getattr(answers, f"{name}_std")
    if std is not None:
        mean = np.asarray(getattr(answers, name))[video.rows]
        half = BAND_STD * np.asarray(std)[video.rows]
        parts += _band(frames, np.clip(mean - half, -1, 1), np.clip(mean + half, -1, 1))
    parts.append('<path class="zero" d="M 0 50 H 1000"/>')
    lines = [("truth", line(truth)), ("final", line(answers))]
    if raw is not None:
        lines.insert(0, ("raw", line(raw)))
    for css_class, points in lines:
        path = _path(points, frames)
        if path:
            parts.append(f'<path class="{css_class}" d="{path}"/>')
    description = _describe(name, video.name, lines)
    return Html(
        f'<div class="strip"><div class="axis"><span>+1</span><span>{escape(name)}</span>'
        f"<span>\N{MINUS SIGN}1</span></div>\n"
        f'<svg role="img" aria-label="{escape(description)}" viewBox="0 -2 1000 104" '
        f'preserveAspectRatio="none">{"".join(parts)}</svg></div>'
    )


def _describe(name: str, video: str, lines: list[tuple[str, Line]]) -> str:
    """The strip in words."""
    words = {"truth": "truth", "final": "prediction", "raw": "prediction before smoothing"}
    ranges = []
    for css_class, points in lines:
        values = points[:, 1][~np.isnan(points[:, 1])]
        told = f"from {values.min():.2f} to {values.max():.2f}" if len(values) else "absent"
        ranges.append(f"{words[css_class]} {told}")
    return f"{name.capitalize()} of {video} over its frames: {', '.join(ranges)}."


def _starts(answers: Answers, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a new video begins in the order."""
    dataset, video = answers.dataset[order], answers.video[order]
    return np.flatnonzero((dataset[1:] != dataset[:-1]) | (video[1:] != video[:-1])) + 1


def _pieces(points: Line) -> Iterator[Line]:
    """Stretches of a line without missing values and without long gaps."""
    points = points[~np.isnan(points[:, 1])]
    if not len(points):
        return
    steps = np.diff(points[:, 0])
    usual = float(np.median(steps)) if len(steps) else 1.0
    yield from np.split(points, np.flatnonzero(steps > _GAP * usual) + 1)


def _thin(points: Line) -> Line:
    """The lowest and the highest point of each stretch, in their order, if there are too many."""
    if len(points) <= 2 * _MAX_BINS:
        return points
    keep = []
    for part in np.array_split(np.arange(len(points)), _MAX_BINS):
        values = points[part, 1]
        keep += sorted({int(part[values.argmin()]), int(part[values.argmax()])})
    return points[keep]


def _path(points: Line, frames: NDArray[np.float64]) -> str:
    """The `d` of a path. A point that stands alone is a short stroke."""
    pieces = []
    for piece in _pieces(points):
        coordinates = _places(_thin(piece), frames)
        pieces.append("M" + "L".join(coordinates) + ("h0.1" if len(coordinates) == 1 else ""))
    return "".join(pieces)


def _band(
    frames: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> list[str]:
    """The area between two lines."""
    areas = []
    lower, upper = _pieces(np.column_stack([frames, low])), _pieces(np.column_stack([frames, high]))
    for bottom, top in zip(lower, upper, strict=True):
        outline = [*_places(_thin(top), frames), *_places(_thin(bottom)[::-1], frames)]
        areas.append(f'<path class="band" d="M{"L".join(outline)}Z"/>')
    return areas


def _places(points: Line, frames: NDArray[np.float64]) -> list[str]:
    """Points in the drawing's coordinates: 0..1000 to the right, 0..100 downwards."""
    x_P = (points[:, 0] - frames[0]) / (frames[-1] - frames[0]) * 1000
    y_P = (1 - points[:, 1]) * 50
    return [f"{x:.0f} {y:.1f}" for x, y in zip(x_P.tolist(), y_P.tolist(), strict=True)]
