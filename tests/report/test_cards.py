"""Cards: what a bar, a cell and the plane show, read from the pixels."""

import face_rows
import numpy as np
import pytest

from mtl_face.report import cards
from mtl_face.report.cards import Card

NO_TRAIL = np.zeros((0, 2))
EM = 20
REACH = 0.45  # of the unit, as a share of the plane's side


def drawn(size="large", *, person=1, trail=NO_TRAIL, current=True, **fields):
    faces = face_rows.faces(person=np.array([person]), **fields)
    picture = cards.draw_card(Card(faces, 0, trail, current), size, EM)
    return np.asarray(picture).astype(int)


def runs_of(line, colour):
    """Lengths of the stretches of a colour in a line of pixels."""
    same = (line == colour).all(axis=-1).astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same, [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def bars(pixels, colour, least=0.12 * EM):
    """Length of each bar of a colour from top to bottom, right of the plane."""
    found = []
    right = pixels[:, round(12.5 * EM) :]
    before = 0
    for line in right:
        longest = max(runs_of(line, colour), default=0)
        if longest > least and before <= least:
            found.append(longest)
        before = longest
    return found


@pytest.mark.parametrize("size", cards.HEIGHTS)
def test_size_is_a_multiple_of_the_text(size):
    for em in (11, 24, 48):
        picture = cards.draw_card(Card(face_rows.faces(), 0, NO_TRAIL), size, em)
        assert picture.mode == "RGB"
        assert picture.size == (round(cards.WIDTH * em), round(cards.HEIGHTS[size] * em))


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.8), (0.5, 1.0), (0.3, 0.45)])
def test_bars_are_as_long_as_the_probabilities(low, high):
    """Action units that are present have the person's colour; their bars relate as their values."""
    probability = np.full((1, 12), 0.01)
    probability[0, 3], probability[0, 9] = low, high
    present = np.zeros((1, 12), int)
    present[0, [3, 9]] = 1
    expression = np.full((1, 8), 0.0)
    expression[0, 2] = 1.0
    pixels = drawn(
        au_probability=probability,
        au_present=present,
        expression=np.array([2]),
        expression_probability=expression,
    )
    best, first, second = bars(pixels, cards.colour_of(1))
    assert second / first == pytest.approx(high / low, rel=0.03)
    assert best > 3 * EM


@pytest.mark.parametrize(("size", "rows"), [("small", [[0, 4], [5]]), ("tiny", [[0, 4, 11]])])
def test_cells_of_present_action_units_are_filled(size, rows):
    present = np.zeros((1, 12), int)
    present[0, [0, 4, 11]] = 1
    pixels = drawn(
        size,
        va=np.full((1, 2), np.nan),
        expression_probability=np.full((1, 8), np.nan),
        au_present=present,
    )
    same = (pixels == cards.colour_of(1)).all(axis=-1)[:, EM:]
    found = []
    for y in range(1, len(same)):
        if same[y].sum() > EM and not same[y - 1].any():  # the upper edge of filled cells
            starts = np.flatnonzero(np.diff(same[y].astype(int)) == 1)
            widths = np.flatnonzero(np.diff(same[y].astype(int)) == -1) - starts
            found.append(starts)
            np.testing.assert_allclose(widths, widths[0], atol=1)
    assert [len(starts) for starts in found] == [len(cells) for cells in rows]
    # All cells have the same distance.
    cells, starts = np.concatenate(rows), np.concatenate(found)
    distance, first = np.polyfit(cells, starts, 1)
    np.testing.assert_allclose(first + distance * cells, starts, atol=1)
    assert distance > 1.5 * EM


def dot(pixels, colour):
    """Centre of the person's colour in the square of the plane, as valence and arousal."""
    side, left, top = round(10.8 * EM), round(1.44 * EM), round(2.9 * EM)
    plane = pixels[top : top + side, left : left + side]
    y, x = np.nonzero((np.abs(plane - colour) < 6).all(axis=-1))
    return (x.mean() / side - 0.5) / REACH, (0.5 - y.mean() / side) / REACH


@pytest.mark.parametrize("va", [(0.0, 0.0), (0.7, -0.3), (-0.6, 0.9), (-1.0, -1.0)])
def test_dot_lies_where_valence_and_arousal_say(va):
    pixels = drawn(va=np.array([va]), va_std=np.full((1, 2), np.nan), person=3)
    assert dot(pixels, cards.colour_of(3)) == pytest.approx(va, abs=0.02)


