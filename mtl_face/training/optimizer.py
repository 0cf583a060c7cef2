"""AdamW with the schedules and parameter groups of the paper's authors (arXiv 2203.12531, code).

Two groups: `backbone`, whose rate starts low and decays each epoch, and `rest` (projection,
encoder, decoder, heads, uncertainties), whose rate warms up and then falls. For fine-tuning, the
first stages of the backbone can be frozen, and its rate can differ from stage to stage.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_face.config import OptimizerConfig
from mtl_face.model.geometry import NOTHING_FROZEN, stage_of
from mtl_face.training.sharding import path_keys

_NOT_DECAYED = {"tokens", "position", "known"}

Schedule = Callable[[Any], Any]
"""Step -> learning rate."""


def inverse_sqrt(peak: float, *, warmup_steps: int) -> Schedule:
    """Linear from 0 to `peak` over the warm-up, then `peak * sqrt(warmup_steps / step)`."""
    warmup = max(warmup_steps, 1)

    def schedule(step: Any) -> Any:
        count = jnp.asarray(step, jnp.float32) + 1.0
        return peak * jnp.minimum(count / warmup, jnp.sqrt(warmup / count))

    return schedule


def exponential_by_epoch(start: float, *, decay: float, steps_per_epoch: float) -> Schedule:
    """`start * decay ** epoch`, constant within an epoch; a step is where its middle is."""

    def schedule(step: Any) -> Any:
        # Half a step from whole epochs, where rounding could fall to either side.
        epoch = jnp.floor((jnp.asarray(step, jnp.float32) + 0.5) / steps_per_epoch)
        return start * jnp.power(decay, epoch)

    return schedule


def cosine(peak: float, *, warmup_steps: int, total_steps: int) -> Schedule:
    """Linear from 0 to `peak` over the warm-up, then half a cosine down to 0 at `total_steps`."""
    return optax.warmup_cosine_decay_schedule(
        0.0, peak, max(warmup_steps, 1), max(total_steps, warmup_steps + 2)
    )


def learning_rates(
    settings: OptimizerConfig, steps_per_epoch: Fraction | int
) -> dict[str, Schedule]:
    """The schedules that the settings name, by group: `backbone` and `rest`."""
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    total = math.ceil(settings.epochs * steps_per_epoch)
    if settings.backbone_schedule == "cosine":
        backbone = cosine(settings.backbone_learning_rate, warmup_steps=warmup, total_steps=total)
    else:
        backbone = exponential_by_epoch(
            settings.backbone_learning_rate,
            decay=settings.backbone_decay,
            steps_per_epoch=float(steps_per_epoch),
        )
    if settings.schedule == "cosine":
        rest = cosine(settings.learning_rate, warmup_steps=warmup, total_steps=total)
    else:
        rest = inverse_sqrt(settings.learning_rate, warmup_steps=warmup)
    return {"backbone": backbone, "rest": rest}


def group_labels(params: Any, *, frozen_stages: int = NOTHING_FROZEN) -> Any:
    """Pytree of `frozen`, `backbone` or `rest`, like `params`."""

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        del leaf
        part = _backbone_part(path)
        if part is None:
            return "rest"
        frozen = frozen_stages > NOTHING_FROZEN and stage_of(part) <= frozen_stages
        return "frozen" if frozen else "backbone"

    return jax.tree_util.tree_map_with_path(label, params)


def decayed(params: Any) -> Any:
    """Pytree of bool, like `params`: true where weight decay applies.

    It does not apply to biases and norm scales (one axis), to scalars (uncertainties), to the task
    tokens and to what is added to tokens of points.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim > 1 and _NOT_DECAYED.isdisjoint(path_keys(path)), params
    )


def make_optimizer(
    settings: OptimizerConfig,
    rates: Mapping[str, Schedule],
    *,
    frozen_stages: int = NOTHING_FROZEN,
) -> optax.GradientTransformation:
    """AdamW for both groups, after an optional clip of the gradients' global norm.

    Decay is decoupled, times the learning rate, and applies where `decayed` says. Frozen stages do
    not change at all: no step, no decay, no moments in the state, no part in the clipped norm; -1
    for none, 0 for the stem, k for the stem and the first k stages.
    """
    adamw = functools.partial(
        optax.adamw,
        b1=settings.beta1,
        b2=settings.beta2,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        mask=decayed,
    )
    labels = functools.partial(group_labels, frozen_stages=frozen_stages)
    backbone = adamw(rates["backbone"])
    if set(settings.backbone_stage_multipliers) != {1.0}:
        backbone = optax.chain(backbone, _scale_by_stage(settings.backbone_stage_multipliers))
    parts = {"backbone": backbone, "rest": adamw(rates["rest"])}
    if frozen_stages > NOTHING_FROZEN:
        parts["frozen"] = optax.set_to_zero()
    groups = optax.multi_transform(parts, labels)
    if settings.gradient_clip <= 0:
        return groups
    clip = optax.clip_by_global_norm(settings.gradient_clip)
    if frozen_stages == NOTHING_FROZEN:
        return optax.chain(clip, groups)

    def is_frozen(params: Any) -> Any:
        return jax.tree.map(lambda label: label == "frozen", labels(params))

    return optax.chain(optax.masked(optax.set_to_zero(), is_frozen), clip, groups)


def _scale_by_stage(multipliers: Sequence[float]) -> optax.GradientTransformation:
    """Multiplies the backbone's updates.

    AdamW's updates are proportional to the learning rate, decay included, so this is a learning
    rate for each stage, without a state for each.
    """

    def multiplier(path: tuple[Any, ...]) -> float:
        part = _backbone_part(path)
        if part is None:
            raise ValueError(f"{jax.tree_util.keystr(path)} is not of the backbone")
        return multipliers[0] if len(multipliers) == 1 else multipliers[stage_of(part)]

    def scale(updates: Any, params: Any) -> Any:
        del params
        return jax.tree_util.tree_map_with_path(
            lambda path, update: multiplier(path) * update, updates
        )

    return optax.stateless(scale)


def _backbone_part(path: tuple[Any, ...]) -> str | None:
    """Key of a part of the backbone, from the path of a parameter in it; None outside of it."""
    keys = path_keys(path)
    return keys[keys.index("backbone") + 1] if "backbone" in keys else None
