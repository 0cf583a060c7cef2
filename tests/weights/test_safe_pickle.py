"""Nothing in a pickle is ever run, and none leaves the memory that it is given."""

import io
import os
import pickle
import pickletools

import numpy as np
import pytest
import torch
import weight_files
from weight_faults import problem_of

from mtl_face.weights import safe_pickle


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
    storage = safe_pickle.Storage(np.dtype("<f4"), "0", 4)
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


def test_a_pickle_cannot_take_all_memory():
    """Python would make room for all places up to the highest, before it looks at the rest."""
    content = b"\x80\x02}r" + (2**28).to_bytes(4, "little") + b"cos\nsystem\n."
    with pytest.raises(safe_pickle.MalformedError, match="at place 268,435,456"):
        safe_pickle.load(io.BytesIO(content))
    within = b"\x80\x02}r" + (2).to_bytes(4, "little") + b"."
    assert safe_pickle.load(io.BytesIO(within)) == {}
