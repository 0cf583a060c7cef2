"""Lists of images whose names are no numbers; the other kinds are tested with submissions."""

import pytest

from data_pipeline.formats.test_list import load_test_list
from mtl_face.errors import AnnotationError


def read(tmp_path, text):
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8")
    return load_test_list(path, "/images")


@pytest.mark.parametrize("header", ["", "image\n", "path,\n"])
def test_photos_are_videos_of_one_frame(tmp_path, header):
    table = read(tmp_path, f"{header}faces/anna.jpg\nimg_1.PNG,\nfaces\\bo.jpeg\n")
    assert list(table.image) == ["faces/anna.jpg", "img_1.PNG", "faces/bo.jpeg"]
    assert list(table.video) == ["faces/anna", "img_1", "faces/bo"]
    assert list(table.frame) == [1, 1, 1]
    first = 2 if header else 1
    assert list(table.row) == [first, first + 1, first + 2]


def test_one_odd_name_among_frames_is_a_fault(tmp_path):
    """Frames do not turn into photos because of it."""
    with pytest.raises(AnnotationError, match="has no frame number") as caught:
        read(tmp_path, "a/00001.jpg\na/0000x.jpg\na/00003.jpg\n")
    assert caught.value.line == 2


def test_a_file_of_another_kind_is_no_header(tmp_path):
    """Left out as one, the photo would be lost without a word."""
    with pytest.raises(AnnotationError):
        read(tmp_path, "anna.heic\nbo.jpg\n")


def test_photos_stay_below_the_folder(tmp_path):
    with pytest.raises(AnnotationError, match="leaves the image folder"):
        read(tmp_path, "a/anna.jpg\n../bo.jpg\n")
