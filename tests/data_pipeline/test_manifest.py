import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.formats import manifest
from data_pipeline.formats.expression_maps import MAPS, find_map
from mtl_face import files, tasks
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError, ConfigError


def read(tmp_path, text, name="manifest.csv", skipped=None, **kwargs):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = []
    table = manifest.read_manifest(
        path, ManifestConfig(**kwargs), image_root="/images", say=said.append, skipped=skipped
    )
    return table, [line for line in said if not line.startswith("no column video")]


def test_all_columns_in_any_order(tmp_path):
    table, said = read(
        tmp_path,
        "Frame,AU12,expression,image,video,arousal,valence,AU01_r,age\n"
        "7,1,happiness,x/1.jpg,v,0.25,-1,0,33\n"
        "5.0,,,x\\2.png,v,,nan,1,\n"
        '6,0,7,"x/a, b.jpeg",v,NA,0.5,-1,1\n',
    )
    assert list(table.frame) == [5, 6, 7]
    assert list(table.image) == ["x/2.png", "x/a, b.jpeg", "x/1.jpg"]
    assert list(table.row) == [3, 4, 2]
    np.testing.assert_array_equal(table.valence, np.float32([np.nan, 0.5, -1]))
    np.testing.assert_array_equal(table.arousal, np.float32([np.nan, np.nan, 0.25]))
    assert list(table.expression) == [-1, 7, 4]
    au1, au12 = (tasks.AU_NUMBERS.index(number) for number in (1, 12))
    np.testing.assert_array_equal(table.au[:, au1], np.float32([1, np.nan, 0]))
    np.testing.assert_array_equal(table.au[:, au12], np.float32([np.nan, 0, 1]))
    others = np.delete(table.au, [au1, au12], axis=1)
    assert np.isnan(others).all()
    assert said == [
        "columns that are not read: age",
        "expressions, as the map aff_wild2 (data.manifest.expression_map): 7 Other 1",
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends(tmp_path, separator, end):
    text = end.join(["\ufeffimage,expression", "a.jpg,3", "", ",", "b.jpg,4", ""])
    table, _ = read(tmp_path, text.replace(",", separator))
    assert list(table.video) == ["a", "b"]  # each image is a video of its own
    assert list(table.frame) == [1, 1]
    assert list(table.row) == [2, 5]


def test_a_spreadsheets_line_on_the_separator(tmp_path):
    table, _ = read(tmp_path, "\ufeffsep=;\nimage;valence;note\na.jpg;0.5;x, y\n")
    assert list(table.valence) == [0.5]
    assert list(table.row) == [3]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_numbers_with_a_decimal_comma(tmp_path, separator):
    text = "image,valence\na.jpg,0;5\n".translate(str.maketrans(",;", f"{separator},"))
    with pytest.raises(AnnotationError, match="valence is '0,5', not a number") as caught:
        read(tmp_path, text)
    assert "with a decimal point" in caught.value.remedy


def test_cells_that_repeat_are_read_and_refused_row_by_row(tmp_path):
    text = "image,valence\na.jpg,0.5\nb.jpg, 0.5\nc.jpg,NA\nd.jpg,NA\ne.jpg,0.5\n"
    table, _ = read(tmp_path, text)
    np.testing.assert_array_equal(table.valence, np.float32([0.5, 0.5, np.nan, np.nan, 0.5]))
    with pytest.raises(AnnotationError, match="not a number") as caught:
        read(tmp_path, "image,valence\na.jpg,x\nb.jpg,0.5\nc.jpg,x\n")
    assert "line 2" in str(caught.value)
    assert "line 4" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "known"),
    [
        ("File Name,AU 1,au_04,Au-12", ["au1", "au4", "au12"]),
        ("Image Path,Emotion", ["expression"]),
        ("img-name,Facial Expression", ["expression"]),
    ],
)
def test_spellings_of_names(columns, known):
    image, *others = columns.split(",")
    assert manifest.known_name(image) == "image"
    assert [manifest.known_name(name) for name in others] == known


