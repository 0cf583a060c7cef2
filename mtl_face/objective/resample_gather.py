"""Bilinear resampling by reading the four neighbours of every point: for CPU and GPU.

XLA fuses coordinates, reads and weights into one loop over the output, so that nothing but the
stored picture is read and nothing but the result is written. On a TPU gathers of single pixels are
slow; `mtl_face.objective.resample_separable` is for there.

Dimension letters: B batch, H and W stored rows and columns, V and U output rows and columns,
C colour channels, N = H W stored pixels.
"""

import jax
import jax.numpy as jnp


def sample_gather(image_BHWC: jax.Array, x_BVU: jax.Array, y_BVU: jax.Array) -> jax.Array:
    """Interpolates the stored pictures at given points.

    Args:
        image_BHWC: uint8 or float32, at least 2 pixels high and wide.
        x_BVU: float32, columns, pixels; points beyond the outermost pixel centres take their value.
        y_BVU: float32, rows, likewise.

    Returns:
        float32 `[B, V, U, C]`.
    """
    batch, height, width, channels = image_BHWC.shape
    x_BVU = jnp.clip(x_BVU, 0.0, width - 1)
    y_BVU = jnp.clip(y_BVU, 0.0, height - 1)
    # The left and upper neighbour stops one short of the edge, so that the other one exists too.
    left_BVU = jnp.minimum(jnp.floor(x_BVU), width - 2)
    upper_BVU = jnp.minimum(jnp.floor(y_BVU), height - 2)
    across_BVU1 = (x_BVU - left_BVU)[..., None]
    down_BVU1 = (y_BVU - upper_BVU)[..., None]
    index_BVU = upper_BVU.astype(jnp.int32) * width + left_BVU.astype(jnp.int32)
    pixel_BNC = image_BHWC.reshape(batch, height * width, channels)

    # vmap tells XLA that example b reads only example b: no traffic when the batch is sharded.
    @jax.vmap
    def read(pixel_NC: jax.Array, index_VU: jax.Array) -> jax.Array:
        return pixel_NC.at[index_VU].get(mode="promise_in_bounds")

    def neighbour(offset: int) -> jax.Array:
        return read(pixel_BNC, index_BVU + offset).astype(jnp.float32)

    def blend(start: jax.Array, end: jax.Array, share: jax.Array) -> jax.Array:
        return start + share * (end - start)

    above_BVUC = blend(neighbour(0), neighbour(1), across_BVU1)
    below_BVUC = blend(neighbour(width), neighbour(width + 1), across_BVU1)
    return blend(above_BVUC, below_BVUC, down_BVU1)
