"""Microbatches: the same loss, gradient and numbers as the whole batch, however labels lie."""

import collections
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_network
from test_step import assert_same, place

from mtl_face.errors import ConfigError
from mtl_face.model.batch_norm import make_batch_norm
from mtl_face.objective import losses
from mtl_face.planner import hlo, traffic
from mtl_face.tasks import OUTPUT_SIZES, TASKS
from mtl_face.training import accumulation, sharding, state, step

SIZE = 32
MIXED = tiny_network.augment_and_mix
SGD = optax.sgd(0.05, momentum=0.9)


class Network(nn.Module):
    """A convolution, a batch norm of the given kind, and dense layers."""

    batch_norm: str
    groups: int = 1

    @nn.compact
    def __call__(self, inputs, *, train):
        image_BHWC = inputs["image"]
        normalise = make_batch_norm(
            self.batch_norm,
            train=train,
            groups=self.groups,
            momentum=0.5,
            epsilon=1e-3,
            dtype=jnp.float32,
        )
        value = nn.Conv(16, (3, 3), strides=(2, 2), name="backbone")((image_BHWC - 128) / 64)
        value = nn.relu(normalise(name="norm")(value)).reshape(len(value), -1)
        value = nn.relu(nn.Dense(128, name="hidden")(value))
        return {task: nn.Dense(OUTPUT_SIZES[task], name=f"head_{task}")(value) for task in TASKS}


def objective(outputs, targets, weights, learned):
    result = losses.multi_task_loss(
        outputs, targets, weights, learned or None, kind="learned", temperatures={}
    )
    numbers = {task: result.task_loss[task] for task in TASKS}
    numbers |= {f"{task}_weight": result.task_weight[task] for task in TASKS}
    numbers |= {f"temperature_{task}": jnp.exp(value) for task, value in learned.items()}
    return result.total, numbers | {accumulation.EXAMPLE_WEIGHT: result.example_weight}


def ccc_objective(outputs, targets, weights, learned, coupled=None):
    result = losses.multi_task_loss(
        outputs,
        targets,
        weights,
        learned or None,
        kind="learned",
        temperatures={},
        options=losses.LossOptions(va_ccc=0.7, coupled=coupled),
    )
    return result.total, {accumulation.EXAMPLE_WEIGHT: result.example_weight}


UNCERTAINTY = {task: jnp.zeros(()) for task in TASKS}


@functools.cache
def parts(data, fsdp, microbatches, batch_norm, groups=1, *, augment=MIXED, ccc=False):
    network = Network(batch_norm, groups)
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, devices=jax.devices()[: data * fsdp])
    like = state.abstract_state(tiny_network.initial(network, SGD, UNCERTAINTY), mesh)
    train_step = step.make_train_step(
        network,
        SGD,
        mesh,
        jax.tree.map(lambda leaf: leaf.sharding, like),
        augment=augment,
        objective=ccc_objective if ccc else objective,
        options=step.StepOptions(microbatches=microbatches, couple=losses.couple if ccc else None),
    )
    return mesh, like, train_step


@functools.cache
def start():
    """A state on the host; made once, since compiling it is what takes the time."""
    mesh, _, _ = parts(1, 1, 1, "frozen")
    made = tiny_network.make_state(Network("frozen"), SGD, mesh, UNCERTAINTY)
    statistics = made.batch_stats["norm"]
    statistics["mean"], statistics["var"] = statistics["mean"] + 0.1, statistics["var"] * 0.7
    return made


def run(data, fsdp, microbatches, *kind, steps=2, labels=None, rows=None, **options):
    mesh, like, train_step = parts(data, fsdp, microbatches, *(kind or ("frozen",)), **options)
    current = jax.tree.map(
        lambda leaf, wanted: jax.device_put(jnp.copy(leaf), wanted.sharding), start(), like
    )
    told = []
    for index in range(steps):
        batch = tiny_network.batch(index, SIZE, labels=labels)
        if rows is not None:
            batch = jax.tree.map(lambda leaf: leaf[rows], batch)
        current, numbers = train_step(current, place(batch, mesh))
        told.append(jax.device_get(numbers))
    return told, jax.device_get((current.params, current.batch_stats, current.opt_state))


@functools.cache
def plain():
    return run(1, 1, 1)


@pytest.mark.parametrize(
    ("data", "fsdp", "microbatches"),
    [
        (4, 2, 2),
        pytest.param(1, 1, 4, marks=pytest.mark.slow),
        pytest.param(8, 1, 2, marks=pytest.mark.slow),
    ],
)
def test_the_step_of_the_whole_batch(data, fsdp, microbatches):
    """Loss, numbers, gradients (as momentum) and parameters, with labels that lie unevenly."""
    rows, last = run(data, fsdp, microbatches)
    expected_rows, expected = plain()
    for found, wanted in zip(rows, expected_rows, strict=True):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)
    assert_same(last[0], expected[0], rtol=1e-5, atol=2e-6)
    assert_same(last[2], expected[2], rtol=1e-4, atol=2e-5)
    # The statistics are not to change at all.
    assert_same(last[1], jax.device_get(start().batch_stats), rtol=0, atol=0)