def test_emotions_are_words_as_their_numbers_differ_between_data_sets(tmp_path):
    table, _ = read(tmp_path, "image,emotion\na.jpg,happiness\nb.jpg,\n")
    assert list(table.expression) == [4, -1]
    for numbers in ("3", "happiness\nb.jpg,0"):
        with pytest.raises(AnnotationError, match="column 'emotion' holds numbers") as caught:
            read(tmp_path, f"image,emotion\na.jpg,{numbers}\n")
        assert "data.manifest.expression_map" in caught.value.remedy
    table, said = read(tmp_path, "image,emotion,expression\na.jpg,3,4\n")
    assert list(table.expression) == [4]
    assert said[0] == "columns that are not read: emotion"


@pytest.mark.parametrize("name", manifest.IMAGE_NAMES)
def test_names_of_the_image_column(tmp_path, name):
    table, said = read(tmp_path, f"{name.upper()},age\na.jpg,3\n")
    assert list(table.image) == ["a.jpg"]
    assert said[0] == "columns that are not read: age"


def test_the_plainest_name_of_an_image_counts(tmp_path):
    table, said = read(tmp_path, "image_id,file,path\n7,b.jpg,a/b.jpg\n")
    assert list(table.image) == ["a/b.jpg"]
    assert said[0] == "columns that are not read: file, image_id"
    with pytest.raises(AnnotationError, match="'Path' and 'path' both give image"):
        read(tmp_path, "Path,path\na.jpg,b.jpg\n")


def test_votes(tmp_path):
    text = "image,votes_fear,votes_other,votes_anger\na.jpg,3,1,\nb.jpg,2,2,0\nc.jpg,,,\n"
    table, said = read(tmp_path, text)
    assert list(table.expression) == [3, -1, -1]
    fear, other, anger = (tasks.EXPRESSION_NAMES.index(n) for n in ("Fear", "Other", "Anger"))
    np.testing.assert_array_equal(
        table.votes[:, [fear, other, anger]],
        np.float32([[3, 1, np.nan], [2, 2, 0], [np.nan] * 3]),
    )
    assert said == ["1 rows have two or more expressions with equally many votes: no label"]
    table, said = read(tmp_path, "image,expression,votes_fear\na.jpg,3,1\nb.jpg,,9\nc.jpg,,\n")
    assert list(table.expression) == [3, -1, -1]
    assert np.isnan(table.expression_shares()[1:]).all()
    assert said[-1] == "1 rows have votes and an empty expression, as that of line 3: no label"
    table, said = read(tmp_path, "image,expression,votes_fear\nb.jpg,3,1\na.jpg,0,9\n")
    assert table.expression[0] == 0  # a label goes before the votes
    assert said[-1].startswith(
        "1 rows have an expression with fewer votes than another, as that of line 3"
    )
    with pytest.raises(AnnotationError, match="votes_fear is -2, no number of votes"):
        read(tmp_path, "image,votes_fear\na.jpg,-2\n")


PROBABILITIES = ",".join(f"expr_{name.lower()}_probability" for name in tasks.EXPRESSION_NAMES)


