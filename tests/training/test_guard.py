"""A bad step changes no bit of the state; the host stops or skips it, a look late by one step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_network
from compiled_traffic import operations
from model_settings import PAPER, changed

from mtl_face.errors import UserError
from mtl_face.model.network import MtlFace
from mtl_face.training import guard, sharding, state, step
from mtl_face.training.guard import Guard
from mtl_face.training.state import TrainState

OPTIMIZER = optax.adamw(1e-2)
MESHES = [(1, 1), pytest.param((4, 2), marks=pytest.mark.slow)]


@functools.cache
def parts(data, fsdp, limit):
    """(function that makes a fresh state, function that places a batch, step)."""
    network = tiny_network.TinyNetwork()
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, devices=jax.devices()[: data * fsdp])
    made = tiny_network.make_state(network, OPTIMIZER, mesh)

    def make():
        return jax.tree.map(lambda leaf: jax.device_put(leaf, leaf.sharding, may_alias=False), made)

    train_step = step.make_train_step(
        network,
        OPTIMIZER,
        mesh,
        jax.tree.map(lambda leaf: leaf.sharding, made),
        augment=tiny_network.augment_and_mix,
        objective=tiny_network.objective,
        options=step.StepOptions(loss_limit=limit),
    )
    return make, lambda batch: jax.device_put(batch, sharding.by_example(mesh)), train_step


def bits(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        ).tobytes()
        for path, leaf in leaves
    }


def poisoned(value):
    """A batch whose first valence is not to be learned from."""
    batch = tiny_network.batch(1)
    batch["targets"]["va"][0] = value
    batch["weights"]["va"][0] = 1.0
    return batch


def as_users_compile(train_step, *arguments):
    """A step by XLA's newer code generator: the older one rounds otherwise with the guard."""
    options = {"xla_cpu_use_fusion_emitters": True}
    return train_step.lower(*arguments).compile(compiler_options=options)(*arguments)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_a_sound_step_has_the_bits_of_one_without_a_guard(mesh):
    make, place, plain = parts(*mesh, None)
    _, _, guarded = parts(*mesh, 1e4)
    expected, numbers = as_users_compile(plain, make(), place(tiny_network.batch(0)))
    found, again = as_users_compile(guarded, make(), place(tiny_network.batch(0)), np.float32(0))
    if mesh == (1, 1):
        assert bits(found) == bits(expected)
    for name, leaf in jax.tree_util.tree_flatten_with_path(jax.device_get(found.params))[0]:
        other = dict(jax.tree_util.tree_flatten_with_path(jax.device_get(expected.params))[0])[name]
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)
    assert float(again["held"]) == 0
    assert numbers.keys() == again.keys() - {"held"}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_a_bad_step_keeps_every_bit(mesh, value):
    make, place, guarded = parts(*mesh, 1e4)
    current, numbers = guarded(make(), place(tiny_network.batch(0)), np.float32(0))
    before = bits(current)
    current, numbers = guarded(current, place(poisoned(value)), numbers["held"])
    assert not float(numbers["loss"]) < 1e4
    assert float(numbers["held"]) == 1
    assert bits(current) == before
    # what comes after is held too, until the caller says otherwise
    current, numbers = guarded(current, place(tiny_network.batch(2)), numbers["held"])
    assert np.isfinite(float(numbers["loss"]))
    assert float(numbers["held"]) == 1
    assert bits(current) == before
    current, numbers = guarded(current, place(tiny_network.batch(2)), np.float32(0))
    assert float(numbers["held"]) == 0
    assert int(current.step) == 2
    assert bits(current) != before


@pytest.mark.slow
def test_the_guard_adds_no_exchange_between_devices():
    make, place, plain = parts(4, 2, None)
    _, _, guarded = parts(4, 2, 1e4)
    batch = place(tiny_network.batch(0))
    without = plain.lower(make(), batch).compile()
    with_guard = guarded.lower(make(), batch, np.float32(0)).compile()
    exchanged = [
        sum(
            sum(operation.sizes)
            for operation in operations(program.as_text()).values()
            if operation.is_collective
        )
        for program in (without, with_guard)
    ]
    assert exchanged[0] > 30_000
    assert exchanged[1] <= exchanged[0] + 8  # a flag or two


