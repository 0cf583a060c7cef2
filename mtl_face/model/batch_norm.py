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
    """Batch normalisation by the statistics of the whole batch, as `nn.BatchNorm` in training.

    Its gradient is written out (Ioffe and Szegedy 2015, section 3), so that the backward pass reads
    the map itself and nothing that was derived from it: less memory is moved and kept.

    `axis_name` names the axes of a mesh whose parts of a batch are not seen here. The rest is as in
    `GroupedBatchNorm`.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    axis_name: Any = None

    @nn.compact
    def __call__(self, map_BHWC: jax.Array) -> jax.Array:
        """Normalises to [B, H, W, C] of `dtype`, and updates the running statistics."""
        channels = map_BHWC.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale_C = self.param("scale", nn.initializers.ones, (channels,))
        bias_C = self.param("bias", nn.initializers.zeros, (channels,))
        axis_name = None if self.is_initializing() else self.axis_name
        map_BHWC, mean_C, var_C = _normalise(
            map_BHWC, scale_C, bias_C, self.epsilon, self.dtype, axis_name
        )
        if not self.is_initializing():
            for running, new_C in ((running_mean, mean_C), (running_var, var_C)):
                running.value = self.momentum * running.value + (1 - self.momentum) * new_C
        return map_BHWC


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalise(
    map_BHWC: jax.Array,
    scale_C: jax.Array,
    bias_C: jax.Array,
    epsilon: float,
    dtype: Any,
    axis_name: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The map, its mean and its variance. The gradient of the statistics is taken to be 0."""
    return _normalise_saved(map_BHWC, scale_C, bias_C, epsilon, dtype, axis_name)[0]


