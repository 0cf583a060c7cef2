"""A file whose network is another one, not whole, or not sound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_resnet
import torch
import weight_files
from model_settings import resnet
from reference_resnet import SMALL
from weight_faults import WRITERS, problem_of

from mtl_face.errors import WeightsError
from mtl_face.weights import load_backbone
from mtl_face.weights.families.resnet_in_file import RESNET50, layers


@pytest.mark.parametrize("form", ["keras", "matlab", "zip", "legacy", "safetensors", "pickle"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan(path, form, value):
    broken = reference_resnet.make("torchvision", SMALL, classes=1000)
    with torch.no_grad():
        broken.layer1[1].conv2.weight[0, 1, 2, 0] = value
    WRITERS[form](path, broken)
    problem = problem_of(path)
    assert "holds 1 values that are NaN or infinite, of 144" in problem
    assert "conv2_2_3x3" in problem or "layer1.1.conv2.weight" in problem


def test_negative_variance(path):
    broken = reference_resnet.make("torchvision", SMALL, classes=1000)
    with torch.no_grad():
        broken.bn1.running_var[1] = -0.5
    WRITERS["zip"](path, broken)
    assert problem_of(path) == "bn1.running_var has a negative variance"


def test_not_floating_point(path, network):
    state = dict(network.state_dict())
    state["conv1.weight"] = torch.zeros(4, 3, 7, 7, dtype=torch.int8)
    weight_files.write_torch(path, state)
    assert problem_of(path) == "conv1.weight is of type int8, not floating point"


def test_a_type_that_numpy_lacks(path, network):
    state = dict(network.state_dict())
    state["conv1.weight"] = state["conv1.weight"].to(torch.float8_e4m3fn)
    weight_files.write_safetensors(path, state)
    assert problem_of(path) == "conv1.weight is of type F8_E4M3, which NumPy lacks"


def problem_of_state(path, state):
    torch.save(state, path)
    with pytest.raises(WeightsError) as raised:
        load_backbone(path)
    assert "ResNet50" in raised.value.remedy
    return raised.value.problem


def test_resnet18(path):
    problem = problem_of_state(path, weight_files.meta_state((2, 2, 2, 2), basic=True))
    assert problem.startswith("has blocks of two convolutions and stages of 2, 2, 2, 2 blocks")


@pytest.mark.parametrize(("blocks", "name"), [((3, 4, 23, 3), "101"), ((3, 8, 36, 3), "152")])
def test_resnet101_and_152(path, blocks, name):
    problem = problem_of_state(path, weight_files.meta_state(blocks))
    assert problem.startswith(f"is ResNet{name} (stages of ")
    assert "not ResNet50 (stages of 3, 4, 6, 3 blocks, width 64, expansion 4)" in problem


def test_wide_resnet(path):
    problem = problem_of_state(path, weight_files.meta_state((3, 4, 6, 3), width=128))
    assert "tensors are of another size: layer1.0.conv1.weight has shape 128x64x1x1" in problem
    assert "not 64x64x1x1" in problem


def test_classifier_alone(path):
    problem = problem_of_state(
        path, {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    )
    assert problem == (
        "holds no ResNet backbone; its tensors are fc.weight 1000x2048, fc.bias 1000"
    )


def test_missing_tensors(path, network):
    state = network.state_dict()
    del state["layer1.1.bn2.running_var"], state["bn1.weight"]
    weight_files.write_torch(path, state)
    problem = problem_of(path)
    assert "lacks 2 of the 60 tensors" in problem
    assert "bn1.weight" in problem
    assert "layer1.1.bn2.running_var" in problem


@pytest.mark.parametrize(
    "name", ["layer1.0.gate.weight", "conv1.bias", "layer1.0.conv2.bias", "bn1.other"]
)
def test_unused_tensors_of_the_backbone(path, network, name):
    weight_files.write_torch(path, network.state_dict() | {name: torch.ones(2)})
    problem = problem_of(path)
    assert problem.startswith("has 1 tensors in its backbone that ")
    assert name in problem


def test_squeeze_and_excitation_in_keras(path, network):
    top = {"conv2_1_1x1_down": {"kernel": np.ones((1, 1, 8, 2), np.float32)}}
    weight_files.write_keras(path, network, top=top)
    assert "conv2_1_1x1_down" in problem_of(path)


def test_two_networks(path, network):
    state = network.state_dict()
    weight_files.write_torch(path, {"state_dict": state, "ema": state})
    problem = problem_of(path)
    assert problem == "holds 2 networks, under 'ema.', 'state_dict.'"


def test_size_of_networks_is_that_of_the_reference():
    """The states made here are of the networks that they are named for."""
    assert len(weight_files.meta_state((3, 4, 6, 3))) == 53 * 5 + 2
    total = sum(
        tensor.numel()
        for name, tensor in weight_files.meta_state((3, 4, 6, 3)).items()
        if "running" not in name
    )
    assert total == 25_557_032  # torchvision's ResNet50


def test_the_names_are_those_of_the_network():
    """Our names and shapes of ResNet50, against the network itself."""
    abstract = jax.eval_shape(
        lambda: resnet().init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )
    expected = {
        jax.tree_util.keystr(keys, simple=True, separator="/"): leaf.shape
        for keys, leaf in jax.tree_util.tree_flatten_with_path(dict(abstract["params"]))[0]
    }
    found = {}
    for layer in layers(RESNET50):
        found[f"{layer.own_convolution}/kernel"] = layer.kernel_HWIO
        for name in ("scale", "bias"):
            found[f"{layer.own_batch_norm}/{name}"] = layer.kernel_HWIO[-1:]
    assert found == expected
    assert sum(int(np.prod(shape)) for shape in found.values()) == 23_508_032
    assert len(layers(RESNET50)) == 53
