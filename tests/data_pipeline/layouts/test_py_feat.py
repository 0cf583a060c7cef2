import numpy as np
import pytest

from mtl_face import tasks
from mtl_face.errors import AnnotationError

HEADER = (
    "frame,FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,x_0,AU01,AU04,AU11,Pitch,"
)
V1 = HEADER + "anger,disgust,fear,happiness,sadness,surprise,neutral,input\n"
V2 = HEADER + "Neutral,Happy,Sad,Surprise,Fear,Disgust,Anger,valence,arousal,input\n"


def units(table, number):
    return table.au[:, tasks.AU_NUMBERS.index(number)].tolist()


def test_video(read):
    table, said = read(
        V1
        + "0,1,1,9,9,0.9,5,0.49,0.5,0.1,0,.1,.1,.1,.4,.1,.1,.1,/home/x/talk.mp4\n"
        + "0,1,1,9,9,0.3,5,0.99,0.5,0.1,0,.9,.0,.0,.0,.0,.0,.0,/home/x/talk.mp4\n"
        + "1,,,,,,,,,,,,,,,,,,/home/x/talk.mp4\n"
    )
    assert list(table.image) == ["talk/00001.jpg", "talk/00002.jpg"]  # Py-Feat counts from 0
    assert units(table, 1) == pytest.approx([0, np.nan], nan_ok=True)
    assert units(table, 4) == pytest.approx([1, np.nan], nan_ok=True)
    assert list(table.expression) == [4, -1]
    assert "labels are what Py-Feat says, not what people saw" in said[1]
    assert said[3:] == [
        "1 rows of further faces in a frame are left out: the surest face is taken",
        "1 rows without a face have no labels",
    ]


def test_two_tables_of_one_video_are_refused(read):
    row = "0,1,1,9,9,0.9,5,0.6,0.5,0.1,0,.1,.1,.1,.4,.1,.1,.1,"
    for person in ("P1", "P2"):
        read(V1 + row + f"/x/{person}/talk.mp4\n", f"out/{person}.csv")
    with pytest.raises(AnnotationError, match="has labels of frame 1 of the video 'talk'") as e:
        read(name="out")
    assert e.value.path.endswith("P2.csv")
    both, _ = read(V1 + row + "/x/P1/talk.mp4\n" + row + "/x/P2/talk.mp4\n")
    assert list(both.video) == ["P1/talk", "P2/talk"]


def test_photos_of_version_2(read):
    table, _ = read(
        V2
        + "0,1,1,9,9,0.9,5,0.6,0.9,0.1,0,.1,.1,.1,.1,.1,.0,.5,-0.5,0.25,/home/x/p/b/1.jpg\n"
        + "1,1,1,9,9,0.9,5,0.6,0.1,0.1,0,.6,.1,.1,.1,.1,.0,.0,0.5,-0.25,/home/x/p/a/1.jpg\n",
        au_threshold=0.7,
    )
    assert list(table.image) == ["a/1.jpg", "b/1.jpg"]
    assert list(table.expression) == [0, 1]
    assert list(table.valence) == [0.5, -0.5]
    assert (units(table, 1), units(table, 4)) == ([0, 0], [0, 1])


def test_without_an_input_the_file_names_the_video(read):
    table, _ = read("frame,FaceRectX,AU01,anger,neutral\n10,1,1,0.2,0.8\n", "interviews/P7.csv")
    assert list(table.image) == ["P7/00011.jpg"]
