"""Frames to look at: the best, the worst, the most uncertain and some at random, as cards.

Dimension letters: K shown rows, N rows, M decoder modules, T task tokens (3), A action units (12),
E expressions (8); pictures `[H, W, 3]`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.report import attention_maps
from mtl_face.report.page import embed
from mtl_face.report.scores import AU_LABELS
from mtl_face.tables import FrameTable, PredictionTable, row_codes
from mtl_face.tasks import AU, EXPR, EXPRESSION_NAMES, VA, VA_NAMES

Rows = NDArray[np.int64]
Images = Callable[[int], NDArray[np.uint8] | None]
"""Picture of a row of labels, uint8 [H, W, 3], or None if there is none."""

Attention = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pictures uint8 [K, H, W, 3] -> cross-attention weights [K, modules, heads, 3, patches]."""


def examples(
    truth: FrameTable,
    answers: PredictionTable,
    groups: Mapping[str, Rows],
    images: Images | None,
    attention: Attention | None,
) -> dict[str, Any]:
    """The rows of `groups`, see `choose`, as cards. Rows of both tables belong together.

    Returns:
        `groups`: cards by group; `attention`: that of all, see `attention_maps.mean_attention`;
        whether there are `any_labels`, `has_uncertain` rows and `has_pictures`.
    """
    rows = [int(row) for group in groups.values() for row in group]
    found = {row: images(row) for row in rows} if images else {}
    pictures = {row: picture for row, picture in found.items() if picture is not None}
    maps, top = np.empty((0, 1)), 1.0
    if attention is not None and pictures:
        weights = attention(np.stack(list(pictures.values())))
        maps = attention_maps.check(weights, len(pictures))
        top = attention_maps.top_weight(maps)
    last = dict(zip(pictures, maps[:, -1], strict=False))
    return {
        "any_labels": len(groups["best"]) > 0,
        "has_uncertain": "most uncertain" in groups,
        "has_pictures": bool(pictures),
        "attention": attention_maps.mean_attention(list(pictures.values()), maps, top),
        "groups": {
            name: [
                card(row, truth, answers, pictures.get(row), last.get(row), top)
                for row in rows.tolist()
            ]
            for name, rows in groups.items()
            if len(rows)
        },
    }


def card(
    row: int,
    truth: FrameTable,
    answers: PredictionTable,
    picture: NDArray[np.uint8] | None,
    maps_Thw: NDArray[np.float64] | None,
    top: float,
) -> dict[str, Any]:
    """A row of the gallery, with its picture and its attention in the last module.

    Returns:
        `name`; `face`: its picture or None; `maps`: pictures of each token's attention, with the
        token; `lines`: task, truth, prediction, and whether that is wrong; `units`: words on action
        units and whether they are wrong, `no_units`: those if there are none.
    """
    name = f"{truth.video[row]}, frame {truth.frame[row]}"
    if (truth.dataset != truth.dataset[row]).any():
        name = f"{truth.dataset[row]} / {name}"
    maps = []
    if picture is not None and maps_Thw is not None:
        maps = attention_maps.on_face(picture, maps_Thw, top, where=f", {name}")
    truth_A, answer_A = np.asarray(truth.au[row], np.float64), answers.au[row]
    nothing = "none predicted, not labelled" if np.isnan(truth_A).all() else "none, rightly"
    return {
        "name": name,
        "face": None if picture is None else embed(picture, f"Face: {name}"),
        "maps": maps,
        "lines": [
            *(_va_line(name, row, truth, answers) for name in VA_NAMES),
            _expression_line(int(truth.expression[row]), int(answers.expression[row])),
        ],
        "units": _au_words(truth_A, answer_A),
        "no_units": "not answered" if (answer_A < 0).all() else nothing,
    }


def _va_line(
    name: str, row: int, truth: FrameTable, answers: PredictionTable
) -> tuple[str, str, str, bool]:
    value = float(np.clip(getattr(answers, name)[row], -1.0, 1.0))
    std = getattr(answers, f"{name}_std")
    predicted = "not answered" if np.isnan(value) else f"{value:+.2f}"
    if std is not None and not np.isnan(value):
        predicted += f" \N{PLUS-MINUS SIGN} {std[row]:.2f}"
    true = float(getattr(truth, name)[row])
    label = "not labelled" if np.isnan(true) else f"{true:+.2f}"
    return name.capitalize(), label, predicted, False


def _expression_line(true: int, answer: int) -> tuple[str, str, str, bool]:
    label = EXPRESSION_NAMES[true] if true >= 0 else "not labelled"
    predicted = EXPRESSION_NAMES[answer] if answer >= 0 else "not answered"
    wrong = true >= 0 and answer >= 0 and true != answer
    return "Expression", label, f"{predicted} (wrong)" if wrong else predicted, wrong


