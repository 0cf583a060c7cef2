"""MobileNet-v1 read from graphs of TensorFlow.js and from exports."""

import json

import jax
import numpy as np
import pytest
import tfjs_graph

from mtl_face import config as config_lib
from mtl_face import export
from mtl_face.errors import WeightsError
from mtl_face.model.network import MtlFace, network_inputs
from mtl_face.weights import backbone, card, load_backbone


@pytest.fixture(scope="module")
def tensors():
    return tfjs_graph.random_tensors()


def test_layers_are_read_as_the_graph_means_them(tensors, tmp_path):
    loaded = load_backbone(tfjs_graph.write(tmp_path, tensors))
    assert loaded.batch_stats == {}
    assert len(loaded.params) == 27
    conv1, dw2, pw2 = (loaded.params[name] for name in ("conv1", "dw2", "pw2"))
    # The graph takes B, G, R, the network R, G, B.
    given = tensors["conv1/convolution/merged_input"]
    np.testing.assert_array_equal(conv1["kernel"], given[:, :, ::-1])
    np.testing.assert_array_equal(conv1["bias"], tensors["conv1_bn/batchnorm_1/sub"])
    given, scale = tensors["conv_dw_2/depthwise_kernel"], tensors["conv_dw_2_bn/batchnorm_1/mul"]
    assert dw2["kernel"].shape == (3, 3, 1, 8)
    np.testing.assert_array_equal(dw2["kernel"][:, :, 0], given[..., 0] * scale)
    given = tensors["conv_pw_2/convolution/merged_input"]
    np.testing.assert_array_equal(pw2["kernel"], given)
    assert [name for name, _ in loaded.left_out] == ["age_pred/kernel"]


def test_what_is_said_of_it(tensors, tmp_path):
    path = tfjs_graph.write(tmp_path, tensors)
    loaded = load_backbone(path)
    assert loaded.source["trained_on"] == ["VGGFace2"]
    assert loaded.source["withdrawn"] == ["VGGFace2"]
    assert loaded.variant.input_mean == (123.68, 116.78, 103.94)
    text = "\n".join(backbone.describe(loaded, str(path)))
    assert "TensorFlow.js graph model: MobileNet-v1, layers up to pw13, width 4" in text
    assert "VGGFace2 has been withdrawn" in text
    assert "size of its classifier" not in text
    settings = backbone.needed_settings(loaded)
    assert settings["backbone.kind"] == "mobilenet"
    assert settings["backbone.end"] == "pw13"


def test_bytes_of_other_tensors_are_other_weights(tensors, tmp_path):
    one = load_backbone(tfjs_graph.write(tmp_path, tensors)).source
    same = load_backbone(tfjs_graph.write(tmp_path, tensors)).source
    assert one == same
    changed = tensors | {"conv1_bn/batchnorm_1/sub": tensors["conv1_bn/batchnorm_1/sub"] + 1}
    other = load_backbone(tfjs_graph.write(tmp_path, changed)).source
    assert one["sha256"] == other["sha256"]  # of the JSON
    assert one["sha256_of_tensors"] != other["sha256_of_tensors"]


@pytest.mark.parametrize("end", ["conv1", "dw3", "pw11"])
def test_up_to_a_layer(tensors, tmp_path, end):
    loaded = load_backbone(tfjs_graph.write(tmp_path, tensors), end=end)
    assert list(loaded.params) == sorted(loaded.params, key=list(loaded.params).index)
    assert end in loaded.params
    assert "pw13" not in loaded.params
    assert ("conv_pw_13_bn/batchnorm_1/sub", (128,)) in loaded.left_out


def test_half_precision_without_a_scale(tensors, tmp_path):
    loaded = load_backbone(tfjs_graph.write(tmp_path, tensors, dtype="float16"))
    kernel = loaded.params["pw2"]["kernel"]
    assert kernel.dtype == np.float32
    given = tensors["conv_pw_2/convolution/merged_input"]
    np.testing.assert_array_equal(kernel, given.astype(np.float16))


def edited(path, edit):
    values = json.loads(path.read_text())
    edit(values["weightsManifest"][0])
    path.write_text(json.dumps(values))
    return path


