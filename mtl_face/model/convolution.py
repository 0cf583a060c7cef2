"""Convolution and max pooling, each in two forms of equal value and gradient but different speed.

What XLA compiles for a CPU is slow in three places; the second form avoids them there:

- the gradient of a convolution with respect to its kernel: written as one matrix product for each
  row of the kernel it is up to ten times faster;
- a convolution from 3 to 17..63 channels: a fourth input channel of zeros makes it up to 15 times
  faster;
- the gradient of max pooling: read from the positions of the maxima it is ten times faster.

On a GPU or a TPU XLA's own convolutions are the better ones. A GPU too takes the second form of max
pooling: XLA's gradient becomes four arrays of 32-bit indices and atomic additions there.

Shapes: B batch, H W height and width of the input, h w of the output, I O input and output
channels, R columns of the kernel times I.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

_SMALLEST_PRODUCT = 128
"""Rows of a matrix product below which XLA's own kernel gradient is the faster one: with few
channels, a 7 x 7 stem above all, putting the factors together costs more than the product saves.
The 1 x 1 kernels need no putting together and are products at any size."""

_CACHED_BYTES = 2**20
"""Size up to which the factors of a product are put together at a time, about a core's cache."""

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


def _forward_only(image_BHWI: jax.Array, kernel_HWIO: jax.Array, *how: Any) -> jax.Array:
    if image_BHWI.shape[-1] == 3 and 16 < kernel_HWIO.shape[-1] < 64:
        image_BHWI = jnp.pad(image_BHWI, ((0, 0), (0, 0), (0, 0), (0, 1)))
        kernel_HWIO = jnp.pad(kernel_HWIO, ((0, 0), (0, 0), (0, 1), (0, 0)))
    return _xla(image_BHWI, kernel_HWIO, *how)


_convolve = jax.custom_vjp(_forward_only, nondiff_argnums=(2, 3, 4))


def _forward(image_BHWI: jax.Array, kernel_HWIO: jax.Array, *how: Any) -> tuple[jax.Array, Any]:
    return _forward_only(image_BHWI, kernel_HWIO, *how), (image_BHWI, kernel_HWIO)


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
    kernel_gradient_HWIO = _kernel_gradient(
        jnp.pad(image_BHWI, ((0, 0), *pads, (0, 0))),
        gradient_BhwO,
        (rows, columns),
        strides,
        precision,
    )
    return image_gradient_BHWI, kernel_gradient_HWIO.astype(kernel_HWIO.dtype)


_convolve.defvjp(_forward, _backward)


