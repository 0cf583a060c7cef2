"""What is no weights file, and what is none any more, is said in one message each."""

import contextlib
import gzip
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import weight_files
from weight_faults import WRITERS, problem_of
from weight_maps import SMALL_ARCHITECTURE

from mtl_face.errors import WeightsError
from mtl_face.weights import file_content, load_backbone


def test_missing_empty_and_folder(tmp_path, path):
    assert problem_of(path) == "the weights file does not exist"
    path.write_bytes(b"")
    assert problem_of(path) == "is empty"
    assert problem_of(tmp_path) == "is a folder without model.json and without config.json"
    assert problem_of(path / "below") == "the weights file does not exist"
    # Not through `problem_of`: such a name alone makes a long message.
    with pytest.raises(WeightsError, match=r"cannot be read \(File name too long\)"):
        load_backbone(tmp_path / ("x" * 300))


def test_git_lfs_pointer(path):
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 94593315\n"
    )
    assert problem_of(path) == "is a pointer of Git LFS, not the file itself"


@pytest.mark.parametrize(
    "page",
    ["<!DOCTYPE html><html><body>Log in</body></html>", "\n  <html>\n", "\ufeff<!doctype HTML>"],
)
def test_web_page(path, page):
    path.write_text(page, encoding="utf-8")
    assert problem_of(path) == "is a web page, not a weights file"


def test_archive(path):
    path.write_bytes(gzip.compress(b"x" * 100))
    assert problem_of(path) == "is an archive"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"x")
    assert problem_of(path) == "is a Keras 3 archive, not a file of torch.save"
    np.savez(path.with_suffix(".npz"), a=np.ones(2))
    assert problem_of(path.with_suffix(".npz")) == "is an .npz of NumPy, not a file of torch.save"
    np.save(path.with_suffix(".npy"), np.ones(2))
    assert problem_of(path.with_suffix(".npy")) == "is one NumPy array, not a network's"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"x")
    assert problem_of(path) == "is a zip, not a file of torch.save"


def test_remedies_lead_on(tmp_path, network):
    """What a remedy tells to write is read."""
    np.savez(tmp_path / "a.npz", **weight_files.numpy_dict(network))
    with pytest.raises(WeightsError, match=r"safetensors\.numpy\.save_file") as raised:
        load_backbone(tmp_path / "a.npz")
    assert "dict(numpy.load(FILE))" in raised.value.remedy
    arrays = dict(np.load(tmp_path / "a.npz"))
    safetensors.numpy.save_file(arrays, tmp_path / "NEW.safetensors")
    assert load_backbone(tmp_path / "NEW.safetensors", architecture=SMALL_ARCHITECTURE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x", "the text 'x'"),
        (b"\x00" * 600, "the bytes 00 00 00 00 00 00 00 00"),
        (b"\x80", "the bytes 80"),
        (b"name: ResNet-50 layer {\n", "the text 'name: ResNet-50 laye'"),
        (b"PK\n", "the text 'PK'"),
    ],
)
def test_unknown(path, content, words):
    path.write_bytes(content)
    assert problem_of(path) == f"is of no known format; it begins with {words}"


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated(path, network, form, share):
    WRITERS[form](path, network)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "is damaged or cut off" in problem_of(path)


@pytest.mark.parametrize("form", sorted(WRITERS.keys() - {"matlab"}))
def test_the_last_bytes_are_missing(path, network, form):
    """Not even a tensor that is not wanted may be cut (MATLAB's last variable is never read)."""
    WRITERS[form](path, network)
    path.write_bytes(path.read_bytes()[:-4])
    assert "is damaged or cut off" in problem_of(path)


@pytest.mark.slow  # HDF5 itself takes seconds over some damage
@pytest.mark.parametrize("form", WRITERS)
def test_flipped_bytes_never_crash(path, network, form):
    """Whatever the damage, it is the user's error or goes unseen in a value."""
    WRITERS[form](path, network)
    content = path.read_bytes()
    random = np.random.default_rng(3)
    for _ in range(25):
        damaged = bytearray(content)
        for place in random.integers(-2000, 4000, 3):  # a zip has its directory at the end
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(WeightsError):
            load_backbone(path, architecture=SMALL_ARCHITECTURE)


def test_of_a_large_text_the_beginning_is_read(path, monkeypatch):
    path.write_text('{"weight_map": 3}')
    assert problem_of(path) == "lists no files"
    monkeypatch.setattr(file_content, "LARGEST_JSON", 8)
    assert problem_of(path).startswith("is of no known format")