def test_values_beyond_the_plane_lie_on_its_edge():
    pixels = drawn(va=np.array([[1.7, -3.0]]), va_std=np.full((1, 2), np.nan))
    assert dot(pixels, cards.colour_of(1)) == pytest.approx((1, -1), abs=0.02)


def test_spread_has_half_axes_of_one_standard_deviation():
    with_spread, without = (
        drawn(va=np.zeros((1, 2)), va_std=np.array([std])) for std in ([0.5, 0.2], [np.nan] * 2)
    )
    side, left, top = round(10.8 * EM), round(1.44 * EM), round(2.9 * EM)
    changed = (with_spread != without).any(axis=-1)[top : top + side, left : left + side]
    y, x = np.nonzero(changed)
    assert np.ptp(x) / side == pytest.approx(2 * 0.5 * REACH, abs=0.02)
    assert np.ptp(y) / side == pytest.approx(2 * 0.2 * REACH, abs=0.02)


def test_trail_is_drawn_from_the_oldest_point():
    trail = np.array([[-0.8, 0.8], [-0.4, 0.4], [0.0, 0.0]])
    fields = {"va": np.zeros((1, 2)), "va_std": np.full((1, 2), np.nan)}
    changed = (drawn(trail=trail, **fields) != drawn(**fields)).any(axis=-1)
    y, x = np.nonzero(changed)
    side, left, top = 10.8 * EM, 1.44 * EM, 2.9 * EM
    assert (x.min() - left) / side == pytest.approx(0.5 - 0.8 * REACH, abs=0.02)
    assert (y.min() - top) / side == pytest.approx(0.5 - 0.8 * REACH, abs=0.02)


@pytest.mark.parametrize("size", cards.HEIGHTS)
def test_tasks_without_an_answer_are_left_out(size):
    """What remains is the name on the blank card."""
    nothing = {
        "va": np.full((1, 2), np.nan),
        "va_std": np.full((1, 2), np.nan),
        "expression": np.array([-1]),
        "expression_probability": np.full((1, 8), np.nan),
        "au_probability": np.full((1, 12), np.nan),
        "au_present": np.full((1, 12), -1),
    }
    pixels = drawn(size, **nothing)
    blank = np.asarray(cards._blank(size, EM, cards.colour_of(1))).astype(int)
    y, x = np.nonzero((pixels != blank).any(axis=-1))
    assert len(y)
    assert y.max() < 2.4 * EM
    assert x.max() < 10 * EM


def test_decisions_without_probabilities_are_shown():
    present = np.array([[1] * 6 + [0] * 6])
    fields = {"au_probability": np.full((1, 12), np.nan), "au_present": present}
    assert (drawn("medium", **fields) == cards.colour_of(1)).all(axis=-1).any()
    assert (drawn("large", **fields) != drawn("large", au_present=present)).any()


def test_a_face_not_in_view_is_dimmed():
    seen, gone = (drawn(current=current)[4 * EM :, 2 * EM :] for current in (True, False))
    ground = np.array(cards.CARD)
    assert np.abs(gone - ground).mean() < 0.6 * np.abs(seen - ground).mean()


def test_doubts_are_said_in_words():
    assert cards.doubts("ok") == ""
    assert cards.doubts("small+partly outside") == "unsure: small, partly outside"
    trusted, unsure = (
        drawn(status=np.array([status])) for status in ("ok", "small+blurred+turned+partly outside")
    )
    y, x = np.nonzero((trusted != unsure).any(axis=-1))
    assert x.max() < (cards.WIDTH - 0.8) * EM
    assert y.max() < 2.9 * EM


def test_dark_text_is_legible_on_the_colours_of_people():
    """Contrast of WCAG 2.1 for text: 4.5; the colours differ in pairs."""

    def luminance(colour):
        share = np.array(colour) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    def contrast(first, second):
        high, low = sorted((luminance(first), luminance(second)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for colour in cards.PEOPLE:
        assert contrast(colour, cards.PAGE) > 4.5
        assert contrast(colour, cards.CARD) > 4.5
    for colour in (cards.TEXT, cards.MUTED, cards.WARNING):
        assert contrast(colour, cards.CARD) > 4.5
    assert cards.colour_of(len(cards.PEOPLE) + 2) == cards.PEOPLE[1]
    assert len(set(cards.PEOPLE)) == len(cards.PEOPLE)
