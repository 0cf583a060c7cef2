"""Schedules and Muon against closed forms, groups and decay by name, AdamW against PyTorch's."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.sharding import NamedSharding, PartitionSpec
from model_settings import PAPER, changed
from optax import contrib

from mtl_face.config import BackboneConfig, OptimizerConfig
from mtl_face.model.network import MtlFace
from mtl_face.training import optimizer, sharding


@pytest.mark.parametrize("warmup", [1, 7, 100])
def test_inverse_sqrt(warmup):
    schedule = optimizer.inverse_sqrt(3e-4, warmup_steps=warmup)
    for step in (0, 1, 5, 6, 7, 99, 100, 101, 5000, 10**6):
        number = step + 1
        expected = 3e-4 * (number / warmup if number < warmup else math.sqrt(warmup / number))
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)
    rates = [float(schedule(step)) for step in range(300)]
    assert max(rates) == pytest.approx(3e-4, rel=1e-6)
    assert rates.index(max(rates)) == warmup - 1


def test_inverse_sqrt_without_warmup():
    schedule = optimizer.inverse_sqrt(2.0, warmup_steps=0)
    assert [float(schedule(step)) for step in (0, 3)] == pytest.approx([2.0, 1.0])


def test_exponential_by_epoch():
    schedule = optimizer.exponential_by_epoch(5e-5, decay=0.99, steps_per_epoch=10)
    for step in (0, 1, 9, 10, 11, 19, 20, 995):
        assert float(schedule(step)) == pytest.approx(5e-5 * 0.99 ** (step // 10), rel=1e-5)


@pytest.mark.parametrize(("warmup", "total"), [(10, 100), (1, 20), (0, 20)])
def test_cosine(warmup, total):
    schedule = optimizer.cosine(0.5, warmup_steps=warmup, total_steps=total)
    warmup = max(warmup, 1)
    for step in range(total + 5):
        done = min(max((step - warmup) / (total - warmup), 0.0), 1.0)
        expected = 0.5 * min(step / warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * done))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-6)


def test_cosine_with_a_warmup_longer_than_the_run():
    schedule = optimizer.cosine(1.0, warmup_steps=50, total_steps=20)
    assert float(schedule(19)) == pytest.approx(19 / 50)


def test_schedules_are_traceable():
    for schedule in (
        optimizer.inverse_sqrt(1.0, warmup_steps=3),
        optimizer.exponential_by_epoch(1.0, decay=0.5, steps_per_epoch=3),
        optimizer.cosine(1.0, warmup_steps=3, total_steps=9),
    ):
        for step in (0, 4):
            assert float(jax.jit(schedule)(jnp.int32(step))) == float(schedule(step))


@pytest.fixture(scope="module")
def network_params():
    """Shapes of the real network's parameters, with learned uncertainties beside them."""
    network = MtlFace(
        changed(
            PAPER,
            input_size=32,
            stage_sizes=(1, 1),
            width=8,
            embed_dim=16,
            num_heads=4,
            head_layers=2,
            head_width=16,
        )
    )
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    return {
        "network": variables["params"],
        "uncertainty": {"va": scalar, "au": scalar, "expr": scalar},
    }


def by_name(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(part.key for part in path): leaf for path, leaf in leaves}


def test_groups(network_params):
    labels = by_name(optimizer.group_labels(network_params, BackboneConfig(), OptimizerConfig()))
    assert len(labels) > 50
    for name, label in labels.items():
        assert label == ("backbone" if name.startswith("network/backbone/") else "rest")
    assert set(labels.values()) == {"backbone", "rest"}
    assert labels["uncertainty/va"] == labels["network/projection/kernel"] == "rest"


def test_decay_is_on_kernels_alone(network_params):
    for name, decays in by_name(optimizer.decayed(network_params)).items():
        assert decays == name.endswith("/kernel"), name
    assert "network/decoder/tokens" in by_name(network_params)


def small_params(random):
    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    return {
        "network": {
            "backbone": {
                "conv1": {"kernel": draw(3, 3, 3, 4)},
                "bn": {"scale": draw(4), "bias": draw(4)},
            },
            "decoder": {"tokens": draw(3, 5)},
            "head_va": {"kernel": draw(5, 2), "bias": draw(2)},
        },
        "uncertainty": {"va": draw()},
    }


BETA1, BETA2, EPSILON, DECAY = 0.8, 0.95, 1e-6, 0.1


