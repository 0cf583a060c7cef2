"""One step: the same on any mesh, donated, blind to missing labels, with no needless traffic."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_network

from mtl_face.config import BackboneConfig, OptimizerConfig
from mtl_face.inference.predictor import make_predict_step
from mtl_face.training import sharding, state, step
from mtl_face.training.optimizer import inverse_sqrt, make_optimizer

COLLECTIVE = re.compile(
    r"\b(all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(?:-start)?\("
)
MESHES = [(1, 1), (8, 1), (4, 2)]

SGD = optax.sgd(0.05, momentum=0.9)


@functools.cache
def parts(data, fsdp, *, optimizer=SGD, augmented=True, learned=False):
    """(mesh, function that makes a fresh state, step)."""
    network = tiny_network.TinyNetwork()
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, devices=jax.devices()[: data * fsdp])
    uncertainty = {task: jnp.zeros(()) for task in ("va", "au", "expr")} if learned else {}
    made = tiny_network.make_state(network, optimizer, mesh, uncertainty)

    def make():
        """A copy, to be donated: quicker than compiling the initialisation again."""
        return jax.tree.map(lambda leaf: jax.device_put(leaf, leaf.sharding, may_alias=False), made)

    initial = tiny_network.initial(network, optimizer, uncertainty)
    like = state.abstract_state(initial, mesh)
    train_step = step.make_train_step(
        network,
        optimizer,
        mesh,
        jax.tree.map(lambda leaf: leaf.sharding, like),
        augment=tiny_network.augment_and_mix if augmented else tiny_network.plain,
        objective=tiny_network.objective,
    )
    return mesh, make, train_step


def place(batch, mesh):
    return jax.device_put(batch, sharding.by_example(mesh))


def run(data, fsdp, steps, **options):
    """Losses and the last state, after steps on batches that differ."""
    mesh, make, train_step = parts(data, fsdp, **options)
    current, losses = make(), []
    for index in range(steps):
        current, numbers = train_step(current, place(tiny_network.batch(index), mesh))
        losses.append(numbers["loss"])
    return jax.device_get(losses), current


def assert_same(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, leaf), other in zip(
        jax.tree_util.tree_flatten_with_path(found)[0], jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(leaf, other, err_msg=jax.tree_util.keystr(path), **tolerance)


@functools.cache
def ten_steps_on_one_device():
    losses, last = run(1, 1, 10)
    return losses, jax.device_get((last.params, last.batch_stats, last.opt_state))


@pytest.mark.parametrize("mesh", MESHES[1:], ids=lambda mesh: f"{mesh[0]}x{mesh[1]}")
def test_ten_steps_on_one_and_on_eight_devices(mesh):
    """Losses, parameters, statistics and momentum, with augmentation, MixUp and dropout."""
    expected_losses, expected = ten_steps_on_one_device()
    losses, last = run(*mesh, 10)
    assert len(set(map(float, losses))) == 10
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    found = jax.device_get((last.params, last.batch_stats, last.opt_state))
    assert_same(found, expected, rtol=1e-4, atol=2e-5)
    assert int(last.step) == 10


def test_the_comparison_sees_a_loss_averaged_by_device():
    """Means of the devices' means differ from the global mean by far more than the tolerance."""
    batch = tiny_network.batch(0)
    network = tiny_network.TinyNetwork()
    start = parts(1, 1)[1]()
    variables = {"params": start.params["network"], "batch_stats": start.batch_stats}

    @jax.jit
    def loss(part):
        outputs = network.apply(variables, tiny_network.as_float(part), train=False)
        return tiny_network.objective(outputs, part["targets"], part["weights"], {})[0]

    by_device = [loss(jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], batch)) for i in range(8)]
    assert abs(np.mean(by_device) / float(loss(batch)) - 1) > 0.1


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: f"{mesh[0]}x{mesh[1]}")
def test_state_lies_where_it_should(mesh):
    _, make, _ = parts(*mesh)
    _, last = run(*mesh, 1)
    for current in (make(), last):
        kernel = current.params["network"]["hidden"]["kernel"]
        share = kernel.addressable_shards[0].data.size
        assert share == kernel.size // mesh[1]
        momentum = current.opt_state[0].trace["network"]["hidden"]["kernel"]
        assert momentum.sharding == kernel.sharding
        assert current.params["network"]["backbone"]["kernel"].is_fully_replicated
        assert current.step.is_fully_replicated


