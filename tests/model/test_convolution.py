"""The forms for CPU and GPU equal XLA's, value and gradient, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from model_settings import resnet

from mtl_face.model.convolution import (
    compiler_options,
    convolution_of_cpu,
    if_known,
    max_pool,
    pointwise_by_matmul,
    product_of_cpu,
)
from mtl_face.training import state

NHWC = ("NHWC", "HWIO", "NHWC")


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def value_and_gradients(functions, cotangent, *inputs):
    """Of each function (value, gradient of each input).

    One program: one a function takes longer to compile, and one a primitive far longer.
    """

    @jax.jit
    def compute(cotangent, *inputs):
        pairs = [jax.vjp(function, *inputs) for function in functions]
        return [(value, *vjp(cotangent)) for value, vjp in pairs]

    return compute(cotangent, *inputs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kernel", "strides", "padding"),
    [
        ((1, 1), (1, 1), "VALID"),
        ((1, 1), (2, 2), "SAME"),
        ((1, 1), (2, 1), ((0, 0), (0, 0))),
        ((1, 1), (2, 2), ((1, 0), (0, 2))),
        ((3, 3), (1, 1), "SAME"),
        ((3, 2), (2, 1), ((0, 2), (1, 0))),
    ],
)
def test_value_and_gradients_equal_xla(kernel, strides, padding):
    rng = np.random.default_rng(0)
    image_BHWI = jnp.asarray(rng.normal(size=(2, 6, 7, 5)))
    kernel_HWIO = jnp.asarray(rng.normal(size=(*kernel, 5, 4)))

    def convolved(convolve):
        return lambda image, kernel: convolve(
            image, kernel, strides, padding, dimension_numbers=NHWC
        )

    xla = convolved(lax.conv_general_dilated)
    shape = jax.eval_shape(xla, image_BHWI, kernel_HWIO).shape
    cotangent_BhwO = jnp.asarray(rng.normal(size=shape))
    functions = (xla, convolved(pointwise_by_matmul))
    expected, got = value_and_gradients(functions, cotangent_BhwO, image_BHWI, kernel_HWIO)
    assert got[0].dtype == jnp.float64
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kernel", "strides", "padding"),
    [
        ((3, 3), (1, 1), "SAME"),
        ((3, 3), (2, 2), "SAME"),
        ((3, 2), (2, 1), ((0, 2), (1, 0))),
        ((5, 5), (1, 2), "VALID"),
        ((1, 1), (2, 2), "SAME"),
        ((7, 7), (1, 1), "SAME"),
        ((3, 2), (1, 1), ((0, 2), (1, 0))),
        ((2, 3), (1, 1), ((2, 3), (0, 4))),
        ((4, 5), (1, 1), ((3, 0), (1, 4))),
        ((6, 4), (1, 1), "VALID"),
    ],
)
def test_depthwise_value_and_gradients_equal_xla(kernel, strides, padding):
    rng = np.random.default_rng(0)
    image_BHWI = jnp.asarray(rng.normal(size=(2, 6, 7, 5)))
    kernel_HW1I = jnp.asarray(rng.normal(size=(*kernel, 1, 5)))

    def convolved(convolve):
        return lambda image, kernel: convolve(
            image, kernel, strides, padding, dimension_numbers=NHWC, feature_group_count=5
        )

    xla = convolved(lax.conv_general_dilated)
    shape = jax.eval_shape(xla, image_BHWI, kernel_HW1I).shape
    cotangent_BhwI = jnp.asarray(rng.normal(size=shape))
    shifts = convolved(convolution_of_cpu)
    functions = (xla, shifts)
    expected, got = value_and_gradients(functions, cotangent_BhwI, image_BHWI, kernel_HW1I)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)
    assert "conv_general" not in str(jax.make_jaxpr(shifts)(image_BHWI, kernel_HW1I))


@pytest.mark.parametrize("settings", [{"lhs_dilation": (2, 2)}, {"feature_group_count": 5}])
def test_dilated_and_grouped_convolutions_are_left_to_xla(settings):
    rng = np.random.default_rng(0)
    image_BHWI = jnp.asarray(rng.normal(size=(2, 4, 3, 5)))
    inputs = 5 // settings.get("feature_group_count", 1)
    kernel_HWIO = jnp.asarray(rng.normal(size=(1, 1, inputs, 10)))
    arguments = (image_BHWI, kernel_HWIO, (1, 1), ((0, 0), (0, 0)))
    settings = {"dimension_numbers": NHWC, **settings}
    np.testing.assert_allclose(
        pointwise_by_matmul(*arguments, **settings),
        lax.conv_general_dilated(*arguments, **settings),
        rtol=1e-6,
    )


def test_dense_layers_of_several_axes():
    rng = np.random.default_rng(0)
    tokens_BTI, kernel_IO = (jnp.asarray(rng.normal(size=size)) for size in ((2, 3, 8), (8, 4)))

    def loss(product):
        return lambda tokens, kernel: jnp.sin(
            product(tokens, kernel, (((2,), (0,)), ((), ())))
        ).sum()

    of_cpu, plain = (
        jax.jit(jax.value_and_grad(loss(product), argnums=(0, 1)))
        for product in (product_of_cpu, lax.dot_general)
    )
    expected, got = (jax.tree.leaves(each(tokens_BTI, kernel_IO)) for each in (plain, of_cpu))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    compiled = of_cpu.lower(tokens_BTI, kernel_IO).compile().as_text()
    assert " transpose(" not in compiled
    assert " transpose(" in plain.lower(tokens_BTI, kernel_IO).compile().as_text()


def test_other_products_are_left_as_they_are():
    rng = np.random.default_rng(0)
    one_BIJ, other_BJK = (jnp.asarray(rng.normal(size=size)) for size in ((2, 3, 4), (2, 4, 5)))
    numbers = (((2,), (1,)), ((0,), (0,)))
    expected = one_BIJ @ other_BJK
    np.testing.assert_allclose(product_of_cpu(one_BIJ, other_BJK, numbers), expected, rtol=1e-5)


def test_no_product_of_a_pointwise_convolution_transposes_a_factor():
    def loss(image, kernel):
        return pointwise_by_matmul(image, kernel, (1, 1), "VALID").sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    compiled = gradient.lower(jnp.zeros((2, 4, 4, 8)), jnp.zeros((1, 1, 8, 16))).compile()
    assert " transpose(" not in compiled.as_text()
    assert " convolution(" not in compiled.as_text()


def test_programs_for_a_cpu_are_compiled_with_options_that_this_xla_knows():
    assert compiler_options("cpu")
    assert compiler_options("gpu") == compiler_options("tpu") == {}
    assert if_known(state._OLD_GENERATOR) == state._OLD_GENERATOR
    assert if_known({**state._OLD_GENERATOR, "xla_no_such_option": True}) == {}


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    compiled = jax.jit

    def renamed(function, compiler_options):
        return compiled(function, compiler_options={"xla_no_such_option": "1"})

    monkeypatch.setattr(jax, "jit", renamed)
    assert compiler_options.__wrapped__("cpu") == {}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [(8, 9), (11, 5)])
@pytest.mark.parametrize("padding", ["VALID", "SAME", ((0, 1), (0, 1)), ((1, 1), (1, 1))])
@pytest.mark.parametrize("batch", [4, 3])
def test_max_pool_equals_xla_also_where_pixels_are_equal(size, padding, batch):
    rng = np.random.default_rng(0)
    map_BHWC = jnp.asarray(rng.integers(-3, 3, (batch, *size, 5)), jnp.float64)

    def pooled(convolution):
        return lambda x: max_pool(x, padding, convolution=convolution)

    cotangent_BhwC = jnp.asarray(rng.normal(size=jax.eval_shape(pooled("xla"), map_BHWC).shape))
    functions = [pooled(convolution) for convolution in ("xla", "matmul", "cudnn")]
    expected, *others = value_and_gradients(functions, cotangent_BhwC, map_BHWC)
    for got in others:
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_allclose(got[1], expected[1], atol=1e-12)


def test_the_backbone_learns_the_same(random_variables):
    rng = np.random.default_rng(1)
    image_BHWC = jnp.asarray(rng.normal(size=(2, 16, 16, 3)), jnp.float32)
    slow = resnet((1, 1), 4, 2)
    fast = resnet((1, 1), 4, 2, convolution="matmul")
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
