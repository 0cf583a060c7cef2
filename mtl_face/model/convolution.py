"""Convolutions, products and pooling in the form that a platform computes fastest; equal values.

- CPU: a 1 x 1 convolution is a matrix product, and so are both of its gradients. A depthwise one is
  a sum of shifted maps, ten times as fast as XLA's; the gradient of a small kernel is summed row by
  row, that of a large one is a product of windows. A dense layer of several axes is a product of
  two. Other kernels are left to XLA, but not through YNNPACK (`compiler_options`): through that,
  XLA's default, the gradient with respect to a kernel takes up to four times as long. Products and
  sums stay with YNNPACK: without it the sums of a batch norm take fifteen times as long.
- CPU and GPU: the gradient of max pooling is read from the positions of the maxima. XLA's becomes
  four arrays of 32-bit indices, and atomic additions on a GPU.
- TPU: XLA's own forms.

Shapes: B batch, H W height and width of the input, h w of the output, I O input and output
channels.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mtl_face.model.geometry import POOL_STRIDE, POOL_WINDOW

Pads = tuple[tuple[int, int], tuple[int, int]]


def pointwise_by_matmul(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    precision: Any = None,
    **settings: Any,
) -> jax.Array:
    """`lax.conv_general_dilated`, with a 1 x 1 kernel by a matrix product; for `nn.Conv`.

    From `lhs` [B, H, W, I] and the kernel `rhs` [height, width, I, O] to [B, h, w, O].
    """
    pads = padding if isinstance(padding, str) else tuple(map(tuple, padding))
    product = (
        rhs.shape[:2] == (1, 1)
        and pads in ("VALID", "SAME", ((0, 0), (0, 0)))
        and set(settings.get("lhs_dilation") or ()) <= {1}
        and settings.get("feature_group_count", 1) == 1
    )
    if not product:
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, precision=precision, **settings
        )
    rows, columns = window_strides
    seen_BhwI = lhs[:, ::rows, ::columns]
    # Two axes, not four: XLA then transposes no factor of the kernel's gradient.
    out_NO = jnp.dot(seen_BhwI.reshape(-1, lhs.shape[-1]), rhs[0, 0], precision=precision)
    return out_NO.reshape(*seen_BhwI.shape[:-1], -1)


def depthwise_by_shifts(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> jax.Array:
    """A depthwise convolution as a sum of shifted maps times weights, which XLA fuses to one loop.

    From `lhs` [B, H, W, I] and the kernel `rhs` [height, width, 1, I] to [B, h, w, I].
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    pads: Any = tuple(map(tuple, padding))
    covered = all(max(pad) < size for pad, size in zip(pads, rhs.shape[:2], strict=True))
    if tuple(window_strides) == (1, 1) and covered:
        return _dense_shifts(lhs, rhs, pads)
    return _shifts(lhs, rhs, tuple(window_strides), pads)


def _shifts(lhs: jax.Array, rhs: jax.Array, strides: tuple[int, ...], pads: Pads) -> jax.Array:
    padded_BHWI = jnp.pad(lhs, ((0, 0), *pads, (0, 0)))
    rows, columns = strides
    height, width = (
        (size - kernel) // stride + 1
        for size, kernel, stride in zip(padded_BHWI.shape[1:3], rhs.shape[:2], strides, strict=True)
    )
    terms = [
        padded_BHWI[
            :,
            row : row + rows * (height - 1) + 1 : rows,
            column : column + columns * (width - 1) + 1 : columns,
        ]
        * rhs[row, column][None, None]
        for row in range(rhs.shape[0])
        for column in range(rhs.shape[1])
    ]
    return functools.reduce(jnp.add, terms)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense_shifts(lhs: jax.Array, rhs: jax.Array, pads: Pads) -> jax.Array:
    """Of stride 1, and pads below the kernel's size."""
    return _shifts(lhs, rhs, (1, 1), pads)


def _dense_shifts_saved(lhs: jax.Array, rhs: jax.Array, pads: Pads) -> tuple[jax.Array, Any]:
    return _shifts(lhs, rhs, (1, 1), pads), (lhs, rhs)


