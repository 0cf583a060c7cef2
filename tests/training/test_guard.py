"""Stop or skip, a look late by one step, and the evidence: on a step that adds its batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_face.errors import UserError
from mtl_face.training import health, sharding
from mtl_face.training.guard import Guard
from mtl_face.training.state import TrainState


def fresh():
    return TrainState(
        step=jnp.int32(0),
        params={"sum": jnp.float32(0)},
        batch_stats={},
        opt_state=(),
        key=jax.random.key(0),
    )


def adding(state, batch):
    new = dataclasses.replace(
        state, step=state.step + 1, params={"sum": state.params["sum"] + batch["x"]}
    )
    return new, {"loss": batch["x"], "gradient_norm": jnp.float32(1)}


STEP = jax.jit(health.hold_bad_steps(adding, loss_limit=0), donate_argnums=0)


class Run:
    """Batches 1, 2, 4, 8, ... with NaN in some places, through a guard."""

    def __init__(self, bad, steps=8, *, policy="skip", settle_at=()):
        self.evidence, self.lines, self.flags = [], [], []
        mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
        guard = Guard(
            STEP,
            placement=sharding.replicated(mesh),
            policy=policy,
            on_bad=self.keep,
            say=self.lines.append,
        )
        state = jax.device_put(fresh(), sharding.replicated(mesh))
        for index in range(steps):
            x = np.float32(np.nan if index in bad else 2**index)
            batch = jax.device_put({"x": x}, sharding.replicated(mesh))
            with jax.transfer_guard("disallow"):
                state, numbers = guard(state, batch)
            self.flags.append(numbers["bad"])
            assert "held" not in numbers
            if index in settle_at:
                state = guard.settle(state)
                assert int(state.step) == index + 1
                assert float(state.params["sum"]) == self.sum(index + 1, bad)
        self.state = guard.settle(state)

    @staticmethod
    def sum(steps, bad):
        return sum(2**index for index in range(steps) if index not in bad)

    def keep(self, taken, state, batch, numbers):
        self.evidence.append(
            (taken, int(state.step), float(state.params["sum"]), float(batch["x"]), numbers["loss"])
        )
        return "kept"


@pytest.mark.parametrize("settle_at", [(), (2,), (3,), range(8)])
@pytest.mark.parametrize("bad", [(), (0,), (3,), (7,), (2, 3), (0, 1, 7), range(8)])
def test_bad_steps_are_left_out(bad, settle_at):
    run = Run(bad, settle_at=settle_at)
    assert int(run.state.step) == 8
    assert float(run.state.params["sum"]) == run.sum(8, bad)
    assert [bool(flag) for flag in run.flags] == [index in bad for index in range(8)]
    for (taken, step, total, x, loss), index in zip(run.evidence, bad, strict=True):
        assert taken == step == index
        assert total == run.sum(index, bad)  # the state that the bad step began with
        assert np.isnan(x)
        assert np.isnan(loss)
    assert len(run.lines) == len(bad)
    for line, index in zip(run.lines, bad, strict=True):
        assert f"step {index + 1} was not taken: its loss is nan" in line
        assert "kept; going on" in line


@pytest.mark.parametrize("bad", [0, 3, 7])
def test_a_bad_step_ends_the_run(bad):
    with pytest.raises(UserError) as raised:
        Run((bad,), policy="stop")
    assert raised.value.problem.startswith(f"step {bad + 1} was not taken: its loss is nan")
    assert "kept" in raised.value.problem
    assert "training.on_bad_step=skip" in raised.value.remedy
