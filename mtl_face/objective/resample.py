"""One bilinear resampling of a picture through an affine map, in two ways.

A transform is a 2 x 3 matrix per example that takes the centre of an output pixel, (x, y, 1) with x
to the right and y downwards, to a point of the stored picture in the same convention (pixel centres
at whole numbers). The picture covers its pixels to their outer edges: from -0.5 to size - 0.5.
Coordinates are elementwise: as a matrix product they would be rounded to bfloat16 on a TPU, which
is a whole pixel at 256.

`gather`, for CPU and GPU, reads the four neighbours of every point. XLA fuses coordinates, reads
and weights into one loop over the output: nothing but the stored picture is read and nothing but
the result is written. On a TPU reading single pixels is slow.

`separable`, for TPU, is two matrix products: the two-pass decomposition of Catmull and Smith
(1980). With x' = a x + b y + c and y' = d x + e y + f, the first pass works along the rows of the
stored picture and finds, for stored row y' and output column x, the value where that output column
crosses the row:

    x' = (a - b d / e) x + (b / e) y' + (c - b f / e)

The second pass works along these columns and reads them at y'. Each pass interpolates linearly
between two neighbours, written as a product with a matrix that has two entries per row. It is the
same as bilinear interpolation when b = 0 (resize, zoom, shift, flip), and for any transform of a
picture whose brightness is linear in x and y. Otherwise it interpolates along the output's columns
instead of the stored picture's, which differs in second order: by about b / 4 e times the picture's
second differences. b / e is the tangent of the rotation, hence the limit of 45 degrees on it.

Dimension letters: B batch, H and W stored rows and columns, V and U output rows and columns,
C colour channels; 2 and 3 as in the matrix.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

Method = Literal["auto", "gather", "separable"]

METHODS: tuple[Method, ...] = ("auto", "gather", "separable")
"""Names of the ways to resample."""


def resolve_method(method: Method, platform: str | None = None) -> Method:
    """Turns `auto` into the way that suits a platform (cpu, gpu, tpu): `separable` on a TPU.

    None is the platform of the default backend. ValueError for a method not in `METHODS`.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "auto":
        return "separable" if (platform or jax.default_backend()) == "tpu" else "gather"
    return method


def resample(
    image_BHWC: jax.Array,
    transform_B23: jax.Array,
    *,
    input_size: int,
    method: Method = "auto",
    fill: float = 0.0,
) -> jax.Array:
    """Resamples stored crops bilinearly, once, through their transforms.

    The picture reaches to its pixels' outer edges (within half a pixel of the edge the outermost
    pixel's value holds, as usual in resizing) and gives way to `fill` over one stored pixel beyond.
    There is no low-pass filter: when the input is much smaller than the stored crop, detail finer
    than the input's pixels aliases.

    The two methods agree to rounding without rotation. With one they differ in second order: on
    112-pixel face crops rotated by up to 10 degrees by 0.1 grey levels on average, less than 2 in
    99.9 % of all values and 11 at the worst one; by up to 45 degrees 0.4, 10 and 52.
    The module's docstring says why.

    Args:
        image_BHWC: stored crops, uint8 in 0..255 (float32 is taken too).
        transform_B23: float32, from `draw_transforms` or `identity_transforms`.
        input_size: side of the square output, pixels.
        method: `gather` reads four pixels per point (CPU, GPU); `separable` is two matrix products
            (TPU; on a CPU or GPU slow, with 30 MB of weights per example at 224 pixels); `auto`
            chooses.
        fill: value around the picture, 0 to 255.

    Returns:
        float32 `[B, input_size, input_size, C]` in 0..255.

    Raises:
        ValueError: shapes that do not fit, or an unknown method.
    """
    if image_BHWC.ndim != 4:
        raise ValueError(f"image must be [B, H, W, C], got {image_BHWC.shape}")
    if transform_B23.shape != (image_BHWC.shape[0], 2, 3):
        raise ValueError(
            f"transform must be [{image_BHWC.shape[0]}, 2, 3] for images {image_BHWC.shape}, "
            f"got {transform_B23.shape}"
        )
    _, height, width, _ = image_BHWC.shape
    x_BVU, y_BVU = source_coordinates(transform_B23, input_size=input_size)
    if resolve_method(method) == "gather":
        output_BVUC = _sample_gather(image_BHWC, x_BVU, y_BVU)
    else:
        output_BVUC = _sample_separable(image_BHWC, transform_B23, y_BVU)
    cover_BVU1 = coverage(x_BVU, y_BVU, height=height, width=width)[..., None]
    return fill + cover_BVU1 * (output_BVUC - fill)


