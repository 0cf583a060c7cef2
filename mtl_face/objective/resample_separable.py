"""Bilinear resampling as two matrix products, with no gather: for TPU.

The classic two-pass decomposition (Catmull and Smith, 1980). With x' = a x + b y + c and
y' = d x + e y + f, the first pass works along the rows of the stored picture and finds, for stored
row y' and output column x, the value where that output column crosses the row:

    x' = (a - b d / e) x + (b / e) y' + (c - b f / e)

The second pass works along these columns and reads them at y'. Each pass interpolates linearly
between two neighbours, written as a product with a matrix that has two entries per row.

It is the same as bilinear interpolation when b = 0 (resize, zoom, shift, flip), and for any
transform of a picture whose brightness is linear in x and y. Otherwise it interpolates along the
output's columns instead of the stored picture's, which differs in second order: by about b / 4 e
times the picture's second differences. b / e is the tangent of the rotation, hence the limit of 45
degrees on rotations.

Dimension letters: B batch, H and W stored rows and columns, V and U output rows and columns,
C colour channels.
"""

import jax
import jax.numpy as jnp


def sample_separable(
    image_BHWC: jax.Array, transform_B23: jax.Array, y_BVU: jax.Array
) -> jax.Array:
    """Interpolates the stored pictures on a transformed grid.

    Args:
        image_BHWC: uint8 or float32.
        transform_B23: float32, output pixel centres to stored pixel centres; its entry [1, 1] must
            not be 0, and the rotation in it at most 45 degrees for accuracy.
        y_BVU: float32, rows of the stored picture where the output pixels lie, pixels, as
            `sampling_grid.source_coordinates` gives them. Points beyond the outermost pixel centres
            take the value of an outermost pixel.

    Returns:
        float32 `[B, V, U, C]`.
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
