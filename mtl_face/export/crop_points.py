"""Face points of crops as a program of arrays alone: what `faces.points.points_of_crops` finds.

There everything around the mesh network is Pillow and NumPy. Here it is arithmetic and reads, of a
batch of any size, with neither loops nor decompositions, so that it can be written as StableHLO
and as ONNX.

Three things are done otherwise. Places are float32, not float64. A cut is averaged over as many
samples as one around a face that fills the crop, where there each cut has a number of its own; for
crops of 112 pixels that is one sample, and both are the same unless the points spread over 1.4
times the crop. The rotation of the alignment is the polar factor of the covariance by Newton's
iteration (Higham 1986), not from singular values; it exists for points that are not inside out.

Dimension letters: B crops, S side of a crop, P places of a crop with four neighbours, N pixels of
a cut, V mesh points (468).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_face.faces import geometry, mesh
from mtl_face.faces.models import MESH_SIZE
from mtl_face.faces.points import LARGEST_DEVIATION

MeshNetwork = Callable[[jax.Array], jax.Array]
"""From cuts, whole numbers 0..255 as float32 [B, 192, 192, 3], to points [B, V, 3]."""

_NEWTON_STEPS = 8  # exact to float32 for covariances of a condition up to 1e6

_ROUNDING = 1e-4
"""Grey levels by which a whole value may fall short in float32, before the fraction is dropped."""


def points_of_crops(crop_BSS3: jax.Array, network: MeshNetwork) -> tuple[jax.Array, jax.Array]:
    """Finds the points of crops and takes the mean neutral face out.

    Args:
        crop_BSS3: R, G, B, uint8.
        network: the mesh network.

    Returns:
        Points float32 [B, V, 3], see `faces.geometry.normalise`, and whether they can be those of
        a face, bool [B]; where they cannot, the points are 0.
    """
    return normalised(mesh_of_crops(crop_BSS3, network))


def mesh_of_crops(crop_BSS3: jax.Array, network: MeshNetwork) -> jax.Array:
    """Points float32 [B, V, 3] in pixels of the crop, as `faces.mesh.mesh_of_crops`."""
    size = crop_BSS3.shape[1]
    margin = size // 4
    # A cut is a place and a step, from one of its pixels to the next, as a complex number.
    centre_B2 = jnp.full((1, 2), (size - 1) / 2, jnp.float32)
    step_B2 = jnp.asarray([[(size + 2 * margin) / MESH_SIZE, 0.0]], jnp.float32)
    neighbours_BPC = _neighbours(crop_BSS3)
    for number in range(mesh.PASSES):
        largest = (size + 2 * margin if number == 0 else mesh.MESH_FACTOR * size) / MESH_SIZE
        samples = max(math.ceil(largest - 0.25), 1)
        cut_BSS3 = _cut(neighbours_BPC, size, centre_B2, step_B2, samples)
        found_BV3 = network(cut_BSS3)
        across_BV, down_BV = (_part(found_BV3, axis) - (MESH_SIZE - 1) / 2 for axis in (0, 1))
        x_BV, y_BV = _turned(across_BV, down_BV, centre_B2, step_B2)
        depth_BV = _part(found_BV3, 2) * _length(step_B2)
        mesh_BV3 = jnp.stack([x_BV, y_BV, depth_BV], axis=-1)
        centre_B2, step_B2 = _around(jnp.stack([x_BV, y_BV], axis=-1))
    return mesh_BV3


def normalised(mesh_BV3: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The points [B, V, 3] of meshes and whether they can be a face's, bool [B]."""
    point_BV3, _, sound_B11 = aligned(mesh_BV3)
    deviation_B11 = jnp.sqrt(jnp.square(point_BV3).mean(axis=(1, 2), keepdims=True))
    found_B11 = sound_B11 & (deviation_B11 < LARGEST_DEVIATION)
    return jnp.where(found_B11, point_BV3, 0), found_B11.reshape(-1)


