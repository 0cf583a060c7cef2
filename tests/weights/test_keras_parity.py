"""The Keras geometry against Keras itself: its layers, its files, its map."""

import numpy as np
import pytest
from weight_maps import SMALL_ARCHITECTURE, VGGFACE2_MEAN, assert_close, image_of, our_map

from mtl_face.weights import load_backbone
from mtl_face.weights.resnet_names import RESNET50, Architecture

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


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


@pytest.mark.parametrize("side", [36, 34, 33])
@pytest.mark.parametrize("top", [None, "flat", "nested"])
def test_small(tmp_path, top, side):
    backbone, model = build(SMALL_ARCHITECTURE, side, top=top)
    path = tmp_path / "model.h5"
    model.save(path)
    loaded = assert_same_map(backbone, path, SMALL_ARCHITECTURE, side)
    assert len(loaded.left_out) == (0 if top is None else 2)


def test_full_size(tmp_path):
    backbone, model = build(RESNET50, 224, top="flat")
    path = tmp_path / "model.h5"
    model.save(path)
    loaded = assert_same_map(backbone, path, RESNET50, 224)
    assert loaded.source["parameters"] == 23_508_032
