"""Monte Carlo dropout: predictions of a network whose dropout acts, their mean and their spread.

Gal and Ghahramani (2016). Each sample is one network of the many that dropout trained; how far they
differ is the epistemic uncertainty, as an ensemble's spread is. The samples are averaged as
`mtl_face.evaluation.ensemble` averages its members: valence and arousal as they are, action units
and expressions as probabilities.

Dimension letters: M samples, B batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_face.tasks import AU, EXPR, OUTPUT_SIZES, VA, VA_LOG_VARIANCE

EPISTEMIC = {task: f"{task}_epistemic_std" for task in OUTPUT_SIZES}
"""Outputs that sampling adds: spread of valence and arousal, and of the probabilities."""


def make_dropout_step(
    network: nn.Module,
    *,
    prepare: Callable[[dict[str, jax.Array]], dict[str, jax.Array]],
    samples: int,
    seed: int,
    **how: Any,
) -> Callable[..., dict[str, jax.Array]]:
    """Builds a prediction step that samples.

    The backbone, which has no dropout, runs once a batch. The masks follow from the seed, the
    batch's first row and the place in the batch: the same seed and batches give the same numbers,
    on any number of devices. `samples` is M, 2 or more; all else is as for `make_predict_step`.

    Returns:
        Jitted `(network parameters, batch_stats, inputs, index, divisors) -> outputs`: those of
        `combine_samples`, which takes the divisors, and `index`.
    """

    def predict(
        params: Any,
        batch_stats: Any,
        inputs: dict[str, jax.Array],
        index_B: jax.Array,
        divisors: dict[str, jax.Array],
    ) -> dict[str, jax.Array]:
        prepared = prepare(inputs)

        def sample(key: jax.Array) -> Any:
            return network.apply(
                {"params": params, "batch_stats": batch_stats},
                prepared,
                train=False,
                sample_dropout=True,
                rngs={"dropout": key},
            )

        # Under vmap only what depends on the key is computed M times.
        outputs = jax.vmap(sample)(sample_keys(seed, index_B[0], samples))
        return {**combine_samples(outputs, divisors), "index": index_B}

    return jax.jit(predict, **how)


def sample_keys(seed: int, first_row: jax.Array | int, samples: int) -> jax.Array:
    """Typed keys of the samples of the batch that begins with a row, [M]."""
    key = jax.random.fold_in(jax.random.key(seed), first_row)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(samples))


def combine_samples(
    outputs: Mapping[str, jax.Array], divisors: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Mean and spread of M samples, as `make_predict_step` gives them, [M, B, size] each.

    Returns:
        The same names without M: the mean of `va`; the outputs of which `divisors` make the mean
        probabilities; the log of the mean variance. And by the names in `EPISTEMIC` the
        standard deviations (division by M) of `va` and of the probabilities. float32.
    """
    count = jnp.log(jnp.float32(outputs[VA].shape[0]))

    def log_mean(log_probability: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(log_probability, axis=0) - count

    va_MB2 = jnp.asarray(outputs[VA], jnp.float32)
    scaled_au = jnp.asarray(outputs[AU], jnp.float32) / divisors[AU]
    scaled_expr = jnp.asarray(outputs[EXPR], jnp.float32) / divisors[EXPR]
    log_expr = jax.nn.log_softmax(scaled_expr)
    au_logit = log_mean(jax.nn.log_sigmoid(scaled_au)) - log_mean(jax.nn.log_sigmoid(-scaled_au))
    combined = {
        VA: jnp.mean(va_MB2, axis=0),
        AU: divisors[AU] * au_logit,
        EXPR: divisors[EXPR] * log_mean(log_expr),
        EPISTEMIC[VA]: jnp.std(va_MB2, axis=0),
        EPISTEMIC[AU]: jnp.std(jax.nn.sigmoid(scaled_au), axis=0),
        EPISTEMIC[EXPR]: jnp.std(jnp.exp(log_expr), axis=0),
    }
    if VA_LOG_VARIANCE in outputs:
        combined[VA_LOG_VARIANCE] = log_mean(jnp.asarray(outputs[VA_LOG_VARIANCE], jnp.float32))
    return combined
