"""Reads PyTorch's files (zip and legacy) and pickles of NumPy arrays, without PyTorch.

A state dict may lie deep in a checkpoint: names are joined by dots, so that the `conv1.weight` of
the dict under `state_dict` is `state_dict.conv1.weight`. A whole module gives the names of its
state dict.
"""

import contextlib
import functools
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.weights import safe_pickle
from mtl_face.weights.file_content import RESAVE_KERAS, RESAVE_NUMPY, Entry, FileContent, shown
from mtl_face.weights.pickle_machine import MOST_VALUES, MalformedError, Pickle, Record
from mtl_face.weights.safe_pickle import Array, Storage, StoredTensor

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""First pickle of a legacy file."""

_MOST_LETTERS = 2**26
"""Of the names of all tensors and of what holds them."""

_KEPT_STORAGES = 4
"""Storages whose bytes are kept while their tensors are read: one may hold all of a network."""

_OF_A_MODULE = ("_parameters", "_buffers", "_modules")
"""Where a module of PyTorch keeps its tensors and parts; no part of a state dict's names."""


def open_zip(path: Path, stack: contextlib.ExitStack) -> FileContent:
    """Opens a zip that `torch.save` has written since PyTorch 1.6, until `stack` closes.

    Raises:
        WeightsError: it is another kind of zip. A damaged file raises whatever its reader meets.
        RefusedNameError: it names what would do harm.
    """
    archive = stack.enter_context(zipfile.ZipFile(path))
    names = archive.namelist()
    pickles = [name for name in names if name.split("/", 1)[-1] == "data.pkl"]
    if not pickles:
        kind, remedy = "a zip", "unpack it and give the weights file in it"
        if "model.weights.h5" in names:
            kind = "a Keras 3 archive"
            remedy = f"load it with keras.models.load_model(FILE); {RESAVE_KERAS}"
        elif names and all(name.endswith(".npy") for name in names):
            kind, remedy = "an .npz of NumPy", RESAVE_NUMPY
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
    found = safe_pickle.load(io.BytesIO(archive.read(pickles[0])), safe_pickle.outside)

    def read(storage: Storage) -> bytes:
        info = archive.getinfo(f"{root}data/{storage.key}")
        if info.file_size != storage.size:
            raise MalformedError(
                f"storage {shown(storage.key)} has {info.file_size} bytes, not {storage.size}"
            )
        return archive.read(info)

    return _content("PyTorch file (zip)", "torch", found, read)


def open_pickle(path: Path, stack: contextlib.ExitStack) -> FileContent:
    """Opens a legacy file of `torch.save`, or a pickle of a dict of NumPy arrays, likewise.

    Raises:
        RefusedNameError, MalformedError: as `safe_pickle.load`.
    """
    file = stack.enter_context(path.open("rb"))
    found = safe_pickle.load(file)
    if found.value == MAGIC_NUMBER:
        return _legacy_content(file, path)
    return _content("pickle of NumPy arrays", "numpy", found, None)


def _legacy_content(file: BinaryIO, path: Path) -> FileContent:
    """What follows the magic number: two more pickles, the value, the storages' names and bytes."""
    version, system = safe_pickle.load(file).value, safe_pickle.load(file).value
    if not isinstance(version, int) or version != 1001 or not isinstance(system, dict):
        raise MalformedError("unknown protocol")
    if system.get("little_endian") is not True:
        raise _big_endian(path)
    storages: dict[str, Storage] = {}

    def remembered(reference: Any) -> Any:
        found = safe_pickle.outside(reference)
        if isinstance(found, Storage):
            storages[found.key] = found
        return found

    found = safe_pickle.load(file, remembered)
    places = _storage_places(file, safe_pickle.load(file).value, storages)

    def read(storage: Storage) -> bytes:
        if storage.key not in places:
            raise MalformedError(f"storage {shown(storage.key)} is missing")
        file.seek(places[storage.key])
        return file.read(storage.size)

    return _content("PyTorch file (legacy)", "torch", found, read)


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
        if len(header) < 8 or not isinstance(key, str) or key not in storages:
            raise MalformedError("a storage is cut off, or of unknown type")
        storage = storages[key]
        if struct.unpack("<q", header)[0] != storage.length:
            raise MalformedError(f"storage {shown(key)} has another length than its tensors say")
        places[key] = end + 8
        end += 8 + storage.size
    if end > size:
        raise MalformedError(f"it is cut off: {end - size} bytes are missing")
    return places


def _content(
    format_name: str,
    family: Literal["numpy", "torch"],
    found: Pickle,
    read: Callable[[Storage], bytes] | None,
) -> FileContent:
    kept = None if read is None else functools.lru_cache(_KEPT_STORAGES)(read)

    def array(tensor: StoredTensor | Array) -> NDArray[Any]:
        if isinstance(tensor, Array):
            return tensor.array()
        assert kept is not None  # whoever resolves storages can read them
        return tensor.array(kept(tensor.storage))

    tensors: dict[str, Entry] = {}
    for name, tensor in _tensors(found.value):
        if name in tensors:
            raise MalformedError(f"two tensors are called {shown(name)}")
        assert tensor.shape is not None  # as `_tensors` saw to
        tensors[name] = Entry(name, tensor.shape, functools.partial(array, tensor))
    return FileContent(format_name, family, tensors, "OIHW", passed_over=tuple(found.passed_over))


def _tensors(value: Any) -> Iterator[tuple[str, StoredTensor | Array]]:
    """(name, tensor) of all that lie in nested dicts, lists and records, in their order."""
    todo: list[tuple[str | None, Any]] = [("", value)]
    around: set[int] = set()
    values, letters = MOST_VALUES, _MOST_LETTERS
    while todo:
        name, item = todo.pop()
        if name is None:  # all inside of it was seen
            around.remove(id(item))
        elif isinstance(item, StoredTensor) or (isinstance(item, Array) and item.shape is not None):
            yield name, item
        elif isinstance(item, dict | list | tuple | Record) and id(item) not in around:
            inside = _inside(item)
            values -= len(inside) + 1
            around.add(id(item))
            todo.append((None, item))
            for key, part in reversed(inside):
                if isinstance(part, dict | list | tuple | Record):  # a stored tensor is a tuple
                    whole = ".".join(filter(None, (name, key)))
                    letters -= len(whole)
                    todo.append((whole, part))
            if values < 0 or letters < 0:
                raise MalformedError("it holds more values or longer names than any checkpoint has")


def _inside(item: Any) -> list[tuple[str, Any]]:
    """(key, part) of a container; the key is empty for what has no name of its own."""
    if isinstance(item, Record):
        return [
            ("" if isinstance(part, dict) or len(item.parts) == 1 else str(place), part)
            for place, part in enumerate(item.parts)
        ]
    pairs = item.items() if isinstance(item, dict) else enumerate(item)
    return [("" if key in _OF_A_MODULE else str(key), part) for key, part in pairs]


def _big_endian(path: Path) -> WeightsError:
    return WeightsError(
        "was written by a big-endian machine", path=path, remedy="save it as .safetensors"
    )
