"""Whether a step may be taken, decided on the devices inside the step itself.

A loss or gradient that is not finite, or a loss past a limit, must not reach the parameters. The
step computes its update as ever and then keeps, array by array, either all of the new state or all
of the old one, bit for bit. The choice is one more operand of the kernels that write the state.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_face.model.stages import stage_of
from mtl_face.training.state import TrainState

Numbers = dict[str, jax.Array]
"""What a step reports: float32 scalars by log name."""

HELD = "held"
"""Number that tells whether the state was held: 1 for a bad step and for each one after it."""

BAD = "bad"
"""Number that tells whether a step was refused; such a step is left out of the means."""

_NORM = "gradient_norm"


def hold_bad_steps(
    step: Callable[[TrainState, dict], tuple[TrainState, Numbers]], *, loss_limit: float
) -> Callable[[TrainState, dict, jax.Array], tuple[TrainState, Numbers]]:
    """Makes a step that never spoils the state.

    Args:
        step: `(state, batch) -> (state, numbers)` with `loss` and `gradient_norm`, not jitted.
        loss_limit: largest loss that is taken for sound; 0 for no limit.

    Returns:
        `(state, batch, held) -> (state, numbers)`. Where `held` (float32 []) is not 0, or the step
        is bad, the state comes back with every bit as it was, the count of steps included. Among
        the numbers is `held` for the next call: once a step was bad, all that follow are held until
        the caller passes 0 again. So the host may look a step late, and still finds the state that
        the bad step began with.
    """

    def guarded(
        state: TrainState, batch: dict, held: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        new_state, numbers = step(state, batch)
        sound = jnp.isfinite(numbers["loss"]) & jnp.isfinite(numbers[_NORM])
        # A variance can overflow behind a loss that is finite: what it normalises becomes 0.
        sound &= jnp.isfinite(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(new_state.batch_stats)))
        if loss_limit > 0:
            sound &= numbers["loss"] <= loss_limit
        keep = (held != 0) | ~sound
        kept = jax.tree.map(lambda old, new: jnp.where(keep, old, new), state, new_state)
        return kept, numbers | {HELD: keep.astype(jnp.float32)}

    return guarded


def block_of(path: tuple[Any, ...]) -> str:
    """The block that a parameter belongs to, from its path.

    Args:
        path: keys of a leaf of `TrainState.params`.

    Returns:
        `stem`, `stage1` ..., `projection`, `encoder`, `decoder`, `heads`, `uncertainty`; the
        module's own name for a part of another network.
    """
    keys = [str(getattr(part, "key", getattr(part, "name", part))) for part in path]
    if keys[0] != "network" or len(keys) < 2:
        return keys[0]
    if keys[1] == "backbone" and len(keys) > 2:
        try:
            stage = stage_of(keys[2])
        except ValueError:
            return "backbone"
        return f"stage{stage}" if stage else "stem"
    return "heads" if keys[1].startswith("head_") else keys[1]


def gradient_norms(gradients: Any) -> Numbers:
    """Euclidean norms of the gradients: of all, and of each block.

    Args:
        gradients: pytree like `TrainState.params`.

    Returns:
        `gradient_norm`, and `gradient_norm/BLOCK` by `block_of`; float32 scalars. The squares are
        summed once, for both.
    """
    squares: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        square = jnp.sum(jnp.square(leaf.astype(jnp.float32)))
        squares.setdefault(block_of(path), []).append(square)
    sums = {block: sum(values[1:], values[0]) for block, values in squares.items()}
    total = sum(sums.values(), jnp.float32(0))
    return {_NORM: jnp.sqrt(total)} | {
        f"{_NORM}/{block}": jnp.sqrt(value) for block, value in sums.items()
    }
