"""Low-rank adapters, alone and in the steps of a run that uses all of fine-tuning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network
from fine_tuning_run import by_name

from mtl_face import config as config_lib
from mtl_face.config import LoraConfig
from mtl_face.errors import ConfigError
from mtl_face.model.network import network_inputs
from mtl_face.training import adapters, sharding
from mtl_face.training.experiment import Experiment

SIZE = tiny_network.SIZE
STEPS = 3


def settings(*, lora=(), optimizer=(), training=(), mesh=(), **model):
    """A network of one residual block and one layer each, with adapters in its attention."""
    return config_lib.validate(
        {
            "data": {"root": "/data", "image_size": SIZE},
            "model": {
                "input_size": SIZE,
                "input_mean": (128.0,) * 3,
                "input_std": (64.0,) * 3,
                "backbone": {"stage_sizes": (1,), "width": 4, "expansion": 2, "drop_path": 0.2},
                "embed_dim": 16,
                "num_heads": 2,
                "encoder_layers": 1,
                "decoder_modules": 1,
                "head_layers": 1,
                "drop_path": 0.2,
                **model,
            },
            "optimizer": {
                "batch_size": tiny_network.BATCH,
                "learning_rate": 1e-2,
                "warmup_epochs": 0.0,
                "epsilon": 1e-3,  # large, so that tiny moments don't magnify rounding
                "gradient_clip": 1.0,
                "lora": {"rank": 2, "alpha": 6.0, **dict(lora)},
                **dict(optimizer),
            },
            "training": {"ema_decay": 0.5, **dict(training)},
            "mesh": {"data": 1, "fsdp": 2, "rules": ("adapters/.*/b=-1",), **dict(mesh)},
        }
    )


def steps(config, devices=2, count=STEPS):
    """The experiment and its states on the host, before each step and after the last."""
    experiment = Experiment(config, devices=jax.devices()[:devices])
    state = experiment.make_state()
    take = experiment.train_step()
    held = jax.device_put(np.float32(0), sharding.replicated(experiment.mesh))
    states = [jax.device_get(state)]
    for index in range(count):
        batch = jax.device_put(tiny_network.batch(index), sharding.by_example(experiment.mesh))
        state, numbers = take(state, batch, held)
        assert not float(numbers["held"])
        states.append(jax.device_get(state))
    return experiment, states, state


@pytest.fixture(scope="module")
def taken():
    return steps(settings())


STILL = {
    "backbone": {"stage_sizes": (1,), "width": 4, "expansion": 2, "batch_norm": "frozen"},
    "dropout": 0.0,
    "drop_path": 0.0,
}
"""No draws inside of the network, and no statistics of a batch."""


def assert_same_course(states, expected):
    for found, wanted in zip(states, expected, strict=True):
        wanted_leaves = by_name({"params": wanted.params, "average": wanted.average})
        for name, leaf in by_name({"params": found.params, "average": found.average}).items():
            np.testing.assert_allclose(
                leaf, wanted_leaves[name], rtol=1e-3, atol=1e-5, err_msg=name
            )


@pytest.mark.slow
def test_eight_devices_compute_what_two_do(taken):
    mesh = {"data": 4, "fsdp": 2}
    assert_same_course(steps(settings(mesh=mesh), devices=8)[1], taken[1])


@pytest.fixture(scope="module")
def still():
    """States of a run without draws."""
    return steps(settings(**STILL))[1]


@pytest.mark.slow
def test_microbatches_compute_what_the_batch_does(still):
    parts = steps(settings(**STILL, optimizer={"accumulation_steps": 2}))[1]
    assert_same_course(parts, still)


@pytest.mark.slow
def test_adapters_in_bfloat16(still):
    """The factors get float32 gradients, near to those of a network in float32."""
    first, wide, *_ = still
    _, (_, narrow, *_), _ = steps(settings(**STILL, compute_dtype="bfloat16"), count=1)
    changed = by_name(jax.tree.map(np.subtract, wide.params, first.params))
    other = by_name(jax.tree.map(np.subtract, narrow.params, first.params))
    of_b = [name for name in changed if name.endswith("/b")]
    assert len(of_b) == 12
    for name in of_b:
        assert other[name].dtype == np.float32
    flat, flat_other = (
        np.concatenate([tree[name].ravel() for name in of_b]) for tree in (changed, other)
    )
    cosine = flat @ flat_other / np.linalg.norm(flat) / np.linalg.norm(flat_other)
    assert cosine > 0.95


def numpy_merged(params, scale):
    """Kernels of the plain network, and the names of those with adapters."""
    network, pairs = by_name(params["network"]), by_name(params["adapters"])
    names = {name.rpartition("/")[0] for name in pairs}
    for name in names:
        change = pairs[f"{name}/a"].astype(np.float64) @ pairs[f"{name}/b"]
        network[name] = network[name] + scale * change.reshape(network[name].shape)
    return network, names


def test_only_adapters_and_the_rest_train(taken):
    """Kernels with adapters and the backbone stay, bit for bit, and have no moments."""
    _, (first, *_, last), _ = taken
    before, after = by_name(first.params), by_name(last.params)
    _, names = numpy_merged(first.params, 3.0)
    assert len(names) == 12  # query, key, value and out of three layers
    for name, leaf in after.items():
        stays = name.startswith("network/backbone/") or name.removeprefix("network/") in names
        assert np.array_equal(leaf, before[name]) == stays, name
    trained = sum(leaf.size for name, leaf in after.items() if (before[name] != leaf).any())
    assert sum(leaf.size for leaf in jax.tree.leaves(last.opt_state) if leaf.ndim) == 2 * trained


def test_the_first_network_is_that_without_adapters(taken):
    """B is 0, A is not, and no other weight is drawn otherwise."""
    experiment, (first, *_), _ = taken
    for name, leaf in by_name(first.params["adapters"]).items():
        limit = 0 if name.endswith("/b") else 1 / 4  # 1 / sqrt(16 inputs)
        assert np.abs(leaf).max() <= limit
        assert leaf.any() == bool(limit), name
    plain = settings(lora={"rank": 0, "alpha": 16.0}, mesh={"rules": (".=large",)})
    network = Experiment(plain, devices=experiment.mesh.devices.flatten().tolist()).make_state()
    for name, leaf in by_name(network.params["network"]).items():
        np.testing.assert_array_equal(leaf, by_name(first.params["network"])[name], err_msg=name)


def test_averages_of_a_run(taken):
    """As the recursion has it, over the states of the run."""
    _, (first, *later), _ = taken
    expected = by_name(first.average)
    for number, state in enumerate(later, start=1):
        decay = min(0.5, (1 + number) / (10 + number))
        now = by_name({"params": state.params, "batch_stats": state.batch_stats})
        expected = {name: decay * leaf + (1 - decay) * now[name] for name, leaf in expected.items()}
        found = by_name(state.average)
        assert found.keys() == expected.keys()
        for name, leaf in found.items():
            np.testing.assert_allclose(leaf, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert any("adapters" in name for name in expected)
    assert not any("network/backbone" in name for name in expected)


def test_what_predicts_is_a_plain_network(taken):
    """W + (alpha / rank) A B of the averages, with the names and shapes of the network."""
    experiment, (*_, last), state = taken
    found = jax.device_get(experiment.variables(state))
    averaged = dict(last.params)
    for part in ("network", "adapters"):
        averaged[part] = by_name(last.params[part]) | by_name(last.average["params"][part])
    expected, _ = numpy_merged(averaged, 6.0 / 2)
    merged = by_name(found["params"])
    assert merged.keys() == expected.keys()
    for name, leaf in merged.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, found["batch_stats"], last.average["batch_stats"])
    shapes = jax.tree.map(jnp.shape, found["params"])
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, parameters())


def test_adapters_lie_where_rules_say(taken):
    _, _, state = taken
    split = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
        if not leaf.is_fully_replicated
    }
    assert {name.rsplit("/", 1)[1] for name in split} == {"b"}
    assert len(split) == 12 * 4  # itself, its average and two moments


@pytest.mark.parametrize(
    ("trains", "learning"),
    [("nothing", set()), ("heads", {"head_va", "head_au", "head_expr"}), ("all", None)],
)
def test_what_trains_beside_adapters(trains, learning):
    made = Experiment(settings(lora={"trains": trains}), devices=jax.devices()[:2])
    found = by_name(made.trains(made.state_like.params))
    for name, trained in found.items():
        collection, module, *_ = name.split("/")
        if collection == "adapters":
            assert trained
        elif "attention/" in name and name.endswith("kernel"):
            assert not trained, name
        else:
            assert trained == (learning is None or module in learning), name


def test_gradients_by_hand():
    """Of A and B, the kernel's times the other; of a convolution, over all its inputs; of W, 0."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    lora = LoraConfig(rank=2, alpha=3.0)
    params = {
        "network": {"conv": {"kernel": draw(3, 3, 4, 5)}, "dense": {"kernel": draw(4, 6)}},
        "adapters": {
            "conv": {"kernel": {"a": draw(36, 2), "b": draw(2, 5)}},
            "dense": {"kernel": {"a": draw(4, 2), "b": draw(2, 6)}},
        },
    }
    factor = jax.tree.map(lambda leaf: draw(*leaf.shape), params["network"])

    def loss(params):
        products = jax.tree.map(jnp.multiply, adapters.merged(params, lora), factor)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(products))

    gradients = jax.grad(loss)(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients["network"]))
    for name in ("conv", "dense"):
        pair, gradient = params["adapters"][name]["kernel"], gradients["adapters"][name]["kernel"]
        wide = np.asarray(factor[name]["kernel"]).reshape(-1, pair["b"].shape[1])
        np.testing.assert_allclose(gradient["a"], 1.5 * wide @ pair["b"].T, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient["b"], 1.5 * pair["a"].T @ wide, rtol=1e-5, atol=1e-5)


