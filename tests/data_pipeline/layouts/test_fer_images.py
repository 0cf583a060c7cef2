import numpy as np
import pytest
from PIL import Image

from data_pipeline import formats
from data_pipeline.formats.layouts import fer_images
from mtl_face.config import DataSetConfig
from mtl_face.errors import AnnotationError, WorkdirError

SIDE = 8
PICTURES = [np.arange(SIDE * SIDE) + 10 * number for number in range(4)]
USAGES = ("Training", "Training", "PublicTest", "PrivateTest")
VOTES = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    "Training,,0,0,0,0,0,0,0,0,0,10\n"
    "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n"
    "PublicTest,fer0000001.png,0,8,2,0,0,0,0,0,0,0\n"
    "PrivateTest,fer0000002.png,0,0,9,0,0,0,1,0,0,0\n"
)


def pixels(number):
    return " ".join(map(str, PICTURES[number]))


@pytest.fixture
def source(tmp_path):
    """The two lists, as they are handed out but for the size of the images."""
    folder = tmp_path / "challenge"
    folder.mkdir()
    rows = [f"{number},{pixels(number)},{usage}" for number, usage in enumerate(USAGES)]
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    (folder / "fer2013new.csv").write_text(VOTES)
    return folder


def write(source, output, *, with_votes=False):
    said, steps = [], []
    fer_images.write(
        source,
        output,
        with_votes=with_votes,
        say=said.append,
        progress=lambda *step: steps.append(step),
    )
    return said, steps


def load(root, split):
    return formats.load(DataSetConfig(kind="manifest", root=str(root)), split)


def test_images_and_manifests(source, tmp_path):
    said, steps = write(source, tmp_path / "new")
    assert steps[-1] == (4, 4)
    assert said[0] == "train: 2 images of training"
    train = load(tmp_path / "new", "train")
    assert list(train.image) == ["FER2013Train/00000.png", "FER2013Train/00001.png"]
    assert list(train.expression) == [1, 2]  # 0 Anger, 1 Disgust of FER2013
    for number, path in enumerate(train.paths()):
        np.testing.assert_array_equal(np.asarray(Image.open(path)).ravel(), PICTURES[number])
    validation = load(tmp_path / "new", "validation")
    assert (list(validation.image), list(validation.expression)) == (
        ["FER2013Valid/00002.png"],
        [3],
    )
    assert (tmp_path / "new" / "test.csv").read_text().count("\n") == 2


def test_a_split_without_images_has_no_list(source, tmp_path):
    path = source / "fer2013.csv"
    lines = [line for line in path.read_text().splitlines() if "PublicTest" not in line]
    path.write_text("\n".join(lines) + "\n")
    said, _ = write(source, tmp_path / "new")
    assert any("so there is no validation.csv" in line for line in said)
    assert not (tmp_path / "new" / "validation.csv").exists()
    assert (tmp_path / "new" / "train.csv").exists()


def test_votes_meet_their_pixels_by_row(source, tmp_path):
    """The second row's image is called 0: names count the rows that have a face."""
    write(source, tmp_path / "new", with_votes=True)
    train = load(tmp_path / "new", "train")
    assert list(train.image) == ["FER2013Train/fer0000000.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(train.paths()[0])).ravel(), PICTURES[1])
    assert list(train.expression) == [0]
    assert train.votes[0].tolist() == [4, 3, 2, 0, 0, 1, 0, 0]


def test_the_form_with_blanks_and_another_order(source, tmp_path):
    path = source / "icml_face_data.csv"
    path.write_text(f"emotion, Usage, pixels\n6,Training,{pixels(0)}\n")
    write(path, tmp_path / "new")
    table = load(tmp_path / "new", "train")
    assert list(table.expression) == [0]
    assert np.asarray(Image.open(table.paths()[0]))[0, 1] == 1


def test_nothing_is_overwritten(source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="not an empty folder") as caught:
        write(source, tmp_path / "mine")
    assert "delete" not in str(caught.value)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("0 1 2", "0 1 256"), 2, "the pixel '256' is no whole number"),
        (("0 1 2", "0 1 x"), 2, "the pixel 'x' is no whole number"),
        (("0 1 2", "0 1"), 2, "63 pixels"),
        (("1,10 ", "7,10 "), 3, "emotion is '7'"),
        (("PublicTest", "Public"), 4, "Usage is 'public'"),
        (("emotion,", "label,"), 1, "no list of FER2013"),
    ],
)
def test_faults_leave_nothing_behind(source, tmp_path, change, line, words):
    path = source / "fer2013.csv"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(AnnotationError, match=words) as caught:
        write(source, tmp_path / "new")
    assert (caught.value.line, caught.value.path) == (line, str(path))
    assert not (tmp_path / "new").exists()


def test_lists_that_do_not_belong_together(source, tmp_path):
    path = source / "fer2013new.csv"
    path.write_text(VOTES.rsplit("PrivateTest", 1)[0])
    with pytest.raises(AnnotationError, match=r"3 rows, fer2013\.csv has 4"):
        write(source, tmp_path / "new", with_votes=True)
    path.write_text(VOTES.replace("PublicTest", "Training"))
    with pytest.raises(AnnotationError, match="Usage is training here, and publictest in") as e:
        write(source, tmp_path / "new", with_votes=True)
    assert e.value.line == 4
    path.write_text(VOTES.replace("fer0000000.png", "../../x.png"))
    with pytest.raises(AnnotationError, match="no name of an image") as caught:
        write(source, tmp_path / "new", with_votes=True)
    assert caught.value.line == 3
