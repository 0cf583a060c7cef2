"""Every published format gives the map of the network that wrote it, small and in full size."""

import collections
import functools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference_resnet
import torch
import weight_files
from reference_resnet import RESNET50, SMALL
from weight_faults import problem_of
from weight_maps import SMALL_ARCHITECTURE, VGGFACE2_MEAN, assert_close, image_of, our_map

from mtl_face.weights import load_backbone

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

FEATURES = 16


def small(geometry, **options):
    return reference_resnet.make(geometry, SMALL, **options)


def assert_same_map(loaded, network, *, order, mean=VGGFACE2_MEAN, std=(1, 1, 1), side=36):
    image = image_of(side)
    expected = reference_resnet.feature_map(network, image, order=order, mean_rgb=mean, std_rgb=std)
    assert_close(our_map(loaded, image), expected)


def check(path, network, *, variant, order, **options):
    loaded = load_backbone(path, architecture=SMALL_ARCHITECTURE)
    assert loaded.variant.name == variant
    assert loaded.variant.channel_order == order
    assert loaded.source["convolutions"] == loaded.source["batch_norms"] == 12
    assert loaded.source["file"] == path.name
    assert loaded.source["variant"] == variant
    assert json.loads(json.dumps(loaded.source)) == loaded.source
    parameters = sum(
        tensor.numel() for name, tensor in network.named_parameters() if not name.startswith("fc")
    )
    assert loaded.source["parameters"] == parameters
    assert_same_map(loaded, network, order=order, **options)
    return loaded


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"top": weight_files.vggface2_top(FEATURES)},
        {"top": weight_files.low_dimensional_top(FEATURES)},
        {"top": weight_files.vggface2_top(FEATURES, 7)},
        {"nested": "vggface_resnet50"},
        {"nested": "vggface_resnet50", "whole": True},
        {"whole": True, "suffix": ""},
        {"counter": "_1"},
    ],
    ids=[
        "no_top",
        "top",
        "512-d top",
        "fine-tuned",
        "nested",
        "nested whole",
        "no suffix",
        "counter",
    ],
)
def test_keras(tmp_path, form):
    network = small("keras")
    path = tmp_path / "weights.dat"
    weight_files.write_keras(path, network, **form)
    loaded = check(path, network, variant="keras", order="bgr")
    top = form.get("top", {})
    expected = [
        (f"{layer}: {layer}/{kind}:0", values.shape)
        for layer, kinds in top.items()
        for kind, values in kinds.items()
    ]
    assert sorted(loaded.left_out) == sorted(expected)
    assert loaded.source["format"] == "Keras HDF5"
    if any(shape[-1] == 8631 for _, shape in loaded.left_out):
        assert loaded.source["trained_on"] == ["VGGFace2"]
        assert loaded.notes == []
    else:  # names alone do not say what the network saw last
        assert "trained_on" not in loaded.source
        assert "has no classifier of 8,631 classes" in loaded.notes[0]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickle_of_the_torch_port(tmp_path, protocol):
    network = small("caffe", classes=8631)
    path = tmp_path / "weights.h5"  # the name says nothing
    weight_files.write_numpy_pickle(path, network, protocol)
    loaded = check(path, network, variant="caffe", order="bgr")
    assert loaded.left_out == [("fc.weight", (8631, FEATURES)), ("fc.bias", (8631,))]
    assert loaded.source["format"] == "pickle of NumPy arrays"
    assert loaded.source["trained_on"] == ["VGGFace2"]
    assert "not whether the network is a port of the release" in loaded.notes[0]


def test_pickle_as_python_2_wrote_it(tmp_path):
    """Protocol 2 of Python 2 has strings where Python 3 has bytes."""
    network = small("caffe")
    path = tmp_path / "weights.pkl"
    path.write_bytes(python_2_pickle(weight_files.numpy_dict(network)))
    check(path, network, variant="caffe", order="bgr")


