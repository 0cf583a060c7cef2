"""Frames to look at: the best, the worst and some at random, with truth and prediction in words.

Dimension letters: N rows, A action units (12), E expressions (8); pictures `[H, W, 3]`.
"""

import base64
import io
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.prediction_table import PredictionTable
from mtl_face.evaluation.report.html import Html, escape, group
from mtl_face.evaluation.truth import Truth, valid_au, valid_expression, valid_va
from mtl_face.tasks import AU_DESCRIPTIONS, AU_NAMES, EXPRESSION_NAMES, VA_NAMES

Images = Callable[[int], NDArray[np.uint8] | None]
"""Picture of a row of labels, uint8 [H, W, 3], or None if there is none."""

_MAX_SIDE_PX = 160


def frame_errors(
    truth: Truth, predictions: PredictionTable
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How wrong each row is, on a scale that the three tasks share.

    The error of a row is the mean over its labelled tasks of: half the mean absolute error of
    valence and arousal; the share of labelled action units decided wrongly; one minus the softmax
    probability of the true expression.

    Args:
        truth: N rows of labels.
        predictions: the N predictions that belong to them, in the same order.

    Returns:
        Error in [0, 1], float64 [N], NaN for a row without labels; and number of labelled tasks,
        int64 [N].
    """
    va_N = valid_va(truth)
    error_N2 = np.abs(
        np.column_stack([truth.valence, truth.arousal]).astype(np.float64)
        - np.clip(np.column_stack([predictions.valence, predictions.arousal]), -1, 1)
    )
    au_NA = valid_au(truth, "any")
    wrong_NA = au_NA & (predictions.au_present != (np.asarray(truth.au) == 1))
    expression_N = valid_expression(truth)
    shifted_NE = predictions.expression_logits - predictions.expression_logits.max(
        axis=1, keepdims=True
    )
    probability_NE = np.exp(shifted_NE) / np.exp(shifted_NE).sum(axis=1, keepdims=True)
    true_class = np.where(expression_N, truth.expression, 0).astype(np.int64)
    errors = np.column_stack(
        [
            np.where(va_N, error_N2.mean(axis=1) / 2.0, 0.0),
            wrong_NA.sum(axis=1) / np.maximum(au_NA.sum(axis=1), 1),
            np.where(expression_N, 1.0 - probability_NE[np.arange(len(va_N)), true_class], 0.0),
        ]
    )
    num_tasks = va_N.astype(np.int64) + au_NA.any(axis=1) + expression_N
    with np.errstate(invalid="ignore"):
        return errors.sum(axis=1) / np.where(num_tasks > 0, num_tasks, np.nan), num_tasks


def choose(
    truth: Truth, predictions: PredictionTable, *, num_rows: int, seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """Picks rows to show.

    Only rows with the greatest number of labelled tasks are compared, or a row with one easy task
    would pass for the best. Each group takes its rows from different videos while it can, since
    neighbouring frames look alike. No row is in two groups.

    Args:
        truth: N rows of labels.
        predictions: the N predictions that belong to them, in the same order.
        num_rows: rows of the three groups together; shared out evenly, the first get the rest.
        seed: decides the random rows.

    Returns:
        Rows by group, `best`, `worst` and `random`; fewer where there are too few rows.
    """
    error_N, num_tasks_N = frame_errors(truth, predictions)
    most = num_tasks_N.max(initial=0)
    candidates = np.flatnonzero(num_tasks_N == most) if most else np.array([], np.int64)
    groups: dict[str, NDArray[np.int64]] = {}
    orders = {
        "best": candidates[np.argsort(error_N[candidates], kind="stable")],
        "worst": candidates[np.argsort(-error_N[candidates], kind="stable")],
        "random": np.random.default_rng(seed).permutation(candidates),
    }
    for number, (name, order) in enumerate(orders.items()):
        taken = np.concatenate([np.array([], np.int64), *groups.values()])
        rest = order[~np.isin(order, taken)]
        groups[name] = _from_different_videos(
            truth, rest, (num_rows + len(orders) - 1 - number) // len(orders)
        )
    return groups


def cards(
    rows: Iterable[int], *, truth: Truth, predictions: PredictionTable, images: Images | None
) -> Html:
    """Pictures of some rows with truth and prediction in words.

    Args:
        rows: rows of `truth`.
        truth: N rows of labels.
        predictions: the N predictions that belong to them, in the same order.
        images: gives the picture of a row, or None.

    Returns:
        A group of figures.

    Raises:
        ValueError: a picture is not uint8 [H, W, 3].
    """
    return group((_card(int(row), truth, predictions, images) for row in rows), css_class="gallery")


def _from_different_videos(
    truth: Truth, order: NDArray[np.int64], num_rows: int
) -> NDArray[np.int64]:
    """First rows of an order, those of a video already shown last."""
    seen: dict[tuple[str, str], int] = {}
    repeats = []
    for row in order.tolist():
        video = (str(truth.dataset[row]), str(truth.video[row]))
        repeats.append(seen.get(video, 0))
        seen[video] = repeats[-1] + 1
    return order[np.argsort(repeats, kind="stable")][:num_rows]


def _card(row: int, truth: Truth, predictions: PredictionTable, images: Images | None) -> Html:
    """One row: its picture, and a small table of truth and prediction."""
    name = f"{truth.dataset[row]} / {truth.video[row]}, frame {truth.frame[row]}"
    picture = images(row) if images is not None else None
    shown = (
        Html('<div class="absent">no picture</div>')
        if picture is None
        else Html(f'<img src="{_data_uri(picture)}" alt="{escape(f"Face: {name}")}">')
    )
    true_class = int(truth.expression[row])
    expression = EXPRESSION_NAMES[true_class] if true_class >= 0 else "not labelled"
    lines = [
        (
            name.capitalize(),
            _signed(getattr(truth, name)[row]),
            _signed(np.clip(getattr(predictions, name)[row], -1.0, 1.0)),
        )
        for name in VA_NAMES
    ]
    lines.append(
        ("Expression", escape(expression), escape(EXPRESSION_NAMES[predictions.expression[row]]))
    )
    aus = _au_words(np.asarray(truth.au[row]), predictions.au_present[row])
    body = "\n".join(
        f'<tr><th scope="row">{label}</th><td>{true}</td><td>{predicted}</td></tr>'
        for label, true, predicted in lines
    )
    return Html(
        f"<figure>\n{shown}\n<figcaption>{escape(name)}\n"
        '<table class="words"><thead><tr><td></td><th scope="col">truth</th>'
        f'<th scope="col">predicted</th></tr></thead>\n<tbody>\n{body}\n'
        f'<tr><th scope="row">Action units</th><td colspan="2">{aus}</td></tr>\n</tbody></table>'
        "</figcaption>\n</figure>"
    )


def _signed(value: float) -> Html:
    """A valence or arousal with its sign."""
    return escape("not labelled" if np.isnan(value) else f"{value:+.2f}")


def _au_words(truth_A: NDArray[np.float64], present_A: NDArray[np.bool_]) -> Html:
    """Action units that are present by truth or prediction, a line each, with what is wrong."""
    lines = []
    for number, (name, meaning) in enumerate(zip(AU_NAMES, AU_DESCRIPTIONS, strict=True)):
        text = escape(f"{name.upper()} {meaning}")
        true, predicted = truth_A[number], bool(present_A[number])
        if predicted and np.isnan(true):
            lines.append(f"{text} (predicted, not labelled)")
        elif predicted and true == 0:
            lines.append(f'<span class="wrong">{text} (predicted, not there)</span>')
        elif true == 1:
            lines.append(text if predicted else f'<span class="wrong">{text} (missed)</span>')
    nothing = "none predicted, not labelled" if np.isnan(truth_A).all() else "none, rightly"
    return Html("<br>".join(lines) or nothing)


def _data_uri(picture: NDArray[np.uint8]) -> str:
    """The picture inside its own address, reduced where it is large."""
    from PIL import Image

    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"picture is {picture.dtype} {picture.shape}, expected uint8 [H, W, 3]")
    image = Image.fromarray(picture)
    image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
