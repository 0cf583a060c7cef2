import errno
from unittest import mock

import image_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import images
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
        (tmp_path, "folder, not an image"),
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
    path.write_bytes(image_cases.encode(images.Image.fromarray(stripes), "PNG"))
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
