"""Bad steps: the devices refuse to take them, and the host stops the run or goes on without them.

A loss or gradient that is not finite, or a loss past a limit, must not reach the parameters. The
step itself computes its update as ever and then keeps, array by array, either all of the new state
or all of the old one, bit for bit. The choice is one more operand of the kernels that write the
state. The host looks at the outcome one step later, while the devices are busy with the next.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.errors import UserError
from mtl_face.model.geometry import stage_of
from mtl_face.training.sharding import path_keys
from mtl_face.training.state import TrainState

Numbers = dict[str, jax.Array]
"""What a step reports: float32 scalars by log name."""

HELD = "held"
"""Number by which a step reports whether it kept the old state: 1 for a bad step and all after it.
"""

BAD = "bad"
"""Number by which the guard reports whether a step was refused; means leave such steps out."""

OnBad = Callable[[int, TrainState, dict, dict[str, float]], str]
"""(steps taken, state before the bad step, its batch, its numbers) -> what was done with them."""

_NORM = "gradient_norm"


def hold_bad_steps(
    step: Callable[[TrainState, dict], tuple[TrainState, Numbers]], *, loss_limit: float
) -> Callable[[TrainState, dict, jax.Array], tuple[TrainState, Numbers]]:
    """Makes a step that never spoils the state.

    The step, `(state, batch) -> (state, numbers)`, is not jitted, and has `loss` and
    `gradient_norm` among its numbers. `loss_limit` is the largest loss taken for sound; 0: no
    limit.

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
        # A variance can overflow behind a loss that is finite: what it normalises becomes 0.
        sums = [jnp.sum(leaf) for leaf in jax.tree.leaves(new_state.batch_stats)]
        finite = jnp.isfinite(jnp.stack([numbers["loss"], numbers[_NORM], *sums]))
        sound = [finite, held[None] == 0]
        if loss_limit > 0:
            sound.append(numbers["loss"][None] <= loss_limit)
        # One reduction at the end: XLA repeats whatever is cheaper in each of the kernels that
        # write the state, and compiling them takes a fifth longer.
        keep = ~jnp.all(jnp.concatenate(sound))
        kept = jax.tree.map(lambda old, new: jnp.where(keep, old, new), state, new_state)
        return kept, numbers | {HELD: keep.astype(jnp.float32)}

    return guarded


def gradient_norms(gradients: Any) -> Numbers:
    """Euclidean norms of the gradients, float32 scalars: `gradient_norm` and `gradient_norm/BLOCK`.

    `gradients` is a pytree like `TrainState.params`; `block_of` names the blocks. The squares are
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


def block_of(path: tuple[Any, ...]) -> str:
    """The block of a parameter, from the keys of a leaf of `TrainState.params`.

    It is `stem`, `stage1` ..., `projection`, `encoder`, `decoder`, `heads` or `uncertainty`; the
    module's own name for a part of another network.
    """
    keys = path_keys(path)
    if keys[0] != "network" or len(keys) < 2:
        return keys[0]
    if keys[1] == "backbone" and len(keys) > 2:
        try:
            stage = stage_of(keys[2])
        except ValueError:
            return "backbone"
        return f"stage{stage}" if stage else "stem"
    return "heads" if keys[1].startswith("head_") else keys[1]


class Guard:
    """A train step that looks at the flag of the step before, while its own is being computed.

    The devices always have a step to do, and a bad one is known before the next but one begins.
    Every process must make every call: all of them see the same flag.
    """

    def __init__(
        self,
        step: Callable[[TrainState, dict, Any], tuple[TrainState, Numbers]],
        *,
        placement: jax.sharding.Sharding,
        policy: Literal["stop", "skip"],
        on_bad: OnBad,
        say: Callable[[str], None],
    ) -> None:
        """Wraps `hold_bad_steps` of a step, jitted with the state donated.

        `placement` is that of `held`, whole on every device. After `on_bad` has kept what is needed
        to look into a bad step, the run ends or leaves the step out, as the policy says.
        """
        self._step = step
        self._policy = policy
        self._on_bad = on_bad
        self._say = say
        self._free = jax.device_put(np.float32(0), placement)
        self._held: Any = self._free
        self._last: tuple[dict, Numbers] | None = None
        self._increment = jax.jit(lambda count: count + 1, out_shardings=placement)

    def __call__(self, state: TrainState, batch: dict) -> tuple[TrainState, Numbers]:
        """Takes a step; the state is donated, the global batch kept until the next call.

        Returns (state, numbers), `bad` (1 or 0) among them. After a bad step the state is the old
        one until the next call or `settle`. UserError if the step before was bad, and the policy is
        to stop.
        """
        new_state, numbers = self._step(state, batch, self._held)
        if self._last is not None and self._refused():
            # The devices did not take this step either: `new_state` is still the one before.
            state = self._leave_behind(new_state)
            new_state, numbers = self._step(state, batch, self._held)
        self._held = numbers[HELD]
        self._last = batch, numbers
        return new_state, {BAD if name == HELD else name: value for name, value in numbers.items()}

    def settle(self, state: TrainState) -> TrainState:
        """Looks at the last step too; to be called before a state is saved, scored or reported.

        Returns the state of the last call, with the step counted if it was bad and is left out;
        UserError if it was bad, and the policy is to stop.
        """
        if self._last is not None and self._refused():
            state = self._leave_behind(state)
        self._last = None
        return state

    def _refused(self) -> bool:
        return bool(jax.device_get(self._held))

    def _leave_behind(self, state: TrainState) -> TrainState:
        """Keeps the evidence; then ends the run, or goes past the step."""
        assert self._last is not None
        batch, numbers = self._last
        self._last, self._held = None, self._free
        taken = int(jax.device_get(state.step))
        values = {name: float(value) for name, value in jax.device_get(numbers).items()}
        kept = self._on_bad(taken, state, batch, values)
        problem = (
            f"step {taken + 1} was not taken: its loss is {values['loss']:g} and its gradient "
            f"norm {values[_NORM]:g}"
        )
        if self._policy == "stop":
            raise UserError(
                f"{problem}; {kept}",
                remedy="lower optimizer.learning_rate and optimizer.backbone_learning_rate, or set "
                "optimizer.gradient_clip=1.0, in another workdir; or leave such steps out: "
                "training.on_bad_step=skip. The last checkpoint is older and sound",
            )
        self._say(f"warning: {problem}; {kept}; going on with the next batch")
        return dataclasses.replace(state, step=self._increment(state.step))
