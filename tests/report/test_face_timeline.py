"""Timelines of faces: what is drawn is what the table says, however long the video."""

import dataclasses
import itertools
import xml.etree.ElementTree as ElementTree

import face_rows
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from mtl_face.face_table import FaceTable
from mtl_face.report import face_timeline
from mtl_face.report.face_timeline import EXPRESSION_COLOURS, TimelineError
from mtl_face.report.figures import FIRST, SECOND
from mtl_face.tasks import EXPRESSION_NAMES


def axes_of(faces):
    """The strips of the first panel by their names."""
    drawn = face_timeline.figure(faces)
    names = ["face", "valence", "arousal", "expression", "au"]
    return dict(zip(names, drawn.axes, strict=False))


def lines_of(axes):
    """Points of the lines in data coordinates, without the line of zero."""
    return [
        np.asarray(line.get_xydata(), float) for line in axes.lines if len(line.get_xdata()) > 2
    ]


def image_of(axes, *, zorder=1):
    (image,) = (image for image in axes.images if image.get_zorder() == zorder)
    return np.asarray(image.get_array()), image.get_extent()


def test_line_has_the_values_in_the_middle_of_their_frames():
    faces = face_rows.video(np.ones(50, bool))
    drawn = axes_of(faces)
    for place, name in enumerate(("valence", "arousal")):
        (line,) = lines_of(drawn[name])
        np.testing.assert_allclose(line[:, 0], 0.02 + 0.04 * np.arange(50))
        np.testing.assert_allclose(line[:, 1], faces.va[:, place])
        assert drawn[name].get_xlim() == pytest.approx((0, 2))


def test_band_is_the_central_95_percent():
    va_std = np.full((30, 2), 0.1)
    faces = face_rows.video(np.ones(30, bool), va=np.zeros((30, 2)), va_std=va_std)
    (band,) = axes_of(faces)["arousal"].patches
    y = band.get_xy()[:, 1]
    assert (y.min(), y.max()) == pytest.approx((-0.196, 0.196))


def test_line_and_band_break_where_the_face_is_not_seen():
    seen = np.ones(60, bool)
    seen[[20, 21, 40]] = False
    axes = axes_of(face_rows.video(seen))["valence"]
    spans = [(line[0, 0], line[-1, 0]) for line in lines_of(axes)]
    np.testing.assert_allclose(spans, [(0.02, 0.78), (0.90, 1.58), (1.66, 2.38)])
    assert len(axes.patches) == 3
    grey, _ = image_of(axes, zorder=0.5)
    np.testing.assert_array_equal(grey[0, :, 3] > 0, ~seen)


def test_long_pauses_of_a_camera_are_gaps():
    times = np.concatenate([np.arange(20) * 40, 60_000 + np.arange(20) * 40])
    axes = axes_of(face_rows.video(np.ones(40, bool), times_ms=times))["valence"]
    assert [len(line) for line in lines_of(axes)] == [20, 20]
    assert axes.get_xlim() == pytest.approx((0, 60.8))
    grey, extent = image_of(axes, zorder=0.5)
    share = (grey[0, :, 3] > 0).mean()
    assert share == pytest.approx(1 - 1.6 / 60.8, abs=0.01)
    assert extent[:2] == pytest.approx((0, 60.8))


def test_one_frame_of_twenty_thousand_is_still_seen():
    count = 20_000
    va, present = np.zeros((count, 2)), np.zeros((count, 12), int)
    va[12_345] = 0.9, -0.8
    present[12_345, 4] = 1
    faces = face_rows.video(
        np.ones(count, bool), va=va, au_present=present, au_probability=0.9 * present
    )
    drawn = axes_of(faces)
    (line,) = lines_of(drawn["valence"])
    assert len(line) <= face_timeline.COLUMNS
    assert line[:, 1].max() == 0.9
    assert line[line[:, 1].argmax(), 0] == pytest.approx(12_345.5 * 0.04)
    assert lines_of(drawn["arousal"])[0][:, 1].min() == -0.8
    colours, _ = image_of(drawn["au"])
    assert colours.shape == (12, face_timeline.COLUMNS, 4)
    row, column = np.nonzero(colours[..., 3] > 0.5)
    assert row.tolist() == [4]
    assert column[0] == 12_345 * face_timeline.COLUMNS // count


