"""Learning curves: every number of a run's history against the step."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mtl_face.report.figures import FIRST, SECOND, THIRD, canvas, to_svg
from mtl_face.report.page import Drawing
from mtl_face.report.scores import TASK_WORDS
from mtl_face.tasks import TASKS

_MAX_POINTS = 400
"""Points of a curve at most; more become means of neighbours, or the file grows without end."""

_LINES = {"train": FIRST, "validation": SECOND, "run": THIRD}
"""Lines of a curve by colour: the two splits, and numbers of the run that belong to neither."""

_WORDS = {"p": "P, the sum of the three scores", "gradient_norm": "gradient norm", **TASK_WORDS}
"""Parts of a name in words."""

_FIRST_PANELS = ("loss", "p", *(f"{task} score" for task in TASKS))

Points = list[tuple[float, float]]
"""Step and value; NaN where the value is None."""


def learning_curves(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every number of the history against the step, a drawing for each name.

    `train/NAME` and `validation/NAME` share one drawing, but for the tasks, whose numbers are
    losses in training and scores in validation. Values that are not finite, or None, are gaps.
    `score` is left out where it is the same as `p`.

    A row of the history has `step`, optionally `epoch`, and any of the numbers.

    Returns:
        `main`: scores and losses, drawings with their names in words as captions; loss, P and the
        tasks' scores first. `others`: drawings of all other numbers. `kinds`: what these are, in
        words. Each in order of appearance.
    """
    panels: dict[str, dict[str, Points]] = {}
    for row in history:
        for key, value in row.items():
            if key in ("step", "epoch") or not isinstance(value, int | float | None):
                continue
            name, line = _panel(key)
            number = float("nan") if value is None else float(value)
            panels.setdefault(name, {}).setdefault(line, []).append((row["step"], number))
    if panels.get("score") == panels.get("p"):
        panels.pop("score", None)
    order = {name: number for number, name in enumerate(_FIRST_PANELS)}
    names = sorted(panels, key=lambda name: order.get(name, len(order)))
    main = [name for name in names if "validation" in panels[name] or name.endswith("loss")]
    others = [name for name in names if name not in main]
    words = {
        name: re.sub(r"\w+", lambda part: _WORDS.get(part[0], part[0]), name) for name in names
    }
    drawings = {
        name: Drawing(_curve(words[name], panels[name], number), words[name])
        for number, name in enumerate(names)
    }
    return {
        "main": [drawings[name] for name in main],
        "others": [drawings[name] for name in others],
        "kinds": list(dict.fromkeys(words[name].partition("/")[0] for name in others)),
    }


def _panel(key: str) -> tuple[str, str]:
    """Drawing and line that a number of the history belongs to."""
    split, _, rest = key.partition("/")
    if split not in _LINES or not rest:
        return key, "run"
    if rest in TASKS:
        return f"{rest} {'score' if split == 'validation' else 'loss'}", split
    return rest, split


def _curve(name: str, lines: Mapping[str, Points], number: int) -> Markup:
    with canvas(3.3, 2.2) as axes:
        words = []
        for line, colour in _LINES.items():
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
            axes.legend()
        return to_svg(
            axes,
            identifier=f"curve-{number}",
            description=f"Learning curve of {name}: {'; '.join(words)}.",
        )


def _thin(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a curve, neighbours averaged where there are too many to draw."""
    size = math.ceil(len(points) / _MAX_POINTS)
    if size > 1:
        points = np.stack([points[i : i + size].mean(axis=0) for i in range(0, len(points), size)])
    return points[:, 0], points[:, 1]
