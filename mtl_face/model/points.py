"""Points of the face mesh as tokens: one for each small region of the face.

Shapes: B batch, V points, G regions (26), K points of a region (18), C coordinates (3, and 3 of the
change), D width of the embedding.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.config import ModelConfig
from mtl_face.inputs import POINTS
from mtl_face.model.conventions import CHANGE, POINT_VALUES
from mtl_face.model.regions import REGIONS
from mtl_face.model.transformer import at_least_float32

_POSITION_STD, _KNOWN_STD = 0.5, 0.02


class PointTokens(nn.Module):
    """A linear map for each of `REGIONS`, of its points and of what they differ from the baseline.

    Added to each token are a learned position, and one more where the baseline is known.
    """

    settings: ModelConfig

    @nn.compact
    def __call__(self, points_BV3: jax.Array, baseline_BV3: jax.Array) -> jax.Array:
        """Makes tokens [B, G, D] of the compute dtype of points and baseline [B, V, 3].

        A baseline that is all 0 is not known: the change is then taken to be 0.
        """
        settings = self.settings
        dtype = at_least_float32(settings.compute_dtype)
        compute_dtype = jnp.dtype(settings.compute_dtype)
        points_BV3, baseline_BV3 = points_BV3.astype(dtype), baseline_BV3.astype(dtype)
        known_B11 = jnp.any(baseline_BV3 != 0, axis=(1, 2), keepdims=True).astype(dtype)
        change_BV3 = known_B11 * (points_BV3 - baseline_BV3)
        values = {POINTS: points_BV3, CHANGE: change_BV3}
        both_BVC = jnp.concatenate([values[name] for name in POINT_VALUES], axis=-1)
        both_BVC = both_BVC / settings.points.unit
        count, size = REGIONS.shape
        region_BGX = both_BVC[:, REGIONS].reshape(points_BV3.shape[0], count, 6 * size)
        shape = (count, settings.embed_dim)

        def parameter(name: str, std: float, *shape: int) -> jax.Array:
            return self.param(name, nn.initializers.normal(std), shape).astype(compute_dtype)

        kernel_GXD = parameter("kernel", (3 * size) ** -0.5, count, 6 * size, settings.embed_dim)
        token_BGD = jnp.einsum("bgx,gxd->bgd", region_BGX.astype(compute_dtype), kernel_GXD)
        position_GD = parameter("position", _POSITION_STD, *shape)
        known_GD = parameter("known", _KNOWN_STD, *shape)
        return token_BGD + position_GD[None] + known_B11.astype(compute_dtype) * known_GD[None]