def test_rows_of_action_units_from_top_to_bottom():
    present = np.zeros((10, 12), int)
    present[:, 0] = 1
    present[5:, 11] = 1
    probability = np.where(present == 1, 1.0, 0.0)
    axes = axes_of(
        face_rows.video(np.ones(10, bool), au_present=present, au_probability=probability)
    )["au"]
    colours, extent = image_of(axes)
    strong = colours[..., 3] > 0.99
    np.testing.assert_array_equal(strong, present.T.astype(bool))
    assert (colours[..., 3][~strong] == 0).all()
    np.testing.assert_allclose(colours[strong][:, :3], [to_rgb(FIRST)] * 15)
    labels = {
        label.get_text(): place
        for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
    }
    # imshow puts the first row at the top of the extent
    assert extent[3] == 12
    assert labels["AU1"] == 11.5
    assert labels["AU26"] == 0.5


def test_ribbon_has_the_colour_of_each_answer():
    answer = np.array([0, 0, 1, 4, 7, 7, 5, 2])
    seen = np.ones(9, bool)
    seen[8] = False
    axes = axes_of(face_rows.video(seen, expression=answer))["expression"]
    colours, _ = image_of(axes)
    expected = [to_rgb(EXPRESSION_COLOURS[number]) for number in answer]
    np.testing.assert_allclose(colours[0, :8, :3], expected)
    assert colours[0, 8, 3] == 0


