"""Bilinear resampling by reading the four neighbours of every point: for CPU and GPU.

XLA fuses coordinates, reads and weights into one loop over the output, so that nothing but the
stored picture is read and nothing but the result is written. On a TPU reading single pixels is
slow; `mtl_face.objective.resample_separable` is for there.

Dimension letters: B batch, H and W stored rows and columns, V and U output rows and columns,
C colour channels.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


def sample_gather(image_BHWC: jax.Array, x_BVU: jax.Array, y_BVU: jax.Array) -> jax.Array:
    """Interpolates the stored pictures at given points.

    Args:
        image_BHWC: uint8 or float32.
        x_BVU: float32, columns, pixels; points beyond the outermost pixel centres take their value.
        y_BVU: float32, rows, likewise.

    Returns:
        float32 `[B, V, U, C]`.
    """

    def sample(image_HW: jax.Array, x_VU: jax.Array, y_VU: jax.Array) -> jax.Array:
        return map_coordinates(image_HW, [y_VU, x_VU], order=1, mode="nearest")

    # Channels by vmap, not one by one: the indices are then computed once for all, ten times faster
    # on a CPU. Examples by vmap: XLA then knows that example b reads only example b, and a batch
    # sharded over devices needs no communication.
    sample_channels = jax.vmap(sample, in_axes=(2, None, None), out_axes=2)
    return jax.vmap(sample_channels)(image_BHWC.astype(jnp.float32), x_BVU, y_BVU)