def _dense_shifts_backward(
    pads: Pads, saved: Any, gradient_BhwI: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradient convolved with the turned kernel; and that of the kernel.

    Left to itself, the latter is a sum over the whole map for each pixel of the kernel, which reads
    all from memory each time.
    """
    lhs, rhs = saved
    top, side = (
        (size - 1 - low, size - 1 - high)
        for size, (low, high) in zip(rhs.shape[:2], pads, strict=True)
    )
    lhs_gradient = _shifts(gradient_BhwI, rhs[::-1, ::-1], (1, 1), (top, side))
    padded_BHWI = jnp.pad(lhs, ((0, 0), *pads, (0, 0)))
    by_windows = min(rhs.shape[:2]) > _LARGEST_BY_ROWS
    kernel_gradient = _by_windows if by_windows else _by_rows
    rhs_gradient = kernel_gradient(padded_BHWI, gradient_BhwI, rhs.shape[:2])
    return lhs_gradient, rhs_gradient.astype(rhs.dtype)


_dense_shifts.defvjp(_dense_shifts_saved, _dense_shifts_backward)


_LARGEST_BY_ROWS = 3
"""Side of the kernels for which `_by_rows` is faster than `_by_windows`."""


def _by_rows(
    padded_BHWI: jax.Array, gradient_BhwI: jax.Array, kernel: tuple[int, ...]
) -> jax.Array:
    """The kernel's gradient at stride 1, [r, c, 1, I], float32 or wider.

    Entry r, c is the sum over all places of the gradient times the input r rows and c columns on.
    The sums stay apart by example, as devices have them.
    """
    height, width = gradient_BhwI.shape[1:3]
    wide = jnp.promote_types(padded_BHWI.dtype, jnp.float32)

    def of_row(row: jax.Array) -> tuple[jax.Array, ...]:
        seen_BrWI = lax.dynamic_slice_in_dim(padded_BHWI, row, kernel[0], axis=1)
        row_B1wI = lax.dynamic_slice_in_dim(gradient_BhwI, row, 1, axis=1)
        return tuple(
            jnp.sum(seen_BrWI[:, :, column : column + width] * row_B1wI, axis=2, dtype=wide)
            for column in range(kernel[1])
        )

    sums_hBrI = lax.map(of_row, jnp.arange(height))
    return jnp.stack([jnp.sum(each, axis=(0, 1)) for each in sums_hBrI], axis=1)[:, :, None]


def _by_windows(
    padded_BHWI: jax.Array, gradient_BhwI: jax.Array, kernel: tuple[int, ...]
) -> jax.Array:
    """As `_by_rows`, by products of matrices.

    The gradient is cut into blocks of the kernel's size, and the input into the windows that their
    sums need, almost twice that size. For each channel a product, with the blocks as the axis that
    is summed over, multiplies every pixel of a window by every pixel of its block. The entries are
    sums of what lies on diagonals; the rest is of no use, and the whole faster than sums.
    """
    rows, columns = kernel
    batch, height, width, channels = gradient_BhwI.shape
    down, across = -(-height // rows), -(-width // columns)

    def in_blocks(map_BHWI: jax.Array, down: int, across: int) -> jax.Array:
        """[B, down, rows, across, columns, I], filled up with zeros."""
        fill = (down * rows - map_BHWI.shape[1], across * columns - map_BHWI.shape[2])
        map_BHWI = jnp.pad(map_BHWI, ((0, 0), (0, fill[0]), (0, fill[1]), (0, 0)))
        return map_BHWI.reshape(batch, down, rows, across, columns, channels)

    block_INP = in_blocks(gradient_BhwI, down, across).transpose(5, 0, 1, 3, 2, 4)
    block_INP = block_INP.reshape(channels, -1, rows * columns)
    input_IrcBda = in_blocks(padded_BHWI, down + 1, across + 1).transpose(5, 2, 4, 0, 1, 3)
    # A window is a block, and what it needs of the next one in each direction.
    window_IrcBda = jnp.concatenate(
        [input_IrcBda[:, :, :, :, :-1], input_IrcBda[:, : rows - 1, :, :, 1:]], axis=1
    )
    window_IrcBda = jnp.concatenate(
        [window_IrcBda[..., :-1], window_IrcBda[:, :, : columns - 1, :, :, 1:]], axis=2
    )
    tall, wide = window_IrcBda.shape[1:3]
    product = lax.dot_general(
        window_IrcBda.reshape(channels, tall * wide, -1),
        block_INP,
        (((2,), (1,)), ((0,), (0,))),
        preferred_element_type=jnp.promote_types(padded_BHWI.dtype, jnp.float32),
    ).reshape(channels, tall, wide, rows, columns)
    sums = functools.reduce(jnp.add, [product[:, row : row + rows, :, row] for row in range(rows)])
    sums_Irc = functools.reduce(
        jnp.add, [sums[:, :, column : column + columns, column] for column in range(columns)]
    )
    return sums_Irc.transpose(1, 2, 0)[:, :, None]


def convolution_of_cpu(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    precision: Any = None,
    **settings: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` in the form that a CPU computes fastest; for `nn.Conv`."""
    dilations = (settings.get("lhs_dilation") or ()), (settings.get("rhs_dilation") or ())
    if (
        rhs.shape[2] == 1
        and settings.get("feature_group_count", 1) == lhs.shape[-1] == rhs.shape[-1] > 1
        and set().union(*dilations) <= {1}
    ):
        return depthwise_by_shifts(lhs, rhs, window_strides, padding)
    return pointwise_by_matmul(lhs, rhs, window_strides, padding, precision=precision, **settings)


def product_of_cpu(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, **settings: Any
) -> jax.Array:
    """`lax.dot_general`, of a last axis with a kernel's first over two axes; for `nn.Dense`.

    Of more axes XLA transposes a factor of the kernel's gradient, in a loop of its own.
    """
    contracted, batched = (tuple(map(tuple, pair)) for pair in dimension_numbers)
    if contracted != ((lhs.ndim - 1,), (0,)) or any(batched):
        return lax.dot_general(lhs, rhs, dimension_numbers, **settings)
    flat = lhs.reshape(-1, lhs.shape[-1])
    product = lax.dot_general(flat, rhs, (((1,), (0,)), ((), ())), **settings)
    return product.reshape(*lhs.shape[:-1], *rhs.shape[1:])


@functools.cache
def compiler_options(platform: str) -> dict[str, str]:
    """What `jax.jit(compiler_options=...)` takes for programs that convolve on a platform."""
    if platform != "cpu":
        return {}
    through_ynnpack = ("LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", "LIBRARY_FUSION_TYPE_REDUCE")
    return if_known({"xla_cpu_experimental_ynn_fusion_type": ",".join(through_ynnpack)})


def if_known(options: dict[str, Any]) -> dict[str, Any]:
    """Options of XLA's compiler for CPUs; none if it does not know one of them."""
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def max_pool(
    map_BHWC: jax.Array, padding: str | Pads, *, convolution: str, devices: int = 1
) -> jax.Array:
    """The 3 x 3 maximum of stride 2 over a map padded with minus infinity, [B, h, w, C].

    `convolution` is a key of `CONVOLUTIONS`, the form to take; the batch is split over `devices`.
    The gradient goes to the first of several maxima.
    """
    batch = map_BHWC.shape[0]
    # A CPU's parts would be of other devices' examples; a batch of any size has no parts.
    unsplit = convolution == "matmul" and (devices > 1 or not isinstance(batch, int))
    if convolution == "xla" or unsplit:
        # Keyword arguments, because the ONNX converter does not see positional ones.
        return nn.max_pool(
            map_BHWC,
            window_shape=(POOL_WINDOW,) * 2,
            strides=(POOL_STRIDE,) * 2,
            padding=padding,
        )
    if isinstance(padding, str):
        rows, columns = lax.padtype_to_pads(
            map_BHWC.shape[1:3], (POOL_WINDOW,) * 2, (POOL_STRIDE,) * 2, padding
        )
        padding = (rows, columns)
    parts = 1 if convolution == "cudnn" else 2 if batch % 2 == 0 else batch
    return _pool(map_BHWC, padding, parts)


def _unsplit(function: Callable[..., Any], parts: int, *arrays: jax.Array) -> Any:
    """A function of examples, applied to parts of the batch one after the other.

    XLA fuses no loop with what stands around it. On a CPU that is to be avoided here: it would
    find the maxima anew for each of the nine pixels of a window.
    """
    if parts == 1:
        return function(*arrays)
    split = [array.reshape(parts, -1, *array.shape[1:]) for array in arrays]
    found = lax.map(lambda part: function(*part), split)
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), found)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _pool(map_BHWC: jax.Array, pads: Pads, parts: int) -> jax.Array:
    del parts
    return _pool_forward(map_BHWC, pads)[0]


