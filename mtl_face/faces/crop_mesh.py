"""The 468 points of crops, as one program of arrays: cuts, mesh network, and the cuts around it.

The same function is run here and written into exports. It is arithmetic and reads, of a batch of
any size, without a loop. Nothing is rounded to grey levels, so that what another compiler
computes in another order moves the points by rounding errors alone.

Dimension letters: B N crops, S side of a crop, P places of a crop with four neighbours, M
samples of a cut, s samples of its side, V mesh points (468).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from mtl_face.face_table import MESH_POINTS
from mtl_face.faces import models
from mtl_face.faces.mesh import EYES, MESH_FACTOR
from mtl_face.faces.models import MESH_SIZE, FaceNetwork

MeshNetwork = Callable[[jax.Array], jax.Array]
"""From cuts, float32 [B, 192, 192, 3] in 0..255, to points [B, V, 3]."""

PASSES = 3
"""How often the points of a crop are found: each time in a cut around the last ones."""


def mesh_of_crops(
    crop_NSS3: npt.NDArray[np.uint8], passes: int = PASSES
) -> npt.NDArray[np.float32]:
    """Finds the points of crops that show one face each, as `align.crop_face` cuts them.

    There is no measure of whether a crop shows a face at all.

    Returns:
        Points [N, V, 3]: x and y in pixels of the crop, where (0, 0) is the centre of the first
        pixel, and depth in pixels, smaller where nearer.
    """
    if not len(crop_NSS3):
        return np.zeros((0, MESH_POINTS, 3), np.float32)
    return _network(passes)(crop_NSS3)[0]


@functools.cache
def _network(passes: int) -> FaceNetwork:
    """What finds the points, shared by all that need it in this process."""

    def find(variables: Any, crop_BSS3: jax.Array) -> tuple[jax.Array]:
        return (find_points(crop_BSS3, mesh_network(variables), passes),)

    return FaceNetwork(find, "face_mesh")


def mesh_network(variables: Any, convolution: str = "auto") -> MeshNetwork:
    """Face Mesh with its weights; traced once, however often it is called."""
    network = jax.jit(functools.partial(models.face_mesh, convolution=convolution))
    return lambda cut_BSS3: network(variables, cut_BSS3)[1]


def find_points(crop_BSS3: jax.Array, network: MeshNetwork, passes: int = PASSES) -> jax.Array:
    """Finds the points of crops, uint8 [B, S, S, 3]: float32 [B, V, 3], see `mesh_of_crops`.

    A crop cuts off parts of the face that the network expects to see: the edge is repeated by a
    quarter of the side. Each pass but the first looks at a cut around the points before.
    """
    size = crop_BSS3.shape[1]
    margin = size // 4
    # A cut is a place and a step, from one of its pixels to the next, as a complex number.
    centre_B2 = jnp.full((1, 2), (size - 1) / 2, jnp.float32)
    step_B2 = jnp.asarray([[(size + 2 * margin) / MESH_SIZE, 0.0]], jnp.float32)
    neighbours_BPC = _neighbours(crop_BSS3)
    for number in range(passes):
        # As many samples as the largest cut needs: one around a face that fills the crop.
        largest = (size + 2 * margin if number == 0 else MESH_FACTOR * size) / MESH_SIZE
        samples = max(math.ceil(largest - 0.25), 1)
        cut_BSS3 = _cut(neighbours_BPC, size, centre_B2, step_B2, samples)
        found_BV3 = network(cut_BSS3)
        across_BV, down_BV = (_part(found_BV3, axis) - (MESH_SIZE - 1) / 2 for axis in (0, 1))
        x_BV, y_BV = _turned(across_BV, down_BV, centre_B2, step_B2)
        depth_BV = _part(found_BV3, 2) * _length(step_B2)
        mesh_BV3 = jnp.stack([x_BV, y_BV, depth_BV], axis=-1)
        centre_B2, step_B2 = _around(jnp.stack([x_BV, y_BV], axis=-1))
    return mesh_BV3


def _neighbours(crop_BSS3: jax.Array) -> jax.Array:
    """Each pixel but the last of a row or column, the next ones, and its place: [B, (S - 1)^2, 14].

    uint8, or uint16 where places need it.
    """
    batch, size = crop_BSS3.shape[:2]
    dtype = jnp.uint8 if size <= 256 else jnp.uint16
    shifted = [
        lax.slice_in_dim(
            lax.slice_in_dim(crop_BSS3, row, row + size - 1, axis=1),
            column,
            column + size - 1,
            axis=2,
        ).astype(dtype)
        for row in (0, 1)
        for column in (0, 1)
    ]
    place_PP2 = np.stack(np.meshgrid(np.arange(size - 1), np.arange(size - 1)), axis=-1)
    place_BPP2 = jnp.broadcast_to(jnp.asarray(place_PP2[None], dtype), (batch, *place_PP2.shape))
    table_BPPC = jnp.concatenate([*shifted, place_BPP2], axis=-1)
    return table_BPPC.reshape(batch, (size - 1) ** 2, 14)


def _cut(
    neighbours_BPC: jax.Array, size: int, centre_B2: jax.Array, step_B2: jax.Array, samples: int
) -> jax.Array:
    """Squares of crops whose edge is repeated by a quarter, and fades to black in one more pixel.

    Bilinear, as `faces.align.warp` cuts, in float32 [B, 192, 192, 3] of 0..255; `samples` are those
    of a pixel, a side, whose mean it is.
    """
    side = MESH_SIZE * samples
    pixel = (np.arange(side, dtype=np.float32) + 0.5) / samples - MESH_SIZE / 2
    across_1M, down_1M = (each.reshape(1, -1) for each in np.meshgrid(pixel, pixel))
    x_BM, y_BM = _turned(jnp.asarray(across_1M), jnp.asarray(down_1M), centre_B2, step_B2)
    seen_BM = _seen(x_BM, size) * _seen(y_BM, size)
    x_BM, y_BM = (jnp.clip(each_BM, 0, size - 1) for each_BM in (x_BM, y_BM))
    left_BM, top_BM = (jnp.minimum(jnp.floor(each_BM), size - 2) for each_BM in (x_BM, y_BM))
    place_BM = (top_BM * (size - 1) + left_BM).astype(jnp.int32)
    # Channels first: what follows then multiplies long rows by long rows. As squares at once, since
    # ONNX Runtime would move the transposition behind it all, but not behind a change of shape.
    read_BCM = _read(neighbours_BPC, place_BM).transpose(0, 2, 1)
    read_BCss = _square(read_BCM, side).astype(jnp.float32)
    x_B1ss, y_B1ss, seen_B1ss = (
        _square(each_BM[:, None], side) for each_BM in (x_BM, y_BM, seen_BM)
    )
    # Where the four were read: a compiler may round `left_BM` otherwise for each of its uses.
    left_B1ss, top_B1ss = (
        lax.slice_in_dim(read_BCss, channel, channel + 1, axis=1) for channel in (12, 13)
    )
    right_B1ss, below_B1ss = x_B1ss - left_B1ss, y_B1ss - top_B1ss
    four = [lax.slice_in_dim(read_BCss, start, start + 3, axis=1) for start in (0, 3, 6, 9)]
    upper, lower = (one + (other - one) * right_B1ss for one, other in (four[:2], four[2:]))
    value_B3ss = (upper + (lower - upper) * below_B1ss) * seen_B1ss
    if samples > 1:
        shape = (value_B3ss.shape[0], 3, MESH_SIZE, samples, MESH_SIZE, samples)
        value_B3ss = value_B3ss.reshape(shape).mean(axis=(3, 5))
    return value_B3ss.transpose(0, 2, 3, 1)


def _square(value_BCM: jax.Array, side: int) -> jax.Array:
    """Rows of samples as squares, [B, C, side, side]."""
    return value_BCM.reshape(*value_BCM.shape[:2], side, side)


def _seen(place_BM: jax.Array, size: int) -> jax.Array:
    """1 up to the margin's edge, half a pixel from its last centres; from there falls to 0."""
    beyond_BM = jnp.abs(place_BM - (size - 1) / 2) - (size / 2 + size // 4)
    return jnp.clip(1 - beyond_BM, 0, 1)


def _read(table_BPC: jax.Array, place_BM: jax.Array) -> jax.Array:
    """Rows of tables, [B, M, C]; one row of places is for all tables."""
    if place_BM.shape[0] == 1:
        return jnp.take(table_BPC, place_BM.reshape(-1), axis=1, mode="clip")
    return jnp.take_along_axis(table_BPC, place_BM[..., None], axis=1, mode="promise_in_bounds")


def _turned(
    across_BM: jax.Array, down_BM: jax.Array, centre_B2: jax.Array, step_B2: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Places in the crop, x and y [B, M], of places in a cut, counted from its middle."""
    (along_B1, aside_B1), (x_B1, y_B1) = (
        (lax.slice_in_dim(pair_B2, 0, 1, axis=1), lax.slice_in_dim(pair_B2, 1, 2, axis=1))
        for pair_B2 in (step_B2, centre_B2)
    )
    x_BM = x_B1 + along_B1 * across_BM - aside_B1 * down_BM
    y_BM = y_B1 + aside_B1 * across_BM + along_B1 * down_BM
    return x_BM, y_BM


def _around(place_BV2: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre and step of a cut around points, as `faces.mesh.around`."""
    low_B2, high_B2 = place_BV2.min(axis=1), place_BV2.max(axis=1)
    side_B1 = MESH_FACTOR * (high_B2 - low_B2).max(axis=1, keepdims=True)
    left_B2, right_B2 = (
        lax.index_in_dim(place_BV2, point, axis=1, keepdims=False) for point in EYES
    )
    eyes_B2 = right_B2 - left_B2
    direction_B2 = eyes_B2 / jnp.maximum(_length(eyes_B2), 1e-9)
    return (low_B2 + high_B2) / 2, direction_B2 * (jnp.maximum(side_B1, 1e-6) / MESH_SIZE)


def _part(value_BV3: jax.Array, place: int) -> jax.Array:
    """One of the last axis, [B, V]: of a batch of any size, indexing would be a gather."""
    return lax.index_in_dim(value_BV3, place, axis=2, keepdims=False)


def _length(vector_B2: jax.Array) -> jax.Array:
    """Lengths [B, 1]."""
    return jnp.sqrt(jnp.square(vector_B2).sum(axis=1, keepdims=True))