def test_probabilities_of_labels(tmp_path):
    """The decision is the label: the largest, without a tie, and from one half on."""
    text = (
        f"image,{PROBABILITIES},au1_probability,au2_probability,au2,label_weight\n"
        "a.jpg,0.5,0.25,0.125,0.125,0,0,0,0,0.5,0.4,1,0.5\n"
        "b.jpg,0,0.5,0.5,0,0,0,0,0,0.49,,,\n"
        "c.jpg,,,,,,,,,,,,1\n"
    )
    table, said = read(tmp_path, text)
    assert list(table.expression) == [0, -1, -1]
    assert said == ["1 rows have two or more expressions with equally many votes: no label"]
    np.testing.assert_array_equal(table.expression_shares()[1], [0, 0.5, 0.5] + [0] * 5)
    np.testing.assert_array_equal(table.au[:, :2], [[1, 1], [0, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(
        table.au_probability[:, :2], np.float32([[0.5, 0.4], [0.49, np.nan], [np.nan, np.nan]])
    )
    np.testing.assert_array_equal(table.label_weight, np.float32([0.5, 1, 1]))
    assert np.isnan(table.au[:, 2:]).all()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (f"image,{PROBABILITIES}\na.jpg{',0.1' * 8}\n", 2, "sum to 0.8, not to 1"),
        (f"image,{PROBABILITIES}\na.jpg,1{',0' * 7}\nb.jpg,2,-1{',0' * 6}\n", 3, "outside"),
        (f"image,{PROBABILITIES}\na.jpg,0.5,0.5{',' * 6}\n", 2, "2 of the 8 probabilities"),
        (
            f"image,{PROBABILITIES.rsplit(',', 1)[0]}\na.jpg,1{',0' * 6}\n",
            1,
            "7 of the 8 columns of probabilities, without expr_other_probability",
        ),
        (
            f"image,votes_fear,{PROBABILITIES}\na.jpg,3,1{',0' * 7}\n",
            1,
            "both give votes_fear",
        ),
        ("image,au1_probability\na.jpg,1.5\n", 2, "au1_probability is 1.5, outside"),
        ("image,au1_probability\na.jpg,nearly\n", 2, "au1_probability is 'nearly', not a"),
        ("image,au1,label_weight\na.jpg,1,7\n", 2, "label_weight is 7, outside"),
    ],
)
def test_soft_labels_with_a_fault(tmp_path, text, line, words):
    with pytest.raises(AnnotationError, match=words) as caught:
        read(tmp_path, text)
    assert caught.value.line == line
    assert str(caught.value).count(words) == 1


RATERS = "image,valence,arousal,valence_rater_std,arousal_rater_std,raters\n"


def test_spread_of_annotators(tmp_path):
    """On the scale of the file; known of two annotators on, where there is a label."""
    text = (
        RATERS + "a.jpg,5,9,1,2,3\nb.jpg,1,2,0,,4\nc.jpg,1,2,0,0,1\nd.jpg,,2,1,1,2\ne.jpg,5,5,,,\n"
    )
    table, said = read(tmp_path, text, va_range=(1.0, 9.0))
    np.testing.assert_array_equal(table.raters[0], [0.25, 0.5, 3])
    assert np.isnan(table.raters[1:]).all()
    assert said == ["3 rows have no spread of two or more annotators"]
    ratings = np.array([4.0, 5.0, 6.0])  # of which 1 is the sample standard deviation
    np.testing.assert_allclose(table.rater_variance()[0, 0], (ratings / 4).var(), rtol=1e-6)
    np.testing.assert_array_equal(table.valence[:3], [0, -1, -1])


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (RATERS + "a.jpg,0,0,0.1,-2,3\n", 2, "arousal_rater_std is -2, and that of 3 annotators"),
        (RATERS + "a.jpg,0,0,0,0,2\nb.jpg,0,0,1.5,0,2\n", 3, "is from 0 to 1.41"),
        (RATERS + "a.jpg,0,0,0.1,0.1,2.5\n", 2, "raters is 2.5, no number of annotators"),
        (RATERS + "a.jpg,0,0,0.1,inf,2\n", 2, "arousal_rater_std is inf, not a finite number"),
        (RATERS.replace(",raters", "") + "a.jpg,0,0,0.1,0.1\n", 1, "and no column raters"),
    ],
)
def test_spread_with_a_fault(tmp_path, text, line, words):
    with pytest.raises(AnnotationError, match=words) as caught:
        read(tmp_path, text)
    assert caught.value.line == line
    assert str(caught.value).count(words) == 1


