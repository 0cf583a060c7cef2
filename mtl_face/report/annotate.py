"""Draws the answers on a picture: a box and a name at each face, and a column of cards beside it.

The picture itself stays free but for the boxes; what is known of a person stands in a card of the
same colour, on a ground of its own, so that it is legible whatever the picture shows. Sizes follow
the shorter side of the picture. Small pictures are enlarged, since no text would fit beside them.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mtl_face.face_table import OK, FaceTable
from mtl_face.report import cards, masks
from mtl_face.report.cards import Card, Colour, Size
from mtl_face.report.masks import Outline

TRAIL_S = 2.0
"""Seconds of valence and arousal that the plane shows."""

STAY_S = 2.0
"""A person's card stays so long, dimmed, after the face was last seen."""

SHORTEST_PX, LONGEST_PX = 480, 2160
"""The shorter side of the picture is brought between these."""

_MOST_PX = 8192  # of the longer side
_LINES = 45  # of text in the height of a picture
_GAP = 0.6  # between cards, in heights of the text
_FOOT = 1.6
_MOST_TAGS = 8  # more faces have their numbers alone
_SHARP = 2

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where things are on the canvas, in pixels.

    Attributes:
        factor: by which the picture is enlarged.
        picture: its size then.
        em: height of the text.
        canvas: size of the whole; both sides are even, as encoders of video need it.
    """

    factor: float
    picture: tuple[int, int]
    em: int
    canvas: tuple[int, int]

    @property
    def column(self) -> int:
        """Left edge of the cards."""
        return self.picture[0] + round(_GAP * self.em)

    @property
    def top(self) -> int:
        """Top edge of the picture, which is in the middle of a canvas that is higher."""
        return (self.canvas[1] - self.picture[1]) // 2


def layout(width: int, height: int) -> Layout:
    """The layout for pictures of a size."""
    short, long = sorted((width, height))
    factor = min(max(short, SHORTEST_PX), LONGEST_PX) / short
    factor = min(factor, _MOST_PX / long)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    em = max(11, round(min(size) / _LINES))
    column = round((cards.WIDTH + 2 * _GAP) * em)
    least = round((cards.HEIGHTS["small"] + 2 * _GAP + _FOOT) * em)
    canvas = size[0] + column, max(size[1], least)
    return Layout(factor, size, em, (canvas[0] + canvas[0] % 2, canvas[1] + canvas[1] % 2))


@dataclasses.dataclass
class _Person:
    """What is remembered of a person: the last answer, when it was, and the trail."""

    faces: FaceTable
    seen: float
    trail: deque[tuple[float, NDArray[np.float64]]]


class Annotator:
    """Draws on the frames of one source, in their order; on photos, one annotator each.

    Args:
        anonymise: hides the faces, see `masks`.
    """

    def __init__(self, *, anonymise: bool = False) -> None:
        self._anonymise = anonymise
        self._people: dict[int, _Person] = {}
        self._shown: list[int] = []
        self._count = 0

    def draw(
        self, picture: Image.Image, faces: FaceTable, *, hidden: Sequence[Outline] | None = None
    ) -> Image.Image:
        """The annotated picture, RGB; `layout` has its size.

        Args:
            picture: an upright frame.
            faces: its rows.
            hidden: what to hide where faces are to be hidden, if not just the faces of this frame.
        """
        self._count += 1
        where = layout(*picture.size)
        shown = picture.convert("RGB")
        if where.factor != 1:
            shown = shown.resize(where.picture, Image.Resampling.LANCZOS, reducing_gap=3.0)
        elif shown is picture:
            shown = shown.copy()
        faces = _enlarged(faces, where.factor)
        rows = np.flatnonzero(faces.has_face)
        # the nearest last, on top of the others
        rows = rows[np.argsort(_areas(faces.box[rows]), kind="stable")].tolist()
        if self._anonymise:
            if hidden is None:
                outlines = [masks.outline(faces, row) for row in rows]
            else:
                outlines = [where.factor * corners for corners in hidden]
            masks.hide(shown, outlines)
            for row in rows:
                masks.sketch(shown, faces, row)
        _draw_boxes(shown, faces, rows, where.em)
        now = self._remember(faces, rows)
        canvas = Image.new("RGB", where.canvas, cards.PAGE)
        canvas.paste(shown, (0, where.top))
        self._draw_column(canvas, where, faces, now)
        return canvas

    def _remember(self, faces: FaceTable, rows: Sequence[int]) -> float:
        """Updates what is known of people; returns the time in seconds."""
        times = faces.time_ms[np.isfinite(faces.time_ms)]
        now = float(times[0]) / 1000 if len(times) else self._count * masks.SECONDS_A_FRAME
        for row in reversed(rows):  # the nearest first: they get a card if not all do
            number = int(faces.person[row])
            person = self._people.get(number)
            trail = deque() if person is None else person.trail
            alone = dataclasses.replace(faces, mesh=None).take(np.array([row]))
            if np.isfinite(faces.va[row]).all():
                trail.append((now, faces.va[row]))
            self._people[number] = _Person(alone, now, trail)
            if number not in self._shown:
                self._shown.append(number)
        for number, person in list(self._people.items()):
            while person.trail and now - person.trail[0][0] > TRAIL_S:
                person.trail.popleft()
            if now - person.seen > STAY_S:
                del self._people[number]
                self._shown.remove(number)
        return now

    def _draw_column(
        self, canvas: Image.Image, where: Layout, faces: FaceTable, now: float
    ) -> None:
        em = where.em
        gap = round(_GAP * em)
        room = canvas.height - 2 * gap - round(_FOOT * em)
        size, most = _card_size(len(self._shown), room / em)
        y = gap
        for number in sorted(self._shown[:most]):
            person = self._people[number]
            trail = np.array([va for _, va in person.trail]).reshape(-1, 2)
            card = Card(person.faces, 0, trail, current=person.seen == now)
            picture = cards.draw_card(card, size, em)
            canvas.paste(picture, (where.column, y))
            y += picture.height + gap
        draw = ImageDraw.Draw(canvas)
        face = cards.font(max(9, round(0.88 * em)))
        if not self._shown:
            centre = where.column + cards.WIDTH * em / 2, canvas.height / 2
            draw.text(centre, "no face found", cards.MUTED, face, anchor="mm")
        baseline = canvas.height - gap - round(0.3 * em)
        left, right = foot(faces, len(self._shown) - most)
        end = where.column + round(cards.WIDTH * em)
        draw.text((where.column, baseline), left, cards.MUTED, face, anchor="ls")
        draw.text((end, baseline), right, cards.MUTED, face, anchor="rs")


def foot(faces: FaceTable, others: int) -> tuple[str, str]:
    """The line below the cards: its left and its right end."""
    more = f"+ {others} more" if others > 0 else ""
    times = faces.time_ms[np.isfinite(faces.time_ms)]
    if len(times):
        minutes, tenths = divmod(round(float(times[0]) / 100), 600)
        return f"{minutes:02d}:{tenths / 10:04.1f}", more or f"frame {faces.frame[0]:,}"
    return ("one picture alone: take it with caution" if faces.has_face.any() else ""), more


def _card_size(count: int, room: float) -> tuple[Size, int]:
    """The largest cards of which so many fit, and how many fit at most; `room` in text heights."""
    for size in cards.HEIGHTS:
        most = int((room + _GAP) / (cards.HEIGHTS[size] + _GAP))
        if count <= most:
            break
    return size, most


def _enlarged(faces: FaceTable, factor: float) -> FaceTable:
    if factor == 1:
        return faces
    mesh = None if faces.mesh is None else faces.mesh * np.float32(factor)
    # The middle of the first pixel is (0, 0) before and after, to within a pixel.
    return dataclasses.replace(
        faces, box=faces.box * factor, landmarks=faces.landmarks * factor, mesh=mesh
    )


def _areas(box_F4: NDArray[np.float64]) -> NDArray[np.float64]:
    return (box_F4[:, 2] - box_F4[:, 0]) * (box_F4[:, 3] - box_F4[:, 1])


def _draw_boxes(picture: Image.Image, faces: FaceTable, rows: Sequence[int], em: int) -> None:
    """Boxes, then names: a name may lie on another's box, but on no other name where it can."""
    boxes = {}
    for row in rows:
        left, top, right, bottom = faces.box[row].tolist()
        margin = 0.1 * max(right - left, bottom - top)
        boxes[row] = (left - margin, top - margin, right + margin, bottom + margin)
        trusted = str(faces.status[row]) == OK
        _rounded(
            picture, boxes[row], cards.colour_of(int(faces.person[row])), em, dashed=not trusted
        )
    taken: list[Box] = []
    for row in reversed(rows):  # the nearest chooses first
        words = str(faces.person[row])
        if len(rows) <= _MOST_TAGS:
            words = f"person {words}"
            if str(faces.status[row]) != OK:
                words += "  unsure"
            elif faces.expression[row] >= 0:
                words += f"  {faces.expression_name[row]}"
        others = [box for other, box in boxes.items() if other != row]
        taken.append(
            _tag(
                picture,
                words,
                boxes[row],
                (taken, others),
                em,
                colour=cards.colour_of(int(faces.person[row])),
            )
        )


