"""Tables as OpenFace writes them: names from its own output, values made up."""

import numpy as np
import pytest

from mtl_face import tasks
from mtl_face.errors import AnnotationError

UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
COLUMNS = [
    *("frame", "face_id", "timestamp", "confidence", "success", "pose_Rx", "x_0", "p_0"),
    *(f"AU{unit:02}_r" for unit in UNITS),
    *(f"AU{unit:02}_c" for unit in (*UNITS[:-1], 28, 45)),
]


def row(frame, face=0, confidence=0.98, success=1, present=(), intensity=0.0):
    intensities = [intensity if unit in present else 0 for unit in UNITS]
    occurrences = [int(unit in present) for unit in (*UNITS[:-1], 28, 45)]
    values = [frame, face, 0.04, confidence, success, 0.1, 300, 1]
    return ", ".join(map(str, [*values, *intensities, *occurrences]))


def table(*rows, columns=COLUMNS):
    return "\n".join([", ".join(columns), *rows]) + "\n"


def units(frame_table, number):
    return frame_table.au[:, tasks.AU_NUMBERS.index(number)].tolist()


def test_occurrences_are_the_labels(read):
    found, said = read(
        table(row(1, present=(1, 26), intensity=0.4), row(2), row(3, success=0, confidence=0)),
        "talk one.csv",
    )
    assert list(found.image) == [f"talk one/0000{number}.jpg" for number in (1, 2, 3)]
    assert (list(found.video), list(found.frame)) == (["talk one"] * 3, [1, 2, 3])
    assert units(found, 1) == pytest.approx([1, 0, np.nan], nan_ok=True)
    assert units(found, 26) == pytest.approx([1, 0, np.nan], nan_ok=True)
    assert np.isnan(units(found, 24)).all()  # OpenFace has no such unit
    assert np.isnan(found.au[2]).all()
    assert said[1:] == [
        "action units are the occurrences (AU01_c); labels are what OpenFace says, not what people "
        "saw",
        "images are taken by data.manifest.image_pattern={video}/{frame:05}.jpg",
        "1 rows of success 0, without a tracked face, have no labels",
    ]


def test_intensities_with_a_threshold(read):
    text = table(row(1, present=(4,), intensity=0.9), row(2, present=(4,), intensity=1.0))
    found, said = read(text, au_threshold=1.0)
    assert units(found, 4) == [0, 1]
    assert "intensities (AU01_r) over the threshold" in said[1]
    only = table(*("1, 0, 0.04, 0.98, 1, 2.5",), columns=[*COLUMNS[:5], "AU01_r"])
    with pytest.raises(AnnotationError, match="only intensities") as caught:
        read(only)
    assert "au_threshold" in caught.value.remedy
    assert units(read(only, au_threshold=2.0)[0], 1) == [1]


def test_the_surest_face_of_a_frame(read):
    text = table(
        row(1, face=0, confidence=0.6, present=(1,)), row(1, face=1, confidence=0.9), row(2)
    )
    found, said = read(text)
    assert (list(found.frame), units(found, 1)) == ([1, 2], [0, 0])
    assert said[-1].startswith("1 rows of further faces in a frame are left out")
    found, _ = read(text, image_pattern="{video}_aligned/frame_det_{face:02}_{frame:06}.bmp")
    assert list(found.image) == [
        "labels_aligned/frame_det_00_000001.bmp",
        "labels_aligned/frame_det_00_000002.bmp",
        "labels_aligned/frame_det_01_000001.bmp",
    ]


def test_a_folder_of_videos_and_their_aligned_faces(read, tmp_path):
    for name in ("P01/trial1", "P02/trial1"):
        read(table(row(1, present=(1,))), f"processed/{name}.csv")
    (tmp_path / "processed" / "P02" / "trial1_aligned").mkdir()
    found, said = read(name="processed", images=tmp_path / "processed")
    assert list(found.video) == ["P01/trial1", "P02/trial1"]
    assert list(found.image) == [
        "P01/trial1/00001.jpg",
        "P02/trial1_aligned/frame_det_00_000001.bmp",
    ]
    assert len(said) == 4  # each line once for all files


def test_photos(read, tmp_path):
    text = "face, confidence, AU01_r, AU01_c\n0, 0.9, 2, 1\n1, 0.8, 0, 0\n"
    for name in ("a", "b"):
        read(text, f"out/{name}.csv")
    table, _ = read(name="out")
    assert (list(table.image), units(table, 1)) == (["a.jpg", "b.jpg"], [1, 1])
    (tmp_path / "out" / "b_aligned").mkdir()
    table, _ = read(name="out", images=tmp_path / "out")
    assert list(table.image) == [
        "a.jpg",
        "b_aligned/face_det_000000.bmp",
        "b_aligned/face_det_000001.bmp",
    ]
    assert units(table, 1) == [1, 1, 0]


def test_an_image_column_of_the_user(read):
    text = "path,AU01_r,AU01_c,success,valence,au24\nx/a.jpg,2.5,1,1,0.5,1\nx/b.jpg,0,0,0,,\n"
    found, _ = read(text, video_from="image")
    assert list(found.image) == ["x/a.jpg", "x/b.jpg"]
    assert list(found.valence) == pytest.approx([0.5, np.nan], nan_ok=True)  # added by the user
    assert units(found, 24) == pytest.approx([1, np.nan], nan_ok=True)
    assert units(found, 1) == pytest.approx([1, np.nan], nan_ok=True)


def test_faults_have_their_place(read):
    with pytest.raises(AnnotationError, match="frame is 'x', no whole number") as caught:
        read(table(row(1), row("x")))
    assert caught.value.line == 3
    with pytest.raises(AnnotationError, match="au1 is 7, neither 0 nor 1") as caught:
        read("frame, confidence, AU01_r, AU01_c\n1, 1, 0, 0\n2, 1, 0, 7\n")
    assert caught.value.line == 3


OPENFACE3 = (
    "timestamp,video_path,frame_index,face_id,face_detection,landmarks,emotion,gaze_yaw,gaze_pitch,"
    "action_units\n"
)


def test_openface3_gives_expressions_alone(read):
    found, said = read(
        OPENFACE3
        + 'now,/home/x/talk.mp4,0,0.0,"[1.0, 2.0, 3.0, 4.0, 0.9]",[],1.0,0.1,0.1,"[[0.1, 0.9]]"\n'
        + 'now,/home/x/talk.mp4,0,1.0,"[1.0, 2.0, 3.0, 4.0, 0.5]",[],6.0,0.1,0.1,"[[0.1, 0.9]]"\n'
        + "now,/home/x/talk.mp4,1,,,,,,,\n"
    )
    assert list(found.image) == ["talk/00001.jpg", "talk/00002.jpg"]  # counted from 1
    assert list(found.expression) == [4, -1]  # Happiness
    assert np.isnan(found.au).all()
    assert "eight action units are not read" in said[1]
    assert said[4:] == [
        "1 rows of further faces in a frame are left out: the surest face is taken",
        "1 rows without a face have no label",
    ]
    photo = OPENFACE3.replace("video_path,frame_index", "image_path")
    found, _ = read(photo + 'now,/home/x/a.jpg,0,"[1, 2, 3, 4, 0.9]",[],6,0.1,0.1,[[0.1]]\n')
    assert (list(found.image), list(found.expression)) == (["a.jpg"], [1])  # Anger
