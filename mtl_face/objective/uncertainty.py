"""Uncertainty of the tasks: temperatures, what they do to a loss, and to a prediction.

One number T a task: the variance sigma^2 of valence and arousal, and the temperatures T_a of the
action units and T_e of the expression (paper section 3.2). With u for logits, MSE, BCE and CCE
for an example's mean squared error and cross entropies, its loss of a task is

| kind         | valence, arousal          | action units     | expression  |
|--------------|---------------------------|------------------|-------------|
| `fixed`      | MSE / (2 T)               | BCE(u) / (2 T)   | CCE(u) / T  |
| `learned`    | the same + log(T) / 2     | ... + log(T) / 2 | ... + log(T) / 2 |
| `likelihood` | ... + log(2 pi T) / 2     | BCE(u / T)       | CCE(u / T)  |

- `fixed` is the paper as printed (eqs. 2 to 5): T is constant and acts as a weight of the task;
  the losses see the logits without temperature, although the predictions (eq. 1) divide by it.
- `learned` is Kendall, Gal and Cipolla (2018), section 3.2, with T for sigma^2: log T is learned
  and the term log(sigma) keeps it finite. At the optimum T is the mean of MSE, the mean of BCE,
  and twice the mean of CCE.
- `likelihood` is the exact negative log-likelihood of a label under eq. 1 and a Gaussian: the
  cross entropy of u / T with its own normaliser. T is learned, or held constant.

With a variance for every example, the network gives r, the log of that variance over the task's T,
one number for valence and one for arousal: variance = T exp(r). Where all r are 0 the loss is that
of the shared variance, to the bit. With e for the error it is

    mean over valence and arousal of (e^2 / (T exp(r)) + r) / 2  + the constant of the kind,

the negative log-likelihood of a Gaussian (Nix and Weigend 1994; Kendall and Gal 2017, eq. 5). The
mean learns slowly where the variance is large, and a network may settle for calling an example
noisy instead of learning it; beta-NLL (Seitzer et al. 2022) weighs each value by variance^beta,
taken as a constant: 0 is the likelihood, 1 gives the mean the gradient of the squared error.

Of n annotators' ratings y_1 ... y_n with mean y, the label, and q = sum_k (y_k - y)^2 / n, the mean
over the annotators of e_k^2, the squared error to one's rating, is e^2 + q. With e^2 + s q for e^2,
s from 0 to 1, the best variance is the mean of that:

- s = 0: what a label is off the prediction, the errors of the network and of the mean of n ratings;
- s = 1: what one annotator's rating is off it, whatever n. The loss is then the mean over the
  annotators of the negative log-likelihood of their ratings, which is, over n and but for a
  constant, that of the mean, normal with variance/n, and that of n q over the variance, chi-square
  with n - 1 degrees of freedom.

A label of one annotator has q = 0 and so, for s = 1, the same meaning.

Shapes: B batch, E expressions, A action units.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mtl_face import probabilities
from mtl_face.tasks import EXPR, TASKS, VA

FIXED = "fixed"
LEARNED = "learned"
LIKELIHOOD = "likelihood"
KINDS = (FIXED, LEARNED, LIKELIHOOD)
"""The three ways in which temperatures enter the loss."""


def init_uncertainty(kind: str, temperatures: Mapping[str, float]) -> dict[str, jax.Array]:
    """The parameters to be learned beside the network's: log T of each task, float32 scalars.

    They start at `temperatures`; none if nothing is learned. ValueError for an unknown kind.
    """
    _check_kind(kind)
    if kind == FIXED:
        return {}
    return {task: jnp.asarray(math.log(temperatures[task]), jnp.float32) for task in TASKS}


def resolve_temperatures(
    temperatures: Mapping[str, float | jax.Array],
    log_temperatures: Mapping[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
    """Current T of each task, float32 scalars: learned (see `init_uncertainty`), else constant."""
    learned = log_temperatures or {}
    return {
        task: jnp.exp(learned[task])
        if task in learned
        else jnp.asarray(temperatures[task], jnp.float32)
        for task in TASKS
    }


def scored_logits(
    kind: str,
    outputs: Mapping[str, jax.Array] | Mapping[str, np.ndarray],
    temperatures: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
    """What the loss compares with the targets: outputs over the divisors of `FITTED`, float32.

    Of `va` [B, 2], `au` [B, A] and `expr` [B, E], the same shapes.
    """
    scored = {task: jnp.asarray(outputs[task], jnp.float32) for task in TASKS}
    fitted = probabilities.divisors(kind, temperatures, probabilities.FITTED)
    return scored | {task: scored[task] / divisor for task, divisor in fitted.items()}


def task_objective(kind: str, task: str, error_B: jax.Array, temperature: jax.Array) -> jax.Array:
    """Loss of each example from its MSE, BCE or CCE of `scored_logits`, by the module's table.

    float32 [B]; below 0 where a likelihood's density is above 1.
    """
    if kind == LIKELIHOOD and task != VA:
        return error_B
    share = 1.0 if task == EXPR else 0.5
    loss_B = share * error_B / temperature
    if kind == FIXED:
        return loss_B
    loss_B = loss_B + 0.5 * jnp.log(temperature)
    return loss_B + 0.5 * math.log(2 * math.pi) if kind == LIKELIHOOD else loss_B


def with_spread(error_B2: jax.Array, rater_variance_B2: jax.Array, share: float) -> jax.Array:
    """Squared errors e^2 with a share of the annotators' variance, e^2 + s q, float32 [B, 2].

    Args:
        error_B2: [B, 2] squared errors to the label, the mean of the ratings.
        rater_variance_B2: [B, 2] q, 0 where it is not known.
        share: s.

    Raises:
        ValueError: the share is not from 0 to 1.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"the share of the annotators' spread is from 0 to 1, got {share}")
    return error_B2 + share * rater_variance_B2


