"""AdamW or Muon, with the schedules and groups of the paper's authors (arXiv 2203.12531, code).

Two groups: `backbone`, whose rate starts low and decays each epoch, and `rest` (projection,
encoder, decoder, heads, uncertainties), whose rate warms up and then falls. For fine-tuning, the
first blocks of the backbone can be frozen, and its rate can differ from block to block.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from mtl_face.config import BackboneConfig, OptimizerConfig
from mtl_face.errors import ConfigError
from mtl_face.model import backbones
from mtl_face.model.geometry import NOTHING_FROZEN
from mtl_face.training import adapters
from mtl_face.training.sharding import path_keys

_NOT_DECAYED = {"tokens", "position", "known", "class_token", "registers"}

_ADAMW_RMS = 0.2
"""Root mean square of a step of AdamW at rate 1, about."""

_MOMENTUM = 0.95

_NEWTON_SCHULZ = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Factors of X, X X' X and X X' X X' X, round by round (Ahn et al. 2025, arXiv 2504.05295)."""

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


def group_labels(params: Any, backbone: BackboneConfig, settings: OptimizerConfig) -> Any:
    """Pytree of `frozen`, `backbone` or `rest`, like `params`.

    `backbone` says which blocks are frozen, `settings.trains` and `settings.lora`, where they are
    of use, which of the others; adapters are `rest`. ConfigError if a kernel of a frozen block has
    an adapter, or a name of `trains` is in none.
    """
    last, lora = backbone.last_frozen_block, settings.lora
    trains: set[tuple[str, ...]] = set()
    if settings.trains:
        paths = traverse_util.flatten_dict(params["network"])
        named = {"setting": "optimizer.trains", "things": "parameters"}
        trains |= set(adapters.fitting(paths, settings.trains, **named))
    with_adapter: set[tuple[str, ...]] = set()
    if lora.rank:
        with_adapter = set(adapters.adapted(params["network"], lora.kernels))

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        del leaf
        collection, *keys = path_keys(path)
        if collection != "network":
            return "rest"
        inside = tuple(keys[1:]) if keys[0] == "backbone" else None
        frozen = (
            inside is not None
            and last > NOTHING_FROZEN
            and backbones.block_number(backbone, inside) <= last
        )
        if tuple(keys) in with_adapter:
            if frozen:
                raise ConfigError(
                    f"{adapters.KERNELS} fits {'/'.join(keys)}, which is in a frozen block",
                    remedy="freeze fewer blocks, or give patterns that leave it out",
                )
            return "frozen"
        if trains and tuple(keys) not in trains:
            return "frozen"
        if lora.rank and not _trains_beside(lora.trains, keys[0]):
            return "frozen"
        return "frozen" if frozen else "rest" if inside is None else "backbone"

    return jax.tree_util.tree_map_with_path(label, params)


def _trains_beside(choice: str, module: str) -> bool:
    """Whether a module of the network trains beside adapters, by `optimizer.lora.trains`."""
    return {
        "nothing": False,
        "heads": module.startswith("head_"),
        "rest": module != "backbone",
        "all": True,
    }[choice]


def decayed(params: Any) -> Any:
    """Pytree of bool, like `params`: true where weight decay applies.

    It does not apply to biases and norm scales (one axis), to scalars (uncertainties), to tokens
    that are learned and to what is added to tokens.
    """
    return jax.tree_util.tree_map_with_path(_is_decayed, params)


def _is_decayed(path: tuple[Any, ...], leaf: Any) -> bool:
    return leaf.ndim > 1 and _NOT_DECAYED.isdisjoint(path_keys(path))


