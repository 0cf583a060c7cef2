"""Reads the weights of a graph model of TensorFlow.js: a JSON file, and files of bytes beside it.

The JSON lists the tensors in the order in which their bytes follow each other, without gaps, over
all of the files that it names.
"""

import functools
import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.files import unreadable
from mtl_face.weights.file_content import Entry, FileContent, damaged, is_json_with

_MANIFEST = b'"weightsManifest"'

_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "u1", "bool": "?"}


def is_one(path: Path, start: bytes) -> bool:
    """Whether a file that begins so is of this format; it is read where it may be."""
    return is_json_with(_MANIFEST, path, start)


def open_model(path: Path) -> FileContent:
    """Opens a model; its tensors have the names of the graph.

    Raises:
        WeightsError: a file is absent or too short, or a tensor is quantised.
    """
    try:
        groups = json.loads(path.read_bytes())["weightsManifest"]
        tensors: dict[str, Entry] = {}
        for group in groups:
            files = [_beside(path, str(name)) for name in group["paths"]]
            data = b"".join(files)
            begin = 0
            for one in group["weights"]:
                entry, begin = _entry(path, one, data, begin)
                tensors[entry.name] = entry
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, error) from error
    return FileContent("TensorFlow.js graph model", "tfjs", tensors, "HWIO")


def _beside(path: Path, name: str) -> bytes:
    """A file of bytes, which must lie in the folder of the JSON."""
    if PurePosixPath(name).name != name or "\\" in name or name in ("", ".", ".."):
        raise WeightsError(
            f"names the file {name[:80]!r}, which does not lie beside it",
            path=path,
            remedy="put all of the model's files into one folder, and their names into its JSON",
        )
    file = path.with_name(name)
    try:
        return file.read_bytes()
    except OSError as error:
        problem, remedy = unreadable(error, "file of its weights")
        raise WeightsError(
            problem, path=file, remedy=f"{remedy}: it belongs to {path.name}"
        ) from error


def _entry(path: Path, one: dict[str, Any], data: bytes, begin: int) -> tuple[Entry, int]:
    """A tensor, and where the next one begins."""
    name, shape = str(one["name"]), tuple(map(int, one["shape"]))
    dtype = str(one["dtype"])
    quantised = one.get("quantization") or {}
    if quantised and ("scale" in quantised or quantised.get("dtype") != "float16"):
        raise WeightsError(
            f"{name[:80]} is quantised ({str(quantised)[:80]})",
            path=path,
            remedy="give weights of float32, or of float16 without a scale",
        )
    stored = np.dtype(_DTYPES[str(quantised.get("dtype", dtype))])
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} has the shape {shape}")
    end = begin + math.prod(shape) * stored.itemsize
    if end > len(data):
        raise WeightsError(
            f"is cut off: its files end within {name[:80]}",
            path=path,
            remedy="copy or download all of its files again",
        )
    return Entry(name, shape, functools.partial(_read, data[begin:end], stored, shape)), end


def _read(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(np.float32) if dtype.kind == "f" else array