def per_example_objective(
    kind: str,
    error_B2: jax.Array,
    log_ratio_B2: jax.Array,
    temperature: jax.Array,
    *,
    beta: float = 0.0,
) -> jax.Array:
    """Each example's loss of valence and arousal under its own variance.

    Args:
        kind: one of `KINDS`, which add to the module's formula: `fixed` nothing (T is constant,
            where the variances start), `learned` log(T) / 2, `likelihood` log(2 pi T) / 2.
        error_B2: [B, 2] squared errors.
        log_ratio_B2: [B, 2] r, bounded as `mtl_face.model.heads.bounded_log_ratio` does.
        temperature: T of the task.
        beta: exponent of beta-NLL, 0 to 1.

    Returns:
        [B] float32; below 0 where the density is above 1.

    Raises:
        ValueError: beta is not from 0 to 1.
    """
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta must be from 0 to 1, got {beta}")
    loss_B2 = 0.5 * (error_B2 * jnp.exp(-log_ratio_B2) / temperature + log_ratio_B2)
    if kind != FIXED:
        loss_B2 = loss_B2 + 0.5 * jnp.log(temperature)
    if kind == LIKELIHOOD:
        loss_B2 = loss_B2 + 0.5 * math.log(2 * math.pi)
    if beta:
        variance_B2 = temperature * jnp.exp(log_ratio_B2)
        loss_B2 = jax.lax.stop_gradient(variance_B2**beta) * loss_B2
    return jnp.mean(loss_B2, axis=-1)


def check_learned(kind: str, log_temperatures: Mapping[str, jax.Array] | None) -> None:
    """Refuses parameters, from `init_uncertainty`, that do not belong to the kind.

    Raises:
        ValueError: `kind` is unknown, `fixed` was given learned temperatures, or `learned` not
            one for every task.
    """
    _check_kind(kind)
    given = set(log_temperatures or {})
    allowed = (kind != LEARNED and not given) or (kind != FIXED and given == set(TASKS))
    if not allowed:
        raise ValueError(
            f"{kind} uncertainty does not go with learned temperatures {sorted(given)}"
        )


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"uncertainty {kind!r} is not one of {', '.join(KINDS)}")
