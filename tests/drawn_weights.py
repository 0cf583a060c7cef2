"""Weights that keep the values of a network of any size near 1."""

import jax
import numpy as np


def drawn(shapes):
    """Variables of these shapes, float32, the same in every call."""
    random = np.random.default_rng(3)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            values = random.uniform(0.5, 1.5, leaf.shape)
        elif len(leaf.shape) > 1:
            values = random.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        else:
            values = random.normal(0, 0.1, leaf.shape)
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
