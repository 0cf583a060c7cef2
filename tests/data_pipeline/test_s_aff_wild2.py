import errno
import string
from unittest import mock

import label_arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.formats import s_aff_wild2
from data_pipeline.formats.values import split_image_id
from mtl_face import tables
from mtl_face.errors import AnnotationError

HEADER = "image,valence,arousal,expression,aus"
LONG_HEADER = (
    "image,valence,arousal,expression,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
)
AUS = "0,1,0,1,0,1,0,1,0,1,0,1"
ROW = f"341/00008.jpg,0.25,-0.5,3,{AUS}"


def read(tmp_path, text, **kwargs):
    path = tmp_path / "annotations.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return s_aff_wild2.read_annotations(path, image_root="/images", **kwargs)


def read_list(tmp_path, text):
    path = tmp_path / "list.txt"
    path.write_text(text)
    return s_aff_wild2.read_test_list(path, image_root="/images")


def check_plain_row(table):
    assert len(table) == 1
    assert table.dataset[0] == "s-aff-wild2"
    assert (table.video[0], table.frame[0], table.image[0]) == ("341", 8, "341/00008.jpg")
    assert (table.valence[0], table.arousal[0], table.expression[0]) == (0.25, -0.5, 3)
    np.testing.assert_array_equal(table.au[0], [0, 1] * 6)
    assert table.row[0] == 2


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{ROW}\n",
        f"{HEADER}\n{ROW}",
        f"{LONG_HEADER}\n{ROW}\n",
        f"{LONG_HEADER.lower()}\n{ROW}\n",
        f"{HEADER},\n{ROW},\n",
        f"{HEADER}\r\n{ROW}\r\n\r\n",
        f"{HEADER}\r{ROW}\r",
        f"\ufeff{HEADER}\n{ROW}\n",
        f"{HEADER}\n{ROW}\n\n  \n",
        f" {HEADER} \n  {ROW.replace(',', ' , ')}\t\n",
        f"{HEADER}\n{ROW.replace(',3,', ',3.0,').replace('1', '1').replace(AUS, '0.0' + AUS[1:])}",
        f"{HEADER}\n{ROW.replace('341/', './341//')}\n",
        f"{HEADER}\n{ROW.replace('/', chr(92))}\n",
    ],
)
def test_forms_in_circulation(tmp_path, text):
    check_plain_row(read(tmp_path, text))


def test_names_missing_values_and_duplicates(tmp_path):
    au_missing = ",".join(["-1"] * 12)
    text = "\n".join(
        [
            HEADER,
            f"video45_1/00010.jpg,-5,-5,-1,{au_missing}",
            f"46-30-484x360_left/00002.jpg,-5.0,0.5,0,{AUS}",
            f"46-30-484x360_right/00002.jpeg,-0.00233333333333,1,7,-1{AUS[1:]}",
            f"46-30-484x360_left/00002.PNG,0,0,0,{AUS}",
            f"341/1.jpg,-5,-5,-1,{au_missing}",
        ]
    )
    table = read(tmp_path, text, dataset="mine")
    assert list(table.video) == [
        "341",
        "46-30-484x360_left",
        "46-30-484x360_left",
        "46-30-484x360_right",
        "video45_1",
    ]
    assert list(table.frame) == [1, 2, 2, 2, 10]
    assert list(table.row) == [6, 3, 5, 4, 2]
    assert list(table.duplicate) == [False, False, True, False, False]
    assert set(table.dataset) == {"mine"}
    assert np.isnan(table.valence[[0, 1, 4]]).all()
    assert table.arousal[1] == 0.5  # kept, but without weight
    assert table.valence[3] == np.float32(-0.00233333333333)
    assert list(np.isnan(table.au).sum(axis=1)) == [12, 0, 0, 1, 12]
    _, weights = label_arrays.labels(table)
    np.testing.assert_array_equal(weights["va"], [0, 0, 1, 1, 0])
    assert table.counts()["unlabelled"] == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ROW + ",1", "17 values, expected 16"),
        (ROW[:-2], "15 values"),
        (ROW[:-1], "AU26 is empty, not a number"),
        (",,,", "0 values"),
        (ROW.replace("0.25", "high"), "valence is 'high', not a number"),
        (ROW.replace("0.25", ""), "valence is empty, not a number"),
        (ROW.replace("0.25", "0_1"), "not a number"),
        (ROW.replace("0.25", "\u0660"), "not a number"),
        (ROW.replace("-0.5", "nan"), "arousal is nan, which is not a finite"),
        (ROW.replace("-0.5", "1e999"), "arousal is inf"),
        (ROW.replace("-0.5", "1.0001"), "arousal is 1.0001, outside"),
        (ROW.replace("-0.5", "-4.9"), "outside"),
        (ROW.replace(",3,", ",8,"), "expression is 8, outside the classes"),
        (ROW.replace(",3,", ",-2,"), "expression is -2"),
        (ROW.replace(",3,", ",2.5,"), "expression is 2.5"),
        (ROW[:-1] + "2", "AU26 is 2, neither 0 nor 1"),
        (ROW.replace(AUS, "0.5" + AUS[1:]), "AU1 is 0.5"),
        (ROW.replace("341/", "../341/"), "leaves the image folder"),
        (ROW.replace("341/", "a\\..\\341/"), "leaves the image folder"),
        (ROW.replace("341/", "/data/341/"), "absolute path"),
        (ROW.replace("341/", "C:\\data\\"), "absolute path"),
        (ROW.replace("341/", ""), "names no video"),
        (ROW.replace("00008", "face"), "no frame number"),
        (ROW.replace("00008", "9" * 19), "no frame number"),
        (ROW.replace(".jpg", ".txt"), "no frame number"),
        (ROW.replace("341/", "3\x0041/"), "control character"),
    ],
)
def test_refuses_a_faulty_row(tmp_path, row, words):
    with pytest.raises(AnnotationError, match=r"annotations\.txt, line 4") as caught:
        read(tmp_path, f"{HEADER}\n{ROW}\n\n{row}\n{ROW}\n")
    assert words in caught.value.problem
    assert caught.value.line == 4
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"", 1, "empty"),
        (b" \r\n\n", 1, "empty"),
        (HEADER.encode(), 1, "no rows"),
        (f"\n{HEADER}\n\n".encode(), 2, "no rows"),
        (ROW.encode(), 1, "above it"),
        (b"image,valence\n", 1, "unknown header"),
        (b",,,\n", 1, "unknown header"),
        (b"valence,arousal\n0,0\n", 1, "file of one video"),
        (b"Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n1", 1, "one video"),
        (b"AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26\n", 1, "one video"),
        (b"image_location,valence,arousal\n", 1, "one-task"),
        (HEADER.replace(",", ";").encode(), 1, "commas between"),
        (f"{HEADER}\r\n{ROW}\r\n\xe9".encode("latin-1"), 3, "0xe9 is not UTF-8"),
        (f"{HEADER}\n{ROW}\n".encode("utf-16"), 1, "not UTF-8"),
    ],
)
def test_refuses_a_faulty_file(tmp_path, text, line, words):
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert caught.value.line == line
    assert caught.value.path == str(tmp_path / "annotations.txt")
    assert caught.value.remedy


