"""Batch normalisation whose statistics come from the whole batch, from each device, or from before.

Ioffe and Szegedy (2015) normalise with the statistics of the batch at hand. Which examples that
means matters twice, for what is learned and for the traffic between devices:

| mode     | a training step normalises with           | running statistics become       |
|----------|-------------------------------------------|---------------------------------|
| `batch`  | statistics of the global batch            | a blend with these              |
| `local`  | statistics of each device's own examples  | a blend with their device mean  |
| `frozen` | the running statistics                    | what they were                  |

Between devices, `batch` exchanges statistics in each layer, forward and backward, and the next
layer waits for them. `local` exchanges its contribution to the running statistics, for which
nothing waits, and `frozen` nothing.

Where a module sees one device's part of a batch alone (inside `jax.shard_map`), the modes mean the
same: `batch` exchanges statistics by name of the mesh's axes; for `local` the part is the group.

Outside training all three normalise with the running statistics. Scale and bias train in every
mode. Parameters (`scale`, `bias`) and statistics (`mean`, `var`) have the same names and shapes in
all three, so a mode can be changed between two runs.

Shapes: B batch, H W height and width, C channels, G groups, N examples of a group.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

BATCH = "batch"
LOCAL = "local"
FROZEN = "frozen"
MODES = (BATCH, LOCAL, FROZEN)
"""The three sources of a training step's statistics."""


