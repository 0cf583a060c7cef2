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

`LossOptions` put other errors in the places of the paper's (`task_errors`). Of them 1 - CCC belongs
to a batch: each example with valence and arousal has the share c of it in its loss,

    (1 - c) * l_va + c * (1 - CCC) / (2 T),

in which T is a constant, so that a learned one stays the variance that the likelihood makes it. In
a step that goes through its batch in parts, `couple` says what a part must know of the others.

Where several annotators' spread of valence and arousal is a target, `va_spread` puts it into the
variance that an example predicts (`uncertainty`).

A target of weight 0 may hold anything, NaN included: it is replaced before it meets an output,
since a mask on the loss alone would let NaN into the gradient.

Shapes: B batch, A action units, E expressions, T tasks.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.objective import uncertainty
from mtl_face.objective.task_errors import AuError, ExprError, au_error, ccc_error, expr_error
from mtl_face.tasks import AU, EXPR, OUTPUT_SIZES, TASKS, VA, VA_LOG_VARIANCE, VA_RATER_VARIANCE

Arrays = Mapping[str, jax.Array] | Mapping[str, np.ndarray]
"""Arrays of the device or of the host by task."""


class Coupled(NamedTuple):
    """What the examples of a part of a batch must know of the whole, see `couple`.

    Attributes:
        value_B: float32 [B], 1 - CCC over the whole batch, for each example.
        slope_B2: float32 [B, 2], its derivatives by the examples' values, over the examples' share
            of its weight.
    """

    value_B: jax.Array
    slope_B2: jax.Array


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """Errors in place of the paper's; the defaults are the paper's.

    Attributes:
        beta_nll: see `uncertainty`; needs `va_log_variance`.
        va_ccc: c, the share of 1 - CCC in the loss of valence and arousal, from 0 to 1.
        va_spread: s in `uncertainty`, from 0 to 1; needs `va_log_variance`, and the target
            `va_rater_variance`.
        au, expr: see `task_errors`.
        coupled: of the whole batch where the loss is that of a part; None: the batch is whole.
    """

    beta_nll: float = 0.0
    va_ccc: float = 0.0
    va_spread: float = 0.0
    au: AuError = dataclasses.field(default_factory=AuError)
    expr: ExprError = dataclasses.field(default_factory=ExprError)
    coupled: Coupled | None = None


