import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.formats import manifest
from data_pipeline.formats.expression_maps import MAPS, find_map
from mtl_face import tasks
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError, ConfigError


def read(tmp_path, text, name="manifest.csv", **kwargs):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = []
    table = manifest.read_manifest(
        path, ManifestConfig(**kwargs), image_root="/images", say=said.append
    )
    return table, said


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
    assert said == ["columns that are not read: age"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends(tmp_path, separator, end):
    text = end.join(["\ufeffimage,expression", "a.jpg,3", "", ",", "b.jpg,4", ""])
    table, _ = read(tmp_path, text.replace(",", separator))
    assert list(table.video) == ["a", "b"]  # each image is a video of its own
    assert list(table.frame) == [1, 1]
    assert list(table.row) == [2, 5]


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
    text = "image,expression\n" + "".join(
        f"{n}.jpg,{label}\n"
        for n, label in enumerate(["3", "7", "7.0", "Contempt", "12", "-1", ""])
    )
    table, said = read(tmp_path, text, expression_map="affectnet")
    by_name = dict(zip(table.video, table.expression, strict=True))
    assert by_name == {"0": 6, "1": -1, "2": -1, "3": -1, "4": -1, "5": -1, "6": -1}
    assert said == [
        "4 expressions have no counterpart in the map affectnet and count as missing: "
        "'7' 2, 'contempt' 1, '12' 1"
    ]


def test_map_from_a_file(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"0": "Neutral", "Grin": "happiness", "2": None}))
    assert find_map(str(path)) == {"0": "Neutral", "grin": "Happiness", "2": None}
    table, said = read(
        tmp_path, "image,expression\na.jpg,GRIN\nb.jpg,2\n", expression_map=str(path)
    )
    assert list(table.expression) == [4, -1]
    assert "1 expressions have no counterpart" in said[0]
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
        ("path,label\na.jpg,1\n", 1, "no column image among path, label"),
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
            "expression": pd.array([3, None, 8], dtype="Int64"),
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
