"""The three geometries against PyTorch's own layers, with the same weights."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from model_settings import resnet
from torch.nn import functional

from mtl_face.model.geometry import VARIANTS

STAGES, WIDTH, EXPANSION = (2, 1), 4, 2


def torch_resnet(variables, image_BHWC, variant: str) -> np.ndarray:
    """The map by torch: padding, pooling, strides and epsilon as the releases state them."""

    def tensor(values):
        return torch.tensor(np.asarray(values, np.float64))

    def convolution(x, path, stride=1, padding=0):
        kernel_HWIO = variables["params"]
        for name in path:
            kernel_HWIO = kernel_HWIO[name]
        kernel_OIHW = tensor(kernel_HWIO["kernel"]).permute(3, 2, 0, 1)
        return functional.conv2d(x, kernel_OIHW, stride=stride, padding=padding)

    def batch_norm(x, path):
        params, stats = variables["params"], variables["batch_stats"]
        for name in path:
            params, stats = params[name], stats[name]
        return functional.batch_norm(
            x,
            tensor(stats["mean"]),
            tensor(stats["var"]),
            tensor(params["scale"]),
            tensor(params["bias"]),
            eps=1e-3 if variant == "keras" else 1e-5,
        )

    x = tensor(image_BHWC).permute(0, 3, 1, 2)
    if variant == "keras":
        # TensorFlow's "same": as many pixels as the last window wants, the odd one at the end.
        total = (math.ceil(x.shape[-1] / 2) - 1) * 2 + 7 - x.shape[-1]
        x = functional.pad(x, (total // 2, total - total // 2) * 2)
        x = convolution(x, ["conv1"], stride=2)
    else:
        x = convolution(x, ["conv1"], stride=2, padding=3)
    x = functional.relu(batch_norm(x, ["bn1"]))
    x = {
        "caffe": lambda: functional.max_pool2d(x, 3, 2, ceil_mode=True),
        "keras": lambda: functional.max_pool2d(x, 3, 2),
        "torchvision": lambda: functional.max_pool2d(x, 3, 2, padding=1),
    }[variant]()
    for stage, blocks in enumerate(STAGES, start=1):
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            first, second = (1, stride) if variant == "torchvision" else (stride, 1)
            y = functional.relu(batch_norm(convolution(x, [name, "conv1"], first), [name, "bn1"]))
            y = functional.relu(
                batch_norm(convolution(y, [name, "conv2"], second, padding=1), [name, "bn2"])
            )
            y = batch_norm(convolution(y, [name, "conv3"]), [name, "bn3"])
            if block == 1:
                x = batch_norm(convolution(x, [name, "proj"], stride), [name, "proj_bn"])
            x = functional.relu(y + x)
    return x.permute(0, 2, 3, 1).numpy()


# 18 and 17 pixels at the pooling: of one size the windows fit, of the other they overhang.
@pytest.mark.parametrize("size", [36, 34])
@pytest.mark.parametrize("variant", VARIANTS)
def test_geometry_equals_torch(variant, size, random_variables):
    network: Any = resnet(STAGES, WIDTH, EXPANSION, variant)
    rng = np.random.default_rng(2)
    image_BHWC = jnp.asarray(rng.normal(0, 1, (2, size, size, 3)), jnp.float32)
    variables = random_variables(network, image_BHWC, train=False)
    got = network.apply(variables, image_BHWC, train=False)
    expected = torch_resnet(variables, image_BHWC, variant)
    assert np.shape(got) == expected.shape
    assert expected.std() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


def test_the_same_weights_give_three_maps(random_variables):
    rng = np.random.default_rng(2)
    image_BHWC = jnp.asarray(rng.normal(0, 1, (1, 32, 32, 3)), jnp.float32)
    variables = random_variables(resnet(STAGES, WIDTH, EXPANSION), image_BHWC, train=False)
    maps = {
        variant: torch_resnet(variables, image_BHWC, variant).mean(axis=(0, 1, 2))
        for variant in VARIANTS
    }
    for one, other in (("caffe", "keras"), ("caffe", "torchvision"), ("keras", "torchvision")):
        assert np.abs(maps[one] - maps[other]).max() > 1e-2


@pytest.mark.parametrize("variant", VARIANTS)
def test_resnet50(variant, abstract_variables):
    network: Any = resnet(variant=variant)
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    variables = abstract_variables(network, jnp.zeros((1, 224, 224, 3)), train=False)
    out = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), variables, image)
    assert out.shape == (2, 7, 7, 2048)

    sizes = {
        jax.tree_util.keystr(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    }
    kernels = {name: shape for name, shape in sizes.items() if name.endswith("['kernel']")}
    assert len(kernels) == 53
    assert sum(map(math.prod, kernels.values())) == 23_454_912
    assert sum(map(math.prod, sizes.values())) == 23_508_032
    assert kernels["['conv1']['kernel']"] == (7, 7, 3, 64)
    assert kernels["['stage2_block1']['proj']['kernel']"] == (1, 1, 256, 512)
    assert kernels["['stage4_block3']['conv2']['kernel']"] == (3, 3, 512, 512)


def test_three_stages_make_sixteen_pixel_patches(abstract_variables):
    network: Any = resnet((1, 1, 1), width=8, expansion=2)
    image_BHWC = jnp.zeros((1, 112, 112, 3))
    variables = abstract_variables(network, image_BHWC, train=False)
    out = jax.eval_shape(lambda v: network.apply(v, image_BHWC, train=False), variables)
    assert out.shape == (1, 7, 7, 64)


def test_training_updates_the_statistics_by_the_momentum(random_variables):
    network: Any = resnet((1,), 4, 2, batch_norm_momentum=0.75)
    rng = np.random.default_rng(4)
    image_BHWC = jnp.asarray(rng.normal(0, 1, (3, 16, 16, 3)), jnp.float32)
    variables = random_variables(network, image_BHWC, train=False)
    _, updated = network.apply(variables, image_BHWC, train=True, mutable=["batch_stats"])
    kernel_OIHW = torch.tensor(np.asarray(variables["params"]["conv1"]["kernel"])).permute(
        3, 2, 0, 1
    )
    stem_BCHW = functional.conv2d(
        torch.tensor(np.asarray(image_BHWC)).permute(0, 3, 1, 2), kernel_OIHW, stride=2, padding=3
    )
    for name, batch in (
        ("mean", stem_BCHW.mean((0, 2, 3))),
        ("var", stem_BCHW.var((0, 2, 3), correction=0)),
    ):
        old = np.asarray(variables["batch_stats"]["bn1"][name])
        np.testing.assert_allclose(
            updated["batch_stats"]["bn1"][name],
            0.75 * old + 0.25 * batch.numpy(),
            rtol=1e-4,
            atol=1e-5,
        )


def test_frozen_blocks_inside_a_stage(random_variables):
    """No gradient and no new statistics up to the block, both behind it."""
    network = resnet((2,), 4, 2, "torchvision", frozen_blocks=1)
    image_BHWC = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = random_variables(network, image_BHWC, train=False)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradients(params):
        variables_now = {**variables, "params": params}
        map_BHWC, updated = network.apply(
            variables_now, image_BHWC, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(map_BHWC**2), updated

    found, updated = gradients(variables["params"])
    for part, before in variables["batch_stats"].items():
        trains = part == "stage1_block2"
        assert any(np.any(leaf) for leaf in jax.tree.leaves(found[part])) == trains, part
        after = jax.tree.leaves(updated["batch_stats"][part])
        same = map(np.array_equal, jax.tree.leaves(before), after)
        assert all(same) != trains, part
