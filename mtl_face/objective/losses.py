"""The multi-task loss with missing labels (paper section 3.2, eqs. 2 to 5).

Every label has a weight in [0, 1]: 1 present, 0 missing, and between them the share that MixUp
leaves to it. With l_t an example's loss of task t (`uncertainty` says which), w_t the weight of
the task and w = max_t w_t that of the example,

    loss = sum_examples(w * sum_t(w_t * l_t) / sum_t(w_t)) / sum_examples(w).

- For weights of 0 and 1 this is the paper's: the mean over an example's labelled tasks, so that
  each example contributes the same, then the mean over the examples with any label.
- The weight of a group is that of its largest member: w_au is the largest of the AUs' weights,
  w that of the tasks'. Losses are means in a group, so a group whose labels all have the share
  lambda counts lambda times, no matter how many they are: a labelled image mixed at lambda with
  an unlabelled one keeps its loss, at the weight lambda. A label fades out continuously as its
  weight goes to 0, but for the last one of a batch, as of any mean.
- Sums run over the whole batch. Under `jax.jit` that is the global batch, whatever the number of
  devices.

A target of weight 0 may hold anything, NaN included: it is replaced before it meets an output,
since a mask on the loss alone would let NaN into the gradient.

Shapes: B batch, A action units, E expressions, T tasks.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_face.objective import uncertainty
from mtl_face.tasks import AU, EXPR, OUTPUT_SIZES, TASKS, VA, VA_LOG_VARIANCE

Arrays = Mapping[str, jax.Array] | Mapping[str, np.ndarray]
"""Arrays of the device or of the host by task."""


class MultiTaskLoss(NamedTuple):
    """A batch's loss, and what a log wants to know of it.

    Attributes:
        total: scalar to minimise; exactly 0 for a batch without any label.
        example_weight: sum of the examples' weights, the denominator of `total`.
        task_loss: per task, the mean over its labelled examples of MSE, BCE or CCE, not divided
            by a temperature and without a regulariser (the cross entropies of `likelihood` are
            those of u / T); 0 where no example is labelled.
        task_weight: per task, the sum of its weights over examples. Means over several batches
            are means of `task_loss` weighted by it.
    """

    total: jax.Array
    example_weight: jax.Array
    task_loss: dict[str, jax.Array]
    task_weight: dict[str, jax.Array]


def multi_task_loss(
    outputs: Arrays,
    targets: Arrays,
    weights: Arrays,
    log_temperatures: Mapping[str, jax.Array] | None = None,
    *,
    kind: str = uncertainty.FIXED,
    temperatures: Mapping[str, float],
    beta_nll: float = 0.0,
) -> MultiTaskLoss:
    """Computes the loss of a batch, by the module's formula.

    Args:
        outputs: `va` [B, 2] values, `au` [B, A] and `expr` [B, E] logits without temperature;
            with `va_log_variance` [B, 2] each example has a variance of its own.
        targets: the same shapes: `va` in [-1, 1], `au` in [0, 1], `expr` one-hot or soft, rows
            summing to 1; anything where the weight is 0.
        weights: `va` [B], `au` [B, A], `expr` [B], in [0, 1]; booleans will do.
        log_temperatures: what `uncertainty.init_uncertainty` made; None or empty if nothing is
            learned.
        kind: one of `uncertainty.KINDS`.
        temperatures: T of each task, used where no learned one is given.
        beta_nll: see `uncertainty`; needs `va_log_variance`.

    Returns:
        The loss, all float32 scalars.

    Raises:
        ValueError: a shape is not as above, `log_temperatures` does not belong to `kind`, or
            `beta_nll` is out of its range or without an effect.
    """
    uncertainty.check_learned(kind, log_temperatures)
    _check_shapes(outputs, targets, weights)
    if beta_nll and VA_LOG_VARIANCE not in outputs:
        raise ValueError(f"beta_nll is {beta_nll}, and the outputs have no {VA_LOG_VARIANCE}")
    current = uncertainty.resolve_temperatures(temperatures, log_temperatures)
    scored = uncertainty.scored_logits(kind, outputs, current)

    weight_B2 = _spread(weights[VA], OUTPUT_SIZES[VA])
    weight_BA = jnp.asarray(weights[AU], jnp.float32)
    weight_BE = _spread(weights[EXPR], OUTPUT_SIZES[EXPR])
    target_B2 = _present(targets[VA], weight_B2)
    target_BA = _present(targets[AU], weight_BA)
    target_BE = _present(targets[EXPR], weight_BE)
    error_B2 = jnp.square(scored[VA] - target_B2)
    error_B = {
        VA: jnp.mean(error_B2, axis=-1),
        AU: _weighted_mean(optax.sigmoid_binary_cross_entropy(scored[AU], target_BA), weight_BA),
        EXPR: optax.softmax_cross_entropy(scored[EXPR], target_BE),
    }
    weight_B = {
        VA: weight_B2[:, 0],
        AU: jnp.max(weight_BA, axis=-1),
        EXPR: weight_BE[:, 0],
    }

    loss_B = {t: uncertainty.task_objective(kind, t, error_B[t], current[t]) for t in TASKS}
    if VA_LOG_VARIANCE in outputs:
        loss_B[VA] = uncertainty.per_example_objective(
            kind,
            error_B2,
            jnp.asarray(outputs[VA_LOG_VARIANCE], jnp.float32),
            current[VA],
            beta=beta_nll,
        )
    loss_BT = jnp.stack([loss_B[task] for task in TASKS], axis=-1)
    weight_BT = jnp.stack([weight_B[task] for task in TASKS], axis=-1)
    example_weight_B = jnp.max(weight_BT, axis=-1)
    example_weight = jnp.sum(example_weight_B)
    total = jnp.sum(example_weight_B * _weighted_mean(loss_BT, weight_BT))
    task_weight = {task: jnp.sum(weight_B[task]) for task in TASKS}
    return MultiTaskLoss(
        total=_divide(total, example_weight),
        example_weight=example_weight,
        task_loss={
            task: _divide(jnp.sum(weight_B[task] * error_B[task]), task_weight[task])
            for task in TASKS
        },
        task_weight=task_weight,
    )


def _divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Quotient; 0 / 0 is 0, with finite gradients."""
    return numerator / jnp.where(denominator > 0, denominator, 1.0)