def quantise(manifest):
    manifest["weights"][3]["quantization"] = {"dtype": "uint8", "scale": 0.1, "min": -1}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (quantise, "is quantised"),
        (lambda m: m["paths"].append("../secret.bin"), "does not lie beside it"),
        (lambda m: m["paths"].append("/etc/passwd"), "does not lie beside it"),
        (lambda m: m["paths"].append("three.bin"), "does not exist"),
        (lambda m: m["paths"].pop(), "is cut off: its files end within"),
        (lambda m: m["weights"][0].update(shape=[-1]), "is damaged"),
        (lambda m: m["weights"][0].update(shape=[10**12]), "is cut off"),
        (lambda m: m["weights"][0].update(dtype="string"), "is damaged"),
        (lambda m: m["weights"].pop(2), "has no layer conv1"),
        (lambda m: m.pop("weights"), "is damaged"),
        (lambda m: m["weights"][1].update(shape=[3, 3, 4, 3]), "another network"),
    ],
)
def test_faulty_files(tensors, tmp_path, edit, message):
    path = edited(tfjs_graph.write(tmp_path, tensors), edit)
    with pytest.raises(WeightsError, match=message) as raised:
        load_backbone(path)
    assert raised.value.remedy
    assert raised.value.path


def test_a_value_that_is_not_finite(tensors, tmp_path):
    bad = tensors | {"conv_pw_2_bn/batchnorm_1/sub": np.full(16, np.nan, np.float32)}
    with pytest.raises(WeightsError, match="not finite: params/pw2/bias"):
        load_backbone(tfjs_graph.write(tmp_path, bad))
    assert load_backbone(tfjs_graph.write(tmp_path, bad), end="dw2").params


def test_a_graph_that_ends_before_the_wanted_layer(tmp_path):
    path = tfjs_graph.write(tmp_path, tfjs_graph.random_tensors(pairs=5))
    assert load_backbone(path, end="pw5").architecture.end == "pw5"
    with pytest.raises(WeightsError, match="has no layer pw6 of a MobileNet-v1: it ends with pw5"):
        load_backbone(path, end="pw6")


def test_another_graph_is_no_backbone(tmp_path):
    path = tfjs_graph.write(tmp_path, {"dense/kernel": np.zeros((2, 3), np.float32)})
    with pytest.raises(WeightsError):
        load_backbone(path)


def make_config(**changes):
    small = {
        "kind": "mobilenet",
        "width": tfjs_graph.WIDTH,
        "end": "pw3",
        "convolution": "xla",
        **changes,
    }
    model = {
        "input_size": 32,
        "input_mean": (123.68, 116.78, 103.94),
        "backbone": small,
        "embed_dim": 8,
        "num_heads": 2,
        "encoder_layers": 1,
        "decoder_modules": 1,
        "head_layers": 2,
        "head_width": 8,
    }
    return config_lib.validate({"data": {"root": "/data", "image_size": 32}, "model": model})


def test_settings_that_do_not_fit_are_named(tensors, tmp_path):
    path = tfjs_graph.write(tmp_path, tensors)
    loaded = load_backbone(path, end="pw3")
    backbone.check_settings(loaded, make_config().model, str(path))
    with pytest.raises(WeightsError, match=r"model.backbone.kind is resnet, the weights need mob"):
        backbone.check_settings(loaded, make_config(kind="resnet").model, str(path))
    with pytest.raises(WeightsError, match=r"model.backbone.width is 8, the weights need 4"):
        backbone.check_settings(loaded, make_config(width=8).model, str(path))


def test_an_export_is_a_file_of_weights(tensors, tmp_path):
    config = make_config()
    network = MtlFace(config.model)
    variables = jax.device_get(
        network.init(jax.random.key(0), network_inputs(config.model), train=False)
    )
    loaded = load_backbone(tfjs_graph.write(tmp_path / "graph", tensors), end="pw3")
    variables["params"]["backbone"] = loaded.params
    made = card.make(
        config, temperatures={"va": 1.0, "au": 1.0, "expr": 1.0}, crop={"size": 32}, step=3
    )
    export.save(tmp_path / "export", {"batch_stats": {}, **variables}, made, form="safetensors")
    again = load_backbone(tmp_path / "export")
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)
    assert again.architecture.end == "pw3"
    assert again.variant.input_mean == (123.68, 116.78, 103.94)
    backbone.check_settings(again, config.model, "export")