def test_state_is_donated():
    mesh, make, train_step = parts(8, 1)
    old = make()
    new, _ = train_step(old, place(tiny_network.batch(), mesh))
    leaves = jax.tree.leaves((old.params, old.batch_stats, old.opt_state, old.step))
    assert len(leaves) > 20
    assert all(leaf.is_deleted() for leaf in leaves)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


def test_data_parallel_step_only_reduces():
    """Gradients, batch statistics and sums of the loss: nothing else crosses the devices."""
    mesh, make, train_step = parts(8, 1)
    compiled = train_step.lower(make(), place(tiny_network.batch(), mesh)).compile()
    assert set(COLLECTIVE.findall(compiled.as_text())) == {"all-reduce"}


def test_other_collectives_would_be_found():
    mesh, make, train_step = parts(4, 2)
    compiled = train_step.lower(make(), place(tiny_network.batch(), mesh)).compile()
    assert "all-gather" in set(COLLECTIVE.findall(compiled.as_text()))


def test_step_needs_no_hidden_transfer():
    mesh, make, train_step = parts(8, 1)
    current, batch = make(), place(tiny_network.batch(), mesh)
    with jax.transfer_guard("disallow"):
        current, _ = train_step(current, batch)
        train_step(current, batch)


def test_what_is_missing_changes_nothing():
    mesh, make, train_step = parts(1, 1, augmented=False)
    clean, dirty = tiny_network.batch(), tiny_network.batch()
    for task, weight in clean["weights"].items():
        for batch, filler in ((clean, 0.0), (dirty, np.nan)):
            batch["targets"][task][weight == 0] = filler
    results = [jax.device_get(train_step(make(), place(b, mesh))[0].params) for b in (clean, dirty)]
    assert_same(results[0], results[1], rtol=0, atol=0)


def test_batch_without_labels():
    mesh, make, train_step = parts(1, 1, augmented=False)
    before = jax.device_get(make().params)
    after, numbers = train_step(make(), place(tiny_network.batch(labels=0), mesh))
    assert float(numbers["loss"]) == 0.0
    assert float(numbers["gradient_norm"]) == 0.0
    assert_same(jax.device_get(after.params), before, rtol=0, atol=0)


