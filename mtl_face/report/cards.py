"""Cards: the answer for one person as a small picture, for the column beside an annotated frame.

A card comes in four sizes: all names in words; numbers of the action units alone; the best
expressions and the present action units; the same in three lines. All lengths are multiples of the
height of the text, so that a card looks the same beside a picture of any size.

Dimension letters: T points of a trail.
"""

import dataclasses
import functools
import itertools
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mtl_face.face_table import FaceTable
from mtl_face.tasks import AU_DESCRIPTIONS, AU_NUMBERS, EXPRESSION_NAMES, VA_NAMES

Colour = tuple[int, int, int]
Size = Literal["large", "medium", "small", "tiny"]

PAGE, CARD, LINE = (20, 24, 28), (30, 36, 42), (57, 66, 75)
TEXT, MUTED, WARNING = (228, 232, 236), (160, 171, 182), (240, 190, 90)
_TRACK = (46, 54, 62)  # what a bar could fill
_FAINT = (104, 116, 128)  # bars of what is not the answer

PEOPLE: tuple[Colour, ...] = (
    (94, 173, 255),
    (255, 176, 74),
    (96, 214, 150),
    (255, 136, 190),
    (196, 160, 255),
    (240, 220, 96),
)
"""Colours of persons by number, in turn: light enough for dark text on them."""

WIDTH = 26.0
"""Width of a card, in heights of the text."""

HEIGHTS: dict[Size, float] = {"large": 35.2, "medium": 19.7, "small": 10.3, "tiny": 6.2}
"""Heights of the cards, in heights of the text."""

_PAD = 0.9
_TOP: dict[Size, float] = {"large": 2.9, "medium": 2.9, "small": 2.4, "tiny": 0.6}
_MINUS = "\N{MINUS SIGN}"
_PLANE: dict[Size, float] = {"large": 10.8, "medium": 9.0, "small": 7.1, "tiny": 5.0}
_DOT, _HALO = 0.4, 0.14  # radius of the dot, and the dark ring around it
_SHARP = 3  # the plane is drawn this many times larger


def colour_of(person: int) -> Colour:
    """The colour of a person by number, from 1."""
    return PEOPLE[(person - 1) % len(PEOPLE)]


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """`share` of the first colour, the rest of the second."""
    red, green, blue = (
        round(share * first + (1 - share) * second)
        for first, second in zip(colour, other, strict=True)
    )
    return red, green, blue


@functools.lru_cache(maxsize=64)
def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib brings it, so that no font of the system is needed."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size_px)


@dataclasses.dataclass(frozen=True)
class Card:
    """What a card shows.

    Attributes:
        faces: a table that has the face.
        row: row of the face.
        trail: valence and arousal at earlier times, the oldest first, [T, 2].
        current: whether the face is seen in this frame; else its last answer is shown, dimmed.
    """

    faces: FaceTable
    row: int
    trail: NDArray[np.float64]
    current: bool = True


class _Pen:
    """Draws in multiples of the text's height, from a corner on."""

    def __init__(self, picture: Image.Image, em: int) -> None:
        self._draw = ImageDraw.Draw(picture)
        self._em = em

    def px(self, length: float) -> int:
        return round(length * self._em)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        fill: Colour,
        *,
        scale: float = 1.0,
        bold: bool = False,
        anchor: str = "lm",
    ) -> float:
        """Writes at a place (`anchor` as in Pillow); returns the width, in the text's height."""
        face = font(max(9, round(scale * self._em)), bold=bold)
        self._draw.text((self.px(x), self.px(y)), words, fill, face, anchor=anchor)
        return self.width(words, scale=scale, bold=bold)

    def width(self, words: str, *, scale: float = 1.0, bold: bool = False) -> float:
        return font(max(9, round(scale * self._em)), bold=bold).getlength(words) / self._em

    def box(self, x: float, y: float, width: float, height: float, fill: Colour) -> None:
        left, top = self.px(x), self.px(y)
        right, bottom = left + self.px(width), top + max(1, self.px(height))
        if right > left:
            self._draw.rectangle((left, top, right - 1, bottom - 1), fill)

    def bar(self, x: float, y: float, width: float, value: float, fill: Colour) -> None:
        """A bar in its track, centred at height y; value in 0..1."""
        self.box(x, y - 0.27, width, 0.54, _TRACK)
        self.box(x, y - 0.27, width * min(max(value, 0.0), 1.0), 0.54, fill)