def make_optimizer(
    settings: OptimizerConfig,
    rates: Mapping[str, Schedule],
    *,
    backbone: BackboneConfig,
) -> optax.GradientTransformation:
    """`settings.kind` for both groups, after an optional clip of the gradients' global norm.

    Decay is decoupled, times the learning rate, and applies where `decayed` says. What `backbone`
    freezes does not change at all: no step, no decay, no moments in the state, no part in the
    clipped norm.
    """
    of_group = {"adamw": _adamw, "muon": _muon}[settings.kind]
    labels = functools.partial(group_labels, backbone=backbone, settings=settings)
    of_backbone = of_group(settings, rates["backbone"])
    factors = block_multipliers(settings, backbone)
    if set(factors) != {1.0}:
        of_backbone = optax.chain(of_backbone, _scale_by_block(factors, backbone))
    parts = {"backbone": of_backbone, "rest": of_group(settings, rates["rest"])}
    nothing_frozen = backbone.last_frozen_block == NOTHING_FROZEN and not (
        settings.lora.rank or settings.trains
    )
    if not nothing_frozen:
        parts["frozen"] = optax.set_to_zero()
    groups = optax.multi_transform(parts, labels)
    if settings.gradient_clip <= 0:
        return groups
    clip = optax.clip_by_global_norm(settings.gradient_clip)
    if nothing_frozen:
        return optax.chain(clip, groups)

    def is_frozen(params: Any) -> Any:
        return jax.tree.map(lambda label: label == "frozen", labels(params))

    return optax.chain(optax.masked(optax.set_to_zero(), is_frozen), clip, groups)


def _adamw(settings: OptimizerConfig, rate: Schedule) -> optax.GradientTransformation:
    return optax.adamw(
        rate,
        b1=settings.beta1,
        b2=settings.beta2,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        mask=decayed,
    )


def _muon(settings: OptimizerConfig, rate: Schedule) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) on kernels that are matrices, and AdamW on all else.

    An orthogonal step is given 0.2 as its root mean square, which is about that of AdamW's steps,
    so that rates and decay mean the same for both (Liu et al. 2025, arXiv 2502.16982, section 2.2).
    """
    of_matrices = optax.chain(
        optax.GradientTransformation(_no_momentum, _momentum_ahead),
        optax.stateless(functools.partial(_orthogonal, epsilon=settings.epsilon)),
        optax.add_decayed_weights(settings.weight_decay),
        optax.scale_by_learning_rate(rate),
    )

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: "matrix" if _is_matrix(path, leaf) else "other", params
        )

    return optax.multi_transform({"matrix": of_matrices, "other": _adamw(settings, rate)}, labels)


class MomentumState(NamedTuple):
    """Steps taken, int32 [], and `mu`: the mean gradient of each kernel, which forgets."""

    taken: jax.Array
    mu: Any


def _no_momentum(params: Any) -> MomentumState:
    return MomentumState(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))


def _momentum_ahead(
    gradients: Any, state: MomentumState, params: Any = None
) -> tuple[Any, MomentumState]:
    """The mean gradients one step ahead (Nesterov), both parts without their bias towards 0."""
    del params
    count = optax.safe_increment(state.taken)
    mu = optax.tree.update_moment(gradients, state.mu, _MOMENTUM, 1)
    ahead = jax.tree.map(
        lambda mean, gradient: _MOMENTUM * mean + (1 - _MOMENTUM) * gradient,
        optax.tree.bias_correction(mu, _MOMENTUM, optax.safe_increment(count)),
        optax.tree.bias_correction(gradients, _MOMENTUM, count),
    )
    return ahead, MomentumState(count, mu)


def _orthogonal(kernels: Any, params: Any, *, epsilon: float) -> Any:
    """Kernels made orthogonal, with AdamW's root mean square.

    All axes but the last are the inputs of a sum. Kernels of one size go through the same few large
    products: one by one they take twice as long on a CPU, and as many programs as kernels.
    """
    del params
    leaves, structure = jax.tree.flatten(kernels)
    places: dict[tuple[int, int], list[int]] = {}
    for place, leaf in enumerate(leaves):
        inputs, outputs = leaf.size // leaf.shape[-1], leaf.shape[-1]
        size = min(inputs, outputs), max(inputs, outputs)
        places.setdefault(size, []).append(place)
    for size, several in places.items():
        stack_KRC = _newton_schulz(
            jnp.stack([_as_wide(leaves[place]) for place in several]), epsilon=epsilon
        )
        for place, matrix_RC in zip(
            several, _ADAMW_RMS * math.sqrt(size[1]) * stack_KRC, strict=True
        ):
            shape = leaves[place].shape
            wide = shape[-1] == size[1]
            leaves[place] = (matrix_RC if wide else matrix_RC.T).reshape(shape)
    return jax.tree.unflatten(structure, leaves)


def _as_wide(kernel: jax.Array) -> jax.Array:
    """A kernel as a matrix, turned so that it has no more rows than columns."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def _newton_schulz(matrix_KRC: jax.Array, *, epsilon: float) -> jax.Array:
    """Polynomials of K matrices that bring their singular values near 1 (Jordan et al. 2024)."""

    def closer(x_KRC: jax.Array, factors: jax.Array) -> tuple[jax.Array, None]:
        square_KRR = x_KRC @ x_KRC.mT
        inner_KRR = factors[1] * square_KRR + factors[2] * (square_KRR @ square_KRR)
        return factors[0] * x_KRC + inner_KRR @ x_KRC, None

    norm_K11 = jnp.linalg.norm(matrix_KRC, axis=(1, 2), keepdims=True)
    factors = jnp.asarray(_NEWTON_SCHULZ, matrix_KRC.dtype)
    return jax.lax.scan(closer, matrix_KRC / (norm_K11 + epsilon), factors)[0]