def _rounded(picture: Image.Image, box: Box, colour: Colour, em: int, *, dashed: bool) -> None:
    """The outline of a rounded box, with a dark edge on both sides that shows on light pictures."""
    line = max(2, round(0.17 * em))
    edge = line + 2 * max(1, round(0.06 * em))
    left, top = math.floor(box[0] - edge), math.floor(box[1] - edge)
    width, height = (
        math.ceil(side + edge) - start for side, start in ((box[2], left), (box[3], top))
    )
    if width < 2 * edge or height < 2 * edge:
        return
    radius = min(0.9 * em, 0.2 * min(width, height))
    for stroke, fill, strength in ((edge, (0, 0, 0), 0.55), (line, colour, 1.0)):
        mask = Image.new("L", (width * _SHARP, height * _SHARP))
        inset = (edge - stroke / 2) * _SHARP
        corners = (inset, inset, width * _SHARP - inset - 1, height * _SHARP - inset - 1)
        draw = ImageDraw.Draw(mask)
        draw.rounded_rectangle(
            corners, radius * _SHARP, outline=round(255 * strength), width=round(stroke * _SHARP)
        )
        if dashed:
            _cut_gaps(draw, mask.size, round(1.1 * em * _SHARP))
        picture.paste(fill, (left, top), mask.reduce(_SHARP))


