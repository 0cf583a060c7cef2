"""Reads PyTorch's files (zip and legacy) and pickles of NumPy arrays, without PyTorch.

A state dict may lie deep in a checkpoint: names are joined by dots, so that the `conv1.weight` of
the dict under `state_dict` is `state_dict.conv1.weight`.
"""

import contextlib
import functools
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.weights import safe_pickle
from mtl_face.weights.file_content import Entry, FileContent
from mtl_face.weights.safe_pickle import MalformedError, Storage, StoredTensor

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""First pickle of a legacy file."""

_MOST_TENSORS = 100_000


def open_zip(path: Path, stack: contextlib.ExitStack) -> FileContent:
    """Opens a zip that `torch.save` has written since PyTorch 1.6, until `stack` closes.

    Raises:
        WeightsError: it is another kind of zip. A damaged file raises whatever its reader meets.
        RefusedNameError: it holds more than tensors.
    """
    archive = stack.enter_context(zipfile.ZipFile(path))
    names = archive.namelist()
    pickles = [name for name in names if name.split("/", 1)[-1] == "data.pkl"]
    if not pickles:
        if "model.weights.h5" in names:
            kind, remedy = "a Keras 3 archive", "save the weights as .h5 or .safetensors"
        else:
            kind, remedy = "a zip", "unpack it and give the weights file in it"
        raise WeightsError(f"is {kind}, not a file of torch.save", path=path, remedy=remedy)
    root = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(root + "code/") for name in names):
        raise WeightsError(
            "is a TorchScript program, not a state dict",
            path=path,
            remedy="in PyTorch: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)",
        )
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise WeightsError(  # a few kilobytes may grow to any size
            "is compressed, which torch.save never does",
            path=path,
            remedy="unpack it, and save the state dict again with torch.save",
        )
    if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
        raise _big_endian(path)
    value = safe_pickle.load(io.BytesIO(archive.read(pickles[0])), safe_pickle.storage_of)

    def read(storage: Storage) -> bytes:
        info = archive.getinfo(f"{root}data/{storage.key}")
        if info.file_size != storage.size:
            raise MalformedError(
                f"storage {storage.key} has {info.file_size} bytes, its tensors want {storage.size}"
            )
        return archive.read(info)

    return _content("PyTorch file (zip)", "torch", value, read)


def open_pickle(path: Path, stack: contextlib.ExitStack) -> FileContent:
    """Opens a legacy file of `torch.save`, or a pickle of a dict of NumPy arrays, likewise.

    Raises:
        RefusedNameError, MalformedError: as `safe_pickle.load`.
    """
    file = stack.enter_context(path.open("rb"))
    value = safe_pickle.load(file)
    if isinstance(value, int) and value == MAGIC_NUMBER:
        return _legacy_content(file, path)
    return _content("pickle of NumPy arrays", "numpy", value, None)


def _legacy_content(file: BinaryIO, path: Path) -> FileContent:
    """What follows the magic number: two more pickles, the value, the storages' names and bytes."""
    version, system = safe_pickle.load(file), safe_pickle.load(file)
    if version != 1001 or not isinstance(system, dict):
        raise MalformedError(f"protocol {str(version)[:20]}")
    if system.get("little_endian") is not True:
        raise _big_endian(path)
    storages: dict[str, Storage] = {}

    def remembered(reference: Any) -> Storage:
        storage = safe_pickle.storage_of(reference)
        storages[storage.key] = storage
        return storage

    value = safe_pickle.load(file, remembered)
    places = _storage_places(file, safe_pickle.load(file), storages)

    def read(storage: Storage) -> bytes:
        if storage.key not in places:
            raise MalformedError(f"storage {storage.key} is missing")
        file.seek(places[storage.key])
        return file.read(storage.size)

    return _content("PyTorch file (legacy)", "torch", value, read)


def _storage_places(file: BinaryIO, keys: Any, storages: dict[str, Storage]) -> dict[str, int]:
    """Where each storage's bytes begin; they follow the pickles, each after its length."""
    if not isinstance(keys, list):
        raise MalformedError("no list of storages")
    places = {}
    end = file.seek(0, io.SEEK_CUR)
    size = file.seek(0, io.SEEK_END)
    for key in keys:
        file.seek(end)
        header = file.read(8)
        if len(header) < 8 or key not in storages:
            raise MalformedError(f"storage {str(key)[:40]} is cut off or unknown")
        storage = storages[key]
        if struct.unpack("<q", header)[0] != storage.length:
            raise MalformedError(f"storage {key} has another length than its tensors say")
        places[key] = end + 8
        end += 8 + storage.size
    if end > size:
        raise MalformedError(f"it is cut off: {end - size} bytes are missing")
    return places


def _content(
    format_name: str,
    family: Literal["numpy", "torch"],
    value: Any,
    read: Callable[[Storage], bytes] | None,
) -> FileContent:
    def array(tensor: StoredTensor | NDArray[Any]) -> NDArray[Any]:
        if isinstance(tensor, StoredTensor):
            assert read is not None  # whoever resolves storages can read them
            return tensor.array(read(tensor.storage))
        return tensor

    tensors: dict[str, Entry] = {}
    for name, tensor in _tensors(value):
        if name in tensors:
            raise MalformedError(f"two tensors are called {name}")
        tensors[name] = Entry(name, tensor.shape, functools.partial(array, tensor))
    return FileContent(format_name, family, tensors, "OIHW")


def _tensors(value: Any) -> Iterator[tuple[str, StoredTensor | NDArray[Any]]]:
    """(name, tensor) of all that lie in nested dicts and lists."""
    todo, count = [("", value)], 0
    while todo:
        name, item = todo.pop()
        count += 1
        if count > _MOST_TENSORS:
            raise MalformedError(f"it holds more than {_MOST_TENSORS} values")
        if isinstance(item, StoredTensor | np.ndarray):
            yield name, item
        elif isinstance(item, dict | list):
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            inside = [(f"{name}.{key}" if name else str(key), part) for key, part in pairs]
            todo += reversed(inside)


def _big_endian(path: Path) -> WeightsError:
    return WeightsError(
        "was written by a big-endian machine", path=path, remedy="save it as .safetensors"
    )