def draw_card(card: Card, size: Size, em: int) -> Image.Image:
    """The picture of a card, RGB.

    Args:
        card: what it shows.
        size: how much it shows.
        em: height of the text, in pixels.
    """
    colour = colour_of(int(card.faces.person[card.row]))
    blank = _blank(size, em, colour)
    picture = blank.copy()
    pen = _Pen(picture, em)
    top = _TOP[size]
    middle = 1.6 * _PAD
    if _answered(card.faces.va[card.row]):
        _plane(picture, pen, card, size, colour)
        middle += _PLANE[size] + 0.9 * _PAD
    right = WIDTH - _PAD
    below = top + _PLANE[size] + (2.1 if size == "large" else 1.7)
    if size == "large":
        _expressions(pen, card, colour, (middle, top, right), 1.35)
        _units_in_words(pen, card, colour, below)
    elif size == "medium":
        _expressions(pen, card, colour, (middle, top, right), 1.12)
        _units_in_columns(pen, card, colour, below)
    elif size == "small":
        _best(pen, card, colour, (middle, top, right), count=3)
        _unit_cells(pen, card, colour, (middle, top + 4.85, right), across=6)
    else:
        _best(pen, card, colour, (middle, 2.4, right), count=1)
        _unit_cells(pen, card, colour, (middle, 4.75, right), across=12)
    if not card.current:
        picture = Image.blend(picture, blank, 0.55)
    beside = middle if size == "tiny" else 1.6 * _PAD
    y = 1.35 if size in ("small", "tiny") else 1.55
    _name(_Pen(picture, em), card, colour, (beside, y, right))
    return picture


@functools.lru_cache(maxsize=64)
def _blank(size: Size, em: int, colour: Colour) -> Image.Image:
    """A card before anything is written on it: rounded, with the person's colour at its edge."""
    width, height = round(WIDTH * em), round(HEIGHTS[size] * em)
    large = Image.new("RGB", (width * _SHARP, height * _SHARP), PAGE)
    draw = ImageDraw.Draw(large)
    box = (0, 0, large.width - 1, large.height - 1)
    draw.rounded_rectangle(box, 0.55 * em * _SHARP, colour)
    inner = (round(0.32 * em) * _SHARP, *box[1:])
    draw.rounded_rectangle(inner, 0.55 * em * _SHARP, CARD, corners=(False, True, True, False))
    return large.reduce(_SHARP)


def _answered(values: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).all())


def _name(pen: _Pen, card: Card, colour: Colour, place: tuple[float, float, float]) -> None:
    """Name, and at the right why the face cannot be trusted; `place`: left, height, right."""
    left, y, right = place
    fill = colour if card.current else MUTED
    end = left + pen.text(left, y, name_of(card), fill, scale=1.12, bold=True)
    note = doubts(str(card.faces.status[card.row])) if card.current else "not in view"
    if note:
        fill = WARNING if card.current else MUTED
        pen.text(right, y, _fitted(pen, note, right - end - _PAD), fill, anchor="rm")


def name_of(card: Card) -> str:
    """What a person is called."""
    return f"person {card.faces.person[card.row]}"


def doubts(status: str) -> str:
    """Why a face should not be trusted, in words, "" if it may be."""
    return "" if status == "ok" else f"unsure: {status.replace('+', ', ')}"


def _fitted(pen: _Pen, words: str, width: float) -> str:
    """A text, cut so that it is not wider."""
    if pen.width(words) <= width:
        return words
    while words and pen.width(words + "…") > width:
        words = words[:-1]
    return words.rstrip(" ,") + "…"