@pytest.mark.slow
def test_a_ccc_is_that_of_the_whole_batch():
    """With MixUp, and with parts and devices that have no label of valence and arousal."""
    rows, last = run(4, 2, 4, ccc=True)
    expected_rows, expected = run(1, 1, 1, ccc=True)
    for found, wanted in zip(rows, expected_rows, strict=True):
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=2e-5)
        np.testing.assert_allclose(found["gradient_norm"], wanted["gradient_norm"], rtol=2e-4)
    assert_same(last[0], expected[0], rtol=1e-5, atol=2e-6)


def test_means_of_the_microbatches_would_differ():
    """So the comparison above sees them: they are off by far more than its tolerance."""
    batch = tiny_network.batch(0, SIZE)
    network = Network("frozen")
    variables = {"params": start().params["network"], "batch_stats": start().batch_stats}

    @jax.jit
    def loss(part):
        outputs = network.apply(variables, tiny_network.as_float(part), train=True)
        zeros = {task: jnp.zeros(()) for task in TASKS}
        return objective(outputs, part["targets"], part["weights"], zeros)[0]

    parts = [loss(jax.tree.map(lambda x, i=i: x[8 * i : 8 * i + 8], batch)) for i in range(4)]
    assert abs(np.mean(parts) / float(loss(batch)) - 1) > 0.1


@pytest.mark.slow
def test_a_batch_norm_over_the_batch_is_one_over_groups():
    """On one device microbatches are neighbours, as the groups of `BatchNorm` are."""
    rows, last = run(1, 1, 4, "batch")
    expected_rows, expected = run(1, 1, 1, "local", 4)
    np.testing.assert_allclose(
        [row["loss"] for row in rows], [row["loss"] for row in expected_rows], rtol=1e-5
    )
    assert_same(last[0], expected[0], rtol=1e-4, atol=2e-5)
    assert_same(last[1], expected[1], rtol=1e-5, atol=1e-6)
    moved = np.abs(last[1]["norm"]["mean"] - np.asarray(start().batch_stats["norm"]["mean"]))
    assert moved.max() > 0.01


def test_no_labels_no_change():
    rows, last = run(4, 2, 4, steps=1, labels=0)
    assert rows[0]["loss"] == 0
    assert rows[0]["gradient_norm"] == 0
    assert_same(last[0], jax.device_get(start().params), rtol=0, atol=0)


@pytest.mark.parametrize(
    "kind",
    [("batch",), pytest.param(("local", 8), marks=pytest.mark.slow)],
    ids=lambda kind: kind[0],
)
def test_batch_norms_see_the_microbatch_of_all_devices(kind):
    """Eight devices give what one gives whose microbatches hold the same rows, in their order."""
    by_microbatch = np.arange(SIZE).reshape(8, 2, 2).swapaxes(0, 1).reshape(-1)
    plain = {"augment": tiny_network.plain}
    rows, last = run(8, 1, 2, *kind, **plain)
    expected_rows, expected = run(1, 1, 2, *kind, rows=by_microbatch, **plain)
    for found, wanted in zip(rows, expected_rows, strict=True):
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)
    assert_same(last[0], expected[0], rtol=1e-5, atol=2e-6)
    assert_same(last[1], expected[1], rtol=1e-5, atol=1e-6)
    if kind[0] == "local":  # groups hold the same rows in either order
        return
    other_rows, _ = run(1, 1, 2, *kind, **plain)  # which rows meet does matter
    assert abs(other_rows[1]["loss"] / rows[1]["loss"] - 1) > 1e-4


@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_gradients_cross_once(data, fsdp):
    """Nothing of a parameter's size is exchanged in the loop over the microbatches."""
    mesh, like, train_step = parts(data, fsdp, 4, "frozen")
    text = train_step.lower(like, place(tiny_network.batch(0, SIZE), mesh)).compile().as_text()
    sizes = [leaf.size for leaf in jax.tree.leaves(like.params)]
    exchanged = collections.Counter()
    for found in traffic.collectives(hlo.parse(text), 8):
        exchanged[found.kind] += found.count * sum(array.elements for array in found.arrays)
    if fsdp == 1:
        assert set(exchanged) <= {"all-reduce", "all-gather"}
        assert sum(sizes) <= exchanged["all-reduce"] < sum(sizes) + 500
    else:
        # Parameters in, their sums out and over the other axis, however the compiler writes it.
        assert sum(exchanged.values()) < 3.2 * sum(sizes)


@pytest.mark.parametrize(
    ("batch_size", "even", "microbatches", "remedy"),
    [(32, True, 4, None), (32, True, 3, "use 48"), (16, False, 4, "use 32")],
)
def test_batches_that_split(batch_size, even, microbatches, remedy):
    mesh = sharding.make_mesh(data=4, fsdp=2)
    check = functools.partial(
        sharding.check_batch, batch_size, mesh, name="a.b", even=even, microbatches=microbatches
    )
    if remedy is None:
        check()
        return
    with pytest.raises(ConfigError, match=f"{microbatches} microbatches") as raised:
        check()
    assert raised.value.remedy == remedy


@pytest.mark.slow
def test_microbatches_save_memory():
    sizes = []
    for microbatches in (1, 4):
        mesh, like, train_step = parts(1, 1, microbatches, "frozen")
        batch = jax.tree.map(
            lambda leaf, mesh=mesh: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding.by_example(mesh)
            ),
            tiny_network.batch(0, 4096),
        )
        compiled = train_step.lower(like, batch).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 0.6 * sizes[0]
