import numpy as np
import pytest

from mtl_face.errors import AnnotationError, ConfigError

HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"
    "valence,arousal\n"
)
ROWS = (
    "1/a.jpg,1,2,200,200,12.5;30.1,1,0.75,0.125\n"
    "2/b.JPG,1,2,200,200,12.5;30.1,7,-0.5,0.25\n"
    "2/c.tif,1,2,200,200,12.5;30.1,0,0,0\n"
    "2/d.png,1,2,200,200,12.5;30.1,8,0.5,-0.5\n"
    "2/e.png,1,2,200,200,12.5;30.1,9,-2,-2\n"
    "2/f.png,1,2,200,200,12.5;30.1,10,-2,-2\n"
)


@pytest.mark.parametrize("header", [HEADER, ""])
def test_list(read, header):
    table, said = read(header + ROWS)
    assert list(table.image) == ["1/a.jpg", "2/b.JPG", "2/d.png", "2/e.png"]
    assert list(table.video) == ["1/a", "2/b", "2/d", "2/e"]  # a folder is no video
    assert list(table.expression) == [4, -1, -1, -1]
    np.testing.assert_array_equal(table.valence, np.float32([0.75, -0.5, 0.5, np.nan]))
    np.testing.assert_array_equal(table.arousal, np.float32([0.125, 0.25, -0.5, np.nan]))
    assert said[1:] == [
        "expressions, as the map affectnet (data.manifest.expression_map): 1 Happiness 1",
        "3 rows of contempt, none or uncertain (class 7, 8, 9) have no expression",
        "1 rows of class 10 (no face) are left out",
        "1 rows name images that training does not read (.tif) and are left out: convert them to "
        "JPEG or PNG to have them",
    ]


def test_a_list_that_is_left_out_whole(read):
    with pytest.raises(AnnotationError, match=r"no row is left for the train set; 1 rows name"):
        read(HEADER + ROWS.splitlines()[2])


def test_maps_of_the_settings_go_first(read):
    row = "1/a.jpg,1,2,200,200,12.5;30.1,4,0,0\n"
    assert read(HEADER + row)[0].expression[0] == 3  # Fear
    alphabetical, _ = read(HEADER + row, expression_map="affectnet_alphabetical")
    assert alphabetical.expression[0] == 4  # Happiness
    contempt, _ = read(HEADER + ROWS, expression_map="affectnet_contempt_as_other")
    assert contempt.expression[1] == 7


def test_words(read):
    table, _ = read(
        ",pth,label,relFCs\n0,anger/image0000006.jpg,surprise,0.87\n1,fear/x.jpg,contempt,0.8\n"
    )
    assert list(table.image) == ["anger/image0000006.jpg", "fear/x.jpg"]
    assert list(table.expression) == [6, -1]


@pytest.fixture
def folders(tmp_path):
    """Two faces as NumPy files of one number: as text, as it goes round, and as a number."""
    for name in ("images", "annotations"):
        (tmp_path / "train_set" / name).mkdir(parents=True)
    for identity, label, valence in ((0, "6", "-0.5"), (17, 1, 0.25)):
        (tmp_path / "train_set" / "images" / f"{identity}.jpg").write_bytes(b"")
        for ending, value in (("exp", label), ("val", valence), ("aro", valence), ("lnd", [1, 2])):
            np.save(tmp_path / "train_set" / "annotations" / f"{identity}_{ending}.npy", value)
    return tmp_path


def test_folders(read, folders):
    table, said = read(name="train_set", images=folders)
    assert list(table.image) == ["train_set/images/0.jpg", "train_set/images/17.jpg"]
    assert list(table.expression) == [1, 4]
    assert list(table.valence) == [-0.5, 0.25]
    assert said[0] == (
        "train_set is read as AffectNet's folder of annotations (.npy) "
        "(data.manifest.layout=affectnet_folders)"
    )
    inside, _ = read(name="train_set/annotations", images=folders / "train_set")
    assert list(inside.image) == ["images/0.jpg", "images/17.jpg"]
    with pytest.raises(ConfigError, match="is not below") as caught:
        read(name="train_set", images=folders / "cropped_aligned")
    assert "data.image_folder=." in caught.value.remedy


class Trap:
    """Ends the test if it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle of a user was run",))


def test_files_that_are_no_number_are_refused(read, folders):
    path = folders / "train_set" / "annotations" / "0_exp.npy"
    hostile = [
        lambda: np.save(path, [1, 2]),
        lambda: np.save(path, np.zeros(10_000)),
        lambda: np.save(path, np.array(Trap(), object), allow_pickle=True),
        lambda: path.write_bytes(b"\x93NUMPY\x01\x00"),
        lambda: path.write_bytes(b"1"),
    ]
    for write in hostile:
        write()
        with pytest.raises(AnnotationError, match="no NumPy file of one number") as caught:
            read(name="train_set", images=folders)
        assert caught.value.path == str(path)


def test_an_absent_annotation_is_a_missing_label(read, folders):
    (folders / "train_set" / "annotations" / "0_val.npy").unlink()
    table, _ = read(name="train_set", images=folders)
    assert np.isnan(table.valence[0])
    assert table.arousal[0] == -0.5


def test_bad_rows_can_be_left_out(read, folders):
    (folders / "train_set" / "annotations" / "0_val.npy").write_bytes(b"x")
    skipped = []
    table, _ = read(name="train_set", images=folders, skipped=skipped)
    assert list(table.image) == ["train_set/images/17.jpg"]
    ((path, line, problem),) = skipped
    assert (path[-9:], line) == ("0_val.npy", 1)
    assert "no NumPy file" in problem
    skipped.clear()
    table, _ = read(HEADER + ROWS.replace("0.75", "good"), skipped=skipped)
    assert [row.line for row in skipped] == [2]
    assert list(table.image) == ["2/b.JPG", "2/d.png", "2/e.png"]