RATES = {
    "backbone": optimizer.exponential_by_epoch(1e-2, decay=0.5, steps_per_epoch=2),
    "rest": optimizer.inverse_sqrt(3e-2, warmup_steps=3),
}


def make(*, rates=RATES, **changes):
    settings = OptimizerConfig(weight_decay=DECAY, beta1=BETA1, beta2=BETA2, epsilon=EPSILON)
    settings = dataclasses.replace(settings, **changes)
    return optimizer.make_optimizer(settings, rates, backbone=BackboneConfig())


def steps(ours, params, random, count):
    """Takes steps on random gradients; yields the step, gradients and new parameters by name."""
    state, update = ours.init(params), jax.jit(ours.update)
    for step in range(count):
        gradients = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params
        )
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        yield step, by_name(gradients), by_name(params)


def test_adamw_against_pytorch():
    """Six steps on the same gradients; the groups, rates and decays are written out by hand."""
    random = np.random.default_rng(0)
    params = small_params(random)
    kernels = {"network/backbone/conv1/kernel", "network/head_va/kernel"}
    tensors = {
        name: torch.nn.Parameter(torch.tensor(np.asarray(leaf)))
        for name, leaf in by_name(params).items()
    }
    groups = [
        {
            "params": [
                tensor
                for name, tensor in tensors.items()
                if (name in kernels) == decays and ("backbone" in name) == (part == "backbone")
            ],
            "weight_decay": DECAY if decays else 0.0,
            "part": part,
        }
        for decays in (True, False)
        for part in ("backbone", "rest")
    ]
    reference = torch.optim.AdamW(groups, betas=(BETA1, BETA2), eps=EPSILON)
    for step, gradients, moved in steps(make(), params, random, 6):
        rates = {
            "backbone": 1e-2 * 0.5 ** (step // 2),
            "rest": 3e-2 * min((step + 1) / 3, math.sqrt(3 / (step + 1))),
        }
        for group in reference.param_groups:
            group["lr"] = rates[group["part"]]
        for name, gradient in gradients.items():
            tensors[name].grad = torch.tensor(np.asarray(gradient))
        reference.step()
        for name, leaf in moved.items():
            np.testing.assert_allclose(
                leaf, tensors[name].detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=name
            )


ROUNDS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Factors of a matrix X, of X X' X and of X X' X X' X (Ahn et al. 2025, code of Dion)."""


def orthogonal(matrix):
    """What five rounds of Muon's polynomials make of a matrix, by its singular values."""
    left, size, right = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for first, third, fifth in ROUNDS:
        size = first * size + third * size**3 + fifth * size**5
    return left @ np.diag(size) @ right


def test_muon_against_singular_values():
    """Five steps in float64 by hand: kernels as matrices, all else by AdamW."""
    random = np.random.default_rng(2)
    params = small_params(random)
    depthwise = jnp.asarray(random.normal(size=(3, 3, 1, 6)), jnp.float32)
    params["network"]["backbone"]["by_channel"] = {"kernel": depthwise}
    matrices = {"network/backbone/conv1/kernel": (27, 4), "network/head_va/kernel": (5, 2)}
    expected = {name: np.float64(leaf) for name, leaf in by_name(params).items()}
    moments = {name: (0 * leaf, 0 * leaf) for name, leaf in expected.items()}
    for step, gradients, moved in steps(make(kind="muon"), params, random, 5):
        for name, gradient in gradients.items():
            gradient, (first, second) = np.float64(gradient), moments[name]
            beta = 0.95 if name in matrices else BETA1
            first = beta * first + (1 - beta) * gradient
            second = BETA2 * second + (1 - BETA2) * gradient**2
            moments[name] = first, second
            count = step + 1
            if name in matrices:
                ahead = beta * first / (1 - beta ** (count + 1))
                ahead += (1 - beta) * gradient / (1 - beta**count)
                move = orthogonal(ahead.reshape(matrices[name])).reshape(gradient.shape)
                move *= 0.2 * math.sqrt(max(matrices[name]))
            else:
                move = first / (1 - beta**count)
                move /= np.sqrt(second / (1 - BETA2**count)) + EPSILON
            if name.endswith("/kernel"):
                move = move + DECAY * expected[name]
            rate = RATES["backbone" if "backbone" in name else "rest"](step)
            expected[name] = expected[name] - float(rate) * move
        for name, leaf in moved.items():
            np.testing.assert_allclose(leaf, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_muon_is_that_of_optax():
    """Kernels of one size, lying and standing, go through the same products here, alone there."""
    random = np.random.default_rng(5)
    shapes = {"a": (6, 4), "b": (4, 6), "c": (1, 2, 2, 6), "d": (6, 6), "e": (6, 4), "f": (3, 1)}
    params = {
        "network": {
            name: {"kernel": jnp.asarray(random.normal(size=shape), jnp.float32)}
            for name, shape in shapes.items()
        }
    }
    reference = contrib.muon(
        RATES["rest"],
        ns_coeffs="dion",
        eps=EPSILON,
        weight_decay=DECAY,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=functools.partial(
            jax.tree.map,
            lambda leaf: contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1),
        ),
    )
    state = reference.init(params)
    expected = params
    for _, gradients, moved in steps(make(kind="muon"), params, random, 4):
        gradients = {"network": {n.split("/")[1]: {"kernel": g} for n, g in gradients.items()}}
        updates, state = reference.update(gradients, state, expected)
        expected = optax.apply_updates(expected, updates)
        for name, leaf in by_name(expected).items():
            np.testing.assert_allclose(moved[name], leaf, rtol=1e-5, atol=1e-6, err_msg=name)


def test_muon_moves_kernels_as_far_as_adamw(network_params):
    """So that rates mean the same; what is no kernel moves as ever."""
    random = np.random.default_rng(3)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), network_params
    )
    moved = {}
    for kind in ("adamw", "muon"):
        ours = make(kind=kind, weight_decay=0.0, rates=dict.fromkeys(RATES, 1.0))
        updates, _ = jax.jit(ours.update)(params, ours.init(params), params)
        moved[kind] = by_name(updates)
    for name, leaf in moved["muon"].items():
        if name.endswith("/kernel"):
            size = float(jnp.sqrt(jnp.mean(leaf**2)))
            assert 0.1 < size < 0.3, name
        else:
            np.testing.assert_array_equal(leaf, moved["adamw"][name], err_msg=name)


