"""PyTorch's files that are damaged, or hold more than tensors."""

import pickle
import zipfile

import pytest
import torch
from weight_faults import WRITERS, problem_of


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


def test_whole_pickled_module(path, network):
    torch.save(network, path)
    assert "asks for reference_resnet.ReferenceResNet, which is neither" in problem_of(path)