def python_2_pickle(arrays):
    """The opcodes that Python 2.7 writes: BINSTRING for text and for the arrays' bytes."""

    def text(value):
        return b"T" + len(value).to_bytes(4, "little") + value

    out = b"\x80\x02}("
    for name, array in arrays.items():
        out += text(name.encode())
        out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
        out += b"\x87R(K\x01("
        out += b"".join(b"J" + side.to_bytes(4, "little") for side in array.shape) + b"t"
        out += b"cnumpy\ndtype\n" + text(b"f4") + b"K\x00K\x01\x87R"
        out += b"(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        out += b"\x89" + text(np.ascontiguousarray(array).tobytes()) + b"tb"
    return out + b"u."


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("classes", [None, 20])
def test_release_for_pytorch(tmp_path, legacy, classes):
    network = small("caffe")
    path = tmp_path / "resnet50_ft_dag.pth"
    weight_files.write_torch(path, weight_files.release_dict(network, classes), legacy=legacy)
    loaded = check(path, network, variant="caffe", order="rgb")
    assert [name for name, _ in loaded.left_out] == (
        [] if classes is None else ["classifier.weight", "classifier.bias"]
    )
    assert "init_channels=bgr" in loaded.notes[-1]
    turned = load_backbone(path, architecture=SMALL_ARCHITECTURE, channel_order="bgr")
    assert turned.notes == loaded.notes[:-1]
    assert_same_map(turned, network, order="bgr")


@pytest.mark.parametrize("write", [weight_files.write_matlab, weight_files.write_matlab_7_3])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_matlab(tmp_path, write, order):
    network = small("caffe")
    path = tmp_path / "weights.bin"
    mean = VGGFACE2_MEAN if order == "rgb" else VGGFACE2_MEAN[::-1]
    write(path, network, mean=mean)
    loaded = check(path, network, variant="caffe", order=order)
    assert [name for name, _ in loaded.left_out] == ["classifier_filter", "classifier_bias"]
    assert len(loaded.notes) == 1  # of what it was trained on: the classifier has 11 classes


def test_matlab_without_a_mean(tmp_path):
    network = small("caffe")
    path = tmp_path / "weights.mat"
    weight_files.write_matlab(path, network, mean=None)
    loaded = check(path, network, variant="caffe", order="rgb")
    assert "channel order" in loaded.notes[-1]