def test_rows_without_a_vote_are_counted(tmp_path):
    table, said = read(tmp_path, "image,votes_fear,votes_anger\na.jpg,1,0\nb.jpg,0,0\nc.jpg,,\n")
    assert list(table.expression) == [3, -1, -1]
    assert said == ["1 rows have 0 votes for each expression, as that of line 3: no label"]


def test_frame_from_the_file_name(tmp_path):
    table, _ = read(tmp_path, "image,video\nx/00012.jpg,v\nx/00003.jpg,v\n")
    assert list(table.frame) == [3, 12]
    with pytest.raises(AnnotationError, match="'face' is no frame number") as caught:
        read(tmp_path, "image,video\nx/face.jpg,v\n")
    assert caught.value.line == 2


def test_named_maps():
    """The published class orders of AffectNet and FER2013, written out."""
    affectnet = ["Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger"]
    fer = ["Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Neutral"]
    assert [MAPS["affectnet"][str(n)] for n in range(11)] == [*affectnet, None, None, None, None]
    assert MAPS["affectnet_contempt_as_other"]["7"] == "Other"
    assert MAPS["affectnet_contempt_as_other"]["contempt"] == "Other"
    assert MAPS["affectnet_contempt_as_other"]["8"] is None
    assert [MAPS["fer2013"][str(n)] for n in range(7)] == fer
    assert "7" not in MAPS["fer2013"]
    assert [MAPS["aff_wild2"][str(n)] for n in range(8)] == list(tasks.EXPRESSION_NAMES)
    for classes in MAPS.values():
        assert {name for name in classes.values() if name} <= set(tasks.EXPRESSION_NAMES)


def test_unmapped_classes_are_missing_and_counted(tmp_path):
    labels = ["3", "7", "7.0", "Contempt", "bored", "-1", "", "3.0", "1", "10", "-2", "3", "0"]
    text = "image,expression\n" + "".join(
        f"{name}.jpg,{label}\n" for name, label in zip("abcdefghijklm", labels, strict=True)
    )
    table, said = read(tmp_path, text, expression_map="affectnet", missing_values=(-2,))
    assert list(table.expression) == [6, -1, -1, -1, -1, -1, -1, 6, 4, -1, -1, 6, 0]
    assert said == [
        "expressions, as the map affectnet (data.manifest.expression_map): 0 Neutral 1, "
        "1 Happiness 1, 3 Surprise 3",
        "5 expressions have no counterpart in the map affectnet and count as missing: "
        "'7' 2, 'contempt' 1, 'bored' 1, '10' 1",
    ]


def test_a_number_that_the_map_does_not_know_shows_another_map(tmp_path):
    """All the others would be read as wrong classes without a word."""
    text = "image,expression\na.jpg,1\nb.jpg,8\nc.jpg,3\n"
    with pytest.raises(AnnotationError, match="expression is 8, which the map aff_wild2") as caught:
        read(tmp_path, text)
    assert caught.value.line == 3
    assert "data.manifest.expression_map" in caught.value.remedy
    assert "data.manifest.missing_values=-1,-5,8" in caught.value.remedy
    table, _ = read(tmp_path, text, missing_values=(8,))
    assert list(table.expression) == [1, -1, 3]


def test_classes_that_seem_to_count_from_one_are_asked_about(tmp_path):
    """1 to 7 with a map from 0 to 7 gives every row another class."""

    def said(labels):
        rows = "".join(
            f"{'abcdefghij'[n % 10]}{n}x.jpg,{label}\n" for n, label in enumerate(labels)
        )
        return read(tmp_path, f"image,expression\n{rows}")[1][1:]

    question = ["no expression is 0, in that map Neutral: does the file count from 1?"]
    assert said([1, 2, 3, 4, 5, 6, 7] * 20) == question
    assert said([0, 1, 2, 3, 4, 5, 6, 7] * 20) == said([1, 2, 3, 4, 5, 6, 7] * 2) == []
    assert said([3, 4] * 100) == []


