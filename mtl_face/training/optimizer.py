"""AdamW with the schedules and parameter groups of the paper's authors (arXiv 2203.12531, code).

Two groups: `backbone`, whose rate starts low and decays each epoch, and `rest` (projection,
encoder, decoder, heads, uncertainties), whose rate warms up and then falls.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[Any], Any]
"""Step -> learning rate."""


def inverse_sqrt(peak: float, *, warmup_steps: int) -> Schedule:
    """Linear from 0 to `peak` over the warm-up, then `peak * sqrt(warmup_steps / step)`."""
    warmup = max(warmup_steps, 1)

    def schedule(step: Any) -> Any:
        count = jnp.asarray(step, jnp.float32) + 1.0
        return peak * jnp.minimum(count / warmup, jnp.sqrt(warmup / count))

    return schedule


def exponential_by_epoch(start: float, *, decay: float, steps_per_epoch: int) -> Schedule:
    """`start * decay ** epoch`, constant within an epoch."""

    def schedule(step: Any) -> Any:
        epoch = jnp.asarray(step, jnp.int32) // steps_per_epoch
        return start * jnp.power(decay, epoch.astype(jnp.float32))

    return schedule


def cosine(peak: float, *, warmup_steps: int, total_steps: int) -> Schedule:
    """Linear from 0 to `peak` over the warm-up, then half a cosine down to 0 at `total_steps`."""
    return optax.warmup_cosine_decay_schedule(
        0.0, peak, max(warmup_steps, 1), max(total_steps, warmup_steps + 2)
    )


def group_labels(params: Any) -> Any:
    """Pytree of `backbone` or `rest`, like `params`."""

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        del leaf
        return "backbone" if any(_key(part) == "backbone" for part in path) else "rest"

    return jax.tree_util.tree_map_with_path(label, params)


def decayed(params: Any) -> Any:
    """Pytree of bool, like `params`: true where weight decay applies.

    It does not apply to biases and norm scales (one axis), to scalars (uncertainties) and to the
    task tokens.
    """

    def decays(path: tuple[Any, ...], leaf: Any) -> bool:
        return leaf.ndim > 1 and not any(_key(part) == "tokens" for part in path)

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(
    *,
    backbone_schedule: Schedule,
    rest_schedule: Schedule,
    weight_decay: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    gradient_clip: float,
) -> optax.GradientTransformation:
    """AdamW for both groups, after an optional clip of the gradients' global norm.

    Args:
        backbone_schedule: step -> learning rate of the backbone.
        rest_schedule: step -> learning rate of all else.
        weight_decay: decoupled, times the learning rate, see `decayed`.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.
        gradient_clip: largest global norm; 0 for none.

    Returns:
        An optax transformation for parameters whose paths tell the groups (`group_labels`).
    """

    def adamw(schedule: Schedule) -> optax.GradientTransformation:
        return optax.adamw(
            schedule, b1=beta1, b2=beta2, eps=epsilon, weight_decay=weight_decay, mask=decayed
        )

    groups = optax.multi_transform(
        {"backbone": adamw(backbone_schedule), "rest": adamw(rest_schedule)}, group_labels
    )
    if gradient_clip > 0:
        return optax.chain(optax.clip_by_global_norm(gradient_clip), groups)
    return groups


def _key(part: Any) -> str:
    return str(getattr(part, "key", getattr(part, "name", part)))
