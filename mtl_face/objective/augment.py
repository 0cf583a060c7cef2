"""Random geometry on the device: one affine map per example, from the stored crop to the input.

Rotation, translation, zoom and horizontal flip as in section 4 of arXiv 2208.03506, which names the
first three without ranges. They and the resize (112 to 224 pixels in the paper's setting) are
composed into one affine map per example, so that a picture is interpolated once, in training and in
evaluation by the same code. Everything is a pure function of the key: example i of a batch gets the
same transform whatever the number of devices.

Dimension letters: B batch; 2 and 3 as in the maps.
"""

import jax
import jax.numpy as jnp

from mtl_face.config import AugmentationConfig


def compose_transforms(
    angle_B: jax.Array,
    shift_B2: jax.Array,
    zoom_B: jax.Array,
    flip_B: jax.Array,
    *,
    stored_size: int,
    input_size: int,
) -> jax.Array:
    """Composes resize, flip, rotation and zoom about the centre, then shift, into affine maps.

    Args:
        angle_B: float32, radians; positive turns the picture counterclockwise as one sees it.
        shift_B2: float32, output pixels to the right and down by which the picture moves.
        zoom_B: float32 > 0; above 1 enlarges the face.
        flip_B: bool; true mirrors left and right.
        stored_size: side of the stored crop, pixels.
        input_size: side of the network's input, pixels.

    Returns:
        float32 `[B, 2, 3]`: from output pixel centres (x, y, 1) to stored pixel centres (x, y).
        Without augmentation that is (x + 0.5) stored_size / input_size - 0.5, the resize that
        aligns the pictures' outer edges.
    """
    scale_B = (stored_size / input_size) / zoom_B
    mirror_B = jnp.where(flip_B, -1.0, 1.0)
    cos_B, sin_B = scale_B * jnp.cos(angle_B), scale_B * jnp.sin(angle_B)
    linear_B22 = jnp.stack(
        [
            jnp.stack([mirror_B * cos_B, -mirror_B * sin_B], axis=-1),
            jnp.stack([sin_B, cos_B], axis=-1),
        ],
        axis=-2,
    )
    pivot_B12 = ((input_size - 1) / 2 + shift_B2)[:, None, :]
    # Not a matrix product: those are rounded to bfloat16 on a TPU.
    offset_B2 = (stored_size - 1) / 2 - jnp.sum(linear_B22 * pivot_B12, axis=-1)
    return jnp.concatenate([linear_B22, offset_B2[..., None]], axis=-1)


def draw_transforms(
    key: jax.Array,
    batch_size: int,
    ranges: AugmentationConfig,
    *,
    stored_size: int,
    input_size: int,
) -> jax.Array:
    """Draws one random transform per example: float32 `[B, 2, 3]`, see `compose_transforms`.

    `key` is a typed random key; every quantity is uniform in its range and independent.
    """
    angle_key, shift_key, zoom_key, _ = jax.random.split(key, 4)
    angle = jnp.deg2rad(ranges.rotation_degrees)
    reach = ranges.translation * input_size
    smallest, largest = ranges.zoom
    return compose_transforms(
        jax.random.uniform(angle_key, (batch_size,), minval=-angle, maxval=angle),
        jax.random.uniform(shift_key, (batch_size, 2), minval=-reach, maxval=reach),
        jax.random.uniform(zoom_key, (batch_size,), minval=smallest, maxval=largest),
        draw_flips(key, batch_size, ranges),
        stored_size=stored_size,
        input_size=input_size,
    )


def draw_flips(key: jax.Array, batch_size: int, ranges: AugmentationConfig) -> jax.Array:
    """Which examples the transforms of a key mirror, bool [B]."""
    if not ranges.flip:
        return jnp.zeros(batch_size, bool)
    return jax.random.bernoulli(jax.random.split(key, 4)[3], shape=(batch_size,))


def identity_transforms(batch_size: int, *, stored_size: int, input_size: int) -> jax.Array:
    """The resize alone, for evaluation: float32 `[B, 2, 3]`, see `compose_transforms`."""
    scale = stored_size / input_size
    offset = (scale - 1) / 2
    transform_23 = jnp.array([[scale, 0.0, offset], [0.0, scale, offset]], jnp.float32)
    return jnp.broadcast_to(transform_23[None], (batch_size, 2, 3))