def _plane(picture: Image.Image, pen: _Pen, card: Card, size: Size, colour: Colour) -> None:
    """The plane of valence and arousal: trail, one standard deviation, and the point."""
    side = pen.px(_PLANE[size])
    patch = _axes(side, pen.px(1.0)).copy()
    draw = ImageDraw.Draw(patch)
    em = pen.px(1.0) * _SHARP
    span = side * _SHARP

    # The dot is whole at the edges of the plane.
    reach = 0.5 - (_DOT + _HALO) / _PLANE[size]

    def place(va: NDArray[np.float64]) -> tuple[float, float]:
        valence, arousal = np.clip(va, -1, 1).tolist()
        return (0.5 + reach * valence) * span, (0.5 - reach * arousal) * span

    va, std = card.faces.va[card.row], card.faces.va_std[card.row]
    x, y = place(va)
    if _answered(std):
        half_x, half_y = (reach * span * std).tolist()
        spread = Image.new("L", patch.size)
        ImageDraw.Draw(spread).ellipse((x - half_x, y - half_y, x + half_x, y + half_y), 70)
        # what lies beyond the rounded corners stays as it is
        patch.paste(colour, mask=_within(side, pen.px(1.0), spread))
        draw.ellipse(
            (x - half_x, y - half_y, x + half_x, y + half_y),
            outline=mixed(colour, CARD, 0.55),
            width=max(1, round(0.09 * em)),
        )
    points = [place(point) for point in card.trail]
    for number, (start, end) in enumerate(itertools.pairwise(points), start=1):
        share = number / len(points)
        width = max(_SHARP, round((0.1 + 0.16 * share) * em))
        draw.line((*start, *end), mixed(colour, CARD, 0.15 + 0.7 * share), width, joint="curve")
    for radius, fill in (((_DOT + _HALO) * em, CARD), (_DOT * em, colour)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    picture.paste(patch.reduce(_SHARP), (pen.px(1.6 * _PAD), pen.px(_TOP[size])))
    if size in ("small", "tiny"):
        return
    y = _TOP[size] + _PLANE[size] + 0.95
    for word, value, error, x in zip(
        VA_NAMES, va.tolist(), std.tolist(), (1.6 * _PAD, WIDTH / 2 + 0.6), strict=True
    ):
        words = f"{value:+.2f}" + (f" ± {error:.2f}" if np.isfinite(error) else "")
        x += pen.text(x, y, word, MUTED, scale=0.88) + 0.5
        pen.text(x, y, words.replace("-", _MINUS), TEXT, scale=0.88)


@functools.lru_cache(maxsize=16)
def _axes(side: int, em: int) -> Image.Image:
    """An empty plane of this many pixels, drawn larger."""
    span = side * _SHARP
    patch = Image.new("RGB", (span, span), CARD)
    draw = ImageDraw.Draw(patch)
    draw.rounded_rectangle((0, 0, span - 1, span - 1), 0.5 * em * _SHARP, mixed(_TRACK, CARD, 0.6))
    width = max(_SHARP, round(0.07 * em * _SHARP))
    draw.line((0, span / 2, span, span / 2), LINE, width)
    draw.line((span / 2, 0, span / 2, span), LINE, width)
    face = font(round(0.8 * em * _SHARP))
    margin = 0.35 * em * _SHARP
    if side > 6 * em:  # else the words would fill it
        draw.text((span - margin, span / 2 + margin), "valence", _FAINT, face, anchor="rt")
        draw.text((span / 2 + margin, margin), "arousal", _FAINT, face, anchor="lt")
    return patch


@functools.lru_cache(maxsize=16)
def _corners(side: int, em: int) -> Image.Image:
    mask = Image.new("L", (side * _SHARP, side * _SHARP))
    end = side * _SHARP - 1
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, end, end), 0.5 * em * _SHARP, 255)
    return mask


def _within(side: int, em: int, mask: Image.Image) -> Image.Image:
    empty = Image.new("L", mask.size)
    return Image.composite(mask, empty, _corners(side, em))


Place = tuple[float, float, float]
"""Left, top and right of a part of a card."""


def _expressions(pen: _Pen, card: Card, colour: Colour, place: Place, step: float) -> None:
    """All expressions in their order."""
    values = card.faces.expression_probability[card.row]
    chosen = int(card.faces.expression[card.row])
    if chosen < 0 and not _answered(values):
        return
    left, top, right = place
    start = left + 5.7
    for number, name in enumerate(EXPRESSION_NAMES):
        y = top + (number + 0.5) * step
        best = number == chosen
        pen.text(left, y, name, TEXT if best else MUTED, scale=0.88, bold=best)
        if _answered(values):
            value = float(values[number])
            pen.bar(start + 0.6, y, right - start - 2.6, value, colour if best else _FAINT)
            pen.text(
                right, y, f"{100 * value:.0f}", TEXT if best else MUTED, scale=0.82, anchor="rm"
            )


