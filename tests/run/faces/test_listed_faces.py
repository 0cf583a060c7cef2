"""Crops by a list's landmarks, out of pictures that hold their own coordinates."""

import numpy as np
import pytest
from PIL import Image

from data_pipeline import formats
from mtl_face.config import DataSetConfig
from mtl_face.errors import AnnotationError, ImageError, WorkdirError
from mtl_face.faces import align
from mtl_face.run.faces import listed_faces

HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"
    "valence,arousal\n"
)


def points(scale=1.0, shift=(0.0, 0.0)):
    """68 points whose eyes, nose and mouth corners are the template's, moved."""
    template_L2 = scale * align.TEMPLATE_L2 + shift
    point_P2 = np.zeros((68, 2))
    circle_62 = np.array([(-2, 0), (-1, -1), (1, -1), (2, 0), (1, 1), (-1, 1)])
    point_P2[36:42] = template_L2[0] + circle_62
    point_P2[42:48] = template_L2[1] + circle_62
    point_P2[[30, 48, 54]] = template_L2[2:]
    return point_P2


def row(image, landmarks, label=1, va=(-0.5, 0.25)):
    text = ";".join(f"{value:.4f}" for value in landmarks.ravel())
    return f"{image},0,0,9,9,{text},{label},{va[0]},{va[1]}\n"


@pytest.fixture
def source(tmp_path):
    """Two lists, the second without a header as it is handed out, and their images."""
    places_HW3 = np.zeros((160, 200, 3), np.uint8)
    places_HW3[..., 0], places_HW3[..., 1] = np.arange(200), np.arange(160)[:, None]
    for name in ("1/a.png", "2/b.tif", "2/c.png", "2/d.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(places_HW3).save(path)
    (tmp_path / "images" / "2" / "d.png").write_bytes(b"no image")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "training.csv").write_text(
        HEADER
        + row("1/a.png", points(shift=(30, 20)))
        + row("2/b.tif", points(), label=7)
        + row("2/c.png", points()[:5], label=3)
        + row("2/d.png", points(), label=2)
        + row("2/e.png", points(), label=10, va=(-2, -2))
    )
    (tmp_path / "lists" / "validation.csv").write_text(row("1/a.png", points(), va=(-2, -2)))
    return tmp_path


def cut(source, said=None):
    said = [] if said is None else said
    return listed_faces.cut(
        source / "lists",
        source / "images",
        source / "new",
        say=said.append,
        bar=lambda things: lambda done, total: None,
    )


def test_crops_are_where_the_landmarks_are(source):
    said = []
    root = cut(source, said)
    table = formats.load(DataSetConfig(kind="manifest", root=str(root)), "train")
    assert list(table.image) == ["1/a.jpg", "2/b.jpg"]
    assert list(table.expression) == [4, -1]
    assert list(table.valence) == [-0.5, -0.5]
    pixels_HW3 = np.asarray(Image.open(table.paths()[0])).astype(int)
    assert pixels_HW3.shape == (112, 112, 3)
    # The crop's left eye shows the place of the list's left eye: 30 right of it, 20 down.
    x, y = np.round(align.TEMPLATE_L2[0]).astype(int)
    assert abs(pixels_HW3[y, x, 0] - (x + 30)) <= 3
    assert abs(pixels_HW3[y, x, 1] - (y + 20)) <= 3
    assert said[:3] == [
        "train: 2 crops of 4 faces",
        "train: 1 rows of class 10 (no face) are left out",
        "validation: 1 crops of 1 faces",
    ]
    left_out = (root / "left_out.csv").read_text().splitlines()
    assert left_out[1].startswith("training.csv,4,2/c.png,no 68 landmarks")
    assert left_out[2].startswith("training.csv,5,2/d.png,")
    assert len(left_out) == 3


def test_a_row_without_landmarks_or_valence_keeps_what_it_has(source):
    table = formats.load(DataSetConfig(kind="manifest", root=str(cut(source))), "validation")
    assert np.isnan(table.valence).all()


def test_what_is_done_is_left_alone(source):
    root = cut(source)
    crop = root / "cropped_aligned" / "1" / "a.jpg"
    crop.write_bytes(b"mine")
    cut(source)
    assert crop.read_bytes() == b"mine"


def test_faults(source, tmp_path):
    (source / "new").mkdir()
    (source / "new" / "thesis.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="was not made by this command"):
        cut(source)
    (source / "new" / "thesis.txt").unlink()
    path = source / "lists" / "training.csv"
    path.write_text(HEADER + row("../a.png", points()))
    with pytest.raises(AnnotationError, match="leaves the image folder") as caught:
        cut(source)
    assert (caught.value.path, caught.value.line) == (str(path), 2)
    path.write_text("image,expression\na.png,1\n")
    with pytest.raises(AnnotationError, match="there is no column subDirectory_filePath"):
        cut(source)
    path.unlink()
    (source / "lists" / "validation.csv").write_text(row("gone.png", points()))
    with pytest.raises(ImageError, match="no face could be cut out"):
        cut(source)
    (source / "lists" / "validation.csv").unlink()
    with pytest.raises(AnnotationError, match=r"is neither training\.csv nor validation\.csv"):
        cut(source)
