"""MobileNet-v1 against PyTorch, up to any layer, and its frozen pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tfjs_graph

from mtl_face.config.schema import MOBILENET_LAYERS, BackboneConfig
from mtl_face.model.backbones.mobilenet import MobileNet
from mtl_face.model.geometry import MOBILENET_PAIRS, stage_of

WIDTH = tfjs_graph.WIDTH


def make(end="pw13", **changes):
    return MobileNet(
        BackboneConfig(kind="mobilenet", width=WIDTH, end=end, **{"convolution": "xla", **changes})
    )


def params_of(tensors, end="pw13"):
    """The network's parameters from a graph's tensors, as its documentation says."""
    params = {}
    for layer in MOBILENET_LAYERS[: MOBILENET_LAYERS.index(end) + 1]:
        name = "conv1" if layer == "conv1" else f"conv_{layer[:2]}_{layer[2:]}"
        if layer.startswith("dw"):
            scale = tensors[f"{name}_bn/batchnorm_1/mul"]
            kernel = tensors[f"{name}/depthwise_kernel"] * scale[None, None, :, None]
            kernel = np.swapaxes(kernel, 2, 3)
        else:
            kernel = tensors[f"{name}/convolution/merged_input"]
        params[layer] = {"kernel": kernel, "bias": tensors[f"{name}_bn/batchnorm_1/sub"]}
    return params


@pytest.fixture(scope="module")
def tensors():
    return tfjs_graph.random_tensors()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).normal(0, 60, (2, 65, 64, 3)).astype(np.float32)


def test_every_layer_has_its_place():
    assert len(MOBILENET_LAYERS) == 27
    assert stage_of("conv1") == 0
    for layer in MOBILENET_LAYERS[1:]:
        assert stage_of(layer) == int(layer[2:])
        settings = BackboneConfig(kind="mobilenet", end=layer)
        assert settings.num_stages == int(layer[2:])
    assert BackboneConfig(kind="mobilenet", end="conv1").num_stages == 0
    assert BackboneConfig().num_stages == 4


def test_the_published_size():
    """Parameters of the 1.0 network with folded norms, whole and up to pw11."""
    for end, count in (("pw13", 3_196_032), ("pw11", 1_605_760)):
        network = MobileNet(BackboneConfig(kind="mobilenet", width=32, end=end))
        image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        out, variables = jax.eval_shape(
            lambda x, n=network: n.init_with_output(jax.random.key(0), x, train=False), image
        )
        assert variables.keys() == {"params"}
        assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count
        assert out.shape == {"pw13": (1, 7, 7, 1024), "pw11": (1, 14, 14, 512)}[end]


@pytest.mark.torch
@pytest.mark.parametrize("convolution", ["xla", "matmul"])
@pytest.mark.parametrize("end", ["conv1", "dw2", "pw2", "pw11", "pw13"])
def test_equals_pytorch(tensors, image, end, convolution):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

    def layer(map_BCHW, kernel_HWIO, bias, stride, groups=1):
        """TensorFlow's SAME: what is odd is added after."""
        size = kernel_HWIO.shape[0]
        pads = []
        for side in (map_BCHW.shape[3], map_BCHW.shape[2]):
            missing = max((-(-side // stride) - 1) * stride + size - side, 0)
            pads += [missing // 2, missing - missing // 2]
        kernel = torch.from_numpy(np.ascontiguousarray(kernel_HWIO.transpose(3, 2, 0, 1)))
        padded = functional.pad(map_BCHW, pads)
        bias = torch.from_numpy(bias)
        return functional.conv2d(padded, kernel, bias, stride, groups=groups).clamp(0, 6)

    params = params_of(tensors, end)
    expected = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
    for name, part in params.items():
        stride = 2 if name == "conv1" else MOBILENET_PAIRS[int(name[2:]) - 1][0]
        groups = part["kernel"].shape[-1] if name.startswith("dw") else 1
        stride = 1 if name.startswith("pw") else stride
        expected = layer(expected, part["kernel"], part["bias"], stride, groups)
    found = make(end, convolution=convolution).apply({"params": params}, image, train=False)
    expected = expected.permute(0, 2, 3, 1).numpy()
    assert 0.2 < expected.std() < 3  # neither dead nor all cut off
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_frozen_pairs_have_no_gradient(tensors, image):
    params = params_of(tensors, "pw3")

    def gradients(frozen_stages):
        network = make("pw3", frozen_stages=frozen_stages)
        loss = lambda p: network.apply({"params": p}, image, train=True).sum()  # noqa: E731
        return jax.tree.map(lambda leaf: bool(jnp.any(leaf)), jax.grad(loss)(params))

    assert all(jax.tree.leaves(gradients(-1)))
    for frozen in (0, 2, 3):
        for layer, found in gradients(frozen).items():
            assert any(found.values()) == (stage_of(layer) > frozen), layer


def test_more_pairs_frozen_than_there_are():
    image = jnp.zeros((1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"frozen_stages 4 is not in -1..3, the number of stages"):
        make("dw3", frozen_stages=4).init(jax.random.key(0), image, train=False)