def test_a_map_that_leaves_most_rows_without_a_class_is_refused(tmp_path):
    text = "image,expression\na.jpg,froh\nb.jpg,traurig\nc.jpg,neutral\nd.jpg,\n"
    with pytest.raises(AnnotationError, match="2 of 3 expressions have no counterpart") as caught:
        read(tmp_path, text)
    assert "data.manifest.expression_map" in caught.value.remedy
    own = tmp_path / "map.json"
    own.write_text('{"neutral": "Neutral", "froh": null, "traurig": null}')
    table, said = read(tmp_path, text, expression_map=str(own))  # these are decided
    assert list(table.expression) == [-1, -1, 0, -1]
    assert "2 expressions have no counterpart" in said[0]


@pytest.mark.parametrize(
    "columns", ["au1,au2,au3", "AU0,AU1", "au01_c,AU03_c", ",".join(f"au{n}" for n in range(1, 13))]
)
def test_action_units_by_position_are_refused(tmp_path, columns):
    """Seven of the twelve positions are numbers of units, and would get the labels of others."""
    text = f"image,{columns}\na.jpg{',1' * (columns.count(',') + 1)}\n"
    with pytest.raises(AnnotationError, match=r"names no action unit: .* positions") as caught:
        read(tmp_path, text)
    assert "au1, au2, au4, au6" in caught.value.remedy


def test_a_threshold_that_nothing_reaches_is_told(tmp_path):
    text = "image,au1,au2\n" + "".join(f"{name}.jpg,1,0\n" for name in "abcdefghij")
    _, said = read(tmp_path, text, au_threshold=2.0)
    assert said == ["no action unit reaches data.manifest.au_threshold=2: the largest value is 1"]
    with pytest.raises(AnnotationError, match=r"au_threshold=2: each is 0 or 1") as caught:
        read(tmp_path, text.replace("0", "1"), au_threshold=2.0)
    assert "data.manifest.au_threshold=none" in caught.value.remedy
    assert read(tmp_path, text.replace("0", "1"), au_threshold=1.0)[0].au[:, 0].all()


@pytest.mark.parametrize(
    ("value", "remedy", "shown"),
    [
        ("9", "if 9 marks a missing label, data.manifest.missing_values=-1,-5,9", "9"),
        ("-2", "if -2 marks a missing label, data.manifest.missing_values=-1,-5,-2", "-2"),
        ("3.5", "data.manifest.au_threshold=2", "3.5"),
        ("0.25", "data.manifest.au_threshold=0.5", "0.25"),
        ("1.0000001", "data.manifest.au_threshold=2", "1.0000001"),
        ("inf", "write numbers", "inf"),
    ],
)
def test_the_remedy_fits_the_action_unit(tmp_path, value, remedy, shown):
    with pytest.raises(AnnotationError, match=f"au1 is {shown}, ") as caught:
        read(tmp_path, f"image,au1\na.jpg,{value}\nb.jpg,1\n")
    assert remedy in caught.value.remedy
    others = {"missing_values", "au_threshold=2", "au_threshold=0.5"}
    assert sum(other in caught.value.remedy for other in others) == (value != "inf")


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        (("-2", "-2", "0.5"), "data.manifest.missing_values=-1,-5,-2"),
        (("3", "8.5", "1"), "data.manifest.va_range=1,9; valence goes from 1 to 8.5"),
        (("1.0000001", "0", "1"), "correct the value"),
    ],
)
def test_the_remedy_fits_the_valence(tmp_path, values, remedy):
    rows = "".join(f"{name}.jpg,{value}\n" for name, value in zip("abc", values, strict=True))
    with pytest.raises(AnnotationError, match=f"valence is {values[0]}, outside") as caught:
        read(tmp_path, f"image,valence\n{rows}")
    assert remedy in caught.value.remedy