class MultiTaskLoss(NamedTuple):
    """A batch's loss, and what a log wants to know of it.

    Attributes:
        total: scalar to minimise; exactly 0 for a batch without any label.
        example_weight: sum of the examples' weights, the denominator of `total`.
        task_loss: per task, the mean over its labelled examples of MSE, BCE or CCE, or of what
            takes their places, not divided by a temperature and without a regulariser (the cross
            entropies of `likelihood` are those of u / T); 0 where no example is labelled.
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
    options: LossOptions = LossOptions(),
) -> MultiTaskLoss:
    """Computes the loss of a batch, by the module's formula.

    Args:
        outputs: `va` [B, 2] values, `au` [B, A] and `expr` [B, E] logits without temperature;
            with `va_log_variance` [B, 2] each example has a variance of its own.
        targets: the same shapes: `va` in [-1, 1], `au` in [0, 1], `expr` one-hot or soft, rows
            summing to 1; anything where the weight is 0. With `options.va_spread` also
            `va_rater_variance` [B, 2], 0 where it is not known.
        weights: `va` [B], `au` [B, A], `expr` [B], in [0, 1]; booleans will do.
        log_temperatures: what `uncertainty.init_uncertainty` made; None or empty if nothing is
            learned.
        kind: one of `uncertainty.KINDS`.
        temperatures: T of each task, used where no learned one is given.
        options: errors in place of the paper's.

    Returns:
        The loss, all float32 scalars.

    Raises:
        ValueError: a shape is not as above, `log_temperatures` does not belong to `kind`, or
            `options.beta_nll` or `options.va_spread` is out of its range or without an effect.
    """
    beta_nll = options.beta_nll
    uncertainty.check_learned(kind, log_temperatures)
    _check_shapes(outputs, targets, weights)
    if beta_nll and VA_LOG_VARIANCE not in outputs:
        raise ValueError(f"beta_nll is {beta_nll}, and the outputs have no {VA_LOG_VARIANCE}")
    if options.va_spread and not (VA_LOG_VARIANCE in outputs and VA_RATER_VARIANCE in targets):
        raise ValueError(
            f"va_spread is {options.va_spread}, and there is no {VA_LOG_VARIANCE} among the "
            f"outputs or no {VA_RATER_VARIANCE} among the targets"
        )
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
        AU: _weighted_mean(au_error(scored[AU], target_BA, options.au), weight_BA),
        EXPR: expr_error(scored[EXPR], target_BE, options.expr),
    }
    weight_B = {
        VA: weight_B2[:, 0],
        AU: jnp.max(weight_BA, axis=-1),
        EXPR: weight_BE[:, 0],
    }

    loss_B = {t: uncertainty.task_objective(kind, t, error_B[t], current[t]) for t in TASKS}
    if VA_LOG_VARIANCE in outputs:
        expected_B2 = error_B2
        if options.va_spread:
            rater_variance_B2 = _present(targets[VA_RATER_VARIANCE], weight_B2)
            expected_B2 = uncertainty.with_spread(error_B2, rater_variance_B2, options.va_spread)
        loss_B[VA] = uncertainty.per_example_objective(
            kind,
            expected_B2,
            jnp.asarray(outputs[VA_LOG_VARIANCE], jnp.float32),
            current[VA],
            beta=beta_nll,
        )
    if share := options.va_ccc:
        if options.coupled is None:
            ccc_B = ccc_error(scored[VA], target_B2, weight_B[VA])
        else:
            moved_B2 = scored[VA] - jax.lax.stop_gradient(scored[VA])  # 0, with a gradient
            ccc_B = options.coupled.value_B + jnp.sum(options.coupled.slope_B2 * moved_B2, axis=-1)
        constant = jax.lax.stop_gradient(current[VA])
        loss_B[VA] = (1.0 - share) * loss_B[VA] + share * ccc_B / (2.0 * constant)
        error_B[VA] = (1.0 - share) * error_B[VA] + share * ccc_B
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


def couple(outputs: Arrays, targets: Arrays, weights: Arrays) -> Coupled:
    """What parts of a batch must know of it, so that the sum of their gradients is the whole's.

    The arguments are those of `multi_task_loss`, of the whole batch; of the outputs `va` counts.
    The value of 1 - CCC is a constant to a part, its derivative by each of the values as well. A
    part gives them the weights of its examples: w_i s_i = w_i * w_va / sum_t(w_t) of example i,
    in place of that of all examples together, by the quotient of which the slopes are larger.
    """
    weight_B = {
        VA: _spread(weights[VA], 1)[:, 0],
        AU: jnp.max(jnp.asarray(weights[AU], jnp.float32), axis=-1),
        EXPR: _spread(weights[EXPR], 1)[:, 0],
    }
    weight_BT = jnp.stack([weight_B[task] for task in TASKS], axis=-1)
    share_B = _divide(jnp.max(weight_BT, axis=-1) * weight_B[VA], jnp.sum(weight_BT, axis=-1))
    target_B2 = _present(targets[VA], _spread(weights[VA], OUTPUT_SIZES[VA]))
    value, slope_B2 = jax.value_and_grad(ccc_error)(
        jnp.asarray(outputs[VA], jnp.float32), target_B2, weight_B[VA]
    )
    return Coupled(
        jnp.broadcast_to(value, share_B.shape),
        slope_B2 * _divide(jnp.sum(share_B), share_B)[:, None],
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
    for name, arrays in ((VA_LOG_VARIANCE, outputs), (VA_RATER_VARIANCE, targets)):
        if name in arrays and arrays[name].shape != outputs[VA].shape:
            shapes = f"{arrays[name].shape}, expected {outputs[VA].shape}"
            raise ValueError(f"{name} has shape {shapes}")
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
