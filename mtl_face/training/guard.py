"""What the host does about a step that the devices refused to take (`health.hold_bad_steps`)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from mtl_face.errors import UserError
from mtl_face.training.health import BAD, HELD, Numbers
from mtl_face.training.state import TrainState

OnBad = Callable[[int, TrainState, dict, dict[str, float]], str]
"""(steps taken, state before the bad step, its batch, its numbers) -> what was done with them."""


@functools.cache
def _increment(placement: jax.sharding.Sharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda count: count + 1, out_shardings=placement)


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
        """Wraps a jitted step.

        Args:
            step: `health.hold_bad_steps` of a step, jitted; the state is donated to it.
            placement: where its `held` lies, whole on every device.
            policy: whether a bad step ends the run, or is left out.
            on_bad: keeps what is needed to look into a bad step.
            say: prints a line.
        """
        self._step = step
        self._policy = policy
        self._on_bad = on_bad
        self._say = say
        self._free = jax.device_put(np.float32(0), placement)
        self._held: Any = self._free
        self._last: tuple[dict, Numbers] | None = None
        self._increment = _increment(placement)

    def __call__(self, state: TrainState, batch: dict) -> tuple[TrainState, Numbers]:
        """Takes a step.

        Args:
            state: donated.
            batch: a global batch; kept until the next call.

        Returns:
            (state, numbers), `bad` (1 or 0) among them. After a bad step the state is the old one
            until the next call or `settle`.

        Raises:
            UserError: the step before was bad, and the policy is to stop.
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

        Args:
            state: what the last call returned.

        Returns:
            The state, with the step counted if it was bad and is left out.

        Raises:
            UserError: it was bad, and the policy is to stop.
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
            f"norm {values['gradient_norm']:g}"
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
