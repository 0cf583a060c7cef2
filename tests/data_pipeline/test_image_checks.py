import os
from unittest import mock

import image_cases
import pytest

from data_pipeline import frames
from mtl_face import tables
from mtl_face.errors import ImageError


@pytest.fixture
def table(tmp_path):
    """Rows 0 and 1 are sound, 2 is its twin, 3 and 4 are broken, 5 to 7 do not exist."""
    names = ["a/1.jpg", "a/2.png", "a/2.png", "a/3.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg", "d/1.jpg"]
    for video in "ab":
        (tmp_path / video).mkdir()
    (tmp_path / "d").touch()
    (tmp_path / "b" / "2.jpg").mkdir()  # a folder is no image
    picture = image_cases.picture()
    (tmp_path / "a/1.jpg").write_bytes(image_cases.encode(picture, "JPEG"))
    (tmp_path / "a/2.png").write_bytes(image_cases.encode(picture, "PNG"))
    (tmp_path / "a/3.jpg").write_bytes(b"")
    (tmp_path / "b/1.jpg").write_bytes(b"text")
    return tables.FrameTable.from_columns(
        dataset="d",
        video=[name[0] for name in names],
        frame=[int(name[2]) for name in names],
        image=names,
        root=str(tmp_path),
    )


def test_finds_missing_images(table):
    assert frames.find_missing(table).tolist() == [5, 6, 7]
    assert frames.find_missing(table.select([0, 1])).tolist() == []


def test_drops_missing_rows_and_says_which(table):
    kept, dropped = frames.drop_missing(table)
    assert list(kept.image) == ["a/1.jpg", "a/2.png", "a/2.png", "a/3.jpg", "b/1.jpg"]
    assert list(kept.duplicate) == [False, False, True, False, False]
    assert dropped == [os.path.join(table.root[0], *name) for name in
                       [("b", "2.jpg"), ("c", "1.jpg"), ("d", "1.jpg")]]  # fmt: skip
    with pytest.raises(ImageError, match="none of the 2 images exists"):
        frames.drop_missing(table.select([6, 7]))


def test_names_a_missing_root(table):
    elsewhere = tables.FrameTable.from_columns(
        dataset="d", video=["a"], frame=[1], image=["a/1.jpg"], root=table.root[0] + "/none"
    )
    with pytest.raises(ImageError, match="image folder does not exist") as caught:
        frames.find_missing(elsewhere)
    assert caught.value.path == table.root[0] + "/none"
    assert caught.value.remedy


def test_names_a_closed_folder(table):
    with (
        mock.patch("os.scandir", side_effect=PermissionError),
        pytest.raises(ImageError, match="no permission to list") as caught,
    ):
        frames.find_missing(table)
    assert caught.value.path == os.path.join(table.root[0], "a")


@pytest.mark.parametrize("workers", [1, 3])
def test_decodes_everything_once(table, workers):
    reports = []
    faults = frames.check_images(table, workers, lambda done, total: reports.append((done, total)))
    assert [os.path.relpath(str(fault.path), table.root[0]) for fault in faults] == [
        "a/3.jpg",
        "b/1.jpg",
        "b/2.jpg",
        "c/1.jpg",
        "d/1.jpg",
    ]
    assert all(fault.remedy for fault in faults)
    assert reports == [(7, 7)]
    assert frames.check_images(table.select([0, 1, 2])) == []
