"""Drawings of the scores: densities of valence and arousal, bars with intervals.

Dimension letters: N rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.report.drawing import FIRST, SECOND, TEXT, drawing, opacity_map, to_svg
from mtl_face.report.html import Html

_CELLS = 30
"""Hexagons along an axis from -1 to 1."""


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
    with drawing(3.3, 3.1, left=0.8) as (figure, axes):
        axes.plot([-1, 1], [-1, 1], color=SECOND, linewidth=1, linestyle="--", zorder=3)
        _hexagons(axes, truth_N, prediction_N, FIRST)
        axes.set_xlabel(f"true {name}")
        axes.set_ylabel(f"predicted {name}")
        return to_svg(
            figure,
            identifier=f"density-{name}",
            description=f"Density of {len(truth_N)} frames, predicted against true {name}; "
            f"concordance {score:.3f}. The dashed line is a perfect prediction.",
        )


def va_plane(
    valence_N: NDArray[np.float64], arousal_N: NDArray[np.float64], *, name: str, truth: bool
) -> Html:
    """Where the rows lie in the plane of valence and arousal, as their density in hexagons.

    Args:
        valence_N: valence, [N]; clipped to [-1, 1] here.
        arousal_N: arousal, [N]; likewise.
        name: what the values are, in a word.
        truth: whether they are labels; decides the colour.

    Returns:
        The drawing. Its size does not grow with N.
    """
    with drawing(3.3, 3.1, left=0.8) as (figure, axes):
        for draw in (axes.axhline, axes.axvline):
            draw(0, color=TEXT, alpha=0.5, linewidth=0.8)
        _hexagons(axes, valence_N, arousal_N, SECOND if truth else FIRST)
        axes.set_xlabel("valence")
        axes.set_ylabel("arousal")
        means = [float(np.clip(v, -1, 1).mean()) for v in (valence_N, arousal_N)]
        spread = [float(np.clip(v, -1, 1).std()) for v in (valence_N, arousal_N)]
        return to_svg(
            figure,
            identifier=f"plane-{'truth' if truth else 'prediction'}",
            description=f"Density of {len(valence_N)} frames in the plane of valence and arousal, "
            f"{name}. Valence: mean {means[0]:.2f}, standard deviation {spread[0]:.2f}. "
            f"Arousal: mean {means[1]:.2f}, standard deviation {spread[1]:.2f}.",
        )


def bars(
    labels: Sequence[str],
    values: Sequence[float | None],
    baselines: Sequence[float | None] | None,
    intervals: Sequence[Sequence[float] | None],
    *,
    identifier: str,
    description: str,
) -> Html:
    """F1 scores as bars, with whiskers for intervals and marks for constant answers.

    Args:
        labels: what each bar is, in words.
        values: F1, None without labels.
        baselines: F1 of the constant answer, None without labels; None if there is none.
        intervals: low and high end of each bar, or None.
        identifier: prefix of the ids.
        description: the first words of the description; the numbers follow.

    Returns:
        The drawing.
    """
    height = 0.7 + 0.28 * len(labels)
    left = 0.35 + 0.064 * max(map(len, labels), default=0)
    with drawing(left + 2.3, height, grid="x", left=left) as (figure, axes):
        words = []
        for place, (label, value, ends) in enumerate(zip(labels, values, intervals, strict=True)):
            mark = baselines[place] if baselines is not None else None
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
        axes.set_yticks(range(len(labels)), labels)
        axes.set(xlim=(0, 1.13), xticks=np.linspace(0, 1, 6), ylim=(len(labels) - 0.4, -0.6))
        axes.set_xlabel("F1")
        return to_svg(
            figure, identifier=identifier, description=f"{description}: {'; '.join(words)}."
        )


def named(
    labels: Sequence[str],
    keys: Sequence[str],
    values: Mapping[str, float | None],
    baselines: Mapping[str, float | None] | None,
    intervals: Mapping[str, Any],
    path: str,
    **words: str,
) -> Html:
    """`bars` of scores by name, whose intervals stand under `PATH.NAME`."""
    return bars(
        labels,
        [values[key] for key in keys],
        None if baselines is None else [baselines[key] for key in keys],
        [intervals.get(f"{path}.{key}") for key in keys],
        **words,
    )


def _hexagons(axes: Any, x_N: NDArray[np.float64], y_N: NDArray[np.float64], colour: str) -> None:
    axes.hexbin(
        np.clip(x_N, -1, 1),
        np.clip(y_N, -1, 1),
        gridsize=_CELLS,
        extent=(-1, 1, -1, 1),
        mincnt=1,
        bins="log" if len(x_N) > 1 else None,
        cmap=opacity_map(colour),
        linewidths=0,
        rasterized=True,
    )
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
