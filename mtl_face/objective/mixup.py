"""MixUp of inputs and of each task's ground truth, with missing labels.

Section 4 of arXiv 2208.03506: images and labels are replaced by convex combinations of two
examples' (Zhang et al., 2018). The paper says nothing on missing labels. Here a task's target is
the mean of the labels that are present, weighted by their shares, and its weight is the sum of
these shares: with both labels this is the paper's MixUp, with one it is that label at its share,
with none the task stays masked.

Partners are neighbours in the batch (0 with 1, 2 with 3, ...): the batch is shuffled anyway, and a
pair never leaves its device when every device holds an even number of examples, so MixUp adds no
communication and its result does not depend on the number of devices.

Dimension letters: B batch, P pairs, 2 their members, T table knots.
"""

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from mtl_face.tasks import VA, VA_RATER_VARIANCE

Inputs = TypeVar("Inputs", bound=jax.Array | dict[str, jax.Array])

_TABLE_INTERVALS = 4096


def mixup(
    key: jax.Array,
    inputs: Inputs,
    targets: dict[str, jax.Array],
    weights: dict[str, jax.Array],
    *,
    alpha: float,
) -> tuple[Inputs, dict[str, jax.Array], dict[str, jax.Array]]:
    """Blends each example with its neighbour, at a share of its own.

    Args:
        key: typed random key.
        inputs: float32 [B, ...], images or arrays by name: all of an example at one share.
        targets: per task float32 `[B, outputs]`: `va` [B, 2] in [-1, 1], `au` [B, 12] and
            `expr` [B, 8] probabilities. Where the weight is 0 they may hold anything, NaN included.
            Also `va_rater_variance` [B, 2], of the weights of `va`: with the shares a and b of two
            labels y and z, a y + b z has the variance a^2 var(y) + b^2 var(z), as the annotators of
            two images err independently.
        weights: per task float32 in [0, 1], 0 = missing: `[B]` for the whole task (`va`, `expr`) or
            one per output (`au` [B, 12]).
        alpha: the share of the example itself is drawn from Beta(alpha, alpha); 0 = no MixUp.

    Returns:
        Inputs, targets and weights of the same shapes. Targets of weight 0 are 0. With `alpha` 0
        the three arguments, unchanged.

    Raises:
        ValueError: an odd batch, or targets and weights of different tasks.
    """
    if targets.keys() - {VA_RATER_VARIANCE} != weights.keys():
        raise ValueError(f"targets are of {sorted(targets)} but weights of {sorted(weights)}")
    if alpha == 0:
        return inputs, targets, weights
    batch_size = jax.tree.leaves(inputs)[0].shape[0]
    if batch_size % 2:
        raise ValueError(
            f"MixUp pairs neighbouring examples, but the batch has {batch_size}: "
            "use an even batch size, or alpha=0 to switch MixUp off"
        )
    share_B = draw_shares(key, batch_size, alpha=alpha)
    mixed = jax.tree.map(functools.partial(_mix_inputs, share_B), inputs)
    mixed_targets, mixed_weights = {}, {}
    for task in weights:
        mixed_targets[task], mixed_weights[task] = _mix_labels(
            share_B, targets[task], weights[task]
        )
    if VA_RATER_VARIANCE in targets:
        mixed_targets[VA_RATER_VARIANCE], _ = _mix_labels(
            share_B, targets[VA_RATER_VARIANCE], weights[VA], power=2
        )
    return mixed, mixed_targets, mixed_weights


def draw_shares(key: jax.Array, batch_size: int, *, alpha: float) -> jax.Array:
    """Draws from Beta(alpha, alpha) by inverting its distribution function.

    `jax.random.beta` draws by rejection: on a sharded batch all devices would have to agree, in
    every round, whether to go on. Here the quantiles are tabulated when the function is traced. The
    distribution function is exact at 4097 equally probable knots and linear between them, so
    nowhere off by more than 1/4096. The result is float32 `[B]` in [0, 1].
    """
    quantile_T = jnp.asarray(_beta_quantiles(alpha), jnp.float32)
    position_B = jax.random.uniform(key, (batch_size,)) * _TABLE_INTERVALS
    knot_B = jnp.minimum(jnp.floor(position_B), _TABLE_INTERVALS - 1)
    index_B = knot_B.astype(jnp.int32)
    below_B, above_B = quantile_T[index_B], quantile_T[index_B + 1]
    return below_B + (position_B - knot_B) * (above_B - below_B)


@functools.cache
def _beta_quantiles(alpha: float) -> np.ndarray:
    """Quantiles of Beta(alpha, alpha) at 4097 equally spaced probabilities, float64."""
    probability_T = np.linspace(0.0, 1.0, _TABLE_INTERVALS + 1)
    quantile_T = special.betaincinv(alpha, alpha, probability_T)
    # Symmetric to the last bit, so that the mean is one half.
    return (quantile_T + (1.0 - quantile_T[::-1])) / 2


def _swap_neighbours(values: jax.Array) -> jax.Array:
    """Exchanges 0 with 1, 2 with 3, ... along the first axis."""
    pairs = values.reshape(-1, 2, *values.shape[1:])
    return jnp.flip(pairs, axis=1).reshape(values.shape)


def _mix_inputs(share_B: jax.Array, input_B: jax.Array) -> jax.Array:
    """Convex combination of each example's array with its neighbour's, [B, ...]."""
    pair_P2 = input_B.reshape(-1, 2, *input_B.shape[1:])
    share_P2 = share_B.reshape(-1, 2, *[1] * (input_B.ndim - 1))

    def mix_member(member: int, mixed_P2: jax.Array) -> jax.Array:
        own_P1, other_P1, share_P1 = (
            jax.lax.dynamic_slice_in_dim(values, index, 1, axis=1)
            for values, index in (
                (pair_P2, member),
                (pair_P2, 1 - member),
                (share_P2, member),
            )
        )
        return jax.lax.dynamic_update_slice_in_dim(
            mixed_P2, share_P1 * own_P1 + (1.0 - share_P1) * other_P1, member, axis=1
        )

    # A loop of two rounds rather than `x + flip(x)`: XLA would fuse the resampling that makes the
    # images into that, and do it twice over. On a CPU the two together took five times as long.
    mixed_P2 = jax.lax.fori_loop(0, 2, mix_member, jnp.zeros_like(pair_P2))
    return mixed_P2.reshape(input_B.shape)


def _mix_labels(
    share_B: jax.Array, target: jax.Array, weight: jax.Array, *, power: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Sum of the labels that are present, times their part of all shares, and all shares.

    The parts are raised to `power`; with 1 the former is the labels' mean.
    """
    # Cleaned before any arithmetic: 0 * NaN is NaN.
    per_output = weight if weight.ndim == target.ndim else weight[:, None]
    target = jnp.where(per_output > 0, target, 0.0)
    share = share_B if weight.ndim == 1 else share_B[:, None]
    own = share * weight
    other = (1.0 - share) * _swap_neighbours(weight)
    total = jnp.minimum(own + other, 1.0)  # rounding must not lift a weight above 1
    # Below `tiny` floats are flushed to 0 by some processors, and the division would give NaN.
    present = total > jnp.finfo(total.dtype).tiny
    divisor = jnp.where(present, total, 1.0)
    own_part = jnp.where(present, own / divisor, 0.0)
    other_part = jnp.where(present, other / divisor, 0.0)
    if weight.ndim != target.ndim:
        own_part, other_part = own_part[:, None], other_part[:, None]
    mixed = own_part**power * target + other_part**power * _swap_neighbours(target)
    return mixed, jnp.where(present, total, 0.0)
