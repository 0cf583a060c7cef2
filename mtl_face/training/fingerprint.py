"""A check sum of a state, computed where its arrays lie: storage keeps none of its own."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fingerprint(state: Any) -> str:
    """The same for equal bits, whatever the mesh; another for a flipped bit anywhere.

    Args:
        state: pytree of arrays, typed random keys among them. Every process must call.

    Returns:
        32 hexadecimal digits.
    """
    leaves = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(state)
    ]
    # One small program for each shape; one for all arrays would take seconds to compile.
    sums = np.array(jax.device_get([_sum_of_bits(leaf) for leaf in leaves]), np.uint32)
    return hashlib.sha256(sums.tobytes()).hexdigest()[:32]


@jax.jit
def _sum_of_bits(array: jax.Array) -> jax.Array:
    """Sum of an array's elements taken as whole numbers, modulo 2 ** 32: no rounding, any order."""
    if array.dtype == jnp.bool_:
        return jnp.sum(array, dtype=jnp.uint32)
    unsigned = jnp.dtype(f"uint{8 * array.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(array, unsigned)
    if unsigned.itemsize > 4:
        bits = bits ^ (bits >> 32)
    return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)