def test_lists_ten_faults_of_all_kinds_in_order(tmp_path):
    rows = [ROW.replace("0.25", "2"), ROW + ",1", ROW.replace(",3,", ",9,"), "x"] * 10
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, "\n".join([HEADER, *rows]))
    shown = caught.value.problem.splitlines()
    assert caught.value.line == 2
    assert "valence is 2" in shown[0]
    assert [text.split(":")[0] for text in shown[1:10]] == [f"  line {i}" for i in range(3, 12)]
    assert shown[10] == "  and 30 more faults"


def test_unreadable_files(tmp_path, monkeypatch):
    for path, words in [(tmp_path / "none.txt", "does not exist"), (tmp_path, "folder")]:
        with pytest.raises(AnnotationError, match=words) as caught:
            s_aff_wild2.read_annotations(path, image_root="/images")
        assert caught.value.path == str(path)

    for refusal, words in [
        (PermissionError(errno.EACCES, "Permission denied"), "no permission"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ]:
        monkeypatch.setattr("builtins.open", mock.Mock(side_effect=refusal))
        with pytest.raises(AnnotationError, match=words):
            s_aff_wild2.read_annotations("file.txt", image_root="/images")


@pytest.mark.parametrize("header", ["", "image\n", "image,\n", f"{HEADER}\n", "image_location\n"])
def test_list_keeps_order_and_duplicates(tmp_path, header):
    ids = ["video45_1/00010.jpg", "9/00002.jpg", "video45_1/00010.jpg", "9/00001.jpg"]
    table = read_list(tmp_path, header + ",\r\n".join(ids) + ",\n\n")
    assert list(table.image) == ids
    assert list(table.duplicate) == [False, False, True, False]
    assert list(table.row) == [i + 1 + bool(header) for i in range(4)]
    assert table.counts()["unlabelled"] == 4


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("image\n", 1, "no image ids"),
        ("", 1, "empty"),
        ("names\n9/00002.jpg", 1, "names no video"),
        (f"image\n9/00001.jpg\n{ROW}", 3, "expected one image id"),
    ],
)
def test_refuses_a_faulty_list(tmp_path, text, line, words):
    with pytest.raises(AnnotationError, match=words) as caught:
        read_list(tmp_path, text)
    assert caught.value.line == line


_video = st.text(string.ascii_letters + string.digits + "-_. ü\u2028\x85", min_size=1).filter(
    lambda name: name.strip(" .") == name
)
_unit = st.one_of(st.just(np.nan), st.floats(-1, 1, width=32))
_row = st.tuples(
    _video,
    st.integers(0, 10**18 - 1),
    _unit,
    _unit,
    st.integers(-1, 7),
    st.lists(st.sampled_from([0, 1, np.nan]), min_size=12, max_size=12),
)