def _weighted_mean(value: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean over the last axis; 0 where all weights are 0."""
    return _divide(jnp.sum(weight * value, axis=-1), jnp.sum(weight, axis=-1))


def _spread(weight_B: jax.typing.ArrayLike, count: int) -> jax.Array:
    """The weight of each of a task's `count` values, [B, count]."""
    present_B = jnp.asarray(weight_B, jnp.float32)
    return jnp.broadcast_to(present_B[:, None], (present_B.shape[0], count))


def _present(target: jax.typing.ArrayLike, weight: jax.Array) -> jax.Array:
    """Targets with 0 in place of those that are missing."""
    return jnp.where(weight > 0, jnp.asarray(target, jnp.float32), 0.0)


def _check_shapes(outputs: Arrays, targets: Arrays, weights: Arrays) -> None:
    """Refuses what broadcasting would silently stretch."""
    batch = outputs[VA].shape[0]
    for task in TASKS:
        full = (batch, OUTPUT_SIZES[task])
        weight = full if task == AU else (batch,)
        for name, array, shape in (
            ("output", outputs[task], full),
            ("target", targets[task], full),
            ("weight", weights[task], weight),
        ):
            if array.shape != shape:
                raise ValueError(f"{name} of {task} has shape {array.shape}, expected {shape}")
    if VA_LOG_VARIANCE in outputs and outputs[VA_LOG_VARIANCE].shape != outputs[VA].shape:
        raise ValueError(
            f"{VA_LOG_VARIANCE} has shape {outputs[VA_LOG_VARIANCE].shape}, "
            f"expected {outputs[VA].shape}"
        )
