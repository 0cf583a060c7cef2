"""Keras's files that are damaged; and the geometry against Keras itself: layers, files, map."""

import h5py
import numpy as np
import pytest
import weight_files
from weight_faults import problem_of
from weight_maps import SMALL_ARCHITECTURE, VGGFACE2_MEAN, assert_close, image_of, our_map

from mtl_face.weights import load_backbone
from mtl_face.weights.families.resnet_in_file import RESNET50, Architecture


def test_other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.ones(3)
    assert problem_of(path) == "is an HDF5 file, but names no layers of Keras"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones(3)
    assert problem_of(path).startswith("holds weights alone, as Keras 3 saves them")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"gone"]
    assert "holds no ResNet backbone" in problem_of(path)


def test_attributes_are_not_read(path, network):
    """HDF5 makes room for whatever length of a text is stated, and follows damaged pointers."""
    weight_files.write_keras(path, network)
    expected = load_backbone(path, architecture=SMALL_ARCHITECTURE)
    pointers = np.empty(1, object)
    pointers[0] = np.arange(3)
    with h5py.File(path, "r+") as file:
        attributes = file["conv2_1_3x3"].attrs
        attributes.create("weight_names", pointers, dtype=h5py.vlen_dtype(np.int32))
    found = load_backbone(path, architecture=SMALL_ARCHITECTURE)
    assert str(found.params) == str(expected.params)


def test_hdf5_with_pointers_in_place_of_numbers(path, network):
    """Damage makes them; HDF5 follows them until the process dies, so they are not read."""
    weight_files.write_keras(path, network)
    with h5py.File(path, "r+") as file:
        name = next(name for name in found_datasets(file) if "3x3/kernel" in name)
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, shape, h5py.vlen_dtype(np.int32))
    assert "cannot be read: it holds no numbers" in problem_of(path)


def found_datasets(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return names


def keras_itself(test):
    """Marks a test that builds a network in Keras."""
    return pytest.mark.slow(pytest.mark.filterwarnings("ignore::DeprecationWarning")(test))


def build(size: Architecture, side: int, *, top=None):
    """A VGGFace2 ResNet in Keras, in the words of its port, with `_` where Keras 3 refuses `/`."""
    keras = pytest.importorskip("keras")
    layers = keras.layers

    def convolution(x, name, filters, kernel, stride, padding="valid", relu=True):
        x = layers.Conv2D(
            filters, kernel, strides=stride, padding=padding, use_bias=False, name=name
        )(x)
        x = layers.BatchNormalization(name=name + "_bn")(x)
        return layers.Activation("relu")(x) if relu else x

    image = keras.Input((side, side, 3))
    x = convolution(image, "conv1_7x7_s2", size.width, 7, 2, "same")
    x = layers.MaxPooling2D(3, 2)(x)
    for stage, blocks in enumerate(size.stage_sizes):
        inner = size.width * 2**stage
        for block in range(blocks):
            name = f"conv{stage + 2}_{block + 1}"
            stride = 2 if block == 0 and stage > 0 else 1
            y = convolution(x, f"{name}_1x1_reduce", inner, 1, stride)
            y = convolution(y, f"{name}_3x3", inner, 3, 1, "same")
            out = inner * size.expansion
            y = convolution(y, f"{name}_1x1_increase", out, 1, 1, relu=False)
            if block == 0:
                x = convolution(x, f"{name}_1x1_proj", out, 1, stride, relu=False)
            x = layers.Activation("relu")(layers.Add()([y, x]))
    backbone = keras.Model(image, x, name="vggface_resnet50")
    random = np.random.default_rng(11)
    for layer in backbone.layers:
        if layer.name.endswith("_bn"):
            channels = layer.gamma.shape[0]
            scale = 60.0 if layer.name.startswith("conv1") else 1.0
            layer.set_weights(
                [
                    random.uniform(0.3, 0.9, channels),
                    random.normal(0.05, 0.1, channels),
                    random.normal(0, 0.2, channels) * scale,
                    random.uniform(0.01, 1.5, channels) * scale**2,
                ]
            )
        elif layer.name.startswith("conv"):
            shape = layer.kernel.shape
            layer.set_weights([random.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape)])
    if top is None:
        return backbone, backbone
    y = layers.GlobalAveragePooling2D()(backbone(image) if top == "nested" else x)
    y = layers.Dense(5, name="classifier")(y)
    return backbone, keras.Model(image, y)


def assert_same_map(backbone, path, size, side):
    image = image_of(side)
    x = image[None, ..., ::-1].astype(np.float32) - np.float32(VGGFACE2_MEAN[::-1])
    expected = np.asarray(backbone(x, training=False))[0]
    loaded = load_backbone(path, architecture=size)
    assert loaded.variant.name == "keras"
    assert_close(our_map(loaded, image), expected)
    return loaded


@keras_itself
@pytest.mark.parametrize("side", [36, 34, 33])
@pytest.mark.parametrize("top", [None, "flat", "nested"])
def test_small(tmp_path, top, side):
    backbone, model = build(SMALL_ARCHITECTURE, side, top=top)
    path = tmp_path / "model.h5"
    model.save(path)
    loaded = assert_same_map(backbone, path, SMALL_ARCHITECTURE, side)
    assert len(loaded.left_out) == (0 if top is None else 2)


@keras_itself
def test_full_size(tmp_path):
    backbone, model = build(RESNET50, 224, top="flat")
    path = tmp_path / "model.h5"
    model.save(path)
    loaded = assert_same_map(backbone, path, RESNET50, 224)
    assert loaded.source["parameters"] == 23_508_032