def test_the_remedy_fits_the_image(tmp_path):
    for image, remedy in (("a.tif", "convert"), ("a", "ending"), ("/a.jpg", "below the image")):
        with pytest.raises(AnnotationError) as caught:
            read(tmp_path, f"image\n{image}\n")
        assert remedy in caught.value.remedy


def test_rows_of_the_wrong_length_are_told_with_the_other_faults(tmp_path):
    with pytest.raises(AnnotationError, match=r"au1 is 9\.5.*\n  line 3: 1 cells, the header"):
        read(tmp_path, "image,au1\na.jpg,9.5\nb.jpg\nc.jpg,1\n")


def test_an_open_quotation_mark_costs_one_row(tmp_path):
    lines = ["image,au1", "a.jpg,1", '"b.jpg,1', "c.jpg,0", '"d"x.jpg,0', 'e.jpg,"1"', '"f.jpg,"1']
    lines += [f"{name}.jpg,1" for name in "ghij"]
    skipped = []
    table, _ = read(tmp_path, "\n".join(lines), skipped=skipped)
    assert list(table.video) == list("aceghij")
    assert [row.line for row in skipped] == [3, 5, 7]
    with pytest.raises(AnnotationError, match="no CSV") as caught:
        read(tmp_path, "\n".join(lines))
    assert caught.value.line == 3


def test_long_cells_are_cut(tmp_path):
    long = "x" * 5_000
    for text in (
        f"image\n{long}.tif\n",
        f"image,au1\na.jpg,{long}\n",
        f"image,video\na.jpg,{long}\n",
        f"image,expression\na.jpg,{long}\n",
        f"image,expression\na.jpg,{'1' * 5_000}\n",
        f"image,frame\na.jpg,{long}\n",
        f"image,{long},{long}\na.jpg,1,1\n",
        f"{long},au1\na.jpg,1\n",
    ):
        with pytest.raises(AnnotationError) as caught:
            read(tmp_path, text)
        assert len(str(caught.value)) < 700


def test_bad_rows_can_be_left_out(tmp_path):
    """Each kind of bad row, among good ones: those that are left have the labels they had."""
    bad = [
        b"b.jpg,9,1",
        b"c.jpg,1",
        b"d\xff.jpg,1,1",
        b"e.tif,1,1",
        b"../f.jpg,1,1",
        b"g.jpg,yes,1",
        b"h.jpg,1,12",
    ]
    good = [f"{name}.jpg,{n % 2},{n % 8}".encode() for n, name in enumerate("klmnopqr")]
    text = b"\n".join([b"image,au1,expression", *good[:4], *bad, *good[4:], b""])
    skipped = []
    table, _ = read(tmp_path, text, skipped=skipped)
    assert [row.line for row in skipped] == [6, 7, 8, 9, 10, 11, 12]
    assert {row.path for row in skipped} == {str(tmp_path / "manifest.csv")}
    assert skipped[0].problem == "au1 is 9, neither 0 nor 1"
    assert skipped[2].problem == "byte 0xff is not UTF-8 text"
    assert list(table.video) == list("klmnopqr")
    np.testing.assert_array_equal(table.au[:, 0], [0, 1] * 4)
    assert list(table.expression) == list(range(8))
    assert list(table.row) == [2, 3, 4, 5, 13, 14, 15, 16]
    with pytest.raises(AnnotationError, match="not UTF-8"):
        read(tmp_path, text)
    with pytest.raises(
        AnnotationError, match="7 of 12 rows are bad, too many to skip: au1 is 9"
    ) as caught:
        read(tmp_path, b"\n".join([b"image,au1,expression", *bad, *good[:5]]), skipped=[])
    assert caught.value.line == 2


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-clip", "@a", "'=b", "''-c"])
def test_names_that_were_made_safe_for_spreadsheets_read_back(tmp_path, name):
    path = tmp_path / "manifest.csv"
    files.write_csv(
        path, [("image", "video", "frame", "valence"), (f"{name}/1.jpg", name, 1, -0.5)]
    )
    assert f"'{name}" in path.read_text()
    table = manifest.read_manifest(path, ManifestConfig(), image_root="/images")
    assert (table.video[0], table.image[0]) == (name, f"{name}/1.jpg")
    assert table.valence[0] == -0.5