def test_one_step_of_gradient_descent_by_hand():
    """The update is the gradient of the objective at the augmented batch, at the step's keys."""
    mesh, make, train_step = parts(1, 1)
    network, batch, old = tiny_network.TinyNetwork(), tiny_network.batch(), make()

    def loss(params):
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(old.key, 0))
        inputs, targets, weights = tiny_network.augment_and_mix(
            augment_key, step.inputs_of(batch), batch["targets"], batch["weights"]
        )
        outputs, updated = network.apply(
            {"params": params, "batch_stats": old.batch_stats},
            inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        return tiny_network.objective(outputs, targets, weights, {})[0], updated["batch_stats"]

    gradient, statistics = jax.device_get(
        jax.jit(jax.grad(loss, has_aux=True))(old.params["network"])
    )
    params = jax.device_get(old.params["network"])
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    new, numbers = train_step(old, place(batch, mesh))
    assert_same(jax.device_get(new.params["network"]), expected, rtol=1e-5, atol=1e-6)
    assert_same(jax.device_get(new.batch_stats), statistics, rtol=1e-5, atol=1e-6)
    assert float(numbers["gradient_norm"]) == pytest.approx(float(norm), rel=1e-5)


def test_random_draws_follow_the_step_alone():
    """The same batch twice: other augmentation each step, and the same again from the same step."""
    mesh, make, train_step = parts(1, 1, optimizer=optax.set_to_zero())
    batch = place(tiny_network.batch(), mesh)

    def two_losses():
        current, first = train_step(make(), batch)
        _, second = train_step(current, batch)
        return float(first["loss"]), float(second["loss"])

    first, second = two_losses()
    assert first != second
    assert two_losses() == (first, second)


def test_seeds_give_other_states():
    network = tiny_network.TinyNetwork()

    @jax.jit
    def draw(seed):
        made = tiny_network.initial(network, SGD)(seed)
        return made.params["network"]["hidden"]["kernel"], jax.random.key_data(made.key)

    kernels, keys = zip(*(draw(jnp.uint32(seed)) for seed in (0, 1, 2**32 - 1)), strict=True)
    assert not np.array_equal(kernels[0], kernels[1])
    assert len({tuple(key.tolist()) for key in keys}) == 3


def test_abstract_state_describes_the_state():
    _, make, _ = parts(4, 2)
    made = make()
    mesh = sharding.make_mesh(data=4, fsdp=2)
    like = state.abstract_state(tiny_network.initial(tiny_network.TinyNetwork(), SGD), mesh)
    assert jax.tree.structure(made) == jax.tree.structure(like)
    for leaf, other in zip(jax.tree.leaves(made), jax.tree.leaves(like), strict=True):
        assert (leaf.shape, leaf.dtype) == (other.shape, other.dtype)
        assert leaf.sharding.is_equivalent_to(other.sharding, leaf.ndim)


@pytest.mark.slow
def test_adamw_and_learned_temperatures_on_eight_devices():
    """Adam's division by tiny moments magnifies rounding: a large epsilon keeps it in bounds."""
    optimizer = make_optimizer(
        OptimizerConfig(weight_decay=0.1, beta1=0.9, beta2=0.99, epsilon=1e-2, gradient_clip=1.0),
        dict.fromkeys(("backbone", "rest"), inverse_sqrt(1e-2, warmup_steps=3)),
        backbone=BackboneConfig(),
    )
    runs = [run(*mesh, 10, optimizer=optimizer, learned=True) for mesh in MESHES]
    for losses, last in runs[1:]:
        np.testing.assert_allclose(losses, runs[0][0], rtol=1e-5)
        assert_same(
            jax.device_get(last.params), jax.device_get(runs[0][1].params), rtol=1e-3, atol=1e-4
        )
    learned = jax.device_get(runs[0][1].params["uncertainty"])
    assert all(abs(value) > 1e-3 for value in learned.values())


def test_predict_step():
    network = tiny_network.TinyNetwork()
    outputs = {}
    for data, fsdp in MESHES:
        mesh, make, _ = parts(data, fsdp)
        current = make()
        predict = make_predict_step(
            network,
            prepare=tiny_network.as_float,
            out_shardings=sharding.replicated(mesh),
        )
        inputs = place({"image": tiny_network.batch()["image"]}, mesh)
        index = place(np.arange(tiny_network.BATCH, dtype=np.int32), mesh)
        result = predict(current.params["network"], current.batch_stats, inputs, index)
        assert all(value.is_fully_replicated for value in result.values())
        outputs[data, fsdp] = jax.device_get(result)
    assert outputs[1, 1]["index"].tolist() == list(range(16))
    assert {name: value.shape for name, value in outputs[1, 1].items()} == {
        "va": (16, 2),
        "au": (16, 12),
        "expr": (16, 8),
        "index": (16,),
    }
    assert_same(outputs[8, 1], outputs[1, 1], rtol=1e-5, atol=1e-5)
    assert_same(outputs[4, 2], outputs[1, 1], rtol=1e-5, atol=1e-5)


def test_means_over_steps():
    rows = [
        {"loss": 1.0, "va": 4.0, "va_weight": 1.0, "au": 0.0, "au_weight": 0.0},
        {"loss": 3.0, "va": 8.0, "va_weight": 3.0, "au": np.nan, "au_weight": 0.0},
    ]
    means = step.mean_numbers(rows)
    assert means == {"loss": 2.0, "va": 7.0}  # au had no label
    rows[0]["va"] = np.nan  # a number that went wrong is shown
    assert np.isnan(step.mean_numbers(rows)["va"])