@settings(deadline=None, derandomize=True)
@given(rows=st.lists(_row, min_size=1, max_size=8))
def test_reading_gives_back_what_was_written(tmp_path_factory, rows):
    video, frame, valence, arousal, expression, au = zip(*rows, strict=True)
    images = [f"{name}/{number:05d}.jpg" for name, number in zip(video, frame, strict=True)]
    table = tables.FrameTable.from_columns(
        dataset="s-aff-wild2",
        video=video,
        frame=frame,
        image=images,
        root="/images",
        valence=valence,
        arousal=arousal,
        expression=expression,
        au=au,
    )

    def line(row):
        va = ("-5" if np.isnan(value) else str(value) for value in (valence[row], arousal[row]))
        units = ("-1" if np.isnan(value) else str(int(value)) for value in au[row])
        return ",".join([images[row], *va, str(expression[row]), *units])

    path = tmp_path_factory.getbasetemp() / "written.txt"
    path.write_text("\n".join([HEADER, *map(line, range(len(rows)))]), encoding="utf-8")
    again = s_aff_wild2.read_annotations(path, image_root="/images")
    for name in vars(table):
        if name != "row":
            np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


_VALID = f"{HEADER}\n{ROW}\n{ROW.replace('0.25', '-5')}\n".encode()
_mutation = st.tuples(st.integers(0, len(_VALID) - 1), st.integers(0, 3), st.binary(max_size=3))


def mutate(mutations):
    content = _VALID
    for position, removed, added in mutations:
        content = content[:position] + added + content[position + removed :]
    return content


@settings(deadline=None, derandomize=True, max_examples=300)
@given(content=st.one_of(st.binary(), st.lists(_mutation, min_size=1, max_size=3).map(mutate)))
def test_any_bytes_are_read_or_refused_with_a_place(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.txt"
    path.write_bytes(content)
    num_lines = len(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    for reader in (s_aff_wild2.read_annotations, s_aff_wild2.read_test_list):
        fault = None
        try:
            table = reader(path, image_root="/images")
        except AnnotationError as error:
            fault = error
        if fault:
            assert fault.path == str(path)
            assert fault.line is not None
            assert 1 <= fault.line <= num_lines
            assert fault.remedy
        else:
            assert 1 <= len(table) <= num_lines
            assert all(row_path.startswith("/images/") for row_path in table.paths())


def test_image_ids_in_deeper_folders():
    assert split_image_id("train/341/00008.jpg") == ("train/341/00008.jpg", "train/341", 8)


def test_a_large_file_takes_seconds(tmp_path):
    rows = [
        f"video{i // 1000}/{i % 1000:05d}.jpg,0.{i},-0.{i},{i % 8},{AUS}" for i in range(170_000)
    ]
    table = read(tmp_path, "\n".join([HEADER, *rows]))
    assert len(table) == 170_000
    assert table.counts()["videos"] == 170


def test_bad_rows_can_be_left_out(tmp_path):
    bad = ["x", "341/face.jpg" + ROW[13:], ROW.replace("0.25", "1.0000001"), ROW + ",1"]
    good = [ROW.replace("00008", f"{n:05}") for n in range(20, 26)]
    skipped = []
    table = read(tmp_path, "\n".join([HEADER, *good[:3], *bad, *good[3:]]), skipped=skipped)
    assert table.frame.tolist() == list(range(20, 26))
    assert table.row.tolist() == [2, 3, 4, 9, 10, 11]
    assert [row.line for row in skipped] == [5, 6, 7, 8]
    assert skipped[2].problem == "valence is 1.0000001, outside [-1, 1]"
    undecodable = "\n".join([HEADER, *good, ROW.replace("341", "\xe9")]).encode("latin1")
    table = read(tmp_path, undecodable, skipped=skipped)
    assert (len(table), skipped[-1].problem) == (6, "byte 0xe9 is not UTF-8 text")
    with pytest.raises(AnnotationError, match="4 of 7 rows are bad, too many to skip"):
        read(tmp_path, "\n".join([HEADER, *bad, *good[:3]]), skipped=[])
    with pytest.raises(AnnotationError, match="unknown header"):  # never left out
        read(tmp_path, "\n".join(good), skipped=[])


def test_few_bad_rows_can_be_left_out_and_the_message_says_how(tmp_path):
    good = [ROW.replace("00008", f"{n:05}") for n in range(20, 26)]
    for num_bad in (1, 7):
        bad = [ROW.replace("0.25", "7").replace("00008", f"{n:05}") for n in range(num_bad)]
        with pytest.raises(AnnotationError) as caught:
            read(tmp_path, "\n".join([HEADER, *good, *bad]))
        assert ("--skip_bad_rows" in caught.value.remedy) == (num_bad == 1)
    with pytest.raises(AnnotationError) as caught:  # a submission must have every row of its list
        read_list(tmp_path, "\n".join(["1/1.jpg"] * 10 + ["1/x.jpg"]))
    assert "skip" not in caught.value.remedy


def test_long_cells_are_cut(tmp_path):
    for cell in ("9" * 5_000 + "/face.jpg", "1/1.jpg," + "9" * 300 + "x" * 5_000):
        with pytest.raises(AnnotationError) as caught:
            read(tmp_path, f"{HEADER}\n{cell}{ROW[ROW.index(',') :]}\n")
        assert len(str(caught.value)) < 400
