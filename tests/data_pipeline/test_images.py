import errno
import os
from unittest import mock

import image_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline import images
from mtl_face import tables
from mtl_face.errors import ImageError


def fault_in(path):
    fault = images.diagnose(path)
    assert fault is not None
    return fault


READABLE, BROKEN = image_cases.readable(), image_cases.broken()


@pytest.mark.parametrize("name", READABLE)
def test_reads(tmp_path, name):
    content, expected, tolerance = READABLE[name]
    path = tmp_path / "image"
    path.write_bytes(content)
    image = images.read_image(path, 64)
    assert image.dtype == np.uint8
    assert image.shape == (64, 64, 3)
    assert np.abs(image.astype(int) - expected).max() <= tolerance
    assert images.diagnose(path) is None


@pytest.mark.parametrize("name", BROKEN)
def test_diagnoses(tmp_path, name):
    content, words = BROKEN[name]
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    fault = images.diagnose(path)
    assert isinstance(fault, ImageError)
    assert words in fault.problem
    assert fault.path == str(path)
    assert fault.remedy
    with pytest.raises(ImageError, match=words):
        images.read_image(path, 64)


def test_refuses_a_huge_image_before_decoding_it(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(image_cases.huge())
    assert "50,000,000 pixels" in fault_in(path).problem
    path.write_bytes(image_cases.png(8_000, 8_000, 8, 2, []))  # below Pillow's own limit
    assert "50,000,000 pixels" in fault_in(path).problem


def test_diagnoses_places(tmp_path):
    (tmp_path / "file").touch()
    for path, words in [
        (tmp_path / "none.jpg", "does not exist"),
        (tmp_path / "none" / "none.jpg", f"nor does its folder {tmp_path / 'none'}"),
        (tmp_path / "file" / "none.jpg", "does not exist"),
        (tmp_path, "folder, not the image"),
    ]:
        fault = fault_in(path)
        assert words in fault.problem
        assert fault.remedy
    for refusal, words in [
        (PermissionError(errno.EACCES, "Permission denied"), "no permission"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ]:
        with mock.patch("builtins.open", side_effect=refusal):
            assert words in fault_in(tmp_path / "file").problem


def test_resizing_averages_and_ignores_the_aspect_ratio(tmp_path):
    path = tmp_path / "stripes.png"
    stripes = np.zeros((32, 64, 3), np.uint8)
    stripes[:, ::2] = 200  # finer than the result can show
    path.write_bytes(image_cases.encode(Image.fromarray(stripes), "PNG"))
    small = images.read_image(path, 16)
    assert small.shape == (16, 16, 3)
    assert np.abs(small.astype(int) - 100).max() <= 15


_FILES = [*(case[0] for case in READABLE.values()), *(case[0] for case in BROKEN.values())]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(data=st.data())
def test_damage_never_raises_anything_else(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(_FILES)))
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            end = min(len(content), data.draw(st.sampled_from([60, len(content)]))) - 1
            content[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    fault = images.diagnose(path)
    assert fault is None or (fault.path == str(path) and fault.remedy)


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
    assert images.find_missing(table).tolist() == [5, 6, 7]
    assert images.find_missing(table.take([0, 1])).tolist() == []


def test_drops_missing_rows_and_says_which(table):
    kept, dropped = images.drop_missing(table)
    assert list(kept.image) == ["a/1.jpg", "a/2.png", "a/2.png", "a/3.jpg", "b/1.jpg"]
    assert list(kept.duplicate) == [False, False, True, False, False]
    assert dropped == [os.path.join(table.root[0], *name) for name in
                       [("b", "2.jpg"), ("c", "1.jpg"), ("d", "1.jpg")]]  # fmt: skip
    with pytest.raises(ImageError, match="none of the 2 images exists"):
        images.drop_missing(table.take([6, 7]))


def test_names_a_missing_root(table):
    elsewhere = tables.FrameTable.from_columns(
        dataset="d", video=["a"], frame=[1], image=["a/1.jpg"], root=table.root[0] + "/none"
    )
    with pytest.raises(ImageError, match="image folder does not exist") as caught:
        images.find_missing(elsewhere)
    assert caught.value.path == table.root[0] + "/none"
    assert caught.value.remedy


def test_names_a_closed_folder(table):
    with (
        mock.patch("os.scandir", side_effect=PermissionError),
        pytest.raises(ImageError, match="no permission to read the folder") as caught,
    ):
        images.find_missing(table)
    assert caught.value.path == os.path.join(table.root[0], "a")
    with (
        mock.patch("os.scandir", side_effect=OSError(errno.EIO, "")),
        pytest.raises(ImageError, match="Input/output error") as caught,
    ):
        images.list_files(table.root[0])
    assert "check the disk" in caught.value.remedy


@pytest.mark.parametrize("workers", [1, 3])
def test_decodes_everything_once(table, workers):
    reports = []
    checked = images.check_images(table, workers, lambda done, total: reports.append((done, total)))
    faults = checked.faults
    assert [os.path.relpath(str(fault.path), table.root[0]) for fault in faults] == [
        "a/3.jpg",
        "b/1.jpg",
        "b/2.jpg",
        "c/1.jpg",
        "d/1.jpg",
    ]
    assert all(fault.remedy for fault in faults)
    assert reports == [(7, 7)]
    assert images.check_images(table.take([0, 1, 2])) == images.Checked([], [])


def test_orientations_are_found_and_applied(table, tmp_path):
    path = tmp_path / "a/1.jpg"
    stored = images.read_image(path, 64)
    path.write_bytes(image_cases.turned(6))
    assert images.check_images(table.take([0, 1])) == images.Checked([], [str(path)])
    np.testing.assert_array_equal(images.read_image(path, 64), stored)
    np.testing.assert_array_equal(images.read_image(path, 64, upright=True), np.rot90(stored, -1))
