import numpy as np
import pytest

from mtl_face import tasks
from mtl_face.errors import AnnotationError


def test_rows_of_the_challenge_without_a_header(read):
    table, said = read(
        "341/00001.jpg,-0.5,0.0,7,0,0,0,0,0,0,0,0,0,0,0,1\n"
        "341/00009.jpg,-5,-5,-1,0,0,0,1,0,-1,1,0,0,0,1.0,0\n",
        "train.txt",
    )
    assert (list(table.video), list(table.frame)) == (["341", "341"], [1, 9])
    np.testing.assert_array_equal(table.valence, np.float32([-0.5, np.nan]))
    assert list(table.expression) == [7, -1]
    assert list(table.row) == [1, 2]
    au10 = tasks.AU_NUMBERS.index(10)
    np.testing.assert_array_equal(table.au[:, au10], np.float32([0, np.nan]))
    assert "without their header line" in said[0]


@pytest.mark.parametrize(
    "text", ["a/1.jpg,3\nb/1.jpg,4\n", "a/1.jpg 3\nb/1.jpg  4\n", "3,a/1.jpg\n"]
)
def test_columns_of_a_list_without_a_header_must_be_named(read, text):
    with pytest.raises(AnnotationError, match="no header line: the first line is a row of 2") as e:
        read(text)
    assert "data.manifest.columns=image,expression" in e.value.remedy


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a/1.jpg,3\nb/1.jpg,4\n", ("image", "expression")),
        ("a/1.jpg 3\nb/1.jpg  4\n", ("image", "expression")),
        ("3;x;a/1.jpg\n4;x;b/1.jpg\n", ("expression", "note", "image")),
    ],
)
def test_named_columns(read, text, columns):
    table, _ = read(text, columns=columns)
    assert list(table.image) == ["a/1.jpg", "b/1.jpg"]
    assert list(table.expression) == [3, 4]
    assert list(table.row) == [1, 2]


@pytest.mark.parametrize("mark", [";", " ", "\t", "|"])
def test_decimal_commas_of_a_list_without_a_header(read, mark):
    row = mark.join(["a/1.jpg", "0,5", "-0,25"])
    with pytest.raises(AnnotationError, match="valence is '0,5', not a number"):
        read(f"{row}\n", columns=("image", "valence", "arousal"))


def test_named_columns_that_do_not_fit(read):
    with pytest.raises(AnnotationError, match=r"2 cells, data\.manifest\.columns names 3"):
        read("a/1.jpg,3\n", columns=("image", "expression", "au1"))
    with pytest.raises(AnnotationError, match="the first line names no image") as caught:
        read("image,expression\na/1.jpg,3\n", columns=("image", "expression"))
    assert "leave it out" in caught.value.remedy
    with pytest.raises(AnnotationError, match="'image' appears more than once"):
        read("a/1.jpg,3\n", columns=("image", "image"))
