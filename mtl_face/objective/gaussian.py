"""Valence and arousal with a variance of their own for every example.

The network tells r, the log of an example's variance over the task's own variance T (sigma_v^2 of
the paper, section 3.2), one number for valence and one for arousal: variance = T exp(r). Where all
r are 0 the loss is that of the shared variance, to the bit. With e for the error,

    loss = mean over valence and arousal of (e^2 / (T exp(r)) + r) / 2  + a constant of the kind,

the negative log-likelihood of a Gaussian (Nix and Weigend 1994; Kendall and Gal 2017, eq. 5). The
mean learns slowly where the variance is large, and a network may settle for calling an example
noisy instead of learning it; beta-NLL (Seitzer et al. 2022) weighs each value by variance^beta,
taken as a constant: 0 is the likelihood, 1 gives the mean the gradient of the squared error.

Shapes: B batch.
"""

import math

import jax
import jax.numpy as jnp

from mtl_face.objective.uncertainty import FIXED, LIKELIHOOD


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
        kind: one of `uncertainty.KINDS`, which add to the module's formula: `fixed` nothing (T is
            constant, where the variances start), `learned` log(T) / 2, `likelihood`
            log(2 pi T) / 2.
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
