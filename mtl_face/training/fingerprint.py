"""A check sum of a state, computed where its arrays lie: storage keeps none of its own."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray


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
    if jax.default_backend() == "cpu" and all(leaf.is_fully_addressable for leaf in leaves):
        sums = [_sum_on_host(np.asarray(leaf)) for leaf in leaves]  # a view, nothing to compile
    else:
        # One small program for each shape; one for all arrays would take seconds to compile.
        sums = jax.device_get([_sum_of_bits(leaf) for leaf in leaves])
    return hashlib.sha256(np.array(sums, np.uint32).tobytes()).hexdigest()[:32]


def _sum_on_host(array: NDArray[Any]) -> np.uint32:
    """The same as `_sum_of_bits`."""
    bits = array.view(f"uint{8 * array.dtype.itemsize}")
    if bits.dtype.itemsize > 4:
        bits = bits ^ (bits >> np.uint64(32))
    return np.sum(bits.astype(np.uint32, copy=False), dtype=np.uint32)


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
