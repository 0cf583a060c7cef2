"""Reads the `.mat` files of MatConvNet (DagNN), as the VGGFace2 group published them.

`params` is a list of (name, value): kernels `LAYER_filter` [H, W, I, O], and of a batch
normalisation `LAYER_mult`, `LAYER_bias` and `LAYER_moments` [C, 2], which are the mean and the
standard deviation sqrt(variance + epsilon). `meta` has the mean colour of the input, whose order
tells the order of the first convolution's channels.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.model.geometry import VARIANTS, ChannelOrder
from mtl_face.weights.file_content import Entry, FileContent

_ENDINGS = {"_filter": "weight", "_mult": "weight", "_bias": "bias"}

_MOMENTS_ENDING = "_moments"

_EPSILON = VARIANTS["caffe"].batch_norm_epsilon


def read_matlab(path: Path) -> FileContent:
    """Reads a file of MATLAB's version 5 or 7.3.

    Raises:
        WeightsError: it holds no DagNN network. A damaged file raises whatever its reader meets.
    """
    with path.open("rb") as file:
        new = file.read(10) == b"MATLAB 7.3"
    params, mean = _read_7_3(path) if new else _read_5(path)
    if not params:
        raise WeightsError(
            "is a MATLAB file without the `params` of a MatConvNet network",
            path=path,
            remedy="give the DagNN file of the VGGFace2 release",
        )
    name = "MATLAB 7.3 file" if new else "MATLAB file"
    return FileContent(
        f"{name} of MatConvNet", "matconvnet", _tensors(params), "HWIO", _order(mean)
    )


def _tensors(params: dict[str, NDArray[Any]]) -> dict[str, Entry]:
    tensors: dict[str, Entry] = {}
    for name, value in params.items():
        name = name.replace("/", "_")
        if name.endswith(_MOMENTS_ENDING) and value.ndim == 2 and value.shape[1] == 2:
            layer = name.removesuffix(_MOMENTS_ENDING)
            # In float64: the square and the difference cost digits where the variance is small.
            variance = np.maximum(value[:, 1].astype(np.float64) ** 2 - _EPSILON, 0.0)
            tensors[f"{layer}.running_mean"] = Entry.of(name, value[:, 0])
            tensors[f"{layer}.running_var"] = Entry.of(name, variance)
            continue
        ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
        if ending is None:
            tensors[name] = Entry.of(name, value)
            continue
        # MATLAB has no arrays of one axis, and drops the last axes of length 1.
        if ending == "_filter":
            value = value.reshape(value.shape + (1,) * (4 - value.ndim))
        else:
            value = value.reshape(-1)
        layer = name.removesuffix(ending)
        tensors[f"{layer}.{_ENDINGS[ending]}"] = Entry.of(name, value)
    return tensors


def _order(mean: NDArray[Any] | None) -> ChannelOrder | None:
    """Faces are redder than blue."""
    if mean is None or mean.size == 0 or mean.size % 3:
        return None
    first, _, last = mean.reshape(-1, 3).mean(axis=0)
    if first == last:
        return None
    return "rgb" if first > last else "bgr"


def _read_5(path: Path) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    from scipy.io import loadmat

    content: Any = loadmat(path, variable_names=["net", "params", "meta"])
    if "net" in content:
        net = content["net"][0, 0]
        content = {name: net[name] for name in net.dtype.names or ()}
    params = content.get("params")
    if params is None or not {"name", "value"} <= set(params.dtype.names or ()):
        return {}, None
    values = {str(np.ravel(item["name"])[0]): np.asarray(item["value"]) for item in params.ravel()}
    mean: Any = content.get("meta")
    for field in ("normalization", "averageImage"):
        if mean is None or field not in (mean.dtype.names or ()):
            return values, None
        mean = mean[field].ravel()[0]
    return values, np.asarray(mean, np.float64)


def _read_7_3(path: Path) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    import h5py

    with h5py.File(path, "r") as file:
        root = file.get("net", file)
        if "params" not in root or not {"name", "value"} <= set(root["params"]):
            return {}, None
        names, values = (root["params"][field][()].ravel() for field in ("name", "value"))
        params = {
            # MATLAB's text is an array of codes, its arrays lie with the axes turned round.
            "".join(map(chr, file[name][()].ravel())): np.asarray(file[value][()]).T
            for name, value in zip(names, values, strict=True)
        }
        mean = root.get("meta/normalization/averageImage")
        return params, None if mean is None else np.asarray(mean[()], np.float64).T
