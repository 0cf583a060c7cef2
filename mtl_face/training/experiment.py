"""What the settings of an experiment determine on given devices: network, optimizer, state, step.

The train step is assembled here alone, whoever needs it: the trainer, the planner, replay and the
benchmarks.
"""

import dataclasses
import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from mtl_face.config import Config
from mtl_face.inputs import BASELINE, IMAGE, POINTS
from mtl_face.model.network import blank_inputs, network_of
from mtl_face.objective import (
    augment,
    augment_points,
    class_weights,
    losses,
    mixup,
    resample,
    uncertainty,
)
from mtl_face.objective.class_weights import ClassCounts
from mtl_face.objective.task_errors import AuError, ExprError
from mtl_face.tasks import TASKS
from mtl_face.training import adapters, average, sharding
from mtl_face.training import optimizer as optimizers
from mtl_face.training import state as states
from mtl_face.training import step as steps
from mtl_face.training.accumulation import EXAMPLE_WEIGHT
from mtl_face.training.state import TrainState


class Experiment:
    """What the settings determine on given devices; nothing is computed before it is asked for.

    Attributes:
        steps_per_epoch: in which the learning rates count.
        learning_rates: schedules (step -> rate) by group of parameters: `backbone` and `rest`.
        optimizer: over `TrainState.params`.
    """

    def __init__(
        self,
        config: Config,
        *,
        steps_per_epoch: Fraction | int = 1,
        devices: list[jax.Device] | None = None,
        class_counts: ClassCounts | None = None,
    ) -> None:
        """Builds the parts; ConfigError if the devices do not fill the mesh of the settings.

        `steps_per_epoch`, in which the learning rates count, matters only to training, and so do
        the labels that an epoch shows, `class_counts`, which the loss needs for weights of classes
        (`counts_classes`). `devices` are those to run on, or to compile for; None for all, over all
        processes.
        """
        self.mesh = sharding.make_mesh(
            data=config.mesh.data, fsdp=config.mesh.fsdp, devices=devices
        )
        self.config = config
        self._class_counts = class_counts
        self.steps_per_epoch = steps_per_epoch
        platform = self.mesh.devices.flat[0].platform
        self._resampling = resample.resolve_method(config.augmentation.method, platform)  # type: ignore[arg-type]
        self.network = network_of(config, platform=platform, devices=self.mesh.size)
        self.learning_rates = optimizers.learning_rates(config.optimizer, steps_per_epoch)
        self.optimizer = optimizers.make_optimizer(
            config.optimizer,
            self.learning_rates,
            backbone=config.model.backbone,
        )

    def trains(self, params: Any) -> Any:
        """Pytree of bool like `TrainState.params`: whether training changes an array."""
        labels = optimizers.group_labels(params, self.config.model.backbone, self.config.optimizer)
        return jax.tree.map(lambda label: label != "frozen", labels)

    @functools.cached_property
    def state_like(self) -> TrainState:
        """Shapes, dtypes, shardings of a state; ConfigError if `mesh.rules` do not fit."""
        return states.abstract_state(self._initial_state, self.mesh, self.config.mesh.rules)

    @property
    def state_shardings(self) -> Any:
        """Where each array of the state lies."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state_like)

    def make_state(self) -> TrainState:
        """The state at step 0, on the devices, with random weights."""
        return states.make_state(self._initial_state, self.state_like, seed=self.config.seed)

    def train_step(self) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
        """The jitted step `(state, batch, held) -> (state, numbers)`, see `make_train_step`."""
        return steps.make_train_step(
            self.network,
            self.optimizer,
            self.mesh,
            self.state_shardings,
            augment=self.augment,
            objective=self.objective,
            options=steps.StepOptions(
                loss_limit=self.config.training.loss_limit,
                microbatches=self.config.optimizer.accumulation_steps,
                couple=losses.couple if self.config.loss.va.ccc else None,
                temperature_floor=self.config.uncertainty.temperature_floor,
                wide=self.config.optimizer.gradient_dtype == "float32",
                ema_decay=self.config.training.ema_decay,
                network_params=self.network_params,
            ),
        )

    def check_batch(self, batch_size: int, *, name: str) -> None:
        """Checks that a training batch splits evenly over devices, pairs and microbatches.

        `batch_size` counts examples over all devices; ConfigError, with the batch called `name`.
        """
        sharding.check_batch(
            batch_size,
            self.mesh,
            name=name,
            even=self.config.augmentation.mixup_alpha > 0,
            microbatches=self.config.optimizer.accumulation_steps,
        )

    def variables(self, state: TrainState) -> dict[str, Any]:
        """`params` and `batch_stats` of the network that predicts, as its modules take them.

        They are averages, if the state holds some. Every process must call.
        """
        params, batch_stats = average.predicting(state)
        network = params["network"]
        if self._has_adapters:
            network = self._merge(params)
        return {"params": network, "batch_stats": batch_stats}

    def network_params(self, params: Any) -> Any:
        """The network's parameters as its modules take them, from `TrainState.params`.

        Adapters are added to their kernels. Gradients flow to what trains alone.
        """
        if not (self._has_adapters or self.config.optimizer.trains):
            return params["network"]
        fixed = jax.tree.map(
            lambda leaf, trains: leaf if trains else jax.lax.stop_gradient(leaf),
            params,
            self.trains(params),
        )
        if not self._has_adapters:
            return fixed["network"]
        return adapters.merged(fixed, self.config.optimizer.lora)

    @functools.cached_property
    def _merge(self) -> Callable[[Any], Any]:
        """`network_params`, compiled."""
        places = self.state_shardings.params["network"]
        return jax.jit(self.network_params, out_shardings=places)

    @property
    def _has_adapters(self) -> bool:
        return self.config.optimizer.lora.rank > 0

    def check_rules(self) -> None:
        """Raises ConfigError if a rule of `optimizer.lora` or `trains` fits nothing.

        Or if one of the former fits a frozen kernel.
        """
        inputs = blank_inputs(self.config)
        like = jax.eval_shape(
            functools.partial(self.network.init, train=False), jax.random.key(0), inputs
        )
        self.trains({"network": like["params"]})

    def temperatures(self, state: TrainState) -> dict[str, float]:
        """Temperature T of each task that predicts: learned, or as configured."""
        params, _ = average.predicting(state)
        found = uncertainty.resolve_temperatures(
            fixed_temperatures(self.config), params["uncertainty"] or None
        )
        return {task: float(value) for task, value in jax.device_get(found).items()}

    def augment(
        self, key: jax.Array, inputs: dict, targets: dict, weights: dict
    ) -> tuple[dict, dict, dict]:
        """Random geometry and MixUp, from what is stored to what the network takes.

        Windows of frames stay as they are.
        """
        if self.config.is_over_time:
            return inputs, targets, weights
        settings = self.config.augmentation
        size = self.config.model.input_size
        geometry_key, mixup_key = jax.random.split(key)
        augmented: dict[str, jax.Array] = {}
        if IMAGE in inputs:
            transform_B23 = augment.draw_transforms(
                geometry_key,
                inputs[IMAGE].shape[0],
                settings,
                stored_size=self.config.data.image_size,
                input_size=size,
            )
            augmented[IMAGE] = resample.resample(
                inputs[IMAGE], transform_B23, input_size=size, method=self._resampling
            )
        if POINTS in inputs:
            augmented[POINTS], augmented[BASELINE] = augment_points.augment(
                geometry_key, inputs[POINTS], inputs[BASELINE], settings, face=self._face
            )
        return mixup.mixup(mixup_key, augmented, targets, weights, alpha=settings.mixup_alpha)

    def objective(
        self,
        outputs: dict,
        targets: dict,
        weights: dict,
        learned: dict,
        coupled: losses.Coupled | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss (equations 2 to 5), and the numbers that a step reports.

        ValueError if the settings need the counts of classes, and there are none.
        """
        result = losses.multi_task_loss(
            outputs,
            targets,
            weights,
            kind=self.config.uncertainty.kind,
            temperatures=fixed_temperatures(self.config),
            log_temperatures=learned or None,
            options=dataclasses.replace(self._loss_options, coupled=coupled),
        )
        numbers: dict[str, Any] = {EXAMPLE_WEIGHT: result.example_weight}
        for task in TASKS:
            numbers[task] = result.task_loss[task]
            numbers[f"{task}_weight"] = result.task_weight[task]
        for task, value in learned.items():
            numbers[f"temperature_{task}"] = jnp.exp(value)
        return result.total, numbers

    @functools.cached_property
    def _loss_options(self) -> losses.LossOptions:
        settings, counts = self.config.loss, self._class_counts
        weights: dict[str, Any] = {"expr": None, "au": None}
        if counts_classes(self.config):
            if counts is None:
                raise ValueError("the loss weighs classes, and their counts were not given")
            weights["expr"] = class_weights.expression_weights(
                counts.expr, settings.expr.class_weights, beta=settings.expr.effective_beta
            )
            weights["au"] = class_weights.positive_weights(
                counts.au_present, counts.au_labelled, settings.au.positive_weights
            )
        return losses.LossOptions(
            beta_nll=self.config.uncertainty.beta_nll,
            va_ccc=settings.va.ccc,
            va_spread=settings.va.spread,
            au=AuError(
                settings.au.gamma_positive,
                settings.au.gamma_negative,
                settings.au.margin,
                settings.au.label_smoothing,
                weights["au"],
            ),
            expr=ExprError(settings.expr.gamma, settings.expr.label_smoothing, weights["expr"]),
        )

    @functools.cached_property
    def _face(self) -> augment_points.Face:
        """The mesh, as random changes of points need to know it."""
        from mtl_face.faces import geometry

        return augment_points.Face.of(geometry.mean_face(), geometry.mirror())

    @functools.cached_property
    def _initial_state(self) -> states.Initial:
        """One object, which JAX traces once for the shapes and the state."""

        def initial(seed: jax.Array) -> TrainState:
            state = states.initial_state(
                self.network,
                self.optimizer,
                seed,
                inputs=blank_inputs(self.config),
                uncertainty=uncertainty.init_uncertainty(
                    self.config.uncertainty.kind, fixed_temperatures(self.config)
                ),
                adapters=functools.partial(adapters.initial, settings=self.config.optimizer.lora)
                if self._has_adapters
                else None,
            )
            if not self.config.training.ema_decay:
                return state
            return average.begun(state, self.trains(state.params))

        return initial


def counts_classes(config: Config) -> bool:
    """Whether the loss weighs classes by how often training shows them."""
    kinds = (config.loss.expr.class_weights, config.loss.au.positive_weights)
    return any(kind != class_weights.NONE for kind in kinds)


def fixed_temperatures(config: Config) -> dict[str, float]:
    """The configured temperature of each task."""
    return {task: getattr(config.uncertainty.temperatures, task) for task in TASKS}
