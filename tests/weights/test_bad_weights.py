"""What is wrong with a file is said, one message each, and nothing in a file is ever run."""

import contextlib
import gzip
import io
import os
import pickle
import pickletools
import zipfile

import h5py
import numpy as np
import pytest
import reference_resnet
import torch
import weight_files
from reference_resnet import SMALL

from mtl_face.errors import UserError, WeightsError
from mtl_face.weights import load_backbone, safe_pickle
from mtl_face.weights.resnet_names import Architecture

SMALL_ARCHITECTURE = Architecture((2, 1), 4, 2)


@pytest.fixture(scope="module")
def network():
    return reference_resnet.make("torchvision", SMALL, classes=1000)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.h5"


def problem_of(path, **options):
    with pytest.raises(WeightsError) as raised:
        load_backbone(path, architecture=SMALL_ARCHITECTURE, **options)
    error = raised.value
    assert isinstance(error, UserError)
    assert error.remedy
    assert str(path) in str(error)
    assert "\n" not in error.problem
    assert len(error.problem) < 500
    return error.problem


def test_missing_empty_and_folder(tmp_path, path):
    assert problem_of(path) == "does not exist"
    path.write_bytes(b"")
    assert problem_of(path) == "is empty"
    assert problem_of(tmp_path) == "is a folder without model.json"
    assert problem_of(path / "below").startswith("cannot be read: Not a directory")
    # Not through `problem_of`: such a name alone makes a long message.
    with pytest.raises(WeightsError, match="cannot be read: File name too long"):
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
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"x")
    assert problem_of(path) == "is a zip, not a file of torch.save"


@pytest.mark.parametrize(
    "content", [b"x", b"\x00" * 600, b"\x80", b"name: ResNet-50 layer {", b"PK"]
)
def test_unknown(path, content):
    path.write_bytes(content)
    assert problem_of(path).startswith("is of no known format; it begins with ")


WRITERS = {
    "keras": weight_files.write_keras,
    "pickle": weight_files.write_numpy_pickle,
    "matlab": weight_files.write_matlab,
    "matlab 7.3": weight_files.write_matlab_7_3,
    "zip": lambda path, network: weight_files.write_torch(path, network.state_dict()),
    "legacy": lambda path, network: weight_files.write_torch(
        path, network.state_dict(), legacy=True
    ),
    "safetensors": lambda path, network: weight_files.write_safetensors(path, network.state_dict()),
}


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


def test_damaged_directory_of_a_zip(path, network):
    """What Python's zip reader raises for a name, a version and a password is no KeyError."""
    WRITERS["zip"](path, network)
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02")
    for place, value in ((entry + 46, 0xFF), (entry + 6, 200), (entry + 8, 1)):
        damaged = bytearray(content)
        damaged[place] = value
        damaged[entry + 9] = 0x08  # names are UTF-8
        path.write_bytes(damaged)
        assert "is damaged or cut off" in problem_of(path)


def test_compressed_zip(path, network):
    """A zip may hold a thousand times its size, if it is compressed."""
    WRITERS["zip"](path, network)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert problem_of(path) == "is compressed, which torch.save never does"


def test_legacy_file_whose_storages_have_no_names(path, network):
    WRITERS["legacy"](path, network)
    content = path.read_bytes()
    keys = content.rindex(b"\x80\x02]q\x00")
    end = content.index(b".", keys)
    path.write_bytes(content[:keys] + pickle.dumps([{}], 2) + content[end + 1 :])
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