def test_matlab_with_the_network_in_one_variable(tmp_path):
    import scipy.io

    network = small("caffe")
    weight_files.write_matlab(tmp_path / "flat.mat", network)
    flat = scipy.io.loadmat(tmp_path / "flat.mat")
    path = tmp_path / "weights.mat"
    scipy.io.savemat(path, {"net": {"params": flat["params"], "meta": flat["meta"]}})
    check(path, network, variant="caffe", order="rgb")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_torchvision(tmp_path, form):
    network = small("torchvision", classes=1000)
    path = tmp_path / "weights"
    tensors = reference_resnet.state_dict(network)
    if form == "safetensors":
        weight_files.write_safetensors(path, tensors)
    else:
        weight_files.write_torch(path, tensors, legacy=form == "legacy")
    loaded = check(
        path, network, variant="torchvision", order="rgb", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    assert sorted(name for name, _ in loaded.left_out) == ["fc.bias", "fc.weight"]
    assert loaded.source["trained_on"] == ["ImageNet"]
    assert "timm's resnetblur50 and resnetaa50" in loaded.notes[0]


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.encoder."])
def test_prefix_and_nesting(tmp_path, prefix):
    """A training checkpoint: the state dict lies beside an optimizer and numbers."""
    network = small("torchvision", classes=7)
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    content = {"epoch": 3, "lr": [0.1, 0.2], "best": None, "state_dict": state, "name": "x"}
    momenta = {0: {"momentum_buffer": torch.ones(4, 3, 7, 7)}, 1: {"momentum_buffer": None}}
    content["optimizer"] = {"state": momenta, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
    content["ema"] = torch.nn.Parameter(torch.ones(3))
    path = tmp_path / "checkpoint.pt"
    weight_files.write_torch(path, content)
    loaded = load_backbone(path, architecture=SMALL_ARCHITECTURE)
    assert_same_map(loaded, network, order="rgb", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert {name for name, _ in loaded.left_out} >= {"ema", f"state_dict.{prefix}fc.weight"}
    assert "does not say whether" in loaded.notes[0]
    assert "trained_on" not in loaded.source


def test_the_config_decides_what_the_file_leaves_open(tmp_path):
    network = small("caffe")
    path = tmp_path / "weights.pth"
    weight_files.write_torch(path, reference_resnet.state_dict(network))
    load = functools.partial(load_backbone, path, architecture=SMALL_ARCHITECTURE)
    assert load().variant.name == "torchvision"
    assert_same_map(load(variant="caffe"), network, order="bgr")
    assert load(variant="keras").variant.name == "torchvision"


def test_vggface2s_classifier_does_not_tell_the_geometry(tmp_path):
    """The port's tensors saved again by torch, and a network of torchvision's on VGGFace2."""
    path = tmp_path / "weights.pth"
    port = small("caffe", classes=8631)
    weight_files.write_torch(path, reference_resnet.state_dict(port))
    loaded = check(path, port, variant="caffe", order="bgr")
    assert "not whether the network is a port of the release" in loaded.notes[0]
    assert loaded.source["trained_on"] == ["VGGFace2"]
    own = small("torchvision", classes=8631)
    weight_files.write_torch(path, reference_resnet.state_dict(own))
    loaded = load_backbone(path, architecture=SMALL_ARCHITECTURE, variant="torchvision")
    assert loaded.variant.channel_order == "rgb"
    assert_same_map(loaded, own, order="rgb", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert "taken as torchvision" in loaded.notes[0]
    assert "timm's resnetblur50" in loaded.notes[1]


def test_one_of_several_networks(tmp_path):
    network, average = small("torchvision", classes=7), small("torchvision", classes=7, seed=5)
    path = tmp_path / "weights.pth"
    torch.save({**network.state_dict(), "ema": average.state_dict()}, path)
    problem = problem_of(path)
    assert problem == "holds 2 networks, under '.', 'ema.'"
    same = functools.partial(assert_same_map, order="rgb", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    same(load_backbone(path, architecture=SMALL_ARCHITECTURE, prefix="."), network)
    for prefix in ("ema", "ema."):
        chosen = load_backbone(path, architecture=SMALL_ARCHITECTURE, prefix=prefix)
        same(chosen, average)
        assert ("conv1.weight", (4, 3, 7, 7)) in chosen.left_out
    assert problem_of(path, prefix="x") == "holds no network under 'x', but under '.', 'ema.'"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_other_precision(tmp_path, kind, form):
    network = small("torchvision", classes=1000)
    state = {name: value.to(kind) for name, value in network.state_dict().items()}
    path = tmp_path / "weights"
    if form == "safetensors":
        weight_files.write_safetensors(path, state)
    else:
        weight_files.write_torch(path, state, legacy=form == "legacy")
    loaded = load_backbone(path, architecture=SMALL_ARCHITECTURE)
    kernel = loaded.params["conv1"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, state["conv1.weight"].float().permute(2, 3, 1, 0).numpy())


def test_bfloat16_without_jax(tmp_path):
    """NumPy has no such type by itself."""
    state = {name: value.bfloat16() for name, value in small("torchvision").state_dict().items()}
    weight_files.write_safetensors(tmp_path / "weights", state)
    code = (
        "import sys\n"
        "from mtl_face.weights import load_backbone\n"
        "from mtl_face.weights.families.resnet_in_file import Architecture\n"
        "loaded = load_backbone(sys.argv[1], architecture=Architecture((2, 1), 4, 2))\n"
        "print(loaded.params['conv1']['kernel'].dtype, 'jax' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "weights")]
    result = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600
    )
    assert result.stdout.split() == ["float32", "False"], result.stderr


def test_views_and_shared_storages(tmp_path):
    """Transposed kernels, and one storage for many tensors."""
    network = small("torchvision", classes=1000)
    flat = torch.cat([tensor.float().reshape(-1) for tensor in network.state_dict().values()])
    state, begin = collections.OrderedDict(), 0
    for name, tensor in network.state_dict().items():
        state[name] = flat[begin : begin + tensor.numel()].view(tensor.shape)
        begin += tensor.numel()
    state["conv1.weight"] = state["conv1.weight"].to(memory_format=torch.channels_last)
    for legacy in (False, True):
        path = tmp_path / f"{legacy}"
        weight_files.write_torch(path, state, legacy=legacy)
        check(
            path, network, variant="torchvision", order="rgb", mean=IMAGENET_MEAN, std=IMAGENET_STD
        )


def test_kernels_are_not_turned_about(tmp_path):
    """A kernel whose every element differs, in the layouts of torch, Keras and MATLAB."""
    network = small("caffe")
    kernel_OIHW = np.arange(math.prod((4, 3, 7, 7)), dtype=np.float32).reshape(4, 3, 7, 7)
    with torch.no_grad():
        network.conv1.weight.copy_(torch.from_numpy(kernel_OIHW))
    weight_files.write_numpy_pickle(tmp_path / "a", network)
    weight_files.write_keras(tmp_path / "b", network)
    weight_files.write_matlab(tmp_path / "c", network, mean=VGGFACE2_MEAN[::-1])
    for name in "abc":
        kernel = load_backbone(tmp_path / name, architecture=SMALL_ARCHITECTURE).params["conv1"][
            "kernel"
        ]
        for row, column, channel, out in ((0, 0, 0, 0), (1, 5, 0, 2), (6, 2, 1, 3), (3, 4, 2, 1)):
            # blue first in the file, red first here
            assert kernel[row, column, channel, out] == kernel_OIHW[out, 2 - channel, row, column]


def test_wrong_channel_order(path, network):
    weight_files.write_keras(path, network)
    assert problem_of(path, channel_order="rgb") == "has its channels in the order BGR, not RGB"
    assert load_backbone(path, architecture=SMALL_ARCHITECTURE, channel_order="bgr")


@pytest.fixture(scope="session")
def full_size(tmp_path_factory):
    """A folder, and a full ResNet50 of a geometry with the map that it gives, made once each."""
    folder = tmp_path_factory.mktemp("resnet50")
    image = image_of(224)

    @functools.cache
    def make(geometry):
        classes = {"caffe": 8631, "torchvision": 1000}.get(geometry)
        network = reference_resnet.make(geometry, RESNET50, classes)
        mean, std = (
            (IMAGENET_MEAN, IMAGENET_STD)
            if geometry == "torchvision"
            else (VGGFACE2_MEAN, (1,) * 3)
        )
        order = "rgb" if geometry == "torchvision" else "bgr"
        feature_map = reference_resnet.feature_map(
            network, image, order=order, mean_rgb=mean, std_rgb=std
        )
        return network, feature_map

    return folder, image, make


def full_size_form(form, network, path):
    if form == "keras top":
        weight_files.write_keras(path, network, top=weight_files.vggface2_top(2048))
    elif form == "keras 512-d top":
        weight_files.write_keras(path, network, top=weight_files.low_dimensional_top(2048))
    elif form == "pickle":
        weight_files.write_numpy_pickle(path, network)
    elif form == "matlab":
        weight_files.write_matlab(path, network, mean=VGGFACE2_MEAN[::-1])
    elif form == "release":
        weight_files.write_torch(path, weight_files.release_dict(network, 8631))
    elif form == "safetensors":
        weight_files.write_safetensors(path, reference_resnet.state_dict(network))
    else:
        weight_files.write_torch(
            path, reference_resnet.state_dict(network), legacy=form == "legacy"
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("geometry", "form"),
    [
        ("keras", "keras top"),
        ("keras", "keras 512-d top"),
        ("caffe", "pickle"),
        ("caffe", "matlab"),
        ("caffe", "release"),
        ("torchvision", "zip"),
        ("torchvision", "legacy"),
        ("torchvision", "safetensors"),
    ],
)
def test_full_size(full_size, geometry, form):
    folder, image, make = full_size
    network, expected = make(geometry)
    path = folder / "weights"
    full_size_form(form, network, path)
    order = "bgr" if form == "release" else None
    loaded = load_backbone(path, channel_order=order)
    assert loaded.variant.name == geometry
    assert loaded.source["convolutions"] == loaded.source["batch_norms"] == 53
    assert loaded.source["parameters"] == 23_508_032
    assert expected.shape == (7, 7, 2048)
    assert_close(our_map(loaded, image), expected)
