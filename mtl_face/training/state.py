"""Everything that training changes, as one pytree."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from mtl_face.model.convolution import if_known
from mtl_face.training import sharding

_QUICKLY_COMPILED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""On a CPU, compiling the random draws costs more than running them: 6.5 against 18 s."""

_OLD_GENERATOR = {"xla_cpu_use_fusion_emitters": False}
"""XLA's older code generator, with which it is 3.6 s. The weights are the same to the last bit."""


@struct.dataclass
class TrainState:
    """State of a run after `step` optimizer steps.

    Attributes:
        step: int32 [], steps taken.
        params: `network`: the network's parameters; `uncertainty`: log variances by task (empty
            when the temperatures are fixed); `adapters` of a run that has some. float32.
        batch_stats: running statistics of the batch norms, float32.
        opt_state: optax state.
        key: typed random key of the run; it never changes, `step` is folded in.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    key: jax.Array


def initial_state(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    seed: jax.Array,
    *,
    inputs: Mapping[str, jax.Array],
    uncertainty: Mapping[str, jax.Array],
    adapters: Callable[[jax.Array, Any], Any] | None = None,
) -> TrainState:
    """A state at step 0; a pure function, to be jitted or shape-evaluated by the caller.

    `seed` is that of the weights and of all later draws; `inputs` are what the network takes of
    an example, float32 [1, ...] by name; `uncertainty` holds the initial log variances by task;
    `adapters` makes those of a key and the network's parameters, see that module.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    variables = network.init(init_key, dict(inputs), train=False)
    params = {"network": variables["params"], "uncertainty": dict(uncertainty)}
    if adapters is not None:
        params["adapters"] = adapters(jax.random.fold_in(init_key, 1), variables["params"])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        key=run_key,
    )


Initial = Callable[[jax.Array], TrainState]
"""`initial_state` as a function of the seed, uint32 []."""


def make_state(initial: Initial, like: TrainState, *, seed: int) -> TrainState:
    """A state where `abstract_state` says; no array is ever whole where it is to be split."""
    quickly = None
    if jax.default_backend() == "cpu":
        quickly = _QUICKLY_COMPILED | if_known(_OLD_GENERATOR)
    jitted = jax.jit(
        initial,
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, like),
        compiler_options=quickly,
    )
    return jitted(jnp.uint32(seed))


def abstract_state(
    initial: Initial, mesh: Mesh, split_rules: Sequence[str] = sharding.DEFAULT_RULES
) -> TrainState:
    """Shapes, dtypes and shardings of a state; ConfigError if a rule does not fit."""
    abstract = jax.eval_shape(initial, jax.ShapeDtypeStruct((), jnp.uint32))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract,
        sharding.state_shardings(mesh, abstract, split_rules),
    )


def with_network(state: TrainState, params: Any, batch_stats: Any) -> TrainState:
    """The state with the weights and statistics of a whole network in place of its own.

    They are as in `with_backbone`, of all parts; `head_va_variance`, where they lack it, stays.
    """
    own = state.params["network"]
    new = {name: own[name] for name in ("head_va_variance",) if name in own and name not in params}
    known = {name: part for name, part in own.items() if name not in new}
    network = jax.tree.map(placed, known, params) | new
    return state.replace(  # type: ignore[attr-defined]
        params={**state.params, "network": network},
        batch_stats=jax.tree.map(placed, state.batch_stats, batch_stats),
    )


def with_backbone(state: TrainState, params: Any, batch_stats: Any) -> TrainState:
    """The state with a backbone's weights and statistics in place of its own.

    They are pytrees of NumPy arrays with the structure and shapes of the state's backbone. Each
    array gets the dtype and the placement of the one that it replaces.
    """
    network = state.params["network"]
    backbone = jax.tree.map(placed, network["backbone"], params)
    statistics = dict(state.batch_stats)
    if batch_stats:  # not every backbone has some
        statistics["backbone"] = jax.tree.map(placed, statistics["backbone"], batch_stats)
    return state.replace(  # type: ignore[attr-defined]
        params={**state.params, "network": {**network, "backbone": backbone}},
        batch_stats=statistics,
    )


def placed(like: jax.Array | jax.ShapeDtypeStruct, array: Any) -> jax.Array:
    """A NumPy array with the dtype and the sharding of `like`, whose shape it must have."""
    if like.shape != array.shape:
        raise ValueError(f"an array of shape {array.shape} in place of {like.shape}")
    values = array.astype(like.dtype)
    # Each process gives the parts that it holds; no traffic between them.
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: values[index])