class TestOnAStandIn:
    """The rules, on a step that only adds."""

    @staticmethod
    def state(value=1.0):
        return state.TrainState(
            step=jnp.int32(4),
            params={"w": jnp.float32(value)},
            batch_stats={"var": jnp.ones(3)},
            opt_state=(jnp.int32(4), {"w": jnp.float32(0.5)}),
            key=jax.random.key(1),
        )

    @staticmethod
    def run(loss=1.0, norm=1.0, variance=1.0, limit=0.0, held=0.0):
        def step(old, batch):
            del batch
            new = old.replace(
                step=old.step + 1,
                params={"w": old.params["w"] + 1},
                batch_stats={"var": old.batch_stats["var"].at[1].set(variance)},
                opt_state=jax.tree.map(lambda leaf: leaf + 1, old.opt_state),
            )
            return new, {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(norm)}

        guarded = jax.jit(guard.hold_bad_steps(step, loss_limit=limit))
        new, numbers = guarded(TestOnAStandIn.state(), {}, jnp.float32(held))
        same = bits(new) == bits(TestOnAStandIn.state())
        assert same == bool(numbers["held"])
        assert same or int(new.step) == int(new.opt_state[0]) == 5
        return same

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("what", ["loss", "norm", "variance"])
    def test_not_finite(self, what, bad):
        assert self.run(**{what: bad})

    @pytest.mark.parametrize(
        ("loss", "limit", "kept"),
        [(9.9, 10.0, False), (10.0, 10.0, False), (10.1, 10.0, True), (1e30, 0.0, False)],
    )
    def test_limit(self, loss, limit, kept):
        assert self.run(loss=loss, limit=limit) == kept

    def test_a_negative_loss_is_sound(self):
        assert not self.run(loss=-50.0, limit=10.0)

    def test_held(self):
        assert self.run(held=1.0)


def test_norms_by_block():
    random = np.random.default_rng(0)
    gradients = {
        "network": {
            "backbone": {
                "conv1": {"kernel": random.normal(size=(3, 4))},
                "bn1": {"scale": random.normal(size=4)},
                "stage2_block1": {"conv1": {"kernel": random.normal(size=5)}},
                "stage2_block3": {"proj": {"kernel": random.normal(size=5)}},
            },
            "encoder": {"layer0": {"kernel": random.normal(size=6)}},
            "head_va": {"kernel": random.normal(size=2)},
            "head_au": {"kernel": random.normal(size=2)},
        },
        "uncertainty": {"va": np.float64(0.25)},
    }
    gradients = jax.tree.map(jnp.float32, gradients)
    found = {name: float(value) for name, value in guard.gradient_norms(gradients).items()}
    network = gradients["network"]
    expected = {
        "gradient_norm": gradients,
        "gradient_norm/stem": [network["backbone"]["conv1"], network["backbone"]["bn1"]],
        "gradient_norm/stage2": [
            network["backbone"]["stage2_block1"], network["backbone"]["stage2_block3"]
        ],
        "gradient_norm/encoder": network["encoder"],
        "gradient_norm/heads": [network["head_va"], network["head_au"]],
        "gradient_norm/uncertainty": gradients["uncertainty"],
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, tree in expected.items():
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        assert found[name] == pytest.approx(np.linalg.norm(flat), rel=1e-5), name


def test_every_parameter_of_the_network_has_a_block():
    network = MtlFace(changed(PAPER, input_size=64, stage_sizes=(1, 1), width=8, embed_dim=24))
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )
    paths = jax.tree_util.tree_flatten_with_path({"network": shapes["params"]})[0]
    blocks = {guard.block_of(path) for path, _ in paths}
    assert blocks == {"stem", "stage1", "stage2", "projection", "encoder", "decoder", "heads"}


def test_means_leave_bad_steps_out():
    rows = [
        {"loss": 1.0, "bad": 0.0, "va": 2.0, "va_weight": 1.0},
        {"loss": np.nan, "bad": 1.0, "va": np.nan, "va_weight": 1.0},
        {"loss": 3.0, "bad": 0.0, "va": 4.0, "va_weight": 3.0},
    ]
    assert step.mean_numbers(rows) == {"bad_steps": 1.0, "loss": 2.0, "va": 3.5}
    assert step.mean_numbers(rows[1:2]) == {"bad_steps": 1.0}
    assert "bad_steps" not in step.mean_numbers(rows[:1])


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


STEP = jax.jit(guard.hold_bad_steps(adding, loss_limit=0), donate_argnums=0)


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
    for (taken, counted, total, x, loss), index in zip(run.evidence, bad, strict=True):
        assert taken == counted == index
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
