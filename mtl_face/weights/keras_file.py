"""Reads the HDF5 files that Keras wrote of a VGGFace2 ResNet50, without Keras.

A group of the file is a layer; it has an attribute `weight_names`, and below it lie the arrays
under those names, `LAYER/kernel:0`. A model inside a model is one group with all of its layers, and
a whole model keeps its groups under `model_weights`. Layers are called as in Caffe, with `/` in the
releases and `_` where a later Keras forbids it.

Attributes are not read: their text lies elsewhere in the file, behind a length that HDF5 makes room
for, damaged or not. The arrays' paths say the same.
"""

import contextlib
import functools
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

_COUNTER = re.compile(r"_\d+$")

_CAFFE = re.compile(r"conv1_7x7_s2(_bn)?|conv\d+_\d+_(3x3|1x1_[a-z]+)(_bn)?")


def open_keras(path: Path, stack: contextlib.ExitStack) -> FileContent:
    """Opens an HDF5 file of Keras until `stack` closes; layers are in Caffe's words (`/` as `_`).

    Raises:
        WeightsError: it is not of Keras. A damaged file raises whatever h5py meets.
    """
    file = Hdf5File(path, stack)
    root = file.find("model_weights") or file.root
    if not _has(root, "layer_names"):
        parts = ("layers", "_layer_checkpoint_dependencies")
        new = any(file.find(part) is not None for part in parts)
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
    import h5py

    layers: dict[str, list[tuple[str, str, str, Any]]] = {}
    for path, found in file.walk(root):
        if isinstance(found, h5py.Group) and _has(found, "weight_names"):
            layers[path] = []
        elif isinstance(found, h5py.Dataset):
            # A layer's group may lie within another one's, as `bn` in Caffe's names.
            owners = [path[: slash.start()] for slash in re.finditer("/", path)]
            layer_name = next((owner for owner in reversed(owners) if owner in layers), None)
            if layer_name is not None:
                weight = path.removeprefix(f"{layer_name}/")
                layers[layer_name].append((weight, *_split(weight), found))
    tensors: dict[str, Entry] = {}
    for layer_name, weights in layers.items():
        group_layer = layer_name.replace("/", "_")
        # A group is one layer, or a model within the model.
        is_layer = len({owner for _, owner, *_ in weights}) == 1 and _CAFFE.fullmatch(group_layer)
        for weight, owner, kind, data in weights:
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
            read = functools.partial(file.read, data)
            tensors[name] = Entry(f"{layer_name}: {weight}", tuple(data.shape), read)
    return tensors


def _split(weight: str) -> tuple[str, str]:
    """`conv1/7x7_s2/kernel_1:0` -> (`conv1_7x7_s2`, `kernel`)."""
    owner, _, kind = weight.partition(":")[0].rpartition("/")
    return owner.replace("/", "_"), _COUNTER.sub("", kind)


def _has(group: Any, attribute: str) -> bool:
    """Whether a group has a list of names, which Keras splits if it is long."""
    return attribute in group.attrs or f"{attribute}0" in group.attrs