def test_muon_on_kernels_split_over_devices():
    """Of one size, split along either axis or whole: together they are made orthogonal."""
    mesh = sharding.make_mesh(fsdp=4)
    random = np.random.default_rng(4)
    sizes = {"a": (24, 16), "b": (24, 16), "c": (16, 24), "d": (2, 12, 16)}
    axes = {"a": (None, "fsdp"), "b": (), "c": ("fsdp",), "d": (None, "fsdp")}
    params = {
        "network": {
            name: {"kernel": jnp.asarray(random.normal(size=size), jnp.float32)}
            for name, size in sizes.items()
        }
    }
    places = {
        "network": {
            name: {"kernel": NamedSharding(mesh, PartitionSpec(*axis))}
            for name, axis in axes.items()
        }
    }
    ours = make(kind="muon")
    state, update = ours.init(params), jax.jit(ours.update)
    alone, _ = update(params, state, params)
    split = jax.tree.map(jax.device_put, params, places)
    spread, _ = update(split, ours.init(split), split)
    for name, leaf in by_name(alone).items():
        np.testing.assert_allclose(by_name(spread)[name], leaf, rtol=1e-3, atol=1e-6, err_msg=name)


def test_clip_is_over_both_groups():
    random = np.random.default_rng(1)
    params = small_params(random)
    gradients = jax.tree.map(lambda leaf: 100.0 * leaf, params)
    norm = math.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradients)))
    clipped, plain = make(gradient_clip=0.5), make()
    by_hand = jax.tree.map(lambda leaf: leaf * (0.5 / norm), gradients)
    found, _ = clipped.update(gradients, clipped.init(params), params)
    expected, _ = plain.update(by_hand, plain.init(params), params)
    for name, leaf in by_name(found).items():
        np.testing.assert_allclose(leaf, by_name(expected)[name], rtol=1e-4, err_msg=name)

    small = jax.tree.map(lambda leaf: 1e-3 * leaf, gradients)
    scale = 0.4 / (norm * 1e-3)
    small = jax.tree.map(lambda leaf: scale * leaf, small)  # a norm below the limit: left alone
    found, _ = clipped.update(small, clipped.init(params), params)
    expected, _ = plain.update(small, plain.init(params), params)
    for name, leaf in by_name(found).items():
        np.testing.assert_array_equal(leaf, by_name(expected)[name], err_msg=name)
