"""Annotated pictures: what is drawn where, and what stays as it was."""

import dataclasses
import itertools

import face_rows
import numpy as np
import pytest
from PIL import Image

from mtl_face.face_table import FaceTable
from mtl_face.report import annotate, cards, masks
from mtl_face.report.annotate import Annotator, layout

SIZE = (1000, 600)


def grey(size=SIZE, level=128):
    return Image.new("RGB", size, (level,) * 3)


@pytest.mark.parametrize(
    "size",
    [
        (854, 480),
        (1920, 1080),
        (1080, 1920),
        (3840, 2160),
        (640, 481),
        (1, 1),
        (3, 4000),
        (5000, 2),
    ],
)
def test_layout_has_room_for_the_column(size):
    where = layout(*size)
    width, height = where.canvas
    assert width % 2 == height % 2 == 0
    assert where.em >= 11
    assert width - where.picture[0] >= cards.WIDTH * where.em
    assert height >= where.picture[1]
    assert max(where.picture) <= 8192
    drawn = Annotator().draw(grey(size), face_rows.faces(box=(0.0, 0.0, 1.0, 1.0)))
    assert drawn.size == where.canvas


@pytest.mark.parametrize(("height", "text"), [(480, 11), (720, 16), (1080, 24), (2160, 48)])
def test_text_grows_with_the_picture(height, text):
    where = layout(height * 16 // 9, height)
    assert where.factor == 1
    assert where.em == text


def test_very_large_pictures_are_made_smaller():
    assert layout(20_000, 10_000).picture == (4320, 2160)


def test_the_picture_stays_as_it_was_away_from_faces():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (600, 1000, 3), np.uint8))
    before = np.asarray(picture).copy()
    faces = face_rows.faces(box=(400.0, 200.0, 500.0, 320.0))
    drawn = np.asarray(Annotator().draw(picture, faces))[:600, :1000]
    changed = (drawn != before).any(axis=-1)
    y, x = np.nonzero(changed)
    assert (y.min() > 130, y.max() < 345, x.min() > 370, x.max() < 640) == (True,) * 4
    assert not changed[215:310, 415:485].any()  # nor on the face
    assert changed.any()
    np.testing.assert_array_equal(np.asarray(picture), before)


def colours_in(picture, number, part=None):
    """How many pixels of a person's colour there are in a part (left, top, right, bottom)."""
    pixels = np.asarray(picture.crop(part) if part else picture)
    return int((pixels == cards.colour_of(number)).all(axis=-1).sum())


@pytest.mark.parametrize("level", [0, 128, 255])
def test_boxes_have_a_dark_and_a_coloured_line(level):
    """One of both shows on any ground."""
    faces = face_rows.faces(box=(400.0, 200.0, 500.0, 320.0))
    drawn = np.asarray(Annotator().draw(grey(level=level), faces)).astype(int)
    across = drawn[270, 360:420]
    assert (across == cards.colour_of(1)).all(axis=-1).sum() >= 2
    assert across.max(axis=-1).min() <= 0.5 * level or level == 0


def test_doubtful_faces_have_broken_lines():
    box = (300.0, 100.0, 700.0, 500.0)
    counts = [
        colours_in(
            Annotator().draw(grey(), face_rows.faces(box=box, status=np.array([status]))),
            1,
            (240, 120, 280, 480),
        )
        for status in ("ok", "blurred")
    ]
    assert 0.3 * counts[0] < counts[1] < 0.8 * counts[0]


def tags_of(monkeypatch, faces):
    """Where names are written, in the order of writing."""
    places, write = [], annotate._tag

    def record(*args, **kwargs):
        places.append(write(*args, **kwargs))
        return places[-1]

    monkeypatch.setattr(annotate, "_tag", record)
    Annotator().draw(grey(), faces)
    return places


@pytest.mark.parametrize("count", [2, 5, 8])
def test_names_do_not_lie_on_each_other(monkeypatch, count):
    """Faces near each other, and at the edges of the picture."""
    rng = np.random.default_rng(count)
    corner = np.stack([rng.uniform(-20, 930, count), rng.uniform(-20, 530, count)], axis=1)
    box = np.concatenate([corner, corner + 90], axis=1)
    faces = dataclasses.replace(face_rows.faces(count), box=box)
    places = tags_of(monkeypatch, faces)
    assert len(places) == count
    for first, second in itertools.combinations(places, 2):
        assert annotate._shared(first, second) == 0
    for left, top, right, bottom in places:
        assert 0 <= left < right <= SIZE[0]
        assert 0 <= top < bottom <= SIZE[1]


