"""Variables filled by NumPy: quick, because no initialiser is compiled, and nothing is zero."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def abstract_variables() -> Callable[..., Any]:
    """Shapes and dtypes of a module's variables, from the arguments of its call."""

    def shapes(module: nn.Module, *inputs: Any, **options: Any) -> Any:
        key = jax.random.key(0)
        return jax.eval_shape(lambda: module.init(key, *inputs, **options))

    return shapes


@pytest.fixture(scope="session")
def random_variables(abstract_variables) -> Callable[..., Any]:
    """Random variables of a module: scales and variances near 1, kernels of unit gain."""

    def fill(module: nn.Module, *inputs: Any, seed: int = 0, **options: Any) -> Any:
        rng = np.random.default_rng(seed)

        def draw(path: Any, leaf: Any) -> jax.Array:
            if path[-1].key in ("scale", "var"):
                values = rng.uniform(0.5, 1.5, leaf.shape)
            else:
                fan_in = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 100
                values = rng.normal(0, fan_in**-0.5, leaf.shape)
            return jnp.asarray(values, leaf.dtype)

        return jax.tree_util.tree_map_with_path(
            draw, abstract_variables(module, *inputs, **options)
        )

    return fill
