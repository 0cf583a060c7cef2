"""A frame as a card: its picture, where the task tokens look, truth and prediction in words.

Dimension letters: A action units (12); pictures `[H, W, 3]`.
"""

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.answers import Answers
from mtl_face.evaluation.truth import Truth
from mtl_face.report import attention_maps
from mtl_face.report.html import Html, escape, image
from mtl_face.tasks import AU_DESCRIPTIONS, AU_NAMES, EXPRESSION_NAMES, VA_NAMES


def card(
    row: int,
    *,
    truth: Truth,
    answers: Answers,
    picture: NDArray[np.uint8] | None,
    maps: NDArray[np.float64] | None,
    top: float,
) -> Html:
    """A row of the gallery.

    Args:
        row: which.
        truth: N rows of labels.
        answers: the N answers that belong to them.
        picture: uint8 [H, W, 3], or None.
        maps: attention of each token in the last module, [3, h, w], or None.
        top: weight of the palest colour of the maps.

    Returns:
        A figure.

    Raises:
        ValueError: the picture is not uint8 [H, W, 3].
    """
    name = f"{truth.dataset[row]} / {truth.video[row]}, frame {truth.frame[row]}"
    return Html(
        f"<figure>\n{_pictures(name, picture, maps, top)}\n<figcaption>{escape(name)}\n"
        '<table class="words"><thead><tr><td></td><th scope="col">truth</th>'
        '<th scope="col">predicted</th></tr></thead>\n'
        f"<tbody>\n{_lines(row, truth, answers)}\n</tbody></table></figcaption>\n</figure>"
    )


def _pictures(
    name: str,
    picture: NDArray[np.uint8] | None,
    maps: NDArray[np.float64] | None,
    top: float,
) -> Html:
    """The face, and beside it the same under the attention of each token."""
    if picture is None:
        return Html('<div class="absent">no picture</div>')
    face = image(picture, f"Face: {name}")
    if maps is None:
        return Html(f'<div class="face">{face}</div>')
    tiles = [f'<div class="tile">{face}<span>face</span></div>']
    for words, weight_hw in zip(attention_maps.TOKENS.values(), maps, strict=True):
        told = f"Attention of the {words} token, {name}: {attention_maps.in_words(weight_hw)}"
        drawn = image(attention_maps.overlay(picture, weight_hw, top), told)
        tiles.append(f'<div class="tile">{drawn}<span>{words}</span></div>')
    return Html(f'<div class="tiles">{"".join(tiles)}</div>')


def _lines(row: int, truth: Truth, answers: Answers) -> Html:
    """Truth and prediction of each task."""
    lines = []
    for name in VA_NAMES:
        value = float(np.clip(getattr(answers, name)[row], -1.0, 1.0))
        std = getattr(answers, f"{name}_std")
        predicted = "not answered" if np.isnan(value) else f"{value:+.2f}"
        if std is not None and not np.isnan(value):
            predicted += f" \N{PLUS-MINUS SIGN} {std[row]:.2f}"
        true = float(getattr(truth, name)[row])
        told = "not labelled" if np.isnan(true) else f"{true:+.2f}"
        lines.append((name.capitalize(), escape(told), escape(predicted)))
    true_class, predicted_class = int(truth.expression[row]), int(answers.expression[row])
    told = EXPRESSION_NAMES[true_class] if true_class >= 0 else "not labelled"
    predicted = EXPRESSION_NAMES[predicted_class] if predicted_class >= 0 else "not answered"
    wrong = true_class >= 0 and predicted_class >= 0 and true_class != predicted_class
    shown = (
        f'<span class="wrong">{escape(predicted)} (wrong)</span>' if wrong else escape(predicted)
    )
    lines.append(("Expression", escape(told), Html(shown)))
    body = "\n".join(
        f'<tr><th scope="row">{label}</th><td>{true_text}</td><td>{predicted_text}</td></tr>'
        for label, true_text, predicted_text in lines
    )
    aus = _au_words(np.asarray(truth.au[row], np.float64), answers.au[row])
    return Html(f'{body}\n<tr><th scope="row">Action units</th><td colspan="2">{aus}</td></tr>')


def _au_words(truth_A: NDArray[np.float64], answer_A: NDArray[np.int8]) -> Html:
    """Action units that are present by truth or prediction, a line each, with what is wrong."""
    lines = []
    for number, (name, meaning) in enumerate(zip(AU_NAMES, AU_DESCRIPTIONS, strict=True)):
        text = escape(f"{name.upper()} {meaning}")
        true, answer = truth_A[number], int(answer_A[number])
        if answer == 1 and np.isnan(true):
            lines.append(f"{text} (predicted, not labelled)")
        elif answer == 1 and true == 0:
            lines.append(f'<span class="wrong">{text} (predicted, not there)</span>')
        elif true == 1:
            missed = f'<span class="wrong">{text} (missed)</span>'
            silent = f"{text} (not answered)"
            lines.append(text if answer == 1 else missed if answer == 0 else silent)
    nothing = "none predicted, not labelled" if np.isnan(truth_A).all() else "none, rightly"
    if (answer_A < 0).all():
        nothing = "not answered"
    return Html("<br>".join(lines) or nothing)