def test_map_from_a_file(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"0": "Neutral", "Grin": "happiness", "2": None}))
    assert find_map(str(path)) == {"0": "Neutral", "grin": "Happiness", "2": None}
    table, said = read(
        tmp_path, "image,expression\na.jpg,GRIN\nb.jpg,2\n", expression_map=str(path)
    )
    assert list(table.expression) == [4, -1]
    assert "1 expressions have no counterpart" in said[0]
    with pytest.raises(AnnotationError, match="expression is 3, which the map"):
        read(tmp_path, "image,expression\na.jpg,3\nb.jpg,0\n", expression_map=str(path))
    for text, words in [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no JSON object"),
        ('{"0": "Contempt"}', "which is no expression"),
        ('{"0": 3}', "which is no expression"),
    ]:
        path.write_text(text)
        with pytest.raises(AnnotationError, match=words) as caught:
            find_map(str(path))
        assert caught.value.path == str(path)
    with pytest.raises(ConfigError, match="unknown expression map 'affectnet8'"):
        find_map("affectnet8")


def test_intensities_have_a_stated_threshold(tmp_path):
    text = "image,au4,au6\na.jpg,1.9,0\nb.jpg,2,-1\nc.jpg,5,9\n"
    table, _ = read(tmp_path, text, au_threshold=2.0, missing_values=(-1, 9))
    au4, au6 = (tasks.AU_NUMBERS.index(number) for number in (4, 6))
    np.testing.assert_array_equal(table.au[:, au4], [0, 1, 1])
    np.testing.assert_array_equal(table.au[:, au6], np.float32([0, np.nan, np.nan]))
    with pytest.raises(AnnotationError, match=r"au4 is 1\.9, neither 0 nor 1") as caught:
        read(tmp_path, text)
    assert "au_threshold" in caught.value.remedy
    with pytest.raises(AnnotationError, match="au6 is 9, no intensity"):
        read(tmp_path, text, au_threshold=2.0)


def test_other_scales_of_valence_and_arousal(tmp_path):
    text = "image,valence,arousal\na.jpg,1,9\nb.jpg,5,-5\nc.jpg,7,3\n"
    table, _ = read(tmp_path, text, va_range=(1, 9))
    np.testing.assert_allclose(table.valence, [-1, 0, 0.5])
    np.testing.assert_array_equal(table.arousal, np.float32([1, np.nan, -0.5]))
    # -1 is a mark only where it is no valid value
    table, _ = read(tmp_path, "image,valence,arousal\na.jpg,-1,-5\n")
    assert table.valence[0] == -1
    assert np.isnan(table.arousal[0])
    with pytest.raises(AnnotationError, match=r"valence is -2, outside \[-1, 1\]") as caught:
        read(tmp_path, "image,valence,arousal\na.jpg,-2,-2\n")
    assert "missing_values" in caught.value.remedy
    table, _ = read(tmp_path, "image,valence,arousal\na.jpg,-2,-2\n", missing_values=(-2,))
    assert np.isnan(table.valence[0])


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("image\n", 1, "no rows"),
        ("photo,label\na.jpg,1\n", 1, "no column image among photo, label"),
        ("image,image\na.jpg,a.jpg\n", 1, "'image' appears more than once"),
        ("image,AU1,au01\na.jpg,1,1\n", 1, "both give au1"),
        ("image,au1\na.jpg,1\nb.jpg\n", 3, "1 cells, the header has 2"),
        ("image,au1\na.jpg,1\nb.jpg,1,1\n", 3, "3 cells"),
        ('image,au1\n"a.jpg,1\n', 2, "no CSV"),
        ("image\n../a.jpg\n", 2, "leaves the image folder"),
        ("image\n/etc/a.jpg\n", 2, "absolute path"),
        ("image\nC:\\a.jpg\n", 2, "absolute path"),
        ("image\na.gif\n", 2, "does not end in jpg"),
        ("image\nx/.jpg\n", 2, "does not end in jpg"),
        ("image,au1\n,1\n", 2, "does not end in jpg"),
        ("image,video\n1.jpg, \n", 2, "no name of a video"),
        ("image,frame\na.jpg,-3\n", 2, "'-3' is no frame number"),
        ("image,frame\na.jpg,3.5\n", 2, "no frame number"),
        ("image,au1\na.jpg,yes\n", 2, "au1 is 'yes', not a number"),
        ("image,au1\na.jpg,inf\n", 2, "au1 is inf"),
        ("image,valence\na.jpg,1.5\n", 2, "valence is 1.5, outside"),
        (b"image\n\xff.jpg\n", 2, "not UTF-8"),
        (b"PAR1 no such thing", None, "no readable Parquet"),
    ],
)
def test_refuses(tmp_path, text, line, words):
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, text)
    assert words in caught.value.problem
    assert caught.value.line == line
    assert caught.value.path == str(tmp_path / "manifest.csv")
    assert caught.value.remedy


