import numpy as np
import pytest

from data_pipeline.formats.editions import EDITIONS, FORMS
from data_pipeline.formats.submission import read_submission
from mtl_face.errors import AnnotationError

HEADER = "image,valence,arousal,expression,aus"
LONG_HEADER = (
    "image,valence,arousal,expression,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
)
AUS = "0,1,0,1,0,1,0,1,0,1,0,1"
ROW = f"341/00008.jpg,0.25,-0.5,3,{AUS}"


def write(tmp_path, text, name="predictions.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(tmp_path, text, name="predictions.txt", **kwargs):
    """The table of a submission that nothing was overlooked in, unless read leniently."""
    table, warnings = read_submission(write(tmp_path, text, name), **kwargs)
    assert not (warnings and kwargs.get("strict", True))
    return table


def read_leniently(tmp_path, text):
    return read_submission(write(tmp_path, text), strict=False)


def test_multi_task(tmp_path):
    table = read(tmp_path, f"{HEADER}\n{ROW}\nvideo45_1/00001.jpg,1,-1,0,{AUS}\n{ROW}\n")
    assert list(table.video) == ["341", "video45_1", "341"]  # its own order, duplicates kept
    assert list(table.frame) == [8, 1, 8]
    assert list(table.image) == ["341/00008.jpg", "video45_1/00001.jpg", "341/00008.jpg"]
    assert (list(table.valence), list(table.arousal)) == ([0.25, 1, 0.25], [-0.5, -1, -0.5])
    assert list(table.expression) == [3, 0, 3]
    np.testing.assert_array_equal(table.au, [[0, 1] * 6] * 3)
    assert set(table.dataset) == {"s-aff-wild2"}
    assert table.tasks == ("va", "au", "expr")


def test_one_task_files(tmp_path):
    table = read(tmp_path, "image_location,valence,arousal\na/00001.jpg,0.5,-0.5\n")
    assert (table.tasks, table.valence[0], table.expression[0]) == (("va",), 0.5, -1)
    assert (table.au == -1).all()
    names = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    table = read(tmp_path, f"image_location,{names}\na/00001.jpg,7\n")
    assert (table.tasks, table.expression[0]) == (("expr",), 7)
    assert np.isnan(table.valence).all()
    names = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
    table = read(tmp_path, f"image_location,{names}\na/00001.jpg,{AUS}\n")
    assert (table.tasks, table.au[0].tolist()) == (("au",), [0, 1] * 6)


def test_folder_of_one_file_a_video(tmp_path):
    (tmp_path / "b_left.txt").write_text("valence,arousal\n0.1,0.2\n0.3,0.4\n")
    (tmp_path / "a.txt").write_text("valence,arousal\n-1,1\n")
    table, _ = read_submission(tmp_path)
    assert list(table.image) == ["a/00001.jpg", "b_left/00001.jpg", "b_left/00002.jpg"]
    assert list(table.valence) == [-1, 0.1, 0.3]
    (tmp_path / "c.txt").write_text(f"image,valence,arousal,expression,aus\n{ROW}\n")
    with pytest.raises(AnnotationError, match=r"c\.txt, line 1: the header"):
        read_submission(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match=r"no \.txt file"):
        read_submission(tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{HEADER}\n{ROW},\n", "line 2: a trailing comma"),
        (f"{HEADER}\n{ROW}\n\n{ROW}\n", "line 3: a blank line"),
        (f"{HEADER}\r\n{ROW}\r\n", "line 1: lines end in a carriage return"),
        (f"\ufeff{HEADER}\n{ROW}\n", "line 1: a byte order mark"),
        (f"{HEADER}\n{ROW.replace(',', ', ')}\n", "line 2: blanks around"),
        (f"{ROW}\n", "line 1: the header is missing"),
        (f"{LONG_HEADER}\n{ROW}\n", "line 1: the header is"),
        (f"{HEADER},\n{ROW}\n", "line 1: the header is"),
        (f"{HEADER}\n{ROW.replace(',3,', ',3.0,')}\n", "line 2: expression is 3.0, write 3"),
        (f"{HEADER}\n{ROW[:-1]}1.0\n", "line 2: AU26 is 1.0, write 1"),
        (f"{HEADER}\n{ROW.replace('.jpg', '')}\n", "line 2: image id '341/00008'"),
        (f"{HEADER}\n{ROW.replace(',', ';')}\n", "line 2: ';' between values"),
        (f"{HEADER}\n{ROW.replace(',', chr(9))}\n", r"line 2: '\\t' between values"),
    ],
)  # fmt: skip
def test_lenient_reading_says_what_it_overlooked(tmp_path, text, words):
    with pytest.raises(AnnotationError, match=words):
        read(tmp_path, text)
    table, warnings = read_leniently(tmp_path, text)
    assert set(table.image) == {"341/00008.jpg"}
    assert (table.valence[0], table.arousal[0], table.expression[0]) == (0.25, -0.5, 3)
    np.testing.assert_array_equal(table.au[0], [0, 1] * 6)
    assert len(warnings) == 1
    assert words.replace("\\\\", "\\") in warnings[0]


