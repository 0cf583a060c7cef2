"""Reads the `.mat` files of MatConvNet (DagNN), as the VGGFace2 group published them.

`params` is a list of (name, value): kernels `LAYER_filter` [H, W, I, O], and of a batch
normalisation `LAYER_mult`, `LAYER_bias` and `LAYER_moments` [C, 2], which are the mean and the
standard deviation sqrt(variance + epsilon). `meta` has the mean colour of the input, whose order
tells the order of the first convolution's channels.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.model.geometry import VARIANTS, ChannelOrder
from mtl_face.weights.file_content import Entry, FileContent
from mtl_face.weights.hdf5_file import Hdf5File
from mtl_face.weights.mat5_file import Mat5File

_ENDINGS = {"_filter": "weight", "_mult": "weight", "_bias": "bias"}

_MOMENTS_ENDING = "_moments"

_EPSILON = VARIANTS["caffe"].batch_norm_epsilon


def open_matlab(path: Path, stack: contextlib.ExitStack) -> FileContent:
    """Opens a file of MATLAB's version 5 or 7.3 until `stack` closes.

    Raises:
        WeightsError: it holds no DagNN network. A damaged file raises whatever its reader meets.
    """
    with path.open("rb") as file:
        new = file.read(10) == b"MATLAB 7.3"
    params, mean = _read_7_3(Hdf5File(path, stack)) if new else _read_5(Mat5File(path))
    if not params:
        raise WeightsError(
            "is a MATLAB file without the `params` of a MatConvNet network",
            path=path,
            remedy="give the DagNN file of the VGGFace2 release",
        )
    name = "MATLAB 7.3 file" if new else "MATLAB file"
    tensors: dict[str, Entry] = {}
    for entry in params:
        tensors |= _tensors(entry)
    return FileContent(f"{name} of MatConvNet", "matconvnet", tensors, "HWIO", _order(mean))


def _tensors(entry: Entry) -> dict[str, Entry]:
    """The tensors that an array of MatConvNet stands for, by name in PyTorch's words."""
    name, shape = entry.name.replace("/", "_"), entry.shape

    def of(shape: tuple[int, ...], change: Callable[[NDArray[Any]], NDArray[Any]]) -> Entry:
        return Entry(entry.name, shape, lambda: change(entry.read()))

    if name.endswith(_MOMENTS_ENDING) and len(shape) == 2 and shape[1] == 2:
        layer = name.removesuffix(_MOMENTS_ENDING)
        return {
            f"{layer}.running_mean": of(shape[:1], lambda moments: moments[:, 0]),
            f"{layer}.running_var": of(shape[:1], _variance),
        }
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
    if ending is None:
        return {name: entry}
    # MATLAB has no arrays of one axis, and drops the last axes of length 1.
    full = shape + (1,) * (4 - len(shape)) if ending == "_filter" else (int(np.prod(shape)),)
    layer = name.removesuffix(ending)
    return {f"{layer}.{_ENDINGS[ending]}": of(full, lambda value: value.reshape(full))}


def _variance(moments: NDArray[Any]) -> NDArray[np.float64]:
    # In float64: the square and the difference cost digits where the variance is small.
    return np.maximum(moments[:, 1].astype(np.float64) ** 2 - _EPSILON, 0.0)


def _order(mean: NDArray[Any] | None) -> ChannelOrder | None:
    """Faces are redder than blue."""
    if mean is None or mean.size == 0 or mean.size % 3:
        return None
    first, _, last = mean.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    if first == last:
        return None
    return "rgb" if first > last else "bgr"


def _read_5(file: Mat5File) -> tuple[list[Entry], NDArray[Any] | None]:
    def first(value: Any) -> dict[str, Any]:
        """The first of some structures; an empty one for anything else."""
        return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}

    content = file.variables(("net", "params", "meta"))
    content = first(content.get("net")) or content
    params = content.get("params")
    found = [
        Entry.of(item["name"], item["value"])
        for item in (params if isinstance(params, list) else ())
        if isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and isinstance(item.get("value"), np.ndarray)
    ]
    mean = first(first(content.get("meta")).get("normalization")).get("averageImage")
    return found, mean if isinstance(mean, np.ndarray) else None


def _read_7_3(file: Hdf5File) -> tuple[list[Entry], NDArray[Any] | None]:
    root = file.find("net") or file.root
    names, values = (file.find(f"params/{field}", root) for field in ("name", "value"))
    if names is None or values is None:
        return [], None
    pairs = zip(file.read(names).ravel(), file.read(values).ravel(), strict=True)
    found = []
    for name, value in pairs:
        # MATLAB's text is an array of codes, its arrays lie with the axes turned round.
        codes, data = file.read(file.at(name)), file.at(value)

        def read(data: Any = data) -> NDArray[Any]:
            return file.read(data).T

        found.append(Entry("".join(map(chr, codes.ravel())), data.shape[::-1], read))
    mean = file.find("meta/normalization/averageImage", root)
    return found, None if mean is None else file.read(mean).T
