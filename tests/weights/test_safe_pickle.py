"""Tensors and arrays stay within the memory that they are given, and no pickle is run."""

import io
import os
import pickle
import pickletools

import numpy as np
import pytest
import torch
import weight_files
from weight_faults import problem_of
from weight_maps import SMALL_ARCHITECTURE

from mtl_face.weights import load_backbone, safe_pickle
from mtl_face.weights.pickle_machine import MalformedError


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
    if kind == "getattr":  # which pickles of sound objects name, too
        (note,) = load_backbone(path, architecture=SMALL_ARCHITECTURE).notes[-1:]
        assert "builtins.getattr" in note or "__builtin__.getattr" in note
    else:
        problem = problem_of(path)
        assert problem.startswith("asks for ")
        assert problem.endswith("which no weights need; nothing was run")
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
    assert safe_pickle.load(io.BytesIO(assemble(tensor)), safe_pickle.outside)
    for target in targets.values():
        for change in (state, b"N" + state + b"\x86"):
            data = assemble(target, change, b"b")
            pickletools.dis(data, io.StringIO())  # it is a sound pickle
            with pytest.raises(MalformedError):
                safe_pickle.load(io.BytesIO(data), safe_pickle.outside)


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(1, 4, 1), (0, 5, 1), (0, 4, 2), (0, 2**40, 0), (-1, 2, 1), (0, 2, -1)],
)
def test_tensors_stay_within_their_storage(offset, shape, stride):
    storage = safe_pickle.Storage(np.dtype("<f4"), "0", 4)
    with pytest.raises(MalformedError):
        safe_pickle._rebuild_tensor(storage, offset, (shape,), (stride,))
    if offset >= 0 and stride >= 0 and shape < 100:
        tensor = safe_pickle.StoredTensor(storage, offset, (shape,), (stride,))
        with pytest.raises(MalformedError):
            tensor.array(bytes(16))


def test_object_arrays_are_passed_over(path):
    path.write_bytes(pickle.dumps({"conv1.weight": np.array([{}, 3], object), "x": np.ones(2)}, 2))
    found = safe_pickle.load(io.BytesIO(path.read_bytes()))
    assert found.passed_over == ["numpy array of type 'O8'"]
    assert found.value["conv1.weight"].shape is None
    np.testing.assert_array_equal(found.value["x"].array(), np.ones(2))


@pytest.mark.parametrize("kind", ["f2", "f4", ">f8", "i1", ">i4", "u8", "?"])
@pytest.mark.parametrize("protocol", range(6))
def test_arrays(kind, protocol):
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    written = [
        array,
        np.asfortranarray(array),
        array[:, ::2],
        array[0, 0, 1],
        np.zeros((0, 3), kind),
    ]
    found = safe_pickle.load(io.BytesIO(pickle.dumps(written, protocol)))
    assert found.passed_over == []
    for one, other in zip(found.value, written, strict=True):
        value = one.array() if isinstance(one, safe_pickle.Array) else one
        np.testing.assert_array_equal(value, other)
        assert np.shape(value) == other.shape