def _au_words(truth_A: NDArray[np.float64], answer_A: NDArray[np.int8]) -> list[tuple[str, bool]]:
    """Action units that are present by truth or prediction, and whether the prediction is wrong."""
    words = []
    for text, true, answer in zip(AU_LABELS.values(), truth_A, answer_A.tolist(), strict=True):
        if answer == 1 and np.isnan(true):
            words.append((f"{text} (predicted, not labelled)", False))
        elif answer == 1 and true == 0:
            words.append((f"{text} (predicted, not there)", True))
        elif true == 1:
            notes = {1: "", 0: " (missed)", -1: " (not answered)"}
            words.append((text + notes[answer], answer == 0))
    return words


def frame_errors(
    truth: FrameTable, answers: PredictionTable
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How wrong each row is, on a scale that the three tasks share.

    The error of a row is the mean over its labelled and answered tasks of: half the mean absolute
    error of valence and arousal; the share of labelled action units decided wrongly; one minus the
    probability of the true expression, or without logits whether it was decided wrongly.

    Returns:
        Error in [0, 1], float64 [N], NaN for a row without labels; and number of such tasks,
        int64 [N].
    """
    va_N = truth.labelled()[VA] & answers.answered(VA)
    error_N2 = np.abs(truth.va.astype(np.float64) - np.clip(answers.va, -1, 1))
    au_NA = ~np.isnan(truth.au) & answers.answered(AU)
    wrong_NA = au_NA & (answers.au != truth.au)
    expression_N = truth.labelled()[EXPR] & answers.answered(EXPR)
    true_class = np.where(expression_N, truth.expression, 0).astype(np.int64)
    probability_NE = answers.expression_probabilities
    if probability_NE is None:
        expression_error_N = (answers.expression != true_class).astype(np.float64)
    else:
        expression_error_N = 1.0 - probability_NE[np.arange(len(true_class)), true_class]
    errors = np.column_stack(
        [
            np.where(va_N, error_N2.mean(axis=1) / 2.0, 0.0),
            wrong_NA.sum(axis=1) / np.maximum(au_NA.sum(axis=1), 1),
            np.where(expression_N, expression_error_N, 0.0),
        ]
    )
    num_tasks = va_N.astype(np.int64) + au_NA.any(axis=1) + expression_N
    with np.errstate(invalid="ignore"):
        return errors.sum(axis=1) / np.where(num_tasks > 0, num_tasks, np.nan), num_tasks


def frame_uncertainties(answers: PredictionTable) -> NDArray[np.float64] | None:
    """How uncertain each row says it is, on a scale that the tasks share.

    The mean over the tasks with probabilities or standard deviations of: the entropy of the
    expression in units of its largest possible value; the mean entropy of the action units
    likewise; the mean standard deviation of valence and arousal, 1 at most.

    Returns float64 [N] in [0, 1]; None where only decisions are known.
    """
    from scipy.special import entr

    parts = []
    if (probability_NE := answers.expression_probabilities) is not None:
        parts.append(entr(probability_NE).sum(axis=1) / np.log(len(EXPRESSION_NAMES)))
    if (probability_NA := answers.au_probabilities) is not None:
        entropy_NA = entr(probability_NA) + entr(1 - probability_NA)
        parts.append(entropy_NA.mean(axis=1) / np.log(2.0))
    if answers.va_std is not None:
        parts.append(np.minimum(answers.va_std, 1.0).mean(axis=1))
    parts = [part_N for part_N in parts if not np.isnan(part_N).all()]  # an untrained task
    return np.mean(parts, axis=0) if parts else None


def choose(truth: FrameTable, answers: PredictionTable, *, num_rows: int) -> dict[str, Rows]:
    """Picks rows to show: `best`, `worst`, `most uncertain` (not of mere decisions) and `random`.

    Only rows with the greatest number of labelled tasks are compared, or a row with one easy task
    would pass for the best. Each group takes its rows from different videos while it can, since
    neighbouring frames look alike. No row is in two groups. The groups share `num_rows` evenly, the
    first get the rest, and have fewer where there are too few rows.
    """
    error_N, num_tasks_N = frame_errors(truth, answers)
    most = num_tasks_N.max(initial=0)
    candidates = np.flatnonzero(num_tasks_N == most) if most else np.array([], np.int64)
    orders = {
        "best": candidates[np.argsort(error_N[candidates], kind="stable")],
        "worst": candidates[np.argsort(-error_N[candidates], kind="stable")],
    }
    uncertainty_N = frame_uncertainties(answers)
    if uncertainty_N is not None:
        orders["most uncertain"] = candidates[np.argsort(-uncertainty_N[candidates], kind="stable")]
    orders["random"] = np.random.default_rng(0).permutation(candidates)
    groups: dict[str, Rows] = {}
    for number, (name, order) in enumerate(orders.items()):
        taken = np.concatenate([np.array([], np.int64), *groups.values()])
        rest = order[~np.isin(order, taken)]
        groups[name] = _from_different_videos(
            truth, rest, (num_rows + len(orders) - 1 - number) // len(orders)
        )
    return groups


def _from_different_videos(truth: FrameTable, order: Rows, num_rows: int) -> Rows:
    """First rows of an order, those of a video already shown last."""
    import pandas as pd

    video = row_codes(truth.dataset[order], truth.video[order])
    repeats = pd.Series(video).groupby(video).cumcount().to_numpy()
    return order[np.argsort(repeats, kind="stable")][:num_rows]