def _kernel_gradient(
    padded_BHWI: jax.Array,
    gradient_BhwO: jax.Array,
    kernel_size: tuple[int, int],
    strides: tuple[int, int],
    precision: Any,
) -> jax.Array:
    """The sum over examples and pixels, [rows, columns, I, O], from strip to strip of the map.

    The strips cut the map across its height, and not the batch, which may lie on several devices.
    """
    batch, height, width, features = gradient_BhwO.shape
    rows, columns = kernel_size
    row_stride, column_stride = strides
    channels = padded_BHWI.shape[-1]
    # XLA transposes the first factor of these products, so that is the narrower one.
    gradient_first = features < columns * channels
    product = "bhwo,bhwr->or" if gradient_first else "bhwr,bhwo->ro"

    def products(strip_BHWI: jax.Array, strip_gradient_BhwO: jax.Array) -> list[jax.Array]:
        """One product for each row of the kernel."""
        span = (strip_gradient_BhwO.shape[1] - 1) * row_stride + 1
        reach = (width - 1) * column_stride + 1
        found = []
        for row in range(rows):
            # The pixels that the taps of this row met, side by side for each output pixel.
            seen = strip_BHWI[:, row : row + span : row_stride]
            taps = [
                seen[:, :, column : column + reach : column_stride] for column in range(columns)
            ]
            factors = (jnp.concatenate(taps, axis=-1), strip_gradient_BhwO)
            if gradient_first:
                factors = factors[::-1]
            found.append(jnp.einsum(product, *factors, precision=precision))
        return found

    height_of_strip = height
    row_bytes = batch * width * columns * channels * padded_BHWI.dtype.itemsize
    if rows * columns > 1 and height * row_bytes > 4 * _CACHED_BYTES:
        fitting = max(_CACHED_BYTES // row_bytes, 1)
        height_of_strip = max(n for n in range(1, height + 1) if height % n == 0 and n <= fitting)
    if height_of_strip == height:
        sums = products(padded_BHWI, gradient_BhwO)
    else:
        reach = (height_of_strip - 1) * row_stride + rows

        def add_strip(start: Any, sums: list[jax.Array]) -> list[jax.Array]:
            strip_BHWI = lax.dynamic_slice_in_dim(padded_BHWI, start * row_stride, reach, axis=1)
            strip_gradient = lax.dynamic_slice_in_dim(gradient_BhwO, start, height_of_strip, axis=1)
            return [a + b for a, b in zip(sums, products(strip_BHWI, strip_gradient), strict=True)]

        shape = (features, columns * channels)
        zeros = jnp.zeros(shape if gradient_first else shape[::-1], gradient_BhwO.dtype)
        sums = lax.fori_loop(
            0,
            height // height_of_strip,
            lambda strip, sums: add_strip(strip * height_of_strip, sums),
            [zeros] * rows,
        )
    stacked = jnp.stack(sums)
    if gradient_first:
        stacked = jnp.swapaxes(stacked, 1, 2)
    return stacked.reshape(rows, columns, channels, features)


def max_pool(map_BHWC: jax.Array, padding: str | Pads, *, convolution: str) -> jax.Array:
    """The 3 x 3 maximum of stride 2 over a map padded with minus infinity, [B, h, w, C].

    `convolution` is a key of `CONVOLUTIONS`, the form to take. The gradient goes to the first of
    several maxima.
    """
    if convolution == "xla":
        # Keyword arguments, because the ONNX converter does not see positional ones.
        return nn.max_pool(map_BHWC, window_shape=(3, 3), strides=(2, 2), padding=padding)
    if isinstance(padding, str):
        rows, columns = lax.padtype_to_pads(map_BHWC.shape[1:3], (3, 3), (2, 2), padding)
        padding = (rows, columns)
    return _pool(map_BHWC, padding)


def _pool_forward(map_BHWC: jax.Array, pads: Pads) -> tuple[jax.Array, jax.Array]:
    """The maxima, and as int8 which of its nine pixels a window took, in row-major order."""
    padded_BHWC = jnp.pad(map_BHWC, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    height, width = ((size - 3) // 2 + 1 for size in padded_BHWC.shape[1:3])
    best_BhwC = padded_BHWC[:, : 2 * height - 1 : 2, : 2 * width - 1 : 2]
    taken_BhwC = jnp.zeros(best_BhwC.shape, jnp.int8)
    for place in range(1, 9):
        row, column = divmod(place, 3)
        pixel_BhwC = padded_BHWC[
            :, row : row + 2 * height - 1 : 2, column : column + 2 * width - 1 : 2
        ]
        taken_BhwC = jnp.where(pixel_BhwC > best_BhwC, jnp.int8(place), taken_BhwC)
        best_BhwC = jnp.maximum(best_BhwC, pixel_BhwC)
    return best_BhwC, taken_BhwC


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool(map_BHWC: jax.Array, pads: Pads) -> jax.Array:
    return _pool_forward(map_BHWC, pads)[0]


def _pool_saved(map_BHWC: jax.Array, pads: Pads) -> tuple[jax.Array, Any]:
    best_BhwC, taken_BhwC = _pool_forward(map_BHWC, pads)
    return best_BhwC, (taken_BhwC, map_BHWC)


def _pool_backward(pads: Pads, saved: Any, gradient_BhwC: jax.Array) -> tuple[jax.Array]:
    """Pixels of even and odd rows and columns apart, each from the one to four windows on it."""
    taken_BhwC, map_BHWC = saved
    batch, height, width, channels = map_BHWC.shape

    def from_window(row: int, column: int) -> jax.Array:
        """What pixels (2 a + row, 2 b + column) of the padded map get from window (a, b)."""
        chosen = jnp.where(taken_BhwC == 3 * row + column, gradient_BhwC, 0)
        down, right = row // 2, column // 2
        return jnp.pad(chosen, ((0, 0), (down, 1 - down), (right, 1 - right), (0, 0)))

    def pixels(odd_row: int, odd_column: int) -> jax.Array:
        parts = [
            from_window(row, column)
            for row in range(odd_row, 3, 2)
            for column in range(odd_column, 3, 2)
        ]
        return functools.reduce(jnp.add, parts)

    even, odd = (jnp.stack([pixels(row, 0), pixels(row, 1)], axis=3) for row in range(2))
    padded_BHWC = jnp.stack([even, odd], axis=2)
    rows, columns = (2 * (size + 1) for size in gradient_BhwC.shape[1:3])
    padded_BHWC = padded_BHWC.reshape(batch, rows, columns, channels)
    (top, _), (left, _) = pads
    # Pixels that no window reaches may lie beyond what was put together.
    missing = ((0, max(top + height - rows, 0)), (0, max(left + width - columns, 0)))
    padded_BHWC = jnp.pad(padded_BHWC, ((0, 0), *missing, (0, 0)))
    return (padded_BHWC[:, top : top + height, left : left + width],)


_pool.defvjp(_pool_saved, _pool_backward)

CONVOLUTIONS: dict[str, Callable[..., jax.Array] | None] = {
    "xla": None,  # nn.Conv's own default
    "cudnn": None,  # which XLA calls on a GPU
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
        faster = {"cpu": "matmul_gradient", "gpu": "cudnn"}
        return faster.get(platform or jax.default_backend(), "xla")
    if name not in CONVOLUTIONS:
        raise ValueError(f"{name!r} is not one of {', '.join(CONVOLUTIONS)}")
    return name