class BatchNorm(nn.Module):
    """Batch normalisation of each group of consecutive examples by its own statistics.

    One group is the whole batch, as `nn.BatchNorm` takes it in training. More of them cut the batch
    into equal parts in its order. That is also how a batch is split over devices (`NamedSharding`
    of its first axis), so with as many groups as devices each group lies on one device and its
    statistics need no traffic. The result depends on the number of groups, not on the number of
    devices: on one device this is the "ghost" batch normalisation of Hoffer, Hubara and Soudry
    (2017).

    The running mean and variance are blended with the means over the groups of the groups' means
    and variances. So they estimate what training normalised with on average; the variance between
    the groups' means is not part of them, as it was not part of any normalisation.

    The gradient is written out (Ioffe and Szegedy 2015, section 3), so that the backward pass reads
    the map and nothing that was derived from it: less memory is moved and kept.

    `momentum` is the share of the running statistics that a step keeps, `epsilon` is added to the
    variance. Statistics are float32, or `dtype`, that of the result, where it is wider. `axis_name`
    names axes of a mesh over which a group goes on, outside of what this trace sees.
    """

    groups: int = 1
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    axis_name: Any = None

    @nn.compact
    def __call__(self, map_BHWC: jax.Array) -> jax.Array:
        """Normalises, and updates the running statistics (`batch_stats` must be mutable).

        Returns:
            [B, H, W, C] of `dtype`.

        Raises:
            ValueError: B is not a multiple of G.
        """
        batch, *_, channels = map_BHWC.shape
        if batch % self.groups:
            raise ValueError(f"a batch of {batch} is not a multiple of {self.groups} groups")
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale_C = self.param("scale", nn.initializers.ones, (channels,))
        bias_C = self.param("bias", nn.initializers.zeros, (channels,))
        initializing = self.is_initializing()
        map_GNHWC, moments_G2C = _normalise(
            map_BHWC.reshape(self.groups, batch // self.groups, *map_BHWC.shape[1:]),
            scale_C,
            bias_C,
            (self.epsilon, self.dtype, None if initializing else self.axis_name),
        )
        if not initializing:
            # Side by side, so that the mean over the devices is one exchange, not two.
            moments_2C = jnp.mean(moments_G2C, axis=0)
            for running, new_C in zip((running_mean, running_var), moments_2C, strict=True):
                running.value = self.momentum * running.value + (1 - self.momentum) * new_C
        return map_GNHWC.reshape(map_BHWC.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise(
    map_GNHWC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, how: tuple[float, Any, Any]
) -> tuple[jax.Array, jax.Array]:
    """The map, and its mean and variance [G, 2, C], whose gradient is taken to be 0.

    `how` holds epsilon, the dtype of the result and the names of the mesh's axes.
    """
    return _normalise_saved(map_GNHWC, scale_C, bias_C, how)[0]


def _normalise_saved(
    map_GNHWC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, how: tuple[float, Any, Any]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
    epsilon, dtype, axis_name = how
    wide_GNHWC = map_GNHWC.astype(jnp.promote_types(dtype, jnp.float32))
    # In one pass over the map, as `nn.BatchNorm` does it; rounding may leave less than 0.
    mean_GC, square_GC = _means(_sums(wide_GNHWC, jnp.square(wide_GNHWC)), map_GNHWC, axis_name)
    var_GC = jnp.maximum(square_GC - jnp.square(mean_GC), 0.0)
    inverse_std_GC = jax.lax.rsqrt(var_GC + epsilon)
    out_GNHWC = (wide_GNHWC - _spread(mean_GC)) * _spread(inverse_std_GC * scale_C[None])
    out_GNHWC += _spread(bias_C[None])
    moments_G2C = jnp.stack([mean_GC, var_GC], axis=1)
    return (out_GNHWC.astype(dtype), moments_G2C), (map_GNHWC, mean_GC, inverse_std_GC, scale_C)


def _normalise_backward(
    how: tuple[float, Any, Any], saved: tuple[jax.Array, ...], gradients: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    map_GNHWC, mean_GC, inverse_std_GC, scale_C = saved
    gradient_GNHWC = gradients[0].astype(mean_GC.dtype)
    normal_GNHWC = (map_GNHWC.astype(mean_GC.dtype) - _spread(mean_GC)) * _spread(inverse_std_GC)
    # Read once; the parameters' are sums over what this trace sees, the means are whole groups'.
    sum_2GC = _sums(gradient_GNHWC, gradient_GNHWC * normal_GNHWC)
    bias_gradient_C, scale_gradient_C = jnp.sum(sum_2GC, axis=1)
    mean_gradient_GC, mean_product_GC = _means(sum_2GC, map_GNHWC, how[2])
    map_gradient_GNHWC = _spread(scale_C[None] * inverse_std_GC) * (
        gradient_GNHWC - _spread(mean_gradient_GC) - normal_GNHWC * _spread(mean_product_GC)
    )
    return (
        map_gradient_GNHWC.astype(map_GNHWC.dtype),
        scale_gradient_C.astype(scale_C.dtype),
        bias_gradient_C.astype(scale_C.dtype),
    )


_normalise.defvjp(_normalise_saved, _normalise_backward)


def _sums(one_GNHWC: jax.Array, other_GNHWC: jax.Array) -> jax.Array:
    """Sums over each group, [2, G, C]: side by side, so that they need one exchange."""
    return jnp.stack([jnp.sum(map_GNHWC, axis=(1, 2, 3)) for map_GNHWC in (one_GNHWC, other_GNHWC)])


def _means(sum_2GC: jax.Array, map_GNHWC: jax.Array, axis_name: Any) -> jax.Array:
    """Means over each group from the sums over what this trace sees of it."""
    mean_2GC = sum_2GC / math.prod(map_GNHWC.shape[1:4])
    return mean_2GC if axis_name is None else jax.lax.pmean(mean_2GC, axis_name)


def make_batch_norm(
    mode: str, *, train: bool, groups: int, momentum: float, epsilon: float, dtype: Any
) -> Callable[..., nn.Module]:
    """The constructor of a network's batch normalisations; it takes `name`.

    With `train` the batch's statistics are used, as far as the mode uses any; `groups` are the
    devices over which `local` finds a batch split. Statistics and parameters are float32. The rest
    is as in `BatchNorm`.

    Raises:
        ValueError: `mode` is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"batch_norm {mode!r} is not one of {', '.join(MODES)}")
    mesh = jax.sharding.get_abstract_mesh()
    apart = mesh.manual_axes  # of the devices whose parts this trace does not see
    if not train or mode == FROZEN:
        return functools.partial(
            nn.BatchNorm, use_running_average=True, momentum=momentum, epsilon=epsilon, dtype=dtype
        )
    if mode == BATCH:
        groups = 1
    elif apart:
        groups = max(groups // math.prod(mesh.shape[axis] for axis in apart), 1)
    return functools.partial(
        BatchNorm,
        groups=groups,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=(apart or None) if mode == BATCH else None,
    )


def _spread(value_GC: jax.Array) -> jax.Array:
    """[G, 1, 1, 1, C], to meet the pixels of a group."""
    return value_GC[:, None, None, None, :]