@pytest.mark.parametrize(
    ("count", "size"),
    [(0, "large"), (1, "large"), (2, "medium"), (3, "small"), (4, "tiny"), (6, "tiny")],
)
def test_cards_are_as_large_as_there_is_room(count, size):
    for height in (480, 720, 1080):
        where = layout(height * 16 // 9, height)
        room = height / where.em - 2 * annotate._GAP - annotate._FOOT
        chosen, most = annotate._card_size(count, room)
        assert chosen == size
        assert most * (cards.HEIGHTS[size] + annotate._GAP) <= room + annotate._GAP


@pytest.mark.parametrize("count", [1, 2, 3, 6, 50])
def test_every_card_is_whole(count):
    """The column has the edge of each person's card, one below the other, up to six."""
    boxes = np.array([[15.0 * n, 200, 15.0 * n + 60 - n, 270 - n] for n in range(count)])
    faces = face_rows.faces(count)
    picture = Annotator().draw(grey(), dataclasses.replace(faces, box=boxes))
    where = layout(*SIZE)
    edge = np.asarray(picture)[:, where.column + 1]
    ends = []
    for number in range(1, min(count, 6) + 1):
        rows = np.flatnonzero((edge == cards.colour_of(number)).all(axis=-1))
        assert len(rows) == pytest.approx(rows[-1] - rows[0], abs=3)
        ends += [rows[0], rows[-1]]
    assert ends == sorted(ends)
    assert ends[-1] < SIZE[1] - where.em


def test_the_nearest_get_the_cards():
    boxes = np.array([[20.0 * n, 100, 20.0 * n + 20 + n, 120 + n] for n in range(10)])
    faces = face_rows.faces(10)
    annotator = Annotator()
    annotator.draw(grey(), dataclasses.replace(faces, box=boxes))
    assert annotator._shown[:6] == [10, 9, 8, 7, 6, 5]


def nobody(seconds):
    return FaceTable.without_faces(["a.mp4"], [1], [1000 * seconds])


def test_trail_reaches_back_two_seconds():
    annotator = Annotator()
    for number in range(41):
        faces = face_rows.faces(number=number, seconds=number / 8, seed=number)
        annotator.draw(grey((640, 480)), faces)
    kept = [time for time, _ in annotator._people[1].trail]
    assert kept == [time / 8 for time in range(24, 41)]


def test_the_card_of_a_lost_person_stays_for_two_seconds():
    annotator = Annotator()
    seen = annotator.draw(grey((640, 480)), face_rows.faces(seconds=1.0))
    lost = annotator.draw(grey((640, 480)), nobody(2.5))
    where = layout(640, 480)
    card = where.column + 2 * where.em, 4 * where.em, *where.canvas
    light = [np.asarray(picture.crop(card)).astype(int).std() for picture in (seen, lost)]
    assert 0 < light[1] < 0.7 * light[0]  # dimmed
    annotator.draw(grey((640, 480)), nobody(3.0))
    assert list(annotator._people) == annotator._shown == [1]
    gone = annotator.draw(grey((640, 480)), nobody(3.01))
    assert annotator._people == {}
    assert annotator._shown == []
    assert colours_in(gone, 1) == 0


def test_two_cards_take_two_colours():
    drawn = Annotator().draw(grey(), face_rows.faces(2))
    assert colours_in(drawn, 1) > 100
    assert colours_in(drawn, 2) > 100
    assert colours_in(drawn, 3) == 0


def test_hidden_faces_cannot_be_told_apart():
    """The same answer on two pictures of which only the faces differ gives one picture."""
    drawn = []
    for seed in range(2):
        face = np.random.default_rng(seed).integers(0, 256, (120, 100, 3), np.uint8)
        picture = grey()
        picture.paste(Image.fromarray(face), (400, 200))
        faces = face_rows.faces(box=(400.0, 200.0, 500.0, 320.0))
        drawn.append(np.asarray(Annotator(anonymise=True).draw(picture, faces)))
        assert (np.asarray(Annotator().draw(picture, faces))[240, 420:480] == face[40, 20:80]).all()
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("size", [(320, 200), (640, 480), (2400, 2300)])
def test_masks_given_by_hand_follow_the_size(size):
    """A light square on dark ground is hidden at any scale, with no face in the table."""
    picture = Image.new("RGB", size, "black")
    picture.paste("white", (100, 60, 160, 120))
    outline = masks.outline(face_rows.faces(box=(100.0, 60.0, 160.0, 120.0)), 0)
    where = layout(*size)
    for hidden, light in (([outline], False), ([], True)):
        drawn = Annotator(anonymise=True).draw(picture, nobody(0.0), hidden=hidden)
        left = drawn.crop((0, where.top, where.picture[0], where.top + where.picture[1]))
        assert (np.asarray(left).max() > 200) == light


def test_words_below_the_cards():
    video = face_rows.faces(number=1234, seconds=3725.25)
    assert annotate.foot(video, 0) == ("62:05.2", "frame 1,234")
    assert annotate.foot(video, 3) == ("62:05.2", "+ 3 more")
    photo = face_rows.faces()
    assert annotate.foot(photo, 0) == ("one picture alone: take it with caution", "")
    assert annotate.foot(photo.take(np.arange(0)), 0) == ("", "")
    assert annotate.foot(face_rows.faces(seconds=59.96), 0)[0] == "01:00.0"


def test_grey_and_transparent_pictures_are_drawn_in_colour():
    for mode in ("L", "RGBA", "P"):
        drawn = Annotator().draw(grey().convert(mode), face_rows.faces())
        assert drawn.mode == "RGB"
        assert colours_in(drawn, 1)
