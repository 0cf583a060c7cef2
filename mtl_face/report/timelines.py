"""Timelines: valence and arousal of each video over its frames, true and predicted.

The template draws the lines as plain SVG that stretches to the width of the page, with the texts
beside it, so that these can be read on a phone. Dimension letters: N rows, P points.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_face.tables import FrameTable, PredictionTable, row_codes
from mtl_face.tasks import VA, VA_NAMES

MAX_VIDEOS = 60
"""Timelines at most: the rest would make the file large, and no one would look at them."""

BAND_STD = 1.96
"""Half the height of the band in standard deviations: a central 95 % interval."""

_OPEN = 4
"""Timelines that are not folded away."""

_MAX_BINS = 250
"""A longer line becomes the lowest and the highest point of so many stretches."""

_GAP = 10.0
"""A line breaks where frames are this many times farther apart than usual."""

_IN_WORDS = {"truth": "truth", "final": "prediction", "raw": "prediction before smoothing"}

Line = NDArray[np.float64]
"""Points [P, 2]: frame and value."""


class Video(NamedTuple):
    """A video by data set and name, with its rows in the order of their frames, each frame once.

    `rmse` is the root mean square error of valence and arousal together over its labelled rows,
    NaN without any.
    """

    name: str
    rows: NDArray[np.int64]
    rmse: float


def timelines(
    truth: FrameTable, answers: PredictionTable, raw: PredictionTable | None
) -> dict[str, Any]:
    """Valence and arousal of the worst videos; `raw` is from before smoothing and calibration.

    Rows of all tables belong together.

    Returns:
        `open` and `folded`: timelines, the worst first; `num_videos`: of all videos; `truth`, `raw`
        and `band`: whether there are such lines.
    """
    videos = choose_videos(truth, answers)
    if raw is not None and np.array_equal(raw.va, answers.va, equal_nan=True):
        raw = None
    drawn = [draw(video, truth, answers, raw) for video in videos[:MAX_VIDEOS]]
    return {
        "open": drawn[:_OPEN],
        "folded": drawn[_OPEN:],
        "num_videos": len(videos),
        "truth": bool(truth.labelled()[VA].any()),
        "raw": raw is not None,
        "band": answers.valence_std is not None,
    }


def choose_videos(truth: FrameTable, answers: PredictionTable) -> list[Video]:
    """The videos with at least two different frames and a prediction, the worst first.

    Those without labels are the last.
    """
    square_N = ((np.clip(answers.va, -1, 1) - truth.va.astype(np.float64)) ** 2).mean(axis=1)
    video_N = row_codes(answers.dataset, answers.video)
    order = np.lexsort((truth.frame, video_N))
    order = order[answers.answered(VA)[order]]
    starts = np.flatnonzero(np.diff(video_N[order])) + 1
    several = len(np.unique(answers.dataset)) > 1
    found = []
    for rows in np.split(order, starts) if len(order) else []:
        distinct = rows[np.append(True, np.diff(truth.frame[rows]) > 0)]
        if len(distinct) < 2:
            continue
        errors = square_N[rows][~np.isnan(square_N[rows])]
        rmse = float(np.sqrt(errors.mean())) if len(errors) else float("nan")
        name = str(answers.video[rows[0]])
        if several:
            name = f"{answers.dataset[rows[0]]} / {name}"
        found.append(Video(name, distinct, rmse))
    return sorted(found, key=lambda video: (np.isnan(video.rmse), -video.rmse))


def draw(
    video: Video, truth: FrameTable, answers: PredictionTable, raw: PredictionTable | None
) -> dict[str, Any]:
    """A video as it is drawn: `caption`, `first` and `last` frame, `strips`: valence and arousal.

    A strip has a `name`, a `description` in words, and `paths`: the kind (`band`, `zero`, `raw`,
    `truth`, `final`) and the SVG path of each line, lowest first; x is 0..1000 to the right, y
    0..100 downwards.
    """
    frames = truth.frame[video.rows].astype(np.float64)
    error = "no labels" if np.isnan(video.rmse) else f"root mean square error {video.rmse:.3f}"
    tables = {"raw": raw, "truth": truth, "final": answers}
    return {
        "caption": f"{video.name}: {len(video.rows):,} frames, {error}",
        "first": int(frames[0]),
        "last": int(frames[-1]),
        "strips": [_strip(name, frames, video, tables) for name in VA_NAMES],
    }


def _strip(
    name: str, frames: NDArray[np.float64], video: Video, tables: dict[str, Any]
) -> dict[str, Any]:
    def column(table: Any, name: str) -> NDArray[np.float64]:
        return getattr(table, name)[video.rows].astype(np.float64)

    lines = {
        kind: np.column_stack([frames, np.clip(column(table, name), -1, 1)])
        for kind, table in tables.items()
        if table is not None
    }
    paths = []
    if getattr(tables["final"], f"{name}_std") is not None:
        mean = column(tables["final"], name)
        half = BAND_STD * column(tables["final"], f"{name}_std")
        paths += [("band", path) for path in _band(frames, mean - half, mean + half)]
    paths.append(("zero", "M 0 50 H 1000"))
    paths += [(kind, path) for kind, line in lines.items() if (path := _path(line, frames))]
    ranges = []
    for kind, line in lines.items():
        values = line[:, 1][~np.isnan(line[:, 1])]
        extent = f"from {values.min():.2f} to {values.max():.2f}" if len(values) else "absent"
        ranges.append(f"{_IN_WORDS[kind]} {extent}")
    description = f"{name.capitalize()} of {video.name} over its frames: {', '.join(ranges)}."
    return {"name": name, "description": description, "paths": paths}


def _pieces(points: Line) -> Iterator[Line]:
    """Stretches of a line without missing values and without long gaps."""
    points = points[~np.isnan(points[:, 1])]
    if not len(points):
        return
    steps = np.diff(points[:, 0])
    usual = float(np.median(steps)) if len(steps) else 1.0
    yield from np.split(points, np.flatnonzero(steps > _GAP * usual) + 1)


def thin(points: Line, bins: int = _MAX_BINS) -> Line:
    """The lowest and the highest point of each stretch, in their order, if there are too many."""
    if len(points) <= 2 * bins:
        return points
    keep = []
    for part in np.array_split(np.arange(len(points)), bins):
        values = points[part, 1]
        keep += sorted({int(part[values.argmin()]), int(part[values.argmax()])})
    return points[keep]


def _path(points: Line, frames: NDArray[np.float64]) -> str:
    """The `d` of a path. A point that stands alone is a line of no length, its round ends a dot."""
    pieces = ["L".join(_places(thin(piece), frames)) for piece in _pieces(points)]
    return "".join(f"M{piece}" if "L" in piece else f"M{piece}h0" for piece in pieces)


def _band(
    frames: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> Iterator[str]:
    """The `d` of each piece of the area between two lines, which are clipped to [-1, 1]."""
    lower, upper = (_pieces(np.column_stack([frames, np.clip(v, -1, 1)])) for v in (low, high))
    for bottom, top in zip(lower, upper, strict=True):
        outline = [*_places(thin(top), frames), *_places(thin(bottom)[::-1], frames)]
        yield f"M{'L'.join(outline)}Z"


def _places(points: Line, frames: NDArray[np.float64]) -> list[str]:
    """Points in the drawing's coordinates."""
    x_P = (points[:, 0] - frames[0]) / (frames[-1] - frames[0]) * 1000
    y_P = (1 - points[:, 1]) * 50
    return [f"{x:.0f} {y:.1f}" for x, y in zip(x_P.tolist(), y_P.tolist(), strict=True)]
