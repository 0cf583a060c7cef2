"""From settings to parts: the network, the optimizer, the step. Plain values go down from here."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_face.config import Config
from mtl_face.objective import augment, losses, mixup, uncertainty
from mtl_face.tasks import TASKS
from mtl_face.training import optimizer as optimizers
from mtl_face.training.accumulation import EXAMPLE_WEIGHT


def learning_rates(
    config: Config, steps_per_epoch: Fraction | int
) -> dict[str, optimizers.Schedule]:
    """Schedules by group of parameters: `backbone` and `rest`."""
    settings = config.optimizer
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    total = math.ceil(settings.epochs * steps_per_epoch)
    if settings.backbone_schedule == "cosine":
        backbone = optimizers.cosine(
            settings.backbone_learning_rate, warmup_steps=warmup, total_steps=total
        )
    else:
        backbone = optimizers.exponential_by_epoch(
            settings.backbone_learning_rate,
            decay=settings.backbone_decay,
            steps_per_epoch=float(steps_per_epoch),
        )
    if settings.schedule == "cosine":
        rest = optimizers.cosine(settings.learning_rate, warmup_steps=warmup, total_steps=total)
    else:
        rest = optimizers.inverse_sqrt(settings.learning_rate, warmup_steps=warmup)
    return {"backbone": backbone, "rest": rest}


def optimizer(
    config: Config, rates: dict[str, optimizers.Schedule]
) -> optax.GradientTransformation:
    """The optimizer that a config describes."""
    settings = config.optimizer
    return optimizers.make_optimizer(
        backbone_schedule=rates["backbone"],
        rest_schedule=rates["rest"],
        weight_decay=settings.weight_decay,
        beta1=settings.beta1,
        beta2=settings.beta2,
        epsilon=settings.epsilon,
        gradient_clip=settings.gradient_clip,
        frozen_stages=config.model.backbone.frozen_stages,
        stage_multipliers=settings.backbone_stage_multipliers,
    )


def temperatures(config: Config) -> dict[str, float]:
    """The configured temperature of each task."""
    values = config.uncertainty.temperatures
    return {task: getattr(values, task) for task in TASKS}


def initial_uncertainty(config: Config) -> dict[str, jax.Array]:
    """Trainable uncertainty parameters; none if the temperatures are fixed."""
    return uncertainty.init_uncertainty(config.uncertainty.kind, temperatures(config))


def objective(
    config: Config,
) -> Callable[[dict, dict, dict, dict], tuple[jax.Array, dict[str, jax.Array]]]:
    """The loss and the numbers that a step reports."""
    kind, fixed = config.uncertainty.kind, temperatures(config)
    beta_nll = config.uncertainty.beta_nll

    def loss(
        outputs: dict, targets: dict, weights: dict, learned: dict
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        result = losses.multi_task_loss(
            outputs,
            targets,
            weights,
            kind=kind,
            temperatures=fixed,
            log_temperatures=learned or None,
            beta_nll=beta_nll,
        )
        numbers: dict[str, Any] = {EXAMPLE_WEIGHT: result.example_weight}
        for task in TASKS:
            numbers[task] = result.task_loss[task]
            numbers[f"{task}_weight"] = result.task_weight[task]
        for task, value in learned.items():
            numbers[f"temperature_{task}"] = jnp.exp(value)
        return result.total, numbers

    return loss


def augmentation(
    config: Config,
) -> Callable[[jax.Array, jax.Array, dict, dict], tuple[jax.Array, dict, dict]]:
    """Random geometry and MixUp, from the stored crop to the network's input."""
    settings = config.augmentation
    stored, size = config.data.image_size, config.model.input_size
    method = augment.resolve_method(settings.method)  # type: ignore[arg-type]

    def apply(
        key: jax.Array, image_BHWC: jax.Array, targets: dict, weights: dict
    ) -> tuple[jax.Array, dict, dict]:
        geometry_key, mixup_key = jax.random.split(key)
        transform_B23 = augment.draw_transforms(
            geometry_key,
            image_BHWC.shape[0],
            stored_size=stored,
            input_size=size,
            rotation_degrees=settings.rotation_degrees,
            translation=settings.translation,
            zoom=settings.zoom,
            flip=settings.flip,
        )
        image_BHWC = augment.resample(image_BHWC, transform_B23, input_size=size, method=method)
        return mixup.mixup(mixup_key, image_BHWC, targets, weights, alpha=settings.mixup_alpha)

    return apply


def preparation(config: Config) -> Callable[[jax.Array], jax.Array]:
    """The resize alone: from the stored crop to the network's input, for prediction."""
    stored, size = config.data.image_size, config.model.input_size
    method = augment.resolve_method(config.augmentation.method)  # type: ignore[arg-type]

    def apply(image_BHWC: jax.Array) -> jax.Array:
        transform_B23 = augment.identity_transforms(
            image_BHWC.shape[0], stored_size=stored, input_size=size
        )
        return augment.resample(image_BHWC, transform_B23, input_size=size, method=method)

    return apply
