"""Writes a reference network as each of the published formats, by the format's own library."""

import collections
import pickle

import h5py
import numpy as np
import reference_resnet
import safetensors.torch
import scipy.io
import torch

KERAS_KINDS = {
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def write_keras(path, network, *, top=None, nested=None, whole=False, suffix=":0", counter=""):
    """As Keras 2 writes weights: groups by layer, attributes that name their arrays.

    Args:
        top: {layer: {kind: array}} after the backbone.
        nested: name of the model that holds the layers, as if it were a layer itself.
        whole: below `model_weights`, as model.save does.
        suffix: `:0`, which some versions leave out.
        counter: `_1` after the layer, as if the graph had been built twice.
    """
    layers = {}
    for layer, kind, values in reference_resnet.caffe_tensors(network):
        is_norm = layer.endswith("/bn")
        if kind == "weight":
            kind = "gamma" if is_norm else "kernel"
        elif kind == "bias":
            kind = "beta"
        kind = KERAS_KINDS.get(kind, kind)
        if values.ndim == 4:
            values = values.transpose(2, 3, 1, 0)
        layers.setdefault(layer, {})[kind] = values
    layers = {"input_1": {}, **layers, "avg_pool": {}, **(top or {})}
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        root.attrs["keras_version"] = b"2.2.4"
        root.attrs["backend"] = b"tensorflow"

        def names(weights):
            return [
                (f"{layer}{counter}/{kind}{suffix}", values)
                for layer, kinds in weights.items()
                for kind, values in kinds.items()
            ]

        groups = {nested: layers} if nested else {layer: {layer: layers[layer]} for layer in layers}
        root.attrs["layer_names"] = [name.encode() for name in groups]
        for name, weights in groups.items():
            group = root.create_group(name)
            pairs = names(weights)
            text = [weight.encode() for weight, _ in pairs]
            if nested:  # an attribute holds 64 KB: Keras splits longer lists
                half = len(text) // 2
                group.attrs["weight_names0"], group.attrs["weight_names1"] = (
                    text[:half],
                    text[half:],
                )
            else:
                group.attrs["weight_names"] = text
            for weight, values in pairs:
                group.create_dataset(weight, data=values)


def vggface2_top(features, classes=8631):
    random = np.random.default_rng(1)
    kernel = random.normal(size=(features, classes)).astype(np.float32)
    return {"classifier": {"kernel": kernel, "bias": np.zeros(classes, np.float32)}}


def low_dimensional_top(features, classes=8631):
    """Of the Keras file with 512 numbers a face."""
    random = np.random.default_rng(1)
    return {
        "dim_proj": {
            "kernel": random.normal(size=(features, 512)).astype(np.float32),
            "bias": np.zeros(512, np.float32),
        },
        "classifier_low_dim": {"kernel": random.normal(size=(512, classes)).astype(np.float32)},
    }


def numpy_dict(network):
    """Of the torch port: torchvision's names, arrays, no counters."""
    return {
        name: tensor.numpy()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def write_numpy_pickle(path, network, protocol=2):
    path.write_bytes(pickle.dumps(numpy_dict(network), protocol=protocol))


def release_dict(network, classes=None):
    """Of the group's PyTorch release: Caffe's names with underscores."""
    tensors = {
        f"{layer.replace('/', '_')}.{kind}": torch.from_numpy(values.copy())
        for layer, kind, values in reference_resnet.caffe_tensors(network)
    }
    if classes is not None:
        features = max(tensor.shape[0] for tensor in tensors.values())
        tensors["classifier.weight"] = torch.randn(classes, features, 1, 1)
        tensors["classifier.bias"] = torch.zeros(classes)
    return tensors


def write_torch(path, tensors, *, legacy=False):
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)


def write_safetensors(path, tensors, metadata=None):
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, path, metadata or {"format": "pt"})


def matlab_params(network):
    """(name, value) of a DagNN network; the moments are mean and sqrt(variance + epsilon)."""
    layers = {}
    for layer, kind, values in reference_resnet.caffe_tensors(network):
        layers.setdefault(layer.replace("/", "_"), {})[kind] = values
    params = []
    for layer, kinds in layers.items():
        if layer.endswith("_bn"):
            deviation = np.sqrt(kinds["running_var"].astype(np.float64) + 1e-5)
            moments = np.stack([kinds["running_mean"], deviation], axis=1).astype(np.float32)
            params += [
                (f"{layer}_mult", kinds["weight"][:, None]),
                (f"{layer}_bias", kinds["bias"][:, None]),
                (f"{layer}_moments", moments),
            ]
        else:
            params.append((f"{layer}_filter", kinds["weight"].transpose(2, 3, 1, 0)))
    params.append(("classifier_filter", np.zeros((1, 1, 8, 11), np.float32)))
    params.append(("classifier_bias", np.zeros((11, 1), np.float32)))
    return params


def write_matlab(path, network, *, mean=(131.0912, 103.8827, 91.4953)):
    params = matlab_params(network)
    struct = np.zeros(
        (1, len(params)), [("name", object), ("value", object), ("trainMethod", object)]
    )
    for index, (name, value) in enumerate(params):
        struct[0, index] = (name, value, "gradient")
    meta = {"classes": {"name": np.array(["a", "b"], object)}}
    if mean is not None:
        meta["normalization"] = {"averageImage": np.reshape(mean, (1, 1, 3)), "cropSize": 1.0}
    scipy.io.savemat(path, {"params": struct, "meta": meta, "vars": 1.0}, do_compression=True)


def write_matlab_7_3(path, network, *, mean=(131.0912, 103.8827, 91.4953)):
    """As MATLAB does: references to arrays whose axes are turned round, a text before the HDF5."""
    params = matlab_params(network)
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        names, values = [], []
        for index, (name, value) in enumerate(params):
            code = np.array([[ord(letter)] for letter in name], np.uint16)
            names.append(refs.create_dataset(f"n{index}", data=code).ref)
            values.append(refs.create_dataset(f"v{index}", data=value.T).ref)
        group = file.create_group("params")
        for field, items in (("name", names), ("value", values)):
            data = group.create_dataset(field, (len(items), 1), h5py.ref_dtype)
            data[:, 0] = items
        image = np.reshape(mean, (1, 1, 3)).T
        file.create_dataset("meta/normalization/averageImage", data=image)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))


def meta_state(blocks=(3, 4, 6, 3), *, basic=False, width=64):
    """Torchvision's names and shapes of full-size networks, in a few kilobytes: all zeros."""
    state = collections.OrderedDict()

    def add(name, *shape):
        state[name] = torch.zeros(1).expand(shape)

    def norm(name, channels):
        for kind in ("weight", "bias", "running_mean", "running_var"):
            add(f"{name}.{kind}", channels)

    add("conv1.weight", 64, 3, 7, 7)
    norm("bn1", 64)
    channels = 64
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        out = 64 * 2**stage * (1 if basic else 4)
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            shapes = (
                [(inner, channels, 3, 3), (out, inner, 3, 3)]
                if basic
                else [(inner, channels, 1, 1), (inner, inner, 3, 3), (out, inner, 1, 1)]
            )
            for index, shape in enumerate(shapes, start=1):
                add(f"{name}.conv{index}.weight", *shape)
                norm(f"{name}.bn{index}", shape[0])
            if block == 0 and channels != out:
                add(f"{name}.downsample.0.weight", out, channels, 1, 1)
                norm(f"{name}.downsample.1", out)
            channels = out
    add("fc.weight", 1000, channels)
    add("fc.bias", 1000)
    return state