def _units_in_words(pen: _Pen, card: Card, colour: Colour, top: float) -> None:
    values, present = card.faces.au_probability[card.row], card.faces.au_present[card.row]
    right = WIDTH - _PAD
    for number, unit in enumerate(AU_NUMBERS):
        y = top + (number + 0.5) * 1.53
        has = int(present[number]) == 1
        if int(present[number]) < 0 and not np.isfinite(values[number]):
            continue
        fill = TEXT if has else MUTED
        pen.text(1.6 * _PAD, y, f"AU{unit}", fill, scale=0.88, bold=has)
        pen.text(1.6 * _PAD + 3.0, y, AU_DESCRIPTIONS[number], fill, scale=0.88)
        _share(pen, float(values[number]), y, (14.7, 0, right), (colour, has))


def _units_in_columns(pen: _Pen, card: Card, colour: Colour, top: float) -> None:
    """Three columns of four action units, by their numbers."""
    values, present = card.faces.au_probability[card.row], card.faces.au_present[card.row]
    width = (WIDTH - 2.6 * _PAD) / 3
    for number, unit in enumerate(AU_NUMBERS):
        column, row = divmod(number, 4)
        x, y = 1.6 * _PAD + column * width, top + (row + 0.5) * 1.36
        if int(present[number]) < 0 and not np.isfinite(values[number]):
            continue
        has = int(present[number]) == 1
        pen.text(x, y, f"AU{unit}", TEXT if has else MUTED, scale=0.82, bold=has)
        pen.bar(
            x + 2.9,
            y,
            width - 3.6,
            _or_decision(values, present, number),
            colour if has else _FAINT,
        )


def _share(pen: _Pen, value: float, y: float, place: Place, look: tuple[Colour, bool]) -> None:
    """A probability as a bar and in percent, or a decision as words."""
    left, _, right = place
    colour, has = look
    if np.isfinite(value):
        pen.bar(left, y, right - left - 2.0, value, colour if has else _FAINT)
        pen.text(right, y, f"{100 * value:.0f}", TEXT if has else MUTED, scale=0.82, anchor="rm")
    else:
        pen.text(
            right,
            y,
            "present" if has else "absent",
            TEXT if has else MUTED,
            scale=0.82,
            anchor="rm",
        )


def _or_decision(values: NDArray[Any], present: NDArray[Any], number: int) -> float:
    value = float(values[number])
    return value if np.isfinite(value) else float(present[number])


def _best(pen: _Pen, card: Card, colour: Colour, place: Place, *, count: int) -> None:
    """The answer and the next best expressions, `count` in all."""
    left, top, right = place
    values, answer = card.faces.expression_probability[card.row], card.faces.expression[card.row]
    if answer < 0:
        return
    order = [int(answer)]
    if _answered(values):
        order += [place for place in np.argsort(-values, kind="stable").tolist() if place != answer]
    for row, number in enumerate(order[:count]):
        y, fill = top + (row + 0.5) * 1.3, MUTED if row else TEXT
        pen.text(left, y, EXPRESSION_NAMES[number], fill, scale=0.88, bold=not row)
        if _answered(values):
            value = float(values[number])
            pen.bar(left + 6.3, y, right - left - 8.2, value, _FAINT if row else colour)
            pen.text(right, y, f"{100 * value:.0f}", fill, scale=0.82, anchor="rm")


def _unit_cells(pen: _Pen, card: Card, colour: Colour, place: Place, *, across: int) -> None:
    """The numbers in cells, `across` in a row; a cell is filled where the action unit is present.

    `place` has the middle of the first row.
    """
    left, middle, right = place
    present = card.faces.au_present[card.row]
    if (present < 0).all():
        return
    scale = 0.82 if across == 6 else 0.74
    label = 0.0
    if across == 6:
        label = pen.text(left, middle, "AU", MUTED, scale=0.82) + 0.5
    width = (right - left - label) / across
    for number, unit in enumerate(AU_NUMBERS):
        row, column = divmod(number, across)
        x, y = left + label + column * width, middle + row * 2.0
        has = int(present[number]) == 1
        gap = 0.3 if across == 6 else 0.16
        pen.box(x, y - 0.8, width - gap, 1.6, colour if has else _TRACK)
        ink = PAGE if has else _FAINT
        pen.text(x + (width - gap) / 2, y, str(unit), ink, scale=scale, bold=has, anchor="mm")