def test_lenient_reading_keeps_what_was_predicted(tmp_path):
    rows = [
        ROW.replace("0.25", "1.5"),
        ROW.replace(",3,", ",-1,"),
        ROW.replace(AUS, "0.5,0.4999" + AUS[3:]),
        ROW.replace(AUS, "-1" + AUS[1:]),
        ROW.replace("0.25", "-5"),
    ]
    table, warnings = read_leniently(tmp_path, "\n".join([HEADER, *rows]))
    assert list(table.valence) == [1.5, 0.25, 0.25, 0.25, -5]
    assert list(table.expression) == [3, -1, 3, 3, 3]
    assert table.au[:, 0].tolist() == [0, 0, 1, -1, 0]
    assert table.au[2, 1] == 0
    assert len(warnings) == 1  # all of one kind, with their number
    assert "valence is 1.5, outside [-1, 1] (5 more of the kind)" in warnings[0]


def test_eight_scores_in_place_of_a_class(tmp_path):
    text = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n.1,.2,.05,.5,0,0,.1,.05\n"
    with pytest.raises(AnnotationError, match="eight scores"):
        read(tmp_path, text, name="v.txt")
    assert read(tmp_path, text, name="v.txt", strict=False).expression[0] == 3
    with pytest.raises(AnnotationError, match="8 fields, expected 1"):
        read(tmp_path, text.replace(".5,", "nan,"), name="v.txt", strict=False)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        (f"{HEADER}\n", 1, "no rows"),
        ("hello\n", 1, "header"),
        ("a,b,c,d,e,f\n", 1, "neither the header nor a row"),
        (f"{HEADER}\n{ROW[:-2]}\n", 2, "15 fields, expected 16"),
        (f"{HEADER}\n{ROW},1\n", 2, "17 fields, expected 16"),
        (f"{HEADER}\n{ROW[:-1]}\n", 2, "a trailing comma"),
        (f"{HEADER}\n{ROW.replace('0.25', 'nan')}\n", 2, "valence is nan, not a finite"),
        (f"{HEADER}\n{ROW.replace('0.25', '1e999')}\n", 2, "not a finite"),
        (f"{HEADER}\n{ROW.replace('0.25', '')}\n", 2, "valence is empty"),
        (f"{HEADER}\n{ROW.replace('0.25', '0_1')}\n", 2, "not a number"),
        (f"{HEADER}\n{ROW.replace(',3,', ',8,')}\n", 2, "expression is 8"),
        (f"{HEADER}\n{ROW.replace(',3,', ',2.5,')}\n", 2, "expression is 2.5"),
        (f"{HEADER}\n{ROW.replace(',3,', ',nan,')}\n", 2, "expression is nan"),
        (f"{HEADER}\n{ROW[:-1]}2\n", 2, "AU26 is 2, expected 0 or 1"),
        (f"{HEADER}\n{ROW.replace('341/', '')}\n", 2, "names no video"),
        (f"{HEADER}\n{ROW.replace('341/', '../341/')}\n", 2, "leaves the image folder"),
    ],
)
def test_refuses_what_has_no_one_meaning(tmp_path, text, line, words, strict):
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, text, strict=strict)
    assert (caught.value.path, caught.value.line) == (str(tmp_path / "predictions.txt"), line)
    assert words in caught.value.problem
    assert caught.value.remedy


def test_forms_are_those_of_the_challenges():
    assert {form.num_fields for form in FORMS} == {16, 3, 2, 13, 1, 12}
    assert {EDITIONS[f"abaw{n}_mtl"].header for n in (3, 4, 7, 11)} == {HEADER}
    assert EDITIONS["abaw3_va"].header == "valence,arousal"
    assert EDITIONS["abaw6_va"].header == "image_location,valence,arousal"
    assert not EDITIONS["abaw3_au"].image_column
    assert EDITIONS["abaw8_expr"].num_fields == 2  # eight names, one value


def test_the_remedy_is_the_flag_of_the_command_line(tmp_path):
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, f"{HEADER}\n{ROW},\n")
    assert "--lenient" in caught.value.remedy
    assert "strict" not in caught.value.remedy


def test_long_cells_are_cut(tmp_path):
    long = "9" * 5_000
    for row in (
        f"a/{long}.jpg{ROW[13:]}",
        ROW.replace("0.25", long),
        ROW.replace("0.25", "1" + "0" * 300 + ".5"),
        ROW.replace(",3,", f",{long},"),
    ):
        with pytest.raises(AnnotationError) as caught:
            read(tmp_path, f"{HEADER}\n{row}\n")
        assert len(str(caught.value)) < 500
