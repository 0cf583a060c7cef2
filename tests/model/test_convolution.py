"""The forms for a CPU equal XLA's, value and gradient, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from model_settings import resnet

from mtl_face.model import convolution
from mtl_face.model.convolution import convolution_with_matmul_gradient, max_pool

NHWC = ("NHWC", "HWIO", "NHWC")


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def value_and_gradients(function, cotangent, *inputs):
    """(value, gradient of each input), as one program: one a primitive would take far longer."""

    @jax.jit
    def compute(cotangent, *inputs):
        value, vjp = jax.vjp(function, *inputs)
        return value, *vjp(cotangent)

    return compute(cotangent, *inputs)


# Few channels leave the kernel's gradient to XLA, many do not.
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("channels", "features", "rows_of_strip"),
    [(3, 4, None), (3, 20, None), (64, 4, None), (64, 4, 1), (50, 160, 2)],
)
@pytest.mark.parametrize(
    ("kernel", "strides", "padding", "size"),
    [
        ((7, 7), (2, 2), ((3, 3), (3, 3)), (8, 6)),
        ((7, 7), (2, 2), "SAME", (8, 7)),
        ((1, 1), (1, 1), "VALID", (5, 6)),
        ((1, 1), (2, 2), "VALID", (6, 7)),
        ((3, 3), (1, 1), ((1, 1), (1, 1)), (5, 6)),
        ((3, 3), (1, 1), ((1, 1), (1, 1)), (10, 6)),
        ((3, 3), (2, 2), ((1, 1), (1, 1)), (6, 7)),
        ((3, 2), (2, 1), ((0, 2), (1, 0)), (9, 5)),
    ],
)
def test_value_and_gradients_equal_xla(
    kernel, strides, padding, size, channels, features, rows_of_strip, monkeypatch
):
    rng = np.random.default_rng(0)
    image_BHWI = jnp.asarray(rng.normal(size=(2, *size, channels)))
    kernel_HWIO = jnp.asarray(rng.normal(size=(*kernel, channels, features)))

    def xla(image, kernel):
        return lax.conv_general_dilated(image, kernel, strides, padding, dimension_numbers=NHWC)

    def ours(image, kernel):
        return convolution_with_matmul_gradient(
            image, kernel, strides, padding, dimension_numbers=NHWC
        )

    shape = jax.eval_shape(xla, image_BHWI, kernel_HWIO).shape
    cotangent_BhwO = jnp.asarray(rng.normal(size=shape))
    if rows_of_strip:
        bytes_of_row = shape[0] * shape[2] * kernel[1] * channels * 8
        monkeypatch.setattr(convolution, "_CACHED_BYTES", rows_of_strip * bytes_of_row)
    expected = value_and_gradients(xla, cotangent_BhwO, image_BHWI, kernel_HWIO)
    got = value_and_gradients(ours, cotangent_BhwO, image_BHWI, kernel_HWIO)
    assert got[0].dtype == jnp.float64
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [(8, 9), (11, 5)])
@pytest.mark.parametrize("padding", ["VALID", "SAME", ((0, 1), (0, 1)), ((1, 1), (1, 1))])
def test_max_pool_equals_xla_also_where_pixels_are_equal(size, padding):
    rng = np.random.default_rng(0)
    map_BHWC = jnp.asarray(rng.integers(-3, 3, (2, *size, 5)), jnp.float64)

    def pooled(convolution):
        return lambda x: max_pool(x, padding, convolution=convolution)

    cotangent_BhwC = jnp.asarray(rng.normal(size=jax.eval_shape(pooled("xla"), map_BHWC).shape))
    expected, expected_gradient = value_and_gradients(pooled("xla"), cotangent_BhwC, map_BHWC)
    got, gradient = value_and_gradients(pooled("matmul_gradient"), cotangent_BhwC, map_BHWC)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-12)


def test_the_backbone_learns_the_same(random_variables):
    rng = np.random.default_rng(1)
    image_BHWC = jnp.asarray(rng.normal(size=(2, 16, 16, 3)), jnp.float32)
    slow = resnet((1, 1), 4, 2)
    fast = resnet((1, 1), 4, 2, convolution="matmul_gradient")
    variables = random_variables(slow, image_BHWC, train=False)

    def gradient(network):
        def loss(params):
            out, _ = network.apply(
                variables | {"params": params}, image_BHWC, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.square(out))

        return jax.jit(jax.grad(loss))(variables["params"])

    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3),
        gradient(fast),
        gradient(slow),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 2)},
        {"feature_group_count": 3},
        {"dimension_numbers": ("NCHW", "HWIO", "NCHW")},
    ],
)
def test_other_convolutions_are_refused(options):
    settings = {"dimension_numbers": NHWC} | options
    with pytest.raises(ValueError, match="only plain NHWC"):
        convolution_with_matmul_gradient(
            jnp.zeros((1, 3, 3, 3)), jnp.zeros((1, 1, 3, 3)), (1, 1), "VALID", **settings
        )