def _cut_gaps(draw: ImageDraw.ImageDraw, size: tuple[int, int], period: int) -> None:
    """Erases the middle of the sides of a box in stretches: a dashed line with whole corners."""
    for axis in (0, 1):
        for start in range(2 * period, size[axis] - 2 * period, period):
            stretch = start, start + period // 2
            box = [0, 0, *size]
            box[axis], box[axis + 2] = stretch
            # only near the two sides along this axis
            across = 1 - axis
            for low, high in ((0, period), (size[across] - period, size[across])):
                box[across], box[across + 2] = low, high
                draw.rectangle(box, 0)


def _tag(
    picture: Image.Image,
    words: str,
    box: Box,
    around: tuple[Sequence[Box], Sequence[Box]],
    em: int,
    *,
    colour: Colour,
) -> Box:
    """Writes a name at a box, where it covers least of what is there; returns its place."""
    face = cards.font(max(9, round(0.95 * em)), bold=True)
    width, height = round(face.getlength(words) + 1.0 * em), round(1.6 * em)
    gap = round(0.35 * em)
    left, top, right, bottom = (round(side) for side in box)
    candidates = [
        (x, y) for y in (top - height - gap, bottom + gap, top + gap) for x in (left, right - width)
    ]
    tags, others = around

    def cost(place: tuple[int, int]) -> float:
        x, y = _inside(place, (width, height), picture.size)
        moved = abs(x - place[0]) + abs(y - place[1])
        tag = x, y, x + width, y + height
        covered = sum(100 * _shared(tag, each) for each in tags)
        covered += sum(5 * _shared(tag, each) for each in others) + 2 * _shared(tag, box)
        return covered / (width * height) + moved / em

    x, y = _inside(min(candidates, key=cost), (width, height), picture.size)
    mask = Image.new("L", (width * _SHARP, height * _SHARP))
    end = width * _SHARP - 1, height * _SHARP - 1
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *end), 0.45 * em * _SHARP, 255)
    picture.paste(colour, (x, y), mask.reduce(_SHARP))
    draw = ImageDraw.Draw(picture)
    draw.text((x + width / 2, y + height / 2), words, cards.PAGE, face, anchor="mm")
    return x, y, x + width, y + height


def _inside(
    place: tuple[int, int], size: tuple[int, int], room: tuple[int, int]
) -> tuple[int, int]:
    x, y = (
        max(0, min(start, whole - part))
        for start, part, whole in zip(place, size, room, strict=True)
    )
    return x, y


def _shared(first: Box, second: Box) -> float:
    """Area that two boxes have in common."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)