def source_coordinates(transform_B23: jax.Array, *, input_size: int) -> tuple[jax.Array, jax.Array]:
    """Where output pixels lie in the stored picture: x and y, float32 `[B, V, U]`, pixels."""
    centre = jnp.arange(input_size, dtype=jnp.float32)
    column_11U, row_1V1 = centre[None, None, :], centre[None, :, None]
    entry_23B11 = transform_B23.transpose(1, 2, 0)[..., None, None]
    x_BVU, y_BVU = (
        row_3B11[0] * column_11U + row_3B11[1] * row_1V1 + row_3B11[2] for row_3B11 in entry_23B11
    )
    return x_BVU, y_BVU


def coverage(x_BVU: jax.Array, y_BVU: jax.Array, *, height: int, width: int) -> jax.Array:
    """How much of the picture, rather than of the fill, each output pixel shows.

    1 on the picture, falling to 0 over one stored pixel beyond its edge. A hard edge would make the
    result jump where rounding moves a point across it, and would look like a staircase. All
    arguments are pixels of the stored picture; the result is float32 `[B, V, U]` in [0, 1].
    """

    def along(position: jax.Array, size: int) -> jax.Array:
        beyond = jnp.abs(position - (size - 1) / 2) - size / 2
        return jnp.clip(1.0 - beyond, 0.0, 1.0)

    return along(x_BVU, width) * along(y_BVU, height)


def _sample_gather(image_BHWC: jax.Array, x_BVU: jax.Array, y_BVU: jax.Array) -> jax.Array:
    """The pictures at given columns and rows, float32 `[B, V, U, C]`."""

    def sample(image_HW: jax.Array, x_VU: jax.Array, y_VU: jax.Array) -> jax.Array:
        return map_coordinates(image_HW, [y_VU, x_VU], order=1, mode="nearest")

    # Channels by vmap, not one by one: the indices are then computed once for all, ten times faster
    # on a CPU. Examples by vmap: XLA then knows that example b reads only example b, and a batch
    # sharded over devices needs no communication.
    sample_channels = jax.vmap(sample, in_axes=(2, None, None), out_axes=2)
    return jax.vmap(sample_channels)(image_BHWC.astype(jnp.float32), x_BVU, y_BVU)


def _sample_separable(
    image_BHWC: jax.Array, transform_B23: jax.Array, y_BVU: jax.Array
) -> jax.Array:
    """The pictures on a transformed grid, float32 `[B, V, U, C]`.

    The transforms' entry [1, 1] must not be 0, and their rotation at most 45 degrees for accuracy.
    """
    _, height, width, _ = image_BHWC.shape
    output_columns = y_BVU.shape[2]
    row_H = jnp.arange(height, dtype=jnp.float32)
    column_W = jnp.arange(width, dtype=jnp.float32)
    column_U = jnp.arange(output_columns, dtype=jnp.float32)

    (a, b, c), (d, e, f) = transform_B23.transpose(1, 2, 0)[..., None, None]
    slant = b / e
    x_BHU = (
        (a - slant * d) * column_U[None, None, :] + slant * row_H[None, :, None] + (c - slant * f)
    )
    across_BHUW = _linear_weights(x_BHU, column_W)
    down_BVUH = _linear_weights(y_BVU, row_H)
    # bfloat16 passes, the default on a TPU, would cost up to two grey levels.
    precision = jax.lax.Precision.HIGHEST
    image_BHWC = image_BHWC.astype(jnp.float32)
    crossing_BHUC = jnp.einsum("bhwc,bhuw->bhuc", image_BHWC, across_BHUW, precision=precision)
    return jnp.einsum("bhuc,bvuh->bvuc", crossing_BHUC, down_BVUH, precision=precision)


def _linear_weights(position: jax.Array, centre_N: jax.Array) -> jax.Array:
    """Weight of each of the N pixel centres, last axis, in linear interpolation at `position`."""
    position = jnp.clip(position, 0.0, centre_N.shape[0] - 1)
    centre = centre_N.reshape((1,) * position.ndim + (-1,))
    return jnp.maximum(0.0, 1.0 - jnp.abs(position[..., None] - centre))