def test_parquet_gives_what_csv_gives(tmp_path):
    data = pd.DataFrame(
        {
            "image": ["a/1.jpg", "a/2.jpg", "b/1.jpg"],
            "video": ["a", "a", "b"],
            "frame": [1, 2, 1],
            "valence": [0.1, np.nan, -0.3],
            "arousal": np.float32([0.25, np.nan, 1]),
            "expression": pd.array([3, None, 7], dtype="Int64"),
            "au1": [1, 0, 1],
            "photo": [b"\x00", b"\xff", b""],
        }
    )
    data.to_parquet(tmp_path / "data.parquet")
    data.drop(columns="photo").to_csv(tmp_path / "data.csv", index=False)
    said: list[str] = []
    binary, text = (
        manifest.read_manifest(
            tmp_path / name, ManifestConfig(), image_root="/images", say=said.append
        )
        for name in ("data.parquet", "data.csv")
    )
    for name in ("video", "frame", "image", "valence", "arousal", "expression", "au"):
        np.testing.assert_array_equal(getattr(binary, name), getattr(text, name))
    assert list(binary.row) == [1, 2, 3]
    assert said[0] == "columns that are not read: photo"
    assert said[1] == said[2]


_cell = st.one_of(
    st.sampled_from(["", "nan", "0", "1", "-1", "-5", "2.5", "7", "x.jpg", "a/1.jpg", "../b.jpg"]),
    st.text(max_size=6),
)
_table = st.tuples(
    st.lists(
        st.sampled_from(
            ["image", "video", "frame", "valence", "expression", "au1", "AU02", "note"]
        ),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.lists(_cell, max_size=6), max_size=5),
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(data=_table, threshold=st.sampled_from([None, 2.0]))
def test_any_table_is_read_whole_or_refused(tmp_path_factory, data, threshold):
    header, rows = data
    path = tmp_path_factory.getbasetemp() / "any.csv"
    text = "\n".join(",".join(cells) for cells in [header, *rows])
    path.write_text(text, encoding="utf-8", newline="")
    try:
        table = manifest.read_manifest(
            path, ManifestConfig(au_threshold=threshold), image_root="/images"
        )
        fault = None
    except AnnotationError as error:
        fault = error
    if fault:
        assert fault.path == str(path)
        assert fault.line is not None
        assert fault.remedy
        return
    assert 1 <= len(table) <= len(rows) + text.count('"')
    assert all(place.startswith("/images/") for place in table.paths())
