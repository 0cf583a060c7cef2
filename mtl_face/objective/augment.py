"""Random geometry on the device, in one resampling from the stored crop to the network's input.

Rotation, translation, zoom and horizontal flip as in section 4 of arXiv 2208.03506, which names the
first three without ranges. They and the resize (112 to 224 pixels in the paper's setting) are
composed into one affine map per example, so that a picture is interpolated once, in training and in
evaluation by the same code. Everything is a pure function of the key: example i of a batch gets the
same transform whatever the number of devices.

Dimension letters: B batch, H and W stored rows and columns, V and U output rows and columns,
C colour channels.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mtl_face.objective.resample_gather import sample_gather
from mtl_face.objective.resample_separable import sample_separable
from mtl_face.objective.sampling_grid import coverage, source_coordinates

Method = Literal["auto", "gather", "separable"]

METHODS: tuple[Method, ...] = ("auto", "gather", "separable")
"""Names of the ways to resample."""

MAX_ROTATION_DEGREES = 45.0
"""Largest rotation on offer; beyond it the separable method loses its accuracy."""


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
    *,
    stored_size: int,
    input_size: int,
    rotation_degrees: float,
    translation: float,
    zoom: tuple[float, float],
    flip: bool,
) -> jax.Array:
    """Draws one random transform per example, every quantity uniform and independent.

    Args:
        key: typed random key.
        batch_size: number of examples, B.
        stored_size: side of the stored crop, pixels.
        input_size: side of the network's input, pixels.
        rotation_degrees: the angle lies in [-rotation_degrees, rotation_degrees]; 0 to 45.
        translation: the shift along each axis lies in [-translation, translation], as a fraction
            of the picture's side; 0 to 1.
        zoom: smallest and largest factor, > 0; above 1 enlarges the face.
        flip: whether half of the examples are mirrored left to right.

    Returns:
        float32 `[B, 2, 3]`, see `compose_transforms`.

    Raises:
        ValueError: a range that is none, or beyond what is said above.
    """
    if not 0 <= rotation_degrees <= MAX_ROTATION_DEGREES:
        raise ValueError(
            f"rotation_degrees must be from 0 to {MAX_ROTATION_DEGREES:g}, got {rotation_degrees}"
        )
    if not 0 <= translation <= 1:
        raise ValueError(f"translation must be a fraction from 0 to 1, got {translation}")
    smallest, largest = zoom
    if not 0 < smallest <= largest:
        raise ValueError(f"zoom must be (smallest, largest) with 0 < smallest, got {zoom}")

    angle_key, shift_key, zoom_key, flip_key = jax.random.split(key, 4)
    angle = jnp.deg2rad(rotation_degrees)
    reach = translation * input_size
    flip_B = jnp.zeros(batch_size, bool)
    if flip:
        flip_B = jax.random.bernoulli(flip_key, shape=(batch_size,))
    return compose_transforms(
        jax.random.uniform(angle_key, (batch_size,), minval=-angle, maxval=angle),
        jax.random.uniform(shift_key, (batch_size, 2), minval=-reach, maxval=reach),
        jax.random.uniform(zoom_key, (batch_size,), minval=smallest, maxval=largest),
        flip_B,
        stored_size=stored_size,
        input_size=input_size,
    )


def identity_transforms(batch_size: int, *, stored_size: int, input_size: int) -> jax.Array:
    """The resize alone, for evaluation.

    Args:
        batch_size: number of examples, B.
        stored_size: side of the stored crop, pixels.
        input_size: side of the network's input, pixels.

    Returns:
        float32 `[B, 2, 3]`, see `compose_transforms`.
    """
    scale = stored_size / input_size
    offset = (scale - 1) / 2
    transform_23 = jnp.array([[scale, 0.0, offset], [0.0, scale, offset]], jnp.float32)
    return jnp.broadcast_to(transform_23[None], (batch_size, 2, 3))


def resolve_method(method: Method, platform: str | None = None) -> Method:
    """Turns `auto` into the way of resampling that suits a platform: `separable` on a TPU.

    Args:
        method: one of `METHODS`.
        platform: `cpu`, `gpu`, `tpu`; None: the default backend.

    Raises:
        ValueError: not one of `METHODS`.
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
    `mtl_face.objective.resample_separable` says why.

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
        output_BVUC = sample_gather(image_BHWC, x_BVU, y_BVU)
    else:
        output_BVUC = sample_separable(image_BHWC, transform_B23, y_BVU)
    cover_BVU1 = coverage(x_BVU, y_BVU, height=height, width=width)[..., None]
    return fill + cover_BVU1 * (output_BVUC - fill)
