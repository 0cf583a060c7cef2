"""Two implementations of a convolution, equal in value and gradient, different in speed.

XLA's gradient of a convolution with respect to its kernel is slow on a CPU, for 1 x 1 kernels most
of all. Written as one matrix product for each row of the kernel it is up to ten times faster
there. On a GPU or a TPU XLA's own is the better one.

Shapes: B batch, H W height and width of the input, h w of the output, I O input and output
channels, R columns of the kernel times I.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

_SMALLEST_PRODUCT = 128
"""Rows of a matrix product below which XLA's own kernel gradient is the faster one: with few
channels, a 7 x 7 stem above all, putting the factors together costs more than the product saves.
The 1 x 1 kernels need no putting together and are products at any size."""

Pads = tuple[tuple[int, int], tuple[int, int]]


def convolution_with_matmul_gradient(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    """Convolves images; a drop-in for `lax.conv_general_dilated` in `nn.Conv`.

    From `lhs` [B, H, W, I] and the kernel `rhs` [height, width, I, O] to [B, h, w, O], without
    dilation or groups.

    Raises:
        ValueError: the convolution is dilated, grouped, or laid out otherwise.
    """
    expected = lax.conv_dimension_numbers(lhs.shape, rhs.shape, _DIMENSIONS)
    given = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    if given != expected or feature_group_count != 1 or any(d != 1 for d in dilations):
        raise ValueError("only plain NHWC convolutions have the matrix-product gradient")
    strides = (window_strides[0], window_strides[1])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
    (top, bottom), (left, right) = padding
    pads = ((int(top), int(bottom)), (int(left), int(right)))
    return _convolve(lhs, rhs, strides, pads, precision)


def _xla(
    image_BHWI: jax.Array,
    kernel_HWIO: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    precision: Any,
) -> jax.Array:
    return lax.conv_general_dilated(
        image_BHWI, kernel_HWIO, strides, pads, dimension_numbers=_DIMENSIONS, precision=precision
    )


_convolve = jax.custom_vjp(_xla, nondiff_argnums=(2, 3, 4))


def _forward(image_BHWI: jax.Array, kernel_HWIO: jax.Array, *how: Any) -> tuple[jax.Array, Any]:
    return _xla(image_BHWI, kernel_HWIO, *how), (image_BHWI, kernel_HWIO)


def _backward(
    strides: tuple[int, int], pads: Pads, precision: Any, saved: Any, gradient_BhwO: jax.Array
) -> tuple[jax.Array, jax.Array]:
    image_BHWI, kernel_HWIO = saved
    rows, columns, channels = kernel_HWIO.shape[:3]
    if rows * columns > 1 and columns * channels < _SMALLEST_PRODUCT:
        _, vjp = jax.vjp(lambda x, k: _xla(x, k, strides, pads, precision), image_BHWI, kernel_HWIO)
        return vjp(gradient_BhwO)
    # The gradient with respect to the image is a convolution again, and XLA is good at those.
    _, image_vjp = jax.vjp(lambda x: _xla(x, kernel_HWIO, strides, pads, precision), image_BHWI)
    (image_gradient_BHWI,) = image_vjp(gradient_BhwO)

    padded_BHWI = jnp.pad(image_BHWI, ((0, 0), *pads, (0, 0)))
    height, width = gradient_BhwO.shape[1:3]

    def seen_by(row: int, column: int) -> jax.Array:
        """The pixels that a tap of the kernel met, one for each output pixel, [B, h, w, I]."""
        end_row = row + (height - 1) * strides[0] + 1
        end_column = column + (width - 1) * strides[1] + 1
        return padded_BHWI[:, row : end_row : strides[0], column : end_column : strides[1]]

    gradient_rows = []
    for row in range(rows):
        seen_BhwR = jnp.concatenate([seen_by(row, column) for column in range(columns)], axis=-1)
        gradient_rows.append(
            jnp.einsum("bhwr,bhwo->ro", seen_BhwR, gradient_BhwO, precision=precision)
        )
    kernel_gradient_HWIO = jnp.stack(gradient_rows).reshape(kernel_HWIO.shape)
    return image_gradient_BHWI, kernel_gradient_HWIO.astype(kernel_HWIO.dtype)


_convolve.defvjp(_forward, _backward)

CONVOLUTIONS: dict[str, Callable[..., jax.Array] | None] = {
    "xla": None,  # nn.Conv's own default
    "matmul_gradient": convolution_with_matmul_gradient,
}
"""Implementations by name, as `nn.Conv(conv_general_dilated=...)` takes them."""


def resolve_convolution(name: str, platform: str | None = None) -> str:
    """Turns `auto` into the key of `CONVOLUTIONS` that is faster on a platform: cpu, gpu or tpu.

    None is the platform of the default backend.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "auto":
        return "matmul_gradient" if (platform or jax.default_backend()) == "cpu" else "xla"
    if name not in CONVOLUTIONS:
        raise ValueError(f"{name!r} is not one of {', '.join(CONVOLUTIONS)}")
    return name
