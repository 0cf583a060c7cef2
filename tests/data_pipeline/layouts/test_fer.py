import numpy as np
import pytest

from mtl_face.errors import AnnotationError
from mtl_face.tasks import EXPRESSION_NAMES

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
)
VOTES = HEADER + (
    "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n"
    "Training,,0,0,0,0,0,0,0,0,0,10\n"
    "Training,fer0000002.png,5,0,0,5,0,0,0,0,0,0\n"
    "Training,fer0000003.png,1,0,0,2,0,0,0,7,0,0\n"
    "PublicTest,fer0000004.png,0,8,2,0,0,0,0,0,0,0\n"
    "PrivateTest,fer0000005.png,0,0,9,0,0,0,1,0,0,0\n"
)


def test_votes_are_kept_and_the_most_are_the_label(read):
    table, said = read(VOTES)
    assert list(table.image) == [f"FER2013Train/fer000000{number}.png" for number in (0, 2, 3)]
    assert list(table.expression) == [0, -1, -1]
    votes = dict(zip(EXPRESSION_NAMES, table.votes[0].tolist(), strict=True))
    assert votes == {
        **dict.fromkeys(EXPRESSION_NAMES, 0),
        **{"Neutral": 4, "Sadness": 1, "Anger": 3, "Disgust": 2},
    }
    assert table.votes[2].tolist() == [1, 0, 0, 0, 0, 2, 0, 0]  # contempt is none of the eight
    assert said[1:] == [
        "the expression with most votes is the label; the table keeps the votes",
        "1 rows without an image name (no face) are left out",
        "1 rows with two first places have no label",
        "1 rows whose most votes are for contempt, unknown or no face have no label",
    ]


def test_usage_is_the_split(read):
    table, _ = read(VOTES, split="validation")
    assert list(table.image) == ["FER2013Valid/fer0000004.png"]
    assert list(table.expression) == [4]
    with pytest.raises(AnnotationError, match="Usage is 'test', not Training") as caught:
        read(VOTES.replace("PrivateTest", "test"))
    assert caught.value.line == 7
    with pytest.raises(AnnotationError, match="Usage is 'train', not Training"):
        read(HEADER + "Train,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n")
    with pytest.raises(AnnotationError, match="no row is left for the validation set"):
        read(HEADER + "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n", split="validation")


def test_contempt_as_other(read):
    table, _ = read(VOTES, expression_map="affectnet_contempt_as_other")
    assert list(table.expression) == [0, -1, 7]
    assert table.votes[2, 7] == 7


@pytest.mark.parametrize("cell", ["x", "-1", "nan", "inf"])
def test_cells_that_are_no_votes(read, cell):
    with pytest.raises(AnnotationError, match=r"anger is .+, no number of votes") as caught:
        read(VOTES.replace("4,0,0,1,3,2", f"4,0,0,1,{cell},2"))
    assert caught.value.line == 2


def test_pixels_lead_to_the_command_that_writes_them(read):
    with pytest.raises(AnnotationError, match="images as text") as caught:
        read("emotion,pixels,Usage\n0,0 1 2 3,Training\n", "fer2013.csv")
    assert "prepare --from=fer2013 --source=" in caught.value.remedy


def test_a_row_of_no_image_of_raf_db_is_a_fault(read):
    with pytest.raises(AnnotationError, match="is no image of RAF-DB") as caught:
        read("train_00001.jpg 5\nmine.jpg 1\ntest_0001.jpg 2\n", "list.txt")
    assert caught.value.line == 2
    table, _ = read("train_00001.jpg 5\nTrain_00002.jpg 1\ntest_0001.jpg 2\n", "list.txt")
    assert sorted(table.image) == ["Train_00002.jpg", "train_00001.jpg"]


def test_raf_db(read, tmp_path):
    text = "train_00001.jpg 5\ntrain_00002.jpg 1\ntest_0001.jpg 7\n"
    table, said = read(text, "list_patition_label.txt")
    assert list(table.image) == ["train_00001.jpg", "train_00002.jpg"]
    assert list(table.expression) == [5, 6]
    assert said == [
        "list_patition_label.txt is read as RAF-DB's list (data.manifest.layout=raf_db)",
        "expressions, as the map raf_db (data.manifest.expression_map): 1 Surprise 1, 5 Sadness 1",
    ]
    (tmp_path / "train_00001_aligned.jpg").write_bytes(b"")
    table, _ = read(text, split="validation", images=tmp_path)
    assert (list(table.image), list(table.expression)) == (["test_0001_aligned.jpg"], [0])
    assert np.isnan(table.votes).all()