def _normalise_saved(
    map_BHWC: jax.Array,
    scale_C: jax.Array,
    bias_C: jax.Array,
    epsilon: float,
    dtype: Any,
    axis_name: Any,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    wide_BHWC = map_BHWC.astype(jnp.promote_types(dtype, jnp.float32))
    # In one pass over the map, as `nn.BatchNorm` does it; rounding may leave less than 0.
    moments_2C = jnp.stack(
        [jnp.mean(wide_BHWC, axis=(0, 1, 2)), jnp.mean(jnp.square(wide_BHWC), axis=(0, 1, 2))]
    )
    if axis_name is not None:
        moments_2C = jax.lax.pmean(moments_2C, axis_name)
    mean_C, square_C = moments_2C
    var_C = jnp.maximum(square_C - jnp.square(mean_C), 0.0)
    inverse_std_C = jax.lax.rsqrt(var_C + epsilon)
    factor_C = inverse_std_C * scale_C
    out_BHWC = (wide_BHWC - _at(mean_C)) * _at(factor_C) + _at(bias_C)
    return (out_BHWC.astype(dtype), mean_C, var_C), (map_BHWC, mean_C, inverse_std_C, scale_C)


def _normalise_backward(
    epsilon: float, dtype: Any, axis_name: Any, saved: tuple[jax.Array, ...], gradients: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon, dtype
    map_BHWC, mean_C, inverse_std_C, scale_C = saved
    gradient_BHWC = gradients[0].astype(mean_C.dtype)
    centred_BHWC = map_BHWC.astype(mean_C.dtype) - _at(mean_C)
    bias_gradient_C = jnp.sum(gradient_BHWC, axis=(0, 1, 2))
    scale_gradient_C = jnp.sum(gradient_BHWC * centred_BHWC, axis=(0, 1, 2)) * inverse_std_C
    means_2C = jnp.stack([bias_gradient_C, scale_gradient_C])
    means_2C *= map_BHWC.shape[-1] / map_BHWC.size
    if axis_name is not None:
        means_2C = jax.lax.pmean(means_2C, axis_name)
    along_C = inverse_std_C * means_2C[1]
    map_gradient_BHWC = _at(scale_C * inverse_std_C) * (
        gradient_BHWC - _at(means_2C[0]) - centred_BHWC * _at(along_C)
    )
    return (
        map_gradient_BHWC.astype(map_BHWC.dtype),
        scale_gradient_C.astype(scale_C.dtype),
        bias_gradient_C.astype(scale_C.dtype),
    )


def _at(value_C: jax.Array) -> jax.Array:
    """[1, 1, 1, C], to meet the pixels."""
    return value_C[None, None, None]


_normalise.defvjp(_normalise_saved, _normalise_backward)


class GroupedBatchNorm(nn.Module):
    """Batch normalisation of each group of consecutive examples by its own statistics.

    The batch is cut into equal groups in its order. That is also how a batch is split over devices
    (`NamedSharding` of its first axis), so with as many groups as devices each group lies on one
    device and its statistics need no traffic. The result depends on the number of groups, not on
    the number of devices: on one device this is the "ghost" batch normalisation of Hoffer,
    Hubara and Soudry (2017).

    The running mean and variance are blended with the means over the groups of the groups' means
    and variances. So they estimate what training normalised with on average; the variance between
    the groups' means is not part of them, as it was not part of any normalisation.

    `momentum` is the share of the running statistics that a step keeps, `epsilon` is added to the
    variance. Statistics are float32, or `dtype`, that of the result, where it is wider.
    """

    groups: int
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

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

        shape = (self.groups, batch // self.groups, *map_BHWC.shape[1:])
        map_GNHWC = map_BHWC.reshape(shape).astype(jnp.promote_types(self.dtype, jnp.float32))
        # In one pass over the map, as `nn.BatchNorm` does it; rounding may leave less than 0.
        mean_GC = jnp.mean(map_GNHWC, axis=(1, 2, 3))
        square_GC = jnp.mean(jnp.square(map_GNHWC), axis=(1, 2, 3))
        var_GC = jnp.maximum(square_GC - jnp.square(mean_GC), 0.0)
        if not self.is_initializing():
            # Side by side, so that the mean over the devices is one exchange, not two.
            moments_2C = jnp.mean(jnp.stack([mean_GC, var_GC], axis=1), axis=0)
            for running, new_C in zip((running_mean, running_var), moments_2C, strict=True):
                running.value = self.momentum * running.value + (1 - self.momentum) * new_C

        factor_GC = jax.lax.rsqrt(var_GC + self.epsilon) * scale_C[None]
        map_GNHWC = (map_GNHWC - _spread(mean_GC)) * _spread(factor_GC) + bias_C.reshape(
            1, 1, 1, 1, channels
        )
        return map_GNHWC.astype(self.dtype).reshape(map_BHWC.shape)


def make_batch_norm(
    mode: str, *, train: bool, groups: int, momentum: float, epsilon: float, dtype: Any
) -> Callable[..., nn.Module]:
    """The constructor of a network's batch normalisations; it takes `name`.

    With `train` the batch's statistics are used, as far as the mode uses any; `groups` are the
    devices over which `local` finds a batch split. Statistics and parameters are float32. The rest
    is as in `GroupedBatchNorm`.

    Raises:
        ValueError: `mode` is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"batch_norm {mode!r} is not one of {', '.join(MODES)}")
    mesh = jax.sharding.get_abstract_mesh()
    apart = mesh.manual_axes  # of the devices whose parts this trace does not see
    if mode == LOCAL and train:
        if apart:
            groups = max(groups // math.prod(mesh.shape[axis] for axis in apart), 1)
        return functools.partial(
            GroupedBatchNorm, groups=groups, momentum=momentum, epsilon=epsilon, dtype=dtype
        )
    if mode == BATCH and train:
        return functools.partial(
            BatchNorm, momentum=momentum, epsilon=epsilon, dtype=dtype, axis_name=apart or None
        )
    return functools.partial(
        nn.BatchNorm, use_running_average=True, momentum=momentum, epsilon=epsilon, dtype=dtype
    )


def _spread(value_GC: jax.Array) -> jax.Array:
    """[G, 1, 1, 1, C], to meet the pixels of a group."""
    return value_GC[:, None, None, None, :]