@pytest.mark.parametrize("form", ["keras", "matlab", "zip", "legacy", "safetensors", "pickle"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan(path, form, value):
    broken = reference_resnet.make("torchvision", SMALL, classes=1000)
    with torch.no_grad():
        broken.layer1[1].conv2.weight[0, 1, 2, 0] = value
    WRITERS[form](path, broken)
    problem = problem_of(path)
    assert "holds 1 values that are NaN or infinite, of 144" in problem
    assert "conv2_2_3x3" in problem or "layer1.1.conv2.weight" in problem


def test_negative_variance(path):
    broken = reference_resnet.make("torchvision", SMALL, classes=1000)
    with torch.no_grad():
        broken.bn1.running_var[1] = -0.5
    WRITERS["zip"](path, broken)
    assert problem_of(path) == "bn1.running_var has a negative variance"


def test_not_floating_point(path, network):
    state = dict(network.state_dict())
    state["conv1.weight"] = torch.zeros(4, 3, 7, 7, dtype=torch.int8)
    weight_files.write_torch(path, state)
    assert problem_of(path) == "conv1.weight is of type int8, not floating point"


def problem_of_state(path, state):
    torch.save(state, path)
    with pytest.raises(WeightsError) as raised:
        load_backbone(path)
    assert "ResNet50" in raised.value.remedy
    return raised.value.problem


def test_resnet18(path):
    problem = problem_of_state(path, weight_files.meta_state((2, 2, 2, 2), basic=True))
    assert problem.startswith("has blocks of two convolutions and stages of 2, 2, 2, 2 blocks")


@pytest.mark.parametrize(("blocks", "name"), [((3, 4, 23, 3), "101"), ((3, 8, 36, 3), "152")])
def test_resnet101_and_152(path, blocks, name):
    problem = problem_of_state(path, weight_files.meta_state(blocks))
    assert problem.startswith(f"is ResNet{name} (stages of ")
    assert "not ResNet50 (stages of 3, 4, 6, 3 blocks, width 64, expansion 4)" in problem


def test_wide_resnet(path):
    problem = problem_of_state(path, weight_files.meta_state((3, 4, 6, 3), width=128))
    assert "tensors are of another size: layer1.0.conv1.weight has shape 128x64x1x1" in problem
    assert "not 64x64x1x1" in problem


def test_classifier_alone(path):
    problem = problem_of_state(
        path, {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    )
    assert problem == (
        "holds no ResNet backbone; its tensors are fc.weight 1000x2048, fc.bias 1000"
    )


def test_missing_tensors(path, network):
    state = network.state_dict()
    del state["layer1.1.bn2.running_var"], state["bn1.weight"]
    weight_files.write_torch(path, state)
    problem = problem_of(path)
    assert "lacks 2 of the 60 tensors" in problem
    assert "bn1.weight" in problem
    assert "layer1.1.bn2.running_var" in problem


@pytest.mark.parametrize(
    "name", ["layer1.0.se.fc1.weight", "conv1.bias", "layer1.0.conv2.bias", "bn1.other"]
)
def test_unused_tensors_of_the_backbone(path, network, name):
    weight_files.write_torch(path, network.state_dict() | {name: torch.ones(2)})
    problem = problem_of(path)
    assert problem.startswith("has 1 tensors in its backbone that ")
    assert name in problem


def test_squeeze_and_excitation_in_keras(path, network):
    top = {"conv2_1_1x1_down": {"kernel": np.ones((1, 1, 8, 2), np.float32)}}
    weight_files.write_keras(path, network, top=top)
    assert "conv2_1_1x1_down" in problem_of(path)


def test_two_networks(path, network):
    state = network.state_dict()
    weight_files.write_torch(path, {"state_dict": state, "ema": state})
    problem = problem_of(path)
    assert problem == "holds 2 networks, under 'ema.', 'state_dict.'"


def test_wrong_channel_order(path, network):
    weight_files.write_keras(path, network)
    assert problem_of(path, channel_order="rgb") == "has its channels in the order BGR, not RGB"
    assert load_backbone(path, architecture=SMALL_ARCHITECTURE, channel_order="bgr")


def test_other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.ones(3)
    assert problem_of(path) == "is an HDF5 file, but names no layers of Keras"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"gone"]
    assert "is damaged or cut off" in problem_of(path)


def test_hdf5_with_pointers_in_place_of_text_and_numbers(path, network):
    """Damage makes them; HDF5 follows them until the process dies, so they are not read."""
    pointers = np.empty(1, object)
    pointers[0] = np.arange(3)
    weight_files.write_keras(path, network)
    with h5py.File(path, "r+") as file:
        attributes = file["conv2_1_3x3"].attrs
        attributes.create("weight_names", pointers, dtype=h5py.vlen_dtype(np.int32))
    assert "attribute weight_names is no text" in problem_of(path)
    weight_files.write_keras(path, network)
    with h5py.File(path, "r+") as file:
        name = next(name for name in found_datasets(file) if "3x3/kernel" in name)
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, shape, h5py.vlen_dtype(np.int32))
    assert "cannot be read: it holds no numbers" in problem_of(path)


def found_datasets(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return names


def test_other_matlab(path):
    import scipy.io

    with path.open("wb") as file:
        scipy.io.savemat(file, {"x": np.ones(3)})
    assert problem_of(path).startswith("is a MATLAB file without the `params`")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(path):
    module = torch.jit.script(torch.nn.Linear(2, 2))
    module.save(str(path))
    assert problem_of(path) == "is a TorchScript program, not a state dict"


def test_whole_pickled_module(path, network):
    torch.save(network, path)
    assert "asks for reference_resnet.ReferenceResNet, which is neither" in problem_of(path)


# --- a pickle that wants to do something ---


class Payload:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def payloads(marker):
    command = f"touch {marker}"
    return {
        "os.system": Payload(os.system, command),
        "eval": Payload(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Payload(exec, f"open({str(marker)!r}, 'w')"),
        "getattr": Payload(getattr, "text", "upper"),
        "open": Payload(open, str(marker), "w"),
        "import": Payload(__import__, "os"),
    }


@pytest.mark.parametrize("kind", payloads(""))
@pytest.mark.parametrize(
    ("form", "protocol"),
    [("pickle", 0), ("pickle", 2), ("pickle", 4), ("zip", 2), ("zip", 4), ("legacy", 2)],
)
def test_payload_is_not_run(tmp_path, path, network, kind, form, protocol):
    marker = tmp_path / "ran"
    content = {"payload": payloads(marker)[kind], **network.state_dict()}
    if form == "pickle":
        content = {"payload": payloads(marker)[kind], **weight_files.numpy_dict(network)}
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(
            content,
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=form == "zip",
        )
    problem = problem_of(path)
    assert problem.startswith("asks for ")
    assert problem.endswith("which is neither a tensor nor an array; nothing was run")
    assert not marker.exists()
    # The payload does act where it is let.
    if kind == "os.system" and form == "pickle":
        pickle.loads(path.read_bytes())
        assert marker.exists()


def assemble(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def test_a_pickle_cannot_change_what_it_is_given():
    """BUILD sets attributes: not on our functions, types or tensors."""
    state = b"}U\x05shapeK\x05s"
    storage = b"ctorch\nFloatStorage\n"
    reference = b"(U\x07storage" + storage + b"U\x010U\x03cpuK\x04tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + b"K\x00K\x04\x85K\x01\x85\x89}tR"
    targets = {
        "function": b"c_codecs\nencode\n",
        "class": b"cnumpy\ndtype\n",
        "storage type": storage,
        "storage": reference,
        "tensor": tensor,
    }
    assert safe_pickle.load(io.BytesIO(assemble(tensor)), safe_pickle.storage_of)
    for target in targets.values():
        for change in (state, b"N" + state + b"\x86"):
            data = assemble(target, change, b"b")
            pickletools.dis(data, io.StringIO())  # it is a sound pickle
            with pytest.raises(safe_pickle.MalformedError):
                safe_pickle.load(io.BytesIO(data), safe_pickle.storage_of)


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(1, 4, 1), (0, 5, 1), (0, 4, 2), (0, 2**40, 0), (-1, 2, 1), (0, 2, -1)],
)
def test_tensors_stay_within_their_storage(offset, shape, stride):
    storage = safe_pickle.Storage("<f4", "0", 4)
    with pytest.raises(safe_pickle.MalformedError):
        safe_pickle._rebuild_tensor(storage, offset, (shape,), (stride,))
    if offset >= 0 and stride >= 0 and shape < 100:
        tensor = safe_pickle.StoredTensor(storage, offset, (shape,), (stride,))
        with pytest.raises(safe_pickle.MalformedError):
            tensor.array(bytes(16))


def test_nested_without_end(path):
    loop = {}
    loop["again"] = loop
    path.write_bytes(pickle.dumps(loop, 2))
    assert "it holds itself" in problem_of(path)
    laughs = [np.ones(1)]
    for _ in range(40):
        laughs = [laughs, laughs]
    path.write_bytes(pickle.dumps({"a": laughs}, 2))
    assert "more than 100000 values" in problem_of(path)


def test_object_arrays_are_refused(path):
    path.write_bytes(pickle.dumps({"conv1.weight": np.array([{}, 3], object)}, 2))
    assert "asks for numpy array of type 'O8'" in problem_of(path)


def test_size_of_networks_is_that_of_the_reference():
    """The states made here are of the networks that they are named for."""
    assert len(weight_files.meta_state((3, 4, 6, 3))) == 53 * 5 + 2
    total = sum(
        tensor.numel()
        for name, tensor in weight_files.meta_state((3, 4, 6, 3)).items()
        if "running" not in name
    )
    assert total == 25_557_032  # torchvision's ResNet50


def test_a_pickle_cannot_take_all_memory():
    """Python would make room for all places up to the highest, before it looks at the rest."""
    content = b"\x80\x02}r" + (2**28).to_bytes(4, "little") + b"cos\nsystem\n."
    with pytest.raises(safe_pickle.MalformedError, match="at place 268,435,456"):
        safe_pickle.load(io.BytesIO(content))
    within = b"\x80\x02}r" + (2).to_bytes(4, "little") + b"."
    assert safe_pickle.load(io.BytesIO(within)) == {}
