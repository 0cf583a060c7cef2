"""A step's gradient, computed over its batch in several microbatches, one after the other.

What is summed is not the means of the parts but their sums: with w_k the weight of the labelled
examples of part k and L_k the mean loss over them,

    loss = sum_k(w_k * L_k) / sum_k(w_k),

which is the mean over the whole batch, however unevenly the labels lie, and so is its gradient.
The weights w_k come from the labels alone, so no gradient flows through them. The sums are float32.

A part is what one device holds of one microbatch: each device goes through its own share of the
batch and sums its own gradients (`jax.shard_map`), and the devices' sums are added up once, after
the last microbatch. So the gradients cross the links once a step, as without microbatches.

Batch normalisation is the one thing that sees a microbatch where it would see the batch: it
normalises with the microbatch's statistics (of all devices, of each, or none, see
`model.batch_norm`), and the running ones are blended once with the mean of the microbatches'.

Dimension letters: B batch, K microbatches, D devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mtl_face.training import sharding

EXAMPLE_WEIGHT = "example_weight"
"""Number that an objective reports: the sum of its examples' weights, the denominator of its loss.
"""

Loss = Callable[..., tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]]
"""(params, batch_stats, microbatch, key) -> (loss, (batch_stats, numbers))."""


def accumulate(
    loss_of: Loss,
    params: Any,
    batch_stats: Any,
    batch: Any,
    key: jax.Array,
    *,
    count: int,
    placements: Any,
) -> tuple[tuple[jax.Array, tuple[Any, dict[str, jax.Array]]], Any]:
    """The loss and the gradient over a batch, in K = `count` microbatches.

    `loss_of` gives `EXAMPLE_WEIGHT` among its numbers. `batch` holds arrays [B, ...], split over
    all devices of the mesh; K times the number of devices must divide B, and each device's share is
    cut into microbatches in its order. Each microbatch starts with the given `batch_stats`, and
    has a dropout key of its own. `placements` are NamedShardings like `params`, of the gradients;
    while microbatches are summed, each device holds parameters and sums whole.

    Returns:
        As `jax.value_and_grad(loss_of, has_aux=True)`. Of the numbers, those with a companion
        `NAME_weight` are means by it, the companions are sums, all others plain means.
    """

    def weighted(
        params: Any, batch_stats: Any, part: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Any, dict[str, jax.Array]]]:
        """Weighted before it is differentiated: a batch norm can mix the devices' losses."""
        loss, (new_stats, numbers) = loss_of(params, batch_stats, part, key)
        return numbers[EXAMPLE_WEIGHT] * loss, (loss, new_stats, numbers)

    gradient = jax.grad(weighted, has_aux=True)

    def of_device(params: Any, batch_stats: Any, share: Any, key: jax.Array) -> Any:
        key = jax.random.fold_in(key, jax.lax.axis_index(sharding.BATCH_AXES))
        start = (
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params),
            jax.tree.map(jnp.zeros_like, batch_stats),
        )

        def one(sums: tuple[Any, Any], given: tuple[jax.Array, Any]) -> tuple[Any, Any]:
            number, part = given
            gradients, (loss, new_stats, numbers) = gradient(
                params, batch_stats, part, jax.random.fold_in(key, number)
            )
            gradient_sum = jax.tree.map(
                lambda total, leaf: total + leaf.astype(jnp.float32), sums[0], gradients
            )
            # Changes, not values: so statistics that stay as they are do so to the bit.
            change = jax.tree.map(
                lambda total, new, old: total + (new - old), sums[1], new_stats, batch_stats
            )
            return (gradient_sum, change), (loss, numbers)

        parts = jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), share)
        (gradient_sum, change), told = jax.lax.scan(one, start, (jnp.arange(count), parts))
        gradient_sum = jax.tree.map(_add_up, gradient_sum, placements)
        return gradient_sum, jax.lax.pmean(change, sharding.BATCH_AXES), told

    by_device = P(sharding.BATCH_AXES)
    gradient_sum, change, (loss_DK, number_DK) = jax.shard_map(
        of_device,
        mesh=jax.tree.leaves(placements)[0].mesh,
        in_specs=(P(), P(), by_device, P()),
        out_specs=(jax.tree.map(lambda placement: placement.spec, placements), P(), by_device),
        check_vma=False,  # the gradients of a device are to stay its own
    )(params, batch_stats, batch, key)
    weight_DK = number_DK[EXAMPLE_WEIGHT]
    total = _divisor(jnp.sum(weight_DK))
    gradients = jax.tree.map(
        lambda leaf, like: (leaf / total).astype(like.dtype), gradient_sum, params
    )
    stats = jax.tree.map(lambda old, leaf: old + leaf / count, batch_stats, change)
    loss = jnp.sum(weight_DK * loss_DK) / total
    return (loss, (stats, _combined(number_DK))), gradients


def outputs_of(
    apply: Callable[[Any, Any, Any, jax.Array], Any],
    params: Any,
    batch_stats: Any,
    batch: Any,
    key: jax.Array,
    *,
    count: int,
    mesh: jax.sharding.Mesh,
) -> Any:
    """What a network gives for each example in `accumulate`, arrays [B, ...], without gradients.

    `apply` takes (params, batch_stats, microbatch, key) and gives arrays by example; the other
    arguments are those of `accumulate`. For a loss that is no sum over examples: what the whole
    batch gives is known before its gradient is taken part by part.
    """

    def of_device(params: Any, batch_stats: Any, share: Any, key: jax.Array) -> Any:
        key = jax.random.fold_in(key, jax.lax.axis_index(sharding.BATCH_AXES))

        def one(number: jax.Array, part: Any) -> tuple[jax.Array, Any]:
            outputs = apply(params, batch_stats, part, jax.random.fold_in(key, number))
            return number + 1, outputs

        parts = jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), share)
        _, outputs = jax.lax.scan(one, jnp.asarray(0), parts)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)

    by_device = P(sharding.BATCH_AXES)
    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(P(), P(), by_device, P()),
        out_specs=by_device,
        check_vma=False,
    )(params, batch_stats, batch, key)


def _add_up(leaf: jax.Array, placement: NamedSharding) -> jax.Array:
    """The sum over all devices; of an array that is split over some, their part of it."""
    apart = [(axis, name) for axis, name in enumerate(placement.spec) if name is not None]
    for axis, name in apart:
        leaf = jax.lax.psum_scatter(leaf, name, scatter_dimension=axis, tiled=True)
    names = {name for _, name in apart}
    rest = tuple(name for name in sharding.BATCH_AXES if name not in names)
    return jax.lax.psum(leaf, rest) if rest else leaf


def _combined(number_DK: dict[str, jax.Array]) -> dict[str, jax.Array]:
    combined = {}
    for name, value_DK in number_DK.items():
        weight_DK = number_DK.get(f"{name}_weight")
        if name.endswith("_weight"):
            combined[name] = jnp.sum(value_DK)
        elif weight_DK is None:
            combined[name] = jnp.mean(value_DK)
        else:
            total = _divisor(jnp.sum(weight_DK))
            combined[name] = jnp.sum(weight_DK * value_DK) / total
    return combined


def _divisor(total: jax.Array) -> jax.Array:
    """A divisor of a sum of nothing, which is 0."""
    return jnp.where(total > 0, total, 1.0)
