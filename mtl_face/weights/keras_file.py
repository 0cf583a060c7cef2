"""Reads the HDF5 files that Keras wrote of a VGGFace2 ResNet50, without Keras.

A group of the file is a layer; its attribute `weight_names` names the arrays, in the words
`LAYER/kernel:0`. A model inside a model is one group with the names of all of its layers, and a
whole model keeps its groups under `model_weights`. Layers are called as in Caffe, with `/` in the
releases and `_` where a later Keras forbids it.
"""

import contextlib
import functools
import math
import re
from pathlib import Path
from typing import Any

from mtl_face.errors import WeightsError
from mtl_face.weights.file_content import RESAVE_KERAS, Entry, FileContent
from mtl_face.weights.hdf5_file import Hdf5File

_IN_TORCH_WORDS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

_LARGEST_ATTRIBUTE = 2**16
"""Bytes: Keras splits longer lists, a damaged file may claim anything."""

_COUNTER = re.compile(r"_\d+$")

_CAFFE = re.compile(r"conv1_7x7_s2(_bn)?|conv\d+_\d+_(3x3|1x1_[a-z]+)(_bn)?")


def open_keras(path: Path, stack: contextlib.ExitStack) -> FileContent:
    """Opens an HDF5 file of Keras until `stack` closes; layers are in Caffe's words (`/` as `_`).

    Raises:
        WeightsError: it is not of Keras. A damaged file raises whatever h5py meets.
    """
    file = Hdf5File(path, stack)
    root = file.find("model_weights") or file.root
    if not _names(root, "layer_names"):
        new = "_layer_checkpoint_dependencies" in file.root or "layers" in file.root
        raise WeightsError(
            "holds weights alone, as Keras 3 saves them, without the layers' names"
            if new
            else "is an HDF5 file, but names no layers of Keras",
            path=path,
            remedy=f"build the model and model.load_weights(FILE); {RESAVE_KERAS}"
            if new
            else "give a file that Keras 2 wrote, or model.save('FILE.h5') of Keras 3",
        )
    return FileContent("Keras HDF5", "keras", _tensors(file, root), "HWIO", "bgr")


def _tensors(file: Hdf5File, root: Any) -> dict[str, Entry]:
    tensors: dict[str, Entry] = {}
    for layer_name in _names(root, "layer_names"):
        group = file.find(layer_name, root)
        if group is None:
            raise ValueError(f"layer {layer_name} is missing")
        weights = [(weight, *_split(weight)) for weight in _names(group, "weight_names")]
        group_layer = layer_name.replace("/", "_")
        # A group is one layer, or a model within the model.
        is_layer = len({owner for _, owner, _ in weights}) == 1 and _CAFFE.fullmatch(group_layer)
        for weight, owner, kind in weights:
            layer = group_layer if is_layer else owner
            first = _COUNTER.sub("", layer)
            if not _CAFFE.fullmatch(layer) and _CAFFE.fullmatch(first):
                layer = first  # a graph that was built twice
            name = f"{layer}.{_IN_TORCH_WORDS.get(kind, kind)}"
            if name in tensors:
                raise WeightsError(
                    f"holds two arrays called {name}",
                    path=file.path,
                    remedy="save the network that you want alone",
                )
            data = file.find(weight, group)
            if data is None:
                raise ValueError(f"array {weight} is missing")
            read = functools.partial(file.read, data)
            tensors[name] = Entry(f"{layer_name}: {weight}", tuple(data.shape), read)
    return tensors


def _split(weight: str) -> tuple[str, str]:
    """`conv1/7x7_s2/kernel_1:0` -> (`conv1_7x7_s2`, `kernel`)."""
    owner, _, kind = weight.partition(":")[0].rpartition("/")
    return owner.replace("/", "_"), _COUNTER.sub("", kind)


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names, which Keras splits over several attributes if it is long."""
    if attribute in group.attrs:
        found = _attribute(group, attribute)
    else:
        found, part = [], 0
        while f"{attribute}{part}" in group.attrs:
            found += _attribute(group, f"{attribute}{part}")
            part += 1
    return [name.decode() if isinstance(name, bytes) else str(name) for name in found]


def _attribute(group: Any, name: str) -> list[Any]:
    import h5py

    attribute = group.attrs.get_id(name)
    if 0 in attribute.shape:  # of a layer without weights, with any type
        return []
    if attribute.get_type().get_class() != h5py.h5t.STRING:
        # Damage can make pointers of text, which HDF5 follows out of its memory.
        raise ValueError(f"attribute {name} is no text")
    size = math.prod(attribute.shape) * attribute.dtype.itemsize
    if size > _LARGEST_ATTRIBUTE:
        raise ValueError(f"attribute {name} claims {size} bytes")
    return list(group.attrs[name])
