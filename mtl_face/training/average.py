"""Exponential moving averages of what a run trains: their network is scored and exported.

After step t, from 1, each array of the average moves towards the trained one:

    average <- average + (1 - d) (trained - average),  d = min(decay, (1 + t) / (10 + t)),

so that the initial weights leave the average of a short run too (the warm-up of TensorFlow's
`ExponentialMovingAverage`). At the start the average is the initial weights. What does not train is
in no average, and an array that does not change stays the same bits.

Running statistics of batch norms are averaged by the same rule. Those of the last few steps belong
to the last weights; a network of averaged weights has statistics nearer to the mean of those that
its weights had.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct, traverse_util

from mtl_face.training.state import TrainState


@struct.dataclass
class AveragedState(TrainState):
    """A train state with the averages of a run that keeps some.

    Attributes:
        average: `params`, those of `TrainState.params` that train, and `batch_stats`; float32.
    """

    average: Any


def begun(state: TrainState, trains: Any) -> AveragedState:
    """The state with averages that begin at its own arrays, of which they are copies.

    `trains` is a pytree of bool like the parameters.
    """
    wanted = traverse_util.flatten_dict(trains)
    params = {
        path: leaf
        for path, leaf in traverse_util.flatten_dict(state.params).items()
        if wanted[path]
    }
    average = {
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": state.batch_stats,
    }
    return AveragedState(
        step=state.step,
        params=state.params,
        batch_stats=state.batch_stats,
        opt_state=state.opt_state,
        key=state.key,
        # Copies: a step gives up the buffers of the state before, each once.
        average=jax.tree.map(jnp.copy, average),
    )


def restarted(state: TrainState) -> TrainState:
    """The state with averages, if it keeps any, that begin again at its arrays."""
    if not isinstance(state, AveragedState):
        return state
    average = jax.tree.map(jnp.copy, _current(state))
    return state.replace(average=average)  # type: ignore[attr-defined]


def updated(state: AveragedState, decay: float) -> AveragedState:
    """The state after a step, its averages moved by the rule above; `state.step` is t."""
    taken = state.step.astype(jnp.float32)
    share = 1 - jnp.minimum(decay, (1 + taken) / (10 + taken))
    average = jax.tree.map(
        lambda old, new: old + share * (new - old), state.average, _current(state)
    )
    return state.replace(average=average)  # type: ignore[attr-defined]


def predicting(state: TrainState) -> tuple[Any, Any]:
    """`params` and `batch_stats` that predict: averages, where the state keeps them."""
    if not isinstance(state, AveragedState):
        return state.params, state.batch_stats
    params = traverse_util.flatten_dict(state.params, keep_empty_nodes=True)
    params |= traverse_util.flatten_dict(state.average["params"])
    return traverse_util.unflatten_dict(params), state.average["batch_stats"]


def _current(state: AveragedState) -> dict[str, Any]:
    """The arrays of which there are averages."""
    params = traverse_util.flatten_dict(state.params)
    kept = {path: params[path] for path in traverse_util.flatten_dict(state.average["params"])}
    return {"params": traverse_util.unflatten_dict(kept), "batch_stats": state.batch_stats}