def aligned(mesh_BV3: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Meshes on the mean face, as `faces.geometry.aligned` and `normalise`.

    Returns:
        What is left of the points without the mean face, [B, V, 3]; rotations [B, 3, 3] from the
        mean face to the meshes; and whether there is one, bool [B, 1, 1].
    """
    target_V3 = geometry.mean_face()
    centre_113 = jnp.asarray(target_V3.mean(axis=0)[None, None], jnp.float32)
    target_1V3 = jnp.asarray(target_V3[None], jnp.float32)
    centred_BV3 = mesh_BV3 - mesh_BV3.mean(axis=1, keepdims=True)
    size_B11 = jnp.square(centred_BV3).sum(axis=(1, 2), keepdims=True)
    covariance_B33 = jnp.einsum(
        "bvi,vj->bij", centred_BV3, (target_1V3 - centre_113)[0], precision=lax.Precision.HIGHEST
    )
    turn_B33, sound_B11 = rotation(covariance_B33)
    scale_B11 = (turn_B33 * covariance_B33).sum(axis=(1, 2), keepdims=True)
    scale_B11 = scale_B11 / jnp.maximum(size_B11, 1e-12)
    turned_BV3 = jnp.einsum("bvi,bij->bvj", centred_BV3, turn_B33, precision=lax.Precision.HIGHEST)
    point_BV3 = scale_B11 * turned_BV3 + centre_113 - target_1V3
    return point_BV3, turn_B33, sound_B11 & (size_B11 > 0)


def rotation(covariance_B33: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The rotations nearest to matrices, [B, 3, 3], and bool [B, 1, 1]: determinant above 0.

    Without a determinant above 0 a rotation is the unit matrix.
    """
    size_B1 = jnp.sqrt(jnp.square(covariance_B33).sum(axis=(1, 2)))[:, None]
    matrix_B9 = covariance_B33.reshape(covariance_B33.shape[0], 9) / jnp.maximum(size_B1, 1e-12)
    sound_B1 = _cofactors(matrix_B9)[1] > 1e-9
    matrix_B9 = jnp.where(sound_B1, matrix_B9, jnp.eye(3, dtype=jnp.float32).reshape(1, 9))
    for _ in range(_NEWTON_STEPS):
        cofactors_B9, determinant_B1 = _cofactors(matrix_B9)
        inverse_B9 = cofactors_B9 / determinant_B1  # of the transposed matrix
        ratio_B1 = jnp.square(inverse_B9).sum(axis=1) / jnp.square(matrix_B9).sum(axis=1)
        factor_B1 = jnp.sqrt(jnp.sqrt(ratio_B1))[:, None]
        matrix_B9 = (factor_B1 * matrix_B9 + inverse_B9 / factor_B1) / 2
    return matrix_B9.reshape(matrix_B9.shape[0], 3, 3), sound_B1[:, :, None]


def _rolled(rows: int, columns: int) -> np.ndarray:
    """Places of a 3 x 3 matrix that is rolled so far, int32 [9]."""
    places = np.arange(9, dtype=np.int32).reshape(3, 3)
    return np.roll(places, (-rows, -columns), axis=(0, 1)).reshape(9)


def _cofactors(matrix_B9: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cofactors [B, 9] and determinants [B, 1] of 3 x 3 matrices."""
    first, second, third, fourth = (
        jnp.take(matrix_B9, _rolled(*shift), axis=1, mode="clip")
        for shift in ((1, 1), (2, 2), (1, 2), (2, 1))
    )
    cofactors_B9 = first * second - third * fourth
    determinant_B1 = (matrix_B9 * cofactors_B9).sum(axis=1, keepdims=True) / 3  # by each row
    return cofactors_B9, determinant_B1


def _neighbours(crop_BSS3: jax.Array) -> jax.Array:
    """Each pixel but the last of a row or column beside the next ones, uint8 [B, (S - 1)^2, 12]."""
    size = crop_BSS3.shape[1]
    shifted = [
        lax.slice_in_dim(
            lax.slice_in_dim(crop_BSS3, row, row + size - 1, axis=1),
            column,
            column + size - 1,
            axis=2,
        )
        for row in (0, 1)
        for column in (0, 1)
    ]
    return jnp.concatenate(shifted, axis=-1).reshape(crop_BSS3.shape[0], (size - 1) ** 2, 12)


def _cut(
    neighbours_BPC: jax.Array, size: int, centre_B2: jax.Array, step_B2: jax.Array, samples: int
) -> jax.Array:
    """What `faces.align.warp` cuts out of crops whose edge is repeated by a quarter, black beyond.

    Whole numbers 0..255, float32 [B, 192, 192, 3]; `samples` are those of a pixel, a side.
    """
    side = MESH_SIZE * samples
    pixel = (np.arange(side, dtype=np.float32) + 0.5) / samples - MESH_SIZE / 2
    across_1N, down_1N = (each.reshape(1, -1) for each in np.meshgrid(pixel, pixel))
    x_BN, y_BN = _turned(jnp.asarray(across_1N), jnp.asarray(down_1N), centre_B2, step_B2)
    low, high = -0.5 - size // 4, size - 0.5 + size // 4
    inside_BN = (x_BN >= low) & (x_BN < high) & (y_BN >= low) & (y_BN < high)
    x_BN, y_BN = (jnp.clip(each_BN, 0, size - 1) for each_BN in (x_BN, y_BN))
    left_BN, top_BN = (jnp.minimum(jnp.floor(each_BN), size - 2) for each_BN in (x_BN, y_BN))
    place_BN = (top_BN * (size - 1) + left_BN).astype(jnp.int32)
    # Channels first: what follows then multiplies long rows by long rows.
    read_BCN = _read(neighbours_BPC, place_BN).astype(jnp.float32).transpose(0, 2, 1)
    right_B1N, below_B1N = (x_BN - left_BN)[:, None], (y_BN - top_BN)[:, None]
    four = [lax.slice_in_dim(read_BCN, start, start + 3, axis=1) for start in (0, 3, 6, 9)]
    upper_B3N, lower_B3N = (one + (other - one) * right_B1N for one, other in (four[:2], four[2:]))
    value_B3N = upper_B3N + (lower_B3N - upper_B3N) * below_B1N
    # Pillow drops the fraction of a sample, and rounds a mean of samples.
    value_B3N = jnp.floor(value_B3N + _ROUNDING) * inside_BN[:, None].astype(jnp.float32)
    batch = value_B3N.shape[0]
    if samples > 1:
        parts = value_B3N.reshape(batch, 3, MESH_SIZE, samples, MESH_SIZE, samples)
        value_B3N = jnp.floor(parts.mean(axis=(3, 5)) + 0.5)
    return value_B3N.reshape(batch, 3, MESH_SIZE, MESH_SIZE).transpose(0, 2, 3, 1)


def _read(table_BPC: jax.Array, place_BN: jax.Array) -> jax.Array:
    """Rows of tables, [B, N, C]; one row of places is for all tables."""
    if place_BN.shape[0] == 1:
        return jnp.take(table_BPC, place_BN.reshape(-1), axis=1, mode="clip")
    return jnp.take_along_axis(table_BPC, place_BN[..., None], axis=1, mode="promise_in_bounds")


def _turned(
    across_BN: jax.Array, down_BN: jax.Array, centre_B2: jax.Array, step_B2: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Places in the crop, x and y [B, N], of places in a cut, counted from its middle."""
    (along_B1, aside_B1), (x_B1, y_B1) = (
        (lax.slice_in_dim(pair_B2, 0, 1, axis=1), lax.slice_in_dim(pair_B2, 1, 2, axis=1))
        for pair_B2 in (step_B2, centre_B2)
    )
    x_BN = x_B1 + along_B1 * across_BN - aside_B1 * down_BN
    y_BN = y_B1 + aside_B1 * across_BN + along_B1 * down_BN
    return x_BN, y_BN


def _around(place_BV2: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre and step of a cut around points, as `faces.mesh.around`."""
    low_B2, high_B2 = place_BV2.min(axis=1), place_BV2.max(axis=1)
    side_B1 = mesh.MESH_FACTOR * (high_B2 - low_B2).max(axis=1, keepdims=True)
    left_B2, right_B2 = (
        lax.index_in_dim(place_BV2, point, axis=1, keepdims=False) for point in mesh.EYES
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