def test_doubtful_faces_are_marked():
    status = np.array(["ok", "small", "ok", "blurred+turned"])
    axes = axes_of(face_rows.video([1, 1, 0, 1, 1], status=status))["face"]
    colours, _ = image_of(axes)
    known = {to_rgb(FIRST): "seen", to_rgb(SECOND): "doubtful"}
    words = [known.get(tuple(colour), "gap") for colour in colours[0, :, :3].tolist()]
    assert words == ["seen", "doubtful", "gap", "seen", "doubtful"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_columns_against_every_pair(data):
    """Each column has the frames that overlap it."""
    count = data.draw(st.integers(2, 30))
    steps = data.draw(
        st.lists(st.sampled_from([10, 20, 40, 90, 5000]), min_size=count - 1, max_size=count - 1)
    )
    seen = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    seen[0] = True
    times = np.concatenate([[0], np.cumsum(steps)])
    faces = face_rows.video(seen, times_ms=times)
    (panel,) = face_timeline._panels(faces)
    columns = face_timeline._Columns(panel)
    value = np.where(seen, np.arange(count, dtype=float), np.nan)
    answer = np.where(seen, np.arange(count) % 3, -1)
    largest = columns.largest(value[:, None])[:, 0]
    frequent = columns.most_frequent(answer, 3)
    edge = np.linspace(panel.start_F[0], panel.end_F[-1], len(largest) + 1)
    for column, (left, right) in enumerate(itertools.pairwise(edge)):
        shared = np.minimum(panel.end_F, right) - np.maximum(panel.start_F, left)
        inside = shared > 2e-6 * (right - left)
        inside &= np.asarray(seen)
        if not inside.any():
            assert np.isnan(largest[column])
            assert frequent[column] == -1
            continue
        assert largest[column] == value[inside].max()
        counts = np.bincount(answer[inside], minlength=3)
        assert counts[frequent[column]] == counts.max()


def test_shares_count_time_not_frames():
    times = [0, 100, 200, 300, 500, 700, 900]
    faces = face_rows.video(
        np.ones(7, bool), times_ms=times, expression=np.array([1] * 4 + [4] * 3)
    )
    (panel,) = face_timeline._panels(faces)
    # The last frame lasts as long as the others usually do: 150 ms, the median.
    assert face_timeline._shares(faces, panel) == pytest.approx({1: 500 / 1050, 4: 550 / 1050})
    assert panel.in_view == 1.0


def test_the_legend_has_what_occurs_alone():
    answer = np.append(np.full(300, 4), [7])
    drawn = face_timeline.figure(face_rows.video(np.ones(301, bool), expression=answer))
    texts = [text.get_text() for text in drawn.texts]
    assert [text for text in texts if "%" in text][1:] == ["Happiness 100%", "Other <1%"]
    colours = [text.get_color() for text in drawn.texts if text.get_text() == "■"]
    assert colours == [EXPRESSION_COLOURS[4], EXPRESSION_COLOURS[7]]


def test_tasks_without_answers_have_no_strip():
    nothing = {
        "va": np.full((5, 2), np.nan),
        "expression": np.full(5, -1),
        "expression_probability": np.full((5, 8), np.nan),
    }
    drawn = face_timeline.figure(face_rows.video(np.ones(5, bool), **nothing))
    assert len(drawn.axes) == 2
    assert drawn.axes[1].get_yticklabels()[0].get_text() == "AU1"
    complete = face_timeline.figure(face_rows.video(np.ones(5, bool)))
    assert len(complete.axes) == 5
    assert drawn.get_figheight() < complete.get_figheight()


def test_frames_count_where_there_are_no_times():
    faces = face_rows.video(np.ones(20, bool), times_ms=np.full(20, np.nan))
    drawn = axes_of(faces)
    assert drawn["au"].get_xlabel() == "frame"
    assert drawn["au"].get_xlim() == (1, 21)


@pytest.mark.parametrize(
    ("seconds", "digits", "words"),
    [
        (0, 0, "00:00"),
        (59.6, 0, "01:00"),
        (75, 0, "01:15"),
        (3599.96, 1, "1:00:00.0"),
        (4.25, 1, "00:04.2"),
        (7265, 0, "2:01:05"),
    ],
)
def test_clock(seconds, digits, words):
    assert face_timeline._clock(seconds, digits) == words


@pytest.mark.parametrize("seconds", [0.3, 4, 70, 3000, 20_000])
def test_few_ticks_at_whole_times(seconds):
    count = 60
    faces = face_rows.video(np.ones(count, bool), times_ms=np.linspace(0, 1000 * seconds, count))
    drawn = axes_of(faces)["au"]
    labels = [label.get_text() for label in drawn.get_xticklabels()]
    assert 3 <= len(labels) <= 12
    assert len(set(labels)) == len(labels)
    assert labels[0] in ("00:00", "00:00.0")


def several(count, **fields):
    return FaceTable.joined(
        [face_rows.video([1] * (n + 2), source=f"{n}.mp4", **fields) for n in range(count)]
    )


def test_a_file_of_each_kind(tmp_path):
    faces = FaceTable.joined([face_rows.video([1, 1, 0], source="<b>&.mp4"), several(1)])
    for ending in face_timeline.ENDINGS:
        face_timeline.write_timeline(tmp_path / f"a{ending}", faces)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 1500
        assert picture.height > 1000
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = "".join(root.itertext())
    for words in ("<b>&.mp4, person 1", "0.mp4, person 1", "AU26", "valence", "prefers-color"):
        assert words in texts
    assert "in view 67% of the time" in root.get("aria-label")
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == 2
    assert "&lt;b&gt;&amp;.mp4, person 1" in page
    assert "<b>" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_same_bytes_each_time(tmp_path):
    for name in ("a.svg", "b.svg"):
        face_timeline.write_timeline(tmp_path / name, several(1))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_persons_of_a_video_have_a_panel_each():
    faces = FaceTable.joined([face_rows.video([1] * 4), face_rows.video([0, 1, 1, 0], person=2)])
    first, second = face_timeline._panels(faces)
    assert (first.person, second.person) == (1, 2)
    assert (first.in_view, second.in_view) == pytest.approx((1.0, 0.5))
    assert len(face_timeline.figure(faces).axes) == 10


def test_those_longest_in_view_are_drawn(tmp_path, monkeypatch):
    most = 2
    monkeypatch.setattr(face_timeline, "MAX_PANELS", most)
    face_timeline.write_timeline(tmp_path / "a.html", several(most + 2))
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == most
    left_out = page[page.index("Not drawn") :]
    assert "0.mp4, person 1" in left_out
    assert "1.mp4, person 1" in left_out
    assert f"{most}.mp4" not in left_out


def test_a_frame_that_was_not_decoded_is_no_frame_without_a_face():
    faces = face_rows.video([1, 1, 0, 1])
    status = np.where(faces.has_face, faces.status, "not decoded")
    (panel,) = face_timeline._panels(dataclasses.replace(faces, status=status))
    assert panel.row_F.tolist() == [0, 1, 3]


def test_what_is_no_video_is_an_error(tmp_path):
    photo = face_rows.faces(3)
    nobody = face_rows.video([0, 0, 0])
    for faces in (photo, nobody, nobody.take(np.arange(0))):
        for ending in face_timeline.ENDINGS:
            with pytest.raises(TimelineError, match="no video"):
                face_timeline.write_timeline(tmp_path / f"a{ending}", faces)
    for name in ("a.pdf", "a"):
        with pytest.raises(TimelineError, match=r"end its name in \.svg"):
            face_timeline.write_timeline(tmp_path / name, face_rows.video([1, 1]))
    assert list(tmp_path.iterdir()) == []


def test_colours_of_expressions_differ_and_show_on_both_grounds():
    def luminance(colour):
        share = np.array(to_rgb(colour))
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    assert len(set(EXPRESSION_COLOURS)) == len(EXPRESSION_NAMES)
    for colour in EXPRESSION_COLOURS:
        assert 0.1 < luminance(colour) < 0.55
