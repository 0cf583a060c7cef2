"""Rules on what is split along `fsdp`: words, mistakes, and that they change no value."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_network
from test_step import assert_same, place

from mtl_face.errors import ConfigError
from mtl_face.training import rules, sharding, state, step
from mtl_face.training.optimizer import inverse_sqrt, make_optimizer

HIDDEN = "network/hidden/kernel"

SGD = optax.sgd(0.05, momentum=0.9)

ADAMW = make_optimizer(
    backbone_schedule=inverse_sqrt(1e-2, warmup_steps=3),
    rest_schedule=inverse_sqrt(1e-2, warmup_steps=3),
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.99,
    epsilon=1e-2,
    gradient_clip=1.0,
)


@functools.cache
def abstract(optimizer=ADAMW):
    return jax.eval_shape(
        lambda: state.initial_state(
            tiny_network.TinyNetwork(),
            optimizer,
            seed=0,
            input_size=tiny_network.SIZE,
            uncertainty={"va": jnp.zeros(())},
        )
    )


def split(texts, parts=2, optimizer=ADAMW):
    """Axis by name, of what is split."""
    axes = rules.split_axes(abstract(optimizer), texts, parts=parts)
    names = rules.names(abstract(optimizer))
    return sorted(
        {
            (name, axis)
            for name, axis in zip(names, axes, strict=True)
            if axis is not None and name is not None
        }
    )


def test_names():
    names = [name for name in rules.names(abstract()) if name is not None]
    assert f"params/{HIDDEN}" in names
    # The first and the second moment have one name: they lie alike.
    assert names.count(f"moments/{HIDDEN}") == 2
    assert "batch_stats/norm/mean" in names
    assert not any(name.startswith("opt_state") for name in names)
    assert None in rules.names(abstract())  # the step, the key, counts, the temperature


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (rules.DEFAULT, [(f"moments/{HIDDEN}", 0), (f"params/{HIDDEN}", 0)]),
        (["moments/=large"], [(f"moments/{HIDDEN}", 0)]),
        (["params/=whole", ".=large"], [(f"moments/{HIDDEN}", 0)]),
        ([".=whole"], []),
        (["hidden/kernel=1"], [(f"moments/{HIDDEN}", 1), (f"params/{HIDDEN}", 1)]),
        (["^params/.*hidden/(kernel|bias)$=-1"], [("params/network/hidden/bias", 0),
                                                   (f"params/{HIDDEN}", 1)]),
        (["backbone/kernel=large"], []),  # not large
    ],
)  # fmt: skip
def test_first_rule_that_fits_decides(texts, expected):
    assert split(texts) == expected
    assert split(texts, parts=1) == []


@pytest.mark.parametrize(
    ("texts", "problem", "remedy"),
    [
        (["hiden/kernel=large"], "fits no array", f"moments/{HIDDEN}, params/{HIDDEN}"),
        (["params/network/head_au/kernal=0"], "fits no array", "params/network/head_au/kernel"),
        (["kernel"], "no rule", "PATTERN=large"),
        (["kernel=big"], "no rule", "PATTERN=whole"),
        (["ker(nel=large"], "no regular expression", None),
        (["head_va=1"], "without that axis", "bias=whole"),
        (["backbone/kernel=2"], "do not divide the axis 2 of .*backbone/kernel", "another axis"),
    ],
)
def test_mistakes(texts, problem, remedy):
    with pytest.raises(ConfigError, match=problem) as raised:
        split([".=large", *texts] if "axis" not in problem else texts)
    assert "mesh.rules" in str(raised.value)
    assert remedy is None or remedy in raised.value.remedy


def test_a_rule_is_checked_without_fsdp_too():
    with pytest.raises(ConfigError, match="fits no array"):
        split(["decoder=large"], parts=1)


@functools.cache
def three_steps(data, fsdp, texts):
    network = tiny_network.TinyNetwork()
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, devices=jax.devices()[: data * fsdp])
    options = {"input_size": tiny_network.SIZE, "uncertainty": {}, "split_rules": texts}
    like = state.abstract_state(network, SGD, mesh, **options)
    made = made_once()
    current = jax.tree.map(
        lambda leaf, wanted: jax.device_put(jnp.copy(leaf), wanted.sharding), made, like
    )
    train_step = step.make_train_step(
        network,
        SGD,
        mesh,
        jax.tree.map(lambda leaf: leaf.sharding, like),
        augment=tiny_network.augment_and_mix,
        objective=tiny_network.objective,
    )
    losses = []
    for index in range(3):
        current, numbers = train_step(current, place(tiny_network.batch(index), mesh))
        losses.append(float(numbers["loss"]))
    return losses, current


@functools.cache
def made_once():
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    return state.make_state(
        tiny_network.TinyNetwork(),
        SGD,
        mesh,
        seed=3,
        input_size=tiny_network.SIZE,
        uncertainty={},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "of_params", "of_moments"),
    [
        (("params/=whole", "moments/=large"), 1, 4),
        (("hidden/kernel=1", ".=large"), 4, 4),
    ],
)
def test_rules_move_arrays_and_change_no_value(texts, of_params, of_moments):
    losses, last = three_steps(2, 4, texts)
    expected_losses, expected = three_steps(1, 1, rules.DEFAULT)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert_same(jax.device_get(last.params), jax.device_get(expected.params), rtol=1e-4, atol=1e-5)
    kernel = last.params["network"]["hidden"]["kernel"]
    moment = last.opt_state[0].trace["network"]["hidden"]["kernel"]
    assert kernel.size // kernel.addressable_shards[0].data.size == of_params
    assert moment.size // moment.addressable_shards[0].data.size == of_moments
