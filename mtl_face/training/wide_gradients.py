"""Kernels whose gradients stay float32, though the network computes in bfloat16.

Left to itself, the gradient of a kernel has the type of the product that it belongs to. In bfloat16
it is rounded to 8 bits on each device, and then summed over the devices in bfloat16 too, where
small terms vanish beside large sums. Here the last step of that product, its sum over examples and
pixels, is put out in float32: what the devices exchange is float32, the factors are as they were.

On a GPU this holds of products alone. cuDNN sums the gradient of a convolution's kernel in float32
too, but puts it out in the type of the factors: asked for float32, XLA would widen both factors in
memory, activations of the whole network, and compute in float32. So each device rounds its sum, and
the devices' sums are added up in float32.

This is done from outside, for the `nn.Dense` and `nn.Conv` of any network whose `dtype` is narrower
than float32; others are left alone.

The rules of the forward pass spell out their products, so that rematerialisation (`model.remat`),
which goes by the names of operations, finds them and keeps their results.

Shapes: B batch, H W height and width of the input, h w of the output, I O input and output
channels (of a kernel, input channels of a group), r c rows and columns of a kernel.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

Pads = tuple[tuple[int, int], tuple[int, int]]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def intercept(
    call: Callable[..., Any],
    arguments: Any,
    options: Any,
    context: nn.module.InterceptorContext,
    *,
    gpus: Mesh | None = None,
) -> Any:
    """An interceptor, as `nn.intercept_methods` takes it.

    `gpus` is the mesh over which the first axis of the inputs is split, if it is one of GPUs.
    """
    module = context.module
    if (
        context.method_name != "__call__"
        or not isinstance(module, nn.Dense | nn.Conv)
        or not _is_narrow(module.dtype)
        or module.is_initializing()
    ):
        return call(*arguments, **options)
    (inputs,) = arguments
    inputs = inputs.astype(module.dtype)
    kernel: Any = module.get_variable("params", "kernel")
    if isinstance(module, nn.Dense):
        outputs = _product(inputs, kernel)
    else:
        outputs = _convolution_of(module, inputs, kernel, gpus)
    if module.use_bias:
        bias = module.get_variable("params", "bias")
        outputs = _add_bias(outputs, bias)
    return outputs


def _is_narrow(dtype: Any) -> bool:
    return dtype is not None and jnp.finfo(dtype).bits < 32


def _convolution_of(
    module: nn.Conv, image_BHWI: jax.Array, kernel_rcIO: jax.Array, gpus: Mesh | None
) -> jax.Array:
    strides, padding = module.strides, module.padding
    dilations = {module.input_dilation, module.kernel_dilation} - {1, None}
    kernel_size = module.kernel_size
    if isinstance(kernel_size, int) or len(kernel_size) != 2 or dilations:
        raise ValueError(
            f"{module.name}: only convolutions of images without dilation have wide gradients"
        )
    if isinstance(strides, int) or strides is None:
        strides = (strides or 1,) * 2
    strides = (int(strides[0]), int(strides[1]))
    if isinstance(padding, int):
        padding = ((padding, padding),) * 2
    elif isinstance(padding, str):
        shape = image_BHWI.shape[1:3]
        padding = lax.padtype_to_pads(shape, kernel_rcIO.shape[:2], strides, padding)
    pads = tuple((p, p) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in padding)
    return _convolve(image_BHWI, kernel_rcIO, strides, pads, module.feature_group_count, gpus)


def _narrow_product(inputs: jax.Array, kernel_IO: jax.Array) -> jax.Array:
    """[..., I] times [I, O], computed in the type of the inputs."""
    return inputs @ kernel_IO.astype(inputs.dtype)


_product = jax.custom_vjp(_narrow_product)


def _product_forward(
    inputs: jax.Array, kernel_IO: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _narrow_product(inputs, kernel_IO), (inputs, kernel_IO)


def _product_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    inputs, kernel_IO = saved
    leading = tuple(range(inputs.ndim - 1))
    kernel_gradient_IO = lax.dot_general(
        inputs, gradient, ((leading, leading), ((), ())), preferred_element_type=jnp.float32
    )
    return gradient @ kernel_IO.astype(gradient.dtype).T, kernel_gradient_IO


_product.defvjp(_product_forward, _product_backward)


def _narrow_sum(outputs: jax.Array, bias_O: jax.Array) -> jax.Array:
    return outputs + bias_O.astype(outputs.dtype).reshape((1,) * (outputs.ndim - 1) + (-1,))


_add_bias = jax.custom_vjp(_narrow_sum)


def _add_bias_forward(outputs: jax.Array, bias_O: jax.Array) -> tuple[jax.Array, None]:
    return _narrow_sum(outputs, bias_O), None


def _add_bias_backward(saved: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    del saved
    leading = tuple(range(gradient.ndim - 1))
    return gradient, jnp.sum(gradient, axis=leading, dtype=jnp.float32)


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def _narrow_convolution(
    image_BHWI: jax.Array,
    kernel_rcIO: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    groups: int,
    gpus: Mesh | None,
) -> jax.Array:
    del gpus
    return lax.conv_general_dilated(
        image_BHWI,
        kernel_rcIO.astype(image_BHWI.dtype),
        strides,
        pads,
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


_convolve = jax.custom_vjp(_narrow_convolution, nondiff_argnums=(2, 3, 4, 5))


def _convolve_forward(
    image_BHWI: jax.Array, kernel_rcIO: jax.Array, *how: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    outputs = _narrow_convolution(image_BHWI, kernel_rcIO, *how)
    return outputs, (image_BHWI, kernel_rcIO)


def _convolve_backward(
    strides: tuple[int, int],
    pads: Pads,
    groups: int,
    gpus: Mesh | None,
    saved: tuple[jax.Array, jax.Array],
    gradient_BhwO: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    image_BHWI, kernel_rcIO = saved
    (image_gradient_BHWI,) = jax.linear_transpose(
        lambda image_BHWI: _narrow_convolution(
            image_BHWI, kernel_rcIO, strides, pads, groups, gpus
        ),
        image_BHWI,
    )(gradient_BhwO)
    # The image convolved with its gradient, where examples take the place of channels.
    reach = [
        (length - 1) * stride + 1
        for length, stride in zip(gradient_BhwO.shape[1:3], strides, strict=True)
    ]
    kernel_pads = [
        (low, size - 1 + taps - length - low)
        for (low, _), size, taps, length in zip(
            pads, kernel_rcIO.shape[:2], reach, image_BHWI.shape[1:3], strict=True
        )
    ]
    kernel_gradient = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding=kernel_pads,
        rhs_dilation=strides,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        batch_group_count=groups,
    )
    if gpus is None:
        kernel_gradient_rcIO = kernel_gradient(
            image_BHWI, gradient_BhwO, preferred_element_type=jnp.float32
        )
    else:
        total = sum_of_devices(kernel_gradient, image_BHWI, gradient_BhwO, mesh=gpus)
        kernel_gradient_rcIO = total.reshape(kernel_rcIO.shape)
    return image_gradient_BHWI, kernel_gradient_rcIO


def sum_of_devices(
    sum_of_one: Callable[[jax.Array, jax.Array], jax.Array],
    left: jax.Array,
    right: jax.Array,
    *,
    mesh: Mesh,
) -> jax.Array:
    """The devices' narrow sums over their examples of two arrays, added up in float32.

    Flat where parameters are whole: with the sum in the layout in which cuDNN gives it, the
    optimizer would copy its parameters and moments into that layout and back. Not flat where they
    are split: the compiler could not leave each device its part of the sum.
    """
    whole = mesh.shape["fsdp"] == 1

    def of_device(left: jax.Array, right: jax.Array) -> jax.Array:
        total = sum_of_one(left, right).astype(jnp.float32)
        return total.reshape(-1) if whole else total

    if jax.sharding.get_abstract_mesh().manual_axes:  # this trace sees one device already
        return of_device(left, right)
    by_device = PartitionSpec(mesh.axis_names)
    sums = jax.shard_map(
        lambda left, right: of_device(left, right)[None],
        mesh=mesh,
        in_specs=(by_device, by_device),
        out_specs=by_device,
    )(left, right)
    return jnp.sum(sums, axis=0)


_convolve.defvjp(_convolve_forward, _convolve_backward)
