import numpy as np
import pytest

from mtl_face import tasks
from mtl_face.errors import AnnotationError


def units(table, number):
    return table.au[:, tasks.AU_NUMBERS.index(number)].tolist()


@pytest.fixture
def disfa(tmp_path):
    """Two subjects, four units each; the file of a unit ends early."""
    folder = tmp_path / "ActionUnit_Labels"
    for subject in ("SN001", "SN002"):
        (folder / subject).mkdir(parents=True)
        for unit, values in ((1, "012"), (5, "555"), (12, "500"), (26, "32")):
            text = "".join(f"{frame},{value}\n" for frame, value in enumerate(values, start=1))
            (folder / subject / f"{subject}_au{unit}.txt").write_text(text)
    return folder


def test_disfa(read, disfa):
    table, said = read(name="ActionUnit_Labels")
    assert list(table.video) == ["SN001"] * 3 + ["SN002"] * 3
    assert list(table.image[:2]) == [
        "LeftVideoSN001_comp/00001.jpg",
        "LeftVideoSN001_comp/00002.jpg",
    ]
    assert units(table, 1)[:3] == [0, 0, 1]  # present from intensity 2 on
    assert units(table, 12)[:3] == [1, 0, 0]
    assert units(table, 26)[:3] == pytest.approx([1, 1, np.nan], nan_ok=True)
    assert np.isnan(units(table, 7)).all()
    assert said == [
        "ActionUnit_Labels is read as DISFA's files of action units (data.manifest.layout=disfa)",
        "action units are present from intensity 2 on",
        "images are taken by data.manifest.image_pattern=LeftVideo{video}_comp/{frame:05}.jpg",
        "2 files end before others of their subject, and are missing there",
    ]


def test_disfa_by_subject_with_a_threshold(read, disfa):
    table, said = read(
        name="ActionUnit_Labels",
        split="validation",
        validation_videos=("SN002",),
        au_threshold=1.0,
        image_pattern="{video}/{frame:06}.png",
    )
    assert list(table.image) == [f"SN002/00000{frame}.png" for frame in (1, 2, 3)]
    assert units(table, 1) == [0, 1, 1]
    assert "from intensity 1 on" in said[1]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("1,0\n2,6\n", 2, "'2,6' is no frame and intensity"),
        ("1,0\n\n1,0\n", 3, "frame 1 is there twice"),
        ("1 0\n", 1, "'1 0' is no frame and intensity"),
        ("", 1, "empty"),
    ],
)
def test_faults_of_disfa(read, disfa, text, line, words):
    path = disfa / "SN001" / "SN001_au1.txt"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=words) as caught:
        read(name="ActionUnit_Labels")
    assert (caught.value.path, caught.value.line) == (str(path), line)


def test_a_bad_line_of_disfa_can_be_left_out(read, disfa):
    path = disfa / "SN001" / "SN001_au1.txt"
    path.write_text("1,0\n2,6\n3,4\n")
    skipped = []
    table, _ = read(name="ActionUnit_Labels", skipped=skipped)
    assert units(table, 1)[:3] == pytest.approx([0, np.nan, 1], nan_ok=True)
    assert units(table, 12)[:3] == [1, 0, 0]  # no other line moves
    assert [(row.path, row.line) for row in skipped] == [(str(path), 2)]


BP4D = "0,1,2,4,5,6,7,10,12,99\n2440,0,1,9,9,1,0,0,0,9\n2441,1,1,0,9,1,0,0,9,9\n"


def test_bp4d(read):
    table, said = read(BP4D, "AU_OCC/F001_T1.csv")
    assert list(table.video) == ["F001/T1"] * 2
    assert list(table.image) == ["F001/T1/2440.jpg", "F001/T1/2441.jpg"]
    assert units(table, 4) == pytest.approx([np.nan, 0], nan_ok=True)
    assert units(table, 12) == pytest.approx([0, np.nan], nan_ok=True)
    assert units(table, 2) == [1, 1]
    assert said[2:] == ["2 action units are 9 (not coded) and count as missing"]


def test_a_folder_of_bp4d_by_subject(read):
    for name in ("F001_T1", "F001_T2", "M001_T1"):
        read(BP4D, f"AU_OCC/{name}.csv")
    table, _ = read(name="AU_OCC", validation_videos=("F001*",))
    assert set(table.video) == {"M001/T1"}


def test_bp4ds_9_in_a_table_of_the_users_own(read):
    text = "image,video,au1,au2,au4\na/1.jpg,a,0,1,9\na/2.jpg,a,1,9,0\n"
    table, said = read(text)
    assert units(table, 4) == pytest.approx([np.nan, 0], nan_ok=True)
    assert said == ["2 action units are 9 (not coded) and count as missing"]
    with pytest.raises(AnnotationError, match="au4 is 9, neither 0 nor 1"):
        read(text, layout="manifest")
    with pytest.raises(AnnotationError, match="au4 is 9, neither 0 nor 1"):
        read(text.replace("1,9,0", "1,2,0"))  # then 9 need not be BP4D's