@functools.cache
def parameters():
    network = Experiment(settings(), devices=jax.devices()[:2]).network
    inputs = network_inputs(network.settings)
    shapes = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), inputs)
    return shapes["params"]


def test_rules_choose_kernels():
    layer = ("encoder", "layer1")
    assert adapters.adapted(parameters(), ["encoder/.*mlp_out"]) == [(*layer, "mlp_out", "kernel")]
    found = adapters.adapted(parameters(), ["encoder/layer1/.*(query|value)", "layer1/.*key/"])
    names = {path[3] for path in found if path[:2] == layer}
    assert names == {"query", "value", "key"}
    assert len(adapters.adapted(parameters(), ["backbone/.*conv2"])) == 1
    assert all(path[-1] == "kernel" for path in adapters.adapted(parameters(), ["."]))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("encoder/layer1/attn/query", "nearest names are encoder/layer1/attention/query/kernel"),
        ("decoder/tokens", "fits none of the network's"),
        ("(query", "is no regular expression"),
    ],
)
def test_rules_that_are_wrong(pattern, expected):
    with pytest.raises(ConfigError) as raised:
        adapters.adapted(parameters(), [pattern])
    assert expected in str(raised.value)
    assert pattern in str(raised.value)


def test_a_kernel_of_a_frozen_block_has_no_adapter():
    wrong = settings(
        lora={"kernels": ("conv2",)},
        backbone={"stage_sizes": (1,), "width": 4, "expansion": 2, "frozen_blocks": 1},
    )
    with pytest.raises(ConfigError, match="stage1_block1/conv2/kernel, which is in a frozen block"):
        _ = Experiment(wrong, devices=jax.devices()[:2]).state_like
