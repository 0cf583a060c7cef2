"""Nothing outside of an HDF5 file is read, and none takes more memory than it can fill."""

import zlib

import h5py
import numpy as np
import pytest
import weight_files
from weight_faults import problem_of
from weight_maps import SMALL_ARCHITECTURE

from mtl_face.weights import load_backbone

KERNEL = "conv1/7x7_s2/conv1/7x7_s2/kernel:0"
SHAPE = (7, 7, 3, 4)


def external_link(file, name, secret):
    with h5py.File(secret.with_suffix(".other"), "w") as other:
        other["x"] = np.ones(SHAPE, np.float32)
    file[name] = h5py.ExternalLink(secret.with_suffix(".other"), "x")


def soft_link(file, name, secret):
    file["elsewhere"] = np.ones(SHAPE, np.float32)
    file[name] = h5py.SoftLink("/elsewhere")


def external_storage(file, name, secret):
    file.create_dataset(name, SHAPE, "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def virtual(file, name, secret):
    external_link(file, "unused", secret)
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource(secret.with_suffix(".other"), "x", SHAPE)
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("kind", [external_link, soft_link, external_storage, virtual])
@pytest.mark.parametrize("form", ["keras", "matlab 7.3"])
def test_other_files_stay_unread(tmp_path, path, network, form, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x42" * 4 * int(np.prod(SHAPE)))
    if form == "keras":
        weight_files.write_keras(path, network)
        with h5py.File(path, "r+") as file:
            del file[KERNEL]
            kind(file, KERNEL, secret)
            if kind is not virtual:
                assert np.isfinite(file[KERNEL][()]).all()  # HDF5 itself does read it
    else:
        weight_files.write_matlab_7_3(path, network)
        name = "meta/normalization/averageImage"
        with h5py.File(path, "r+") as file:
            del file[name]
            kind(file, name, secret)
    assert problem_of(path).startswith("reaches outside of itself: ")


def test_a_group_behind_a_link_and_a_reference_to_data_elsewhere(tmp_path, path, network):
    weight_files.write_keras(path, network, whole=True)
    path.rename(tmp_path / "other.h5")
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink(tmp_path / "other.h5", "/model_weights")
    assert "model_weights is a link to another place" in problem_of(path)
    weight_files.write_matlab_7_3(path, network)
    (tmp_path / "secret").write_bytes(bytes(4000))
    with h5py.File(path, "r+") as file:
        external_storage(file, "mine", tmp_path / "secret")
        file["params/value"][0, 0] = file["mine"].ref
    assert "/mine is data in an external file" in problem_of(path)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}]
)
def test_compressed(path, network, options):
    kernel = network.conv1.weight.detach().numpy().transpose(2, 3, 1, 0)
    weight_files.write_keras(path, network)
    with h5py.File(path, "r+") as file:
        del file[KERNEL]
        file.create_dataset(KERNEL, data=kernel, chunks=(7, 7, 1, 4), fletcher32=True, **options)
    loaded = load_backbone(path, architecture=SMALL_ARCHITECTURE)
    np.testing.assert_array_equal(loaded.params["conv1"]["kernel"], kernel[:, :, ::-1])


def giant_chunk(file):
    return file.create_dataset(
        KERNEL, SHAPE, "f4", chunks=(7, 7, 3, 2**20), maxshape=(7, 7, 3, None)
    )


def exploding_chunk(file):
    data = file.create_dataset(KERNEL, SHAPE, "f4", chunks=SHAPE, compression="gzip")
    data.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(10**7)))
    return data


def plugin(file):
    return file.create_dataset(KERNEL, SHAPE, "f4", chunks=SHAPE, compression="lzf")


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (giant_chunk, "it claims more memory than a file of"),
        (exploding_chunk, "a chunk unpacks to more than its 2,352 bytes"),
        (plugin, "it is packed by filters [32000]"),
    ],
)
def test_claims(path, network, claim, words):
    weight_files.write_keras(path, network)
    with h5py.File(path, "r+") as file:
        del file[KERNEL]
        claim(file)
    assert words in problem_of(path)


def test_arrays_of_gigabytes_in_kilobytes(path, network):
    """MATLAB's mean colour has no shape that it must have."""
    weight_files.write_matlab_7_3(path, network)
    with h5py.File(path, "r+") as file:
        del file["meta/normalization/averageImage"]
        file.create_dataset("meta/normalization/averageImage", (3, 2**32), "f8")
    assert "it claims more memory than a file of" in problem_of(path)


def test_groups_without_end(path):
    """A hard link may lead back to where it comes from."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"a"]
        file["a/b"] = np.ones(1)
        file["a/again"] = file["a"]
        file["a/more"] = file["a"]
    assert "it has groups within groups without end" in problem_of(path)
