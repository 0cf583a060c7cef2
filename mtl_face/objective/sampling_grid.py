"""Where each output pixel lies in the stored picture.

A transform is a 2 x 3 matrix per example that takes the centre of an output pixel, (x, y, 1) with x
to the right and y downwards, to a point of the stored picture in the same convention (pixel centres
at whole numbers). The picture covers its pixels to their outer edges: from -0.5 to size - 0.5.

Everything here is elementwise on purpose: a matrix product of the coordinates would be rounded to
bfloat16 on a TPU, which is a whole pixel at 256.

Dimension letters: B batch, V output rows, U output columns; 2 and 3 as in the matrix.
"""

import jax
import jax.numpy as jnp


def source_coordinates(transform_B23: jax.Array, *, input_size: int) -> tuple[jax.Array, jax.Array]:
    """Maps every output pixel's centre into the stored picture.

    Args:
        transform_B23: float32, output pixel centres to stored pixel centres.
        input_size: side of the square output, pixels.

    Returns:
        x and y of the stored picture, float32 `[B, input_size, input_size]`, pixels.
    """
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
    result jump where rounding moves a point across it, and would look like a staircase.

    Args:
        x_BVU: columns of the stored picture, pixels.
        y_BVU: rows of the stored picture, pixels.
        height: of the stored picture, pixels.
        width: of the stored picture, pixels.

    Returns:
        float32 `[B, V, U]` in [0, 1].
    """

    def along(position: jax.Array, size: int) -> jax.Array:
        beyond = jnp.abs(position - (size - 1) / 2) - size / 2
        return jnp.clip(1.0 - beyond, 0.0, 1.0)

    return along(x_BVU, width) * along(y_BVU, height)
