"""Random changes of face points on the device: mirror, identity, strength, noise, lost baselines.

Everything is a pure function of the key, example by example, as in `augment`. Lengths are in units
of the distance between the eyes.

Dimension letters: B batch, V points, K kinds of baselines, or functions of a basis.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_face.config import AugmentationConfig
from mtl_face.objective.augment import draw_flips

_LENGTH = 0.35
"""Over which displacements of points are alike."""

_FUNCTIONS = 60

_SYMMETRIC = 0.8
"""Share of the variance of displacements that is given to a part alike in both halves of the face;
the rest is of a field of any symmetry."""


@dataclasses.dataclass(frozen=True)
class Face:
    """What the changes need to know of the mesh.

    Attributes:
        mirrored: the mirror image of each point, int [V].
        basis: smooth functions on the mean face, float32 [V, K], see `of`.
    """

    mirrored: NDArray[np.integer]
    basis: NDArray[np.float32]

    @classmethod
    def of(cls, mean_V3: NDArray[np.floating], mirrored_V: NDArray[np.integer]) -> "Face":
        """That of a mean face: principal functions of a Gaussian process on its points."""
        wide_V3 = np.asarray(mean_V3, np.float64)
        square_VV = np.square(wide_V3[:, None] - wide_V3[None]).sum(axis=-1)
        variance_K, basis_VK = np.linalg.eigh(np.exp(-square_VV / (2 * _LENGTH**2)))
        basis_VK = basis_VK[:, -_FUNCTIONS:] * np.sqrt(np.maximum(variance_K[-_FUNCTIONS:], 0))
        return cls(np.asarray(mirrored_V), basis_VK.astype(np.float32))


def augment(
    key: jax.Array,
    points_BV3: jax.Array,
    baseline_BKV3: jax.Array,
    ranges: AugmentationConfig,
    *,
    face: Face,
) -> tuple[jax.Array, jax.Array]:
    """Draws one of the K baselines of each example, and changes it and the points.

    Points and baselines are float32 as in `mtl_face.inputs`. The examples that are mirrored are
    those whose images `augment.draw_transforms` mirrors with the same key. A baseline is lost by
    setting it to 0; one that is 0 stays so.

    Returns:
        Points and baseline, [B, V, 3] each.
    """
    batch_size, kinds = baseline_BKV3.shape[:2]
    kind_key, gain_key, noise_key, identity_key, change_key, lost_key = jax.random.split(
        jax.random.fold_in(key, 1), 6
    )
    kind_B = jax.random.randint(kind_key, (batch_size,), 0, kinds)
    baseline_BV3 = jnp.take_along_axis(baseline_BKV3, kind_B[:, None, None, None], axis=1)[:, 0]
    known_B11 = jnp.any(baseline_BV3 != 0, axis=(1, 2), keepdims=True)
    if ranges.points_gain:
        reach = ranges.points_gain
        gain_B11 = jax.random.uniform(gain_key, (batch_size, 1, 1), minval=-reach, maxval=reach)
        change_BV3 = jnp.where(known_B11, points_BV3 - baseline_BV3, 0.0)
        points_BV3 = points_BV3 + gain_B11 * change_BV3
    if ranges.points_noise:
        noise_BV3 = jax.random.normal(noise_key, points_BV3.shape)
        points_BV3 = points_BV3 + ranges.points_noise * noise_BV3
    if ranges.points_change:
        moved_BV3 = displacements(change_key, batch_size, face)
        points_BV3 = points_BV3 + ranges.points_change * moved_BV3
    if ranges.points_identity:
        moved_BV3 = ranges.points_identity * displacements(identity_key, batch_size, face)
        points_BV3 = points_BV3 + moved_BV3
        baseline_BV3 = jnp.where(known_B11, baseline_BV3 + moved_BV3, 0.0)
    if ranges.baseline_dropout:
        lost_B = jax.random.bernoulli(lost_key, ranges.baseline_dropout, (batch_size,))
        baseline_BV3 = jnp.where(lost_B[:, None, None], 0.0, baseline_BV3)
    flip_B11 = draw_flips(key, batch_size, ranges)[:, None, None]
    points_BV3 = jnp.where(flip_B11, mirror(points_BV3, face), points_BV3)
    baseline_BV3 = jnp.where(flip_B11, mirror(baseline_BV3, face), baseline_BV3)
    return points_BV3, baseline_BV3


def mirror(points_BV3: jax.Array, face: Face) -> jax.Array:
    """The points of the mirrored faces: left and right change places, and x its sign."""
    sign_113 = jnp.asarray([[[-1.0, 1.0, 1.0]]], jnp.float32)
    return points_BV3[:, face.mirrored] * sign_113


def displacements(key: jax.Array, batch_size: int, face: Face) -> jax.Array:
    """Smooth random displacements of the points, float32 [B, V, 3].

    Each is the sum of two fields of mean 0 over the points and RMS 1, times a normal number each.
    """

    def field(key: jax.Array) -> jax.Array:
        size_key, draw_key = jax.random.split(key)
        draw_BK3 = jax.random.normal(draw_key, (batch_size, face.basis.shape[1], 3))
        field_BV3 = jnp.einsum("vk,bkc->bvc", jnp.asarray(face.basis), draw_BK3)
        even_BV3 = (field_BV3 + mirror(field_BV3, face)) / jnp.sqrt(2.0)
        field_BV3 = _SYMMETRIC**0.5 * even_BV3 + (1 - _SYMMETRIC) ** 0.5 * field_BV3
        field_BV3 -= field_BV3.mean(axis=1, keepdims=True)
        rms_B11 = jnp.sqrt(jnp.mean(field_BV3**2, axis=(1, 2), keepdims=True))
        return jax.random.normal(size_key, (batch_size, 1, 1)) * field_BV3 / rms_B11

    first, second = jax.random.split(key)
    return field(first) + field(second)
