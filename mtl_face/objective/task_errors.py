"""What a task's outputs are wrong by: the errors that `losses` weighs and adds up.

The paper's are the squared error of valence and arousal, the binary cross entropy of action units
and the cross entropy of expressions (section 3.2). Beside them, each for a reason that a data set
may give:

- 1 - CCC of valence and arousal (Lin 1989), which is what they are scored by. It belongs to a whole
  batch, not to an example.
- Focal loss (Lin et al. 2017) and asymmetric loss (Ridnik et al. 2021): labels that are predicted
  well count less, and of action units present and absent ones differently.
- Weights of rare classes, see `class_weights`.
- Label smoothing (Szegedy et al. 2016).

Targets may be soft; each error is then the mean of those of the classes, by their probabilities.

Shapes: B batch, A action units, E expressions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

_TINY = float(jnp.finfo(jnp.float32).tiny)


class AuError(NamedTuple):
    """Settings of `au_error`; the defaults give the binary cross entropy.

    Attributes:
        gamma_positive, gamma_negative: exponents of (1 - p) where a unit is present, and of p where
            it is absent, at least 0. Equal ones are the focal loss.
        margin: probability up to which an absent unit costs nothing, from 0 to below 1.
        label_smoothing: share of a target that becomes one half, from 0 to below 1.
        positive_weights: A numbers that errors of present units are multiplied by; None: 1.
    """

    gamma_positive: float = 0.0
    gamma_negative: float = 0.0
    margin: float = 0.0
    label_smoothing: float = 0.0
    positive_weights: tuple[float, ...] | None = None


class ExprError(NamedTuple):
    """Settings of `expr_error`; the defaults give the cross entropy.

    Attributes:
        gamma: exponent of (1 - p), at least 0: the focal loss.
        label_smoothing: share of a target that is spread over all classes, from 0 to below 1.
        class_weights: E numbers that the classes' errors are multiplied by; None: 1.
    """

    gamma: float = 0.0
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None


def au_error(logit_BA: jax.Array, target_BA: jax.Array, settings: AuError) -> jax.Array:
    """Error of each action unit, float32 [B, A], from targets in [0, 1].

    With t a target, p = sigmoid(logit) and q = max(p - margin, 0) it is

        - t w (1 - p)^gamma_positive log(p) - (1 - t) q^gamma_negative log(1 - q).
    """
    if settings == AuError():
        return optax.sigmoid_binary_cross_entropy(logit_BA, target_BA)
    target_BA = _smooth(target_BA, settings.label_smoothing, 2)
    present_BA = -jax.nn.log_sigmoid(logit_BA)
    absent_BA = -jax.nn.log_sigmoid(-logit_BA)
    seen_BA = jax.nn.sigmoid(logit_BA)
    if settings.margin:
        seen_BA = jnp.maximum(seen_BA - settings.margin, 0.0)
        absent_BA = -jnp.log1p(-seen_BA)
    present_BA *= _power(jax.nn.sigmoid(-logit_BA), settings.gamma_positive)
    absent_BA *= _power(seen_BA, settings.gamma_negative)
    if settings.positive_weights is not None:
        present_BA *= jnp.asarray([settings.positive_weights], jnp.float32)
    return target_BA * present_BA + (1.0 - target_BA) * absent_BA


def expr_error(logit_BE: jax.Array, target_BE: jax.Array, settings: ExprError) -> jax.Array:
    """Error of each example, float32 [B], from targets whose rows sum to 1.

    With t the target, p = softmax(logits) and w the weights it is

        - sum_e(t_e w_e (1 - p_e)^gamma log(p_e)).
    """
    if settings == ExprError():
        return optax.softmax_cross_entropy(logit_BE, target_BE)
    target_BE = _smooth(target_BE, settings.label_smoothing, target_BE.shape[-1])
    log_BE = jax.nn.log_softmax(logit_BE)
    error_BE = -log_BE * _power(-jnp.expm1(log_BE), settings.gamma)
    if settings.class_weights is not None:
        error_BE *= jnp.asarray([settings.class_weights], jnp.float32)
    return jnp.sum(target_BE * error_BE, axis=-1)


def ccc_error(value_B2: jax.Array, target_B2: jax.Array, weight_B: jax.Array) -> jax.Array:
    """1 - CCC over the batch, the mean of valence's and arousal's, a float32 scalar in [0, 2].

    CCC = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2), with the moments of the population
    weighted by `weight_B`. Where there is no such number, because nothing is labelled or x and y
    are one constant, CCC counts as 0 and has no gradient. Targets must be finite.
    """
    weight_B1 = weight_B[:, None]
    total = jnp.sum(weight_B1)
    share_B1 = weight_B1 / jnp.where(total > 0, total, 1.0)
    mean_2, goal_2 = (jnp.sum(share_B1 * array, axis=0) for array in (value_B2, target_B2))
    value_B2, target_B2 = value_B2 - mean_2[None], target_B2 - goal_2[None]
    covariance_2 = jnp.sum(share_B1 * value_B2 * target_B2, axis=0)
    variances_2 = jnp.sum(share_B1 * (value_B2**2 + target_B2**2), axis=0)
    divisor_2 = variances_2 + (mean_2 - goal_2) ** 2
    # Below the rounding of values in [-1, 1] there is no variance to speak of.
    defined_2 = divisor_2 > 1e-12
    ccc_2 = jnp.where(defined_2, 2.0 * covariance_2 / jnp.where(defined_2, divisor_2, 1.0), 0.0)
    return 1.0 - jnp.mean(ccc_2)


def _smooth(target: jax.Array, share: float, classes: int) -> jax.Array:
    return (1.0 - share) * target + share / classes if share else target


def _power(base: jax.Array, exponent: float) -> jax.Array:
    """base^exponent of numbers from 0 to 1, with a finite gradient at 0 too."""
    if exponent == 0:
        return jnp.ones_like(base)
    positive = base > _TINY
    return jnp.where(positive, jnp.where(positive, base, 1.0) ** exponent, 0.0)
