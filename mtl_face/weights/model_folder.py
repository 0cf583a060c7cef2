"""Reads folders as Hugging Face and timm publish them: `config.json`, and weights beside it.

The weights are `model.safetensors`, or several files that `model.safetensors.index.json` lists, or
`pytorch_model.bin`. Nothing of the settings is run; `FileContent.stated` has them.
"""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mtl_face.errors import WeightsError
from mtl_face.files import unreadable
from mtl_face.weights import safetensors_file, torch_file
from mtl_face.weights.file_content import (
    LARGEST_JSON,
    FileContent,
    damaged,
    first_bytes,
    is_json_with,
    shown,
)

CONFIG = "config.json"
"""The settings, by which a folder is known."""

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"

_STATED = (CONFIG, "preprocessor_config.json")
_WEIGHT_MAP = b'"weight_map"'


def is_index(path: Path, start: bytes) -> bool:
    """Whether a file that begins so lists the files of a network."""
    return is_json_with(_WEIGHT_MAP, path, start)


def has_weights(folder: Path) -> bool:
    """Whether weights lie in a folder where `open_folder` looks for them."""
    return any((folder / name).is_file() for name in (WHOLE, INDEX, PICKLED))


def network_of(config: Mapping[str, Any]) -> str:
    """What the settings of a folder call its network, as `ViTModel`; "" where they do not."""
    names = config.get("architectures") or config.get("architecture") or config.get("model_type")
    name = names[0] if isinstance(names, list) else names
    return shown(name) if isinstance(name, str) else ""


def open_folder(path: Path, stack: contextlib.ExitStack) -> FileContent:
    """Opens a folder until `stack` closes.

    Raises:
        WeightsError: it holds no weights, or a JSON in it is none. Damaged weights raise whatever
            their reader meets.
    """
    stated = {name: _read_json(path / name) for name in _STATED if (path / name).is_file()}
    if (path / WHOLE).is_file():
        content, metadata = safetensors_file.open_tensors(path / WHOLE, stack)
        stated["metadata"] = metadata
        content = dataclasses.replace(content, files=(path / WHOLE,))
    elif (path / INDEX).is_file():
        content = open_index(path / INDEX, stack)
    elif (path / PICKLED).is_file():
        first = first_bytes(path / PICKLED)
        is_zip = first.startswith(b"PK\x03\x04")
        opened = torch_file.open_zip if is_zip else torch_file.open_pickle
        content = dataclasses.replace(opened(path / PICKLED, stack), files=(path / PICKLED,))
    else:
        raise WeightsError(
            f"has a {CONFIG}, but neither {WHOLE}, {INDEX} nor {PICKLED}",
            path=path,
            remedy="download the weights into the folder too",
        )
    return dataclasses.replace(content, stated=stated)


def open_index(path: Path, stack: contextlib.ExitStack) -> FileContent:
    """Opens the files that an index lists, which lie beside it.

    Raises:
        WeightsError: one is absent, lies elsewhere, or lacks what the index says it has.
    """
    listed = _read_json(path).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise WeightsError("lists no files", path=path, remedy="download the whole folder again")
    tensors: dict[str, Any] = {}
    names = sorted(set(listed.values()))
    for name in names:
        file = path.with_name(PurePosixPath(name).name or "-")
        if PurePosixPath(name).name != name or "\\" in name or not file.is_file():
            raise WeightsError(
                f"lists the file {shown(name)}, which does not lie beside it",
                path=path,
                remedy="put all of the network's files into one folder",
            )
        content, _ = safetensors_file.open_tensors(file, stack)
        tensors |= content.tensors
    absent = sorted(listed.keys() - tensors.keys())
    if absent:
        raise WeightsError(
            f"lists {len(absent)} tensors that its files lack, as {shown(absent[0])}",
            path=path,
            remedy="download the whole folder again: its files are of different networks",
        )
    files = (path, *(path.with_name(name) for name in names))
    return FileContent(f"safetensors in {len(names)} files", "torch", tensors, "OIHW", files=files)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(LARGEST_JSON))
    except OSError as error:
        problem, remedy = unreadable(error, "file")
        raise WeightsError(problem, path=path, remedy=remedy) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(values, dict):
        raise WeightsError("is no JSON object", path=path, remedy="download the whole folder again")
    return values
