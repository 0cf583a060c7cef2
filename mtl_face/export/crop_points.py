"""Face points of crops as a program of arrays alone: what `faces.points.points_of_crops` finds.

The alignment there is NumPy in float64. Here it is float32, of a batch of any size, with neither
loops nor decompositions, so that it can be written as StableHLO and as ONNX. The rotation is the
polar factor of the covariance by Newton's iteration (Higham 1986), not from singular values; it
exists for points that are not inside out.

Dimension letters: B crops, S side of a crop, V mesh points (468).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_face.faces import crop_mesh, geometry
from mtl_face.faces.crop_mesh import MeshNetwork
from mtl_face.faces.points import LARGEST_DEVIATION

_NEWTON_STEPS = 8  # exact to float32 for covariances of a condition up to 1e6


def points_of_crops(crop_BSS3: jax.Array, network: MeshNetwork) -> tuple[jax.Array, jax.Array]:
    """Finds the points of crops and takes the mean neutral face out.

    Args:
        crop_BSS3: R, G, B, uint8.
        network: the mesh network.

    Returns:
        Points float32 [B, V, 3], see `faces.geometry.normalise`, and whether they can be those of
        a face, bool [B]; where they cannot, the points are 0.
    """
    return normalised(crop_mesh.find_points(crop_BSS3, network))


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