def _pool_saved(map_BHWC: jax.Array, pads: Pads, parts: int) -> tuple[jax.Array, Any]:
    forward = functools.partial(_pool_forward, pads=pads)
    best_BhwC, taken_BhwC = _unsplit(forward, parts, map_BHWC)
    return best_BhwC, (taken_BhwC, map_BHWC)


def _pool_backward(
    pads: Pads, parts: int, saved: Any, gradient_BhwC: jax.Array
) -> tuple[jax.Array]:
    taken_BhwC, map_BHWC = saved
    backward = functools.partial(_pool_gradient, pads=pads, shape=map_BHWC.shape[1:3])
    return (_unsplit(backward, parts, taken_BhwC, gradient_BhwC),)


def _pool_gradient(
    taken_BhwC: jax.Array, gradient_BhwC: jax.Array, *, pads: Pads, shape: tuple[int, int]
) -> jax.Array:
    """Pixels of even and odd rows and columns apart, each from the one to four windows on it.

    `shape` is H, W of the map; [B, H, W, C].
    """
    batch, channels = taken_BhwC.shape[0], taken_BhwC.shape[-1]
    height, width = shape

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
    return padded_BHWC[:, top : top + height, left : left + width]


_pool.defvjp(_pool_saved, _pool_backward)

CONVOLUTIONS: dict[str, Callable[..., jax.Array] | None] = {
    "xla": None,  # nn.Conv's own default
    "cudnn": None,  # which XLA calls on a GPU
    "matmul": convolution_of_cpu,
}
"""Implementations by name, as `nn.Conv(conv_general_dilated=...)` takes them."""

PRODUCTS: dict[str, Callable[..., jax.Array] | None] = {
    name: product_of_cpu if name == "matmul" else None for name in CONVOLUTIONS
}
"""For the same names, as `nn.Dense(dot_general=...)` takes them."""


def resolve_convolution(name: str, platform: str | None = None) -> str:
    """Turns `auto` into the key of `CONVOLUTIONS` that is faster on a platform: cpu, gpu or tpu.

    None is the platform of the default backend.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "auto":
        faster = {"cpu": "matmul", "gpu": "cudnn"}
        return faster.get(platform or jax.default_backend(), "xla")
    if name not in CONVOLUTIONS:
        raise ValueError(f"{name!r} is not one of {', '.join(CONVOLUTIONS)}")
    return name