def _is_matrix(path: tuple[Any, ...], leaf: Any) -> bool:
    """Whether a kernel maps several inputs to several outputs, not channel by channel."""
    return _is_decayed(path, leaf) and not (leaf.ndim > 2 and leaf.shape[-2] == 1)


def block_multipliers(settings: OptimizerConfig, backbone: BackboneConfig) -> list[float]:
    """Factors of the backbone's learning rate: the stem's, then one for each block in its order.

    `layer_decay` d makes them d ** (n + 1 - b) for block b of n (Clark et al. 2020, section 3 and
    table 6; Bao et al. 2022), so that the rate falls from the last block to the stem, which is
    block 0. `backbone_stage_multipliers` gives each block that of its stage.
    """
    stages = settings.backbone_stage_multipliers
    if len(stages) == 1:
        stages *= 1 + backbone.num_stages
    sizes = (1, *backbone.blocks_of_stages)
    of_blocks = [factor for factor, size in zip(stages, sizes, strict=True) for _ in range(size)]
    count = backbone.num_blocks
    return [
        factor * settings.layer_decay ** (count + 1 - block)
        for block, factor in enumerate(of_blocks)
    ]


def _scale_by_block(
    multipliers: Sequence[float], backbone: BackboneConfig
) -> optax.GradientTransformation:
    """Multiplies the backbone's updates.

    Updates are proportional to the learning rate, decay included, so this is a learning rate for
    each block, without a state for each.
    """

    def multiplier(path: tuple[Any, ...]) -> float:
        inside = _path_in_backbone(path)
        if inside is None:
            raise ValueError(f"{jax.tree_util.keystr(path)} is not of the backbone")
        return multipliers[backbones.block_number(backbone, inside)]

    def scale(updates: Any, params: Any) -> Any:
        del params
        return jax.tree_util.tree_map_with_path(
            lambda path, update: multiplier(path) * update, updates
        )

    return optax.stateless(scale)


def _path_in_backbone(path: tuple[Any, ...]) -> tuple[str, ...] | None:
    """Keys of a parameter of the backbone inside of it; None outside of it."""
    keys = path_keys(path)
    return tuple(keys[keys.index("backbone") + 1 :]) if "backbone" in keys else None
