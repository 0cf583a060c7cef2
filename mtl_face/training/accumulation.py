"""A step's gradient, computed over its batch in several microbatches, one after the other.

What is summed is not the microbatches' means but their sums: with w_k the weight of the labelled
examples of microbatch k and L_k the mean loss over them,

    loss = sum_k(w_k * L_k) / sum_k(w_k),

which is the mean over the whole batch, however unevenly the labels lie, and so is its gradient.
The weights w_k come from the labels alone, so no gradient flows through them. The sums are float32.

Batch normalisation is the one thing that sees a microbatch where it would see the batch: it
normalises with the microbatch's statistics, and the running ones are blended once with the mean of
the microbatches', as a batch norm over groups of examples does (`batch_norm.GroupedBatchNorm`).

Dimension letters: B batch, K microbatches.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtl_face.training import sharding

EXAMPLE_WEIGHT = "example_weight"
"""Number that an objective reports: the sum of its examples' weights, the denominator of its loss.
"""

Gradient = Callable[..., tuple[tuple[jax.Array, tuple[Any, dict[str, jax.Array]]], Any]]
"""(params, batch_stats, microbatch, key) -> ((loss, (batch_stats, numbers)), gradients)."""


def split(batch: Any, count: int, mesh: Mesh) -> Any:
    """Cuts a batch into microbatches without any traffic.

    Each device's share of a microbatch is a part of its share of the batch.

    Args:
        batch: pytree of arrays [B, ...], split over all devices of the mesh.
        count: K; K times the number of devices must divide B.
        mesh: the devices.

    Returns:
        The same of arrays [K, B / K, ...]. On one device, these are its examples in order.
    """
    placement = NamedSharding(mesh, P(None, sharding.BATCH_AXES))

    def cut(leaf: jax.Array) -> jax.Array:
        share, rest = leaf.shape[0] // (mesh.size * count), leaf.shape[1:]
        parts = leaf.reshape(mesh.size, count, share, *rest).swapaxes(0, 1)
        whole = parts.reshape(count, mesh.size * share, *rest)
        return jax.lax.with_sharding_constraint(whole, placement)

    return jax.tree.map(cut, batch)


def accumulate(
    gradient: Gradient,
    params: Any,
    batch_stats: Any,
    batch: Any,
    key: jax.Array,
    *,
    count: int,
    mesh: Mesh,
    placements: Any,
) -> tuple[tuple[jax.Array, tuple[Any, dict[str, jax.Array]]], Any]:
    """The loss and the gradient over a batch, in microbatches.

    Args:
        gradient: of one microbatch; `EXAMPLE_WEIGHT` is among the numbers that it gives.
        params: pytree of the parameters.
        batch_stats: pytree of the running statistics; each microbatch starts with these.
        batch: pytree of arrays [B, ...].
        key: of the dropout; each microbatch has its own.
        count: K.
        mesh: the devices.
        placements: pytree of shardings like `params`, of the sums of the gradients.

    Returns:
        As `gradient`. Of the numbers, those with a companion `NAME_weight` are means by it, the
        companions are sums, all others plain means.
    """
    start = (
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params),
        jax.tree.map(jnp.zeros_like, batch_stats),
    )

    def one(sums: tuple[Any, Any], given: tuple[jax.Array, Any]) -> tuple[tuple[Any, Any], Any]:
        number, microbatch = given
        (loss, (new_stats, numbers)), gradients = gradient(
            params, batch_stats, microbatch, jax.random.fold_in(key, number)
        )
        weight = numbers[EXAMPLE_WEIGHT]
        gradient_sum = jax.tree.map(
            lambda total, leaf: total + weight * leaf.astype(jnp.float32), sums[0], gradients
        )
        gradient_sum = jax.lax.with_sharding_constraint(gradient_sum, placements)
        # Changes, not values: so statistics that stay as they are do so to the bit.
        change = jax.tree.map(
            lambda total, new, old: total + (new - old), sums[1], new_stats, batch_stats
        )
        return (gradient_sum, change), (loss, numbers)

    (gradient_sum, change), (loss_K, number_K) = jax.lax.scan(
        one, start, (jnp.arange(count), split(batch, count, mesh))
    )
    weight_K = number_K[EXAMPLE_WEIGHT]
    total = _divisor(jnp.sum(weight_K))
    gradients = jax.tree.map(
        lambda leaf, like: (leaf / total).astype(like.dtype), gradient_sum, params
    )
    stats = jax.tree.map(lambda old, leaf: old + leaf / count, batch_stats, change)
    loss = jnp.sum(weight_K * loss_K) / total
    return (loss, (stats, _combined(number_K))), gradients


def _combined(number_K: dict[str, jax.Array]) -> dict[str, jax.Array]:
    combined = {}
    for name, value_K in number_K.items():
        weight_K = number_K.get(f"{name}_weight")
        if name.endswith("_weight"):
            combined[name] = jnp.sum(value_K)
        elif weight_K is None:
            combined[name] = jnp.mean(value_K)
        else:
            total = _divisor(jnp.sum(weight_K))
            combined[name] = jnp.sum(weight_K * value_K) / total
    return combined


def _divisor(total: jax.Array) -> jax.Array:
    """A divisor of a sum of nothing, which is 0."""
    return jnp.where(total > 0, total, 1.0)
