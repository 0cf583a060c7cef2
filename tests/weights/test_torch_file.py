"""PyTorch's files: the tensors that PyTorch reads, those that are damaged or hold more."""

import argparse
import contextlib
import pickle
import zipfile

import jax
import numpy as np
import pytest
import torch
from weight_faults import WRITERS, problem_of
from weight_maps import SMALL_ARCHITECTURE

from mtl_face.weights import load_backbone, torch_file
from mtl_face.weights.formats import open_weights


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(path):
    module = torch.jit.script(torch.nn.Linear(2, 2))
    module.save(str(path))
    assert problem_of(path) == "is a TorchScript program, not a state dict"


KINDS = ["float32", "float64", "float16", "bfloat16", "int64", "int8", "uint8", "bool", "complex64"]


def states():
    """Tensors as they lie in states: of every type, as views, shared, of no element."""
    flat = torch.arange(60.0)
    generator = torch.Generator().manual_seed(3)
    random = torch.randn(4, 3, 2, 2, generator=generator)
    return {
        **{kind: random.to(getattr(torch, kind)) for kind in KINDS},
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "view": flat[5:35].view(5, 6),
        "transposed": flat.view(12, 5).t(),
        "every second": flat[1::2],
        "expanded": torch.ones(1).expand(4, 3),
        "channels last": random.to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(random),
        "list": [torch.ones(2), {"inner": torch.zeros(1)}],
        "number": 3,
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_same_tensors_as_pytorch(path, legacy, protocol):
    torch.save(states(), path, _use_new_zipfile_serialization=not legacy)
    expected = torch.load(path, weights_only=True)  # which knows protocol 2 alone
    torch.save(states(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    expected |= {"list.0": expected["list"][0], "list.1.inner": expected["list"][1]["inner"]}
    del expected["list"], expected["number"]
    with open_weights(path) as content:
        assert content.passed_over == ()
        assert sorted(content.tensors) == sorted(expected)
        for name, tensor in expected.items():
            found = content.tensors[name]
            assert found.shape == tuple(tensor.shape)
            value = found.read()
            if tensor.dtype == torch.bfloat16:
                tensor, value = tensor.float(), value.astype(np.float32)
            assert value.dtype == tensor.detach().numpy().dtype
            np.testing.assert_array_equal(value, tensor.detach().numpy())


class Meter:
    """Of a training script that is not at hand."""

    def __init__(self):
        self.average = 0.5


def load_small(path):
    return load_backbone(path, architecture=SMALL_ARCHITECTURE)


def assert_same_weights(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    jax.tree.map(np.testing.assert_array_equal, found.batch_stats, expected.batch_stats)


@pytest.mark.parametrize("legacy", [False, True])
def test_more_than_tensors(path, network, legacy):
    torch.save(network.state_dict(), path)
    expected = load_small(path)
    content = {
        "args": argparse.Namespace(lr=0.1, layers={1, 2}),
        "meter": Meter(),
        "state_dict": network.state_dict(),
        "kind": torch.float32,
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = load_small(path)
    assert_same_weights(found, expected)
    assert found.notes[-1] == (
        "it holds more than tensors, which was passed over and not run: argparse.Namespace, "
        "test_torch_file.Meter, torch.float32"
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_whole_module(path, network, legacy, wrapped):
    """Its tensors have the names of its state dict; its class is not needed."""
    torch.save(network.state_dict(), path)
    expected = load_small(path)
    module = torch.nn.DataParallel(network) if wrapped else network
    torch.save({"model": module}, path, _use_new_zipfile_serialization=not legacy)
    found = load_small(path)
    assert_same_weights(found, expected)
    assert "reference_resnet.ReferenceResNet" in found.notes[-1]
    prefix = "model.module." if wrapped else "model."
    assert {name for name, _ in found.left_out} == {f"{prefix}fc.{n}" for n in ("weight", "bias")}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_shared_storage_is_read_once(monkeypatch, path, network, legacy):
    flat = torch.cat([tensor.float().reshape(-1) for tensor in network.state_dict().values()])
    state, begin = {}, 0
    for name, tensor in network.state_dict().items():
        state[name] = flat[begin : begin + tensor.numel()].view(tensor.shape)
        begin += tensor.numel()
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    reads = []
    array = torch_file.StoredTensor.array
    monkeypatch.setattr(
        torch_file.StoredTensor,
        "array",
        lambda tensor, raw: (reads.append(id(raw)), array(tensor, raw))[1],
    )
    kept = torch_file.functools.lru_cache
    missed = []
    monkeypatch.setattr(
        torch_file.functools,
        "lru_cache",
        lambda size: lambda read: kept(size)(lambda storage: (missed.append(1), read(storage))[1]),
    )
    load_small(path)
    assert len(reads) == 12 * 5
    assert len(missed) == 1


def test_nested_without_end(monkeypatch, path):
    loop = {"weight": np.ones(2)}
    loop["again"] = [loop]
    path.write_bytes(pickle.dumps(loop, 2))
    with open_weights(path) as content:
        assert list(content.tensors) == ["weight"]
    monkeypatch.setattr(torch_file, "MOST_VALUES", 10_000)
    monkeypatch.setattr(torch_file, "_MOST_LETTERS", 10_000)
    laughs = [np.ones(1)]
    for _ in range(40):
        laughs = [laughs, laughs]
    path.write_bytes(pickle.dumps({"a": laughs}, 2))
    assert "more values or longer names than any checkpoint has" in problem_of(path)
    path.write_bytes(pickle.dumps({"k" * 1000: [[0] for _ in range(100)]}, 2))
    assert "more values or longer names than any checkpoint has" in problem_of(path)


def test_names_are_shown_escaped(path):
    path.write_bytes(pickle.dumps({"a\x1b[31m\n": np.ones(1)}, 2))
    assert problem_of(path).endswith(r"its tensors are a\x1b[31m\n 1")


def test_no_object_runs_when_a_file_is_damaged(path, network):
    torch.save({"args": argparse.Namespace(a=1), **network.state_dict()}, path)
    content = path.read_bytes()
    for place in range(40, 400, 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x15
        path.write_bytes(damaged)
        with contextlib.suppress(torch_file.WeightsError):
            load_small(path)


def test_messages_do_not_show_a_file(path):
    """What the reader of opcodes met has bytes of the file in it."""
    path.write_bytes(b"(dp0\nF" + b"x" * 10_000 + b"\x1b[31m\n.")
    problem = problem_of(path)
    assert problem.startswith("is damaged or cut off: could not convert string to float")
    assert len(problem) < 300
    assert "\x1b" not in problem
