import jinja2
import numpy as np
import pytest
from markupsafe import Markup

from mtl_face.report import page
from mtl_face.report.page import Cell, Table


def rendered(source, **values):
    return page._environment().from_string(source).render(values)


def table(**values):
    source = '{% from "macros.html" import table %}{{ table(t) }}'
    return rendered(source, t=Table(**values))


def test_values_are_escaped_in_texts_and_attributes():
    out = table(caption='a"<b>', header=["<h>"], rows=[("<i>", "&amp;", "\x00\ud800é\n")])
    assert 'aria-label="a&#34;&lt;b&gt;"' in out
    assert '<th scope="col">&lt;h&gt;</th>' in out
    assert r"<td>&amp;amp;</td><td>\x00\ud800é" + "\n</td>" in out


def test_markup_is_kept():
    assert rendered("{{ a }}{{ b }}", a=Markup("<g>"), b="<g>") == "<g>&lt;g&gt;"


def test_cells_of_each_kind():
    cells = ("x", Cell("50%", shade=0.5, below="12"), Cell("", shade=0.0), Cell(bar=0.25))
    out = table(caption="c", header=[""], rows=[("first", *cells)], row_kinds=["total"])
    assert (
        '<tr class="total"><th scope="row">first</th><td>x</td>'
        '<td style="--share: 0.500">50%<small>12</small></td><td style="--share: 0.000"></td>'
        '<td class="bar"><span style="--share: 0.2500"></span></td></tr>'
    ) in out


def test_a_value_that_is_missing_is_no_empty_text():
    with pytest.raises(jinja2.UndefinedError):
        rendered("{{ absent }}")


@pytest.mark.parametrize(("size", "shown"), [((100, 50), (100, 50)), ((320, 640), (80, 160))])
def test_pictures_are_reduced_and_hold_their_data(size, shown):
    width, height = size
    picture = page.embed(np.zeros((height, width, 3), np.uint8), "d")
    assert (picture.width, picture.height) == shown
    assert picture.address.startswith("data:image/jpeg;base64,/9j/")


@pytest.mark.parametrize("picture", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4), "u1")])
def test_other_arrays_are_no_pictures(picture):
    with pytest.raises(ValueError, match="expected uint8"):
        page.embed(picture, "d")
