"""Where a step's first bad number appears, and that the parts are those of the step itself."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_network

from mtl_face.training import sharding, state, step
from mtl_face.training.diagnose import diagnose

OPTIMIZER = optax.sgd(0.05, momentum=0.9)
PARTS = {"augment": tiny_network.augment_and_mix, "objective": tiny_network.objective}


@functools.cache
def setup():
    network = tiny_network.TinyNetwork()
    mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
    made = state.make_state(
        network, OPTIMIZER, mesh, seed=3, input_size=tiny_network.SIZE, uncertainty={}
    )
    return network, mesh, made


def look(batch, change=lambda made: made):
    network, mesh, made = setup()
    return diagnose(
        network, change(made), jax.device_put(batch, sharding.by_example(mesh)), **PARTS
    )


def test_a_sound_step():
    network, mesh, made = setup()
    found = look(tiny_network.batch(0))
    assert found.first_bad is None
    names = [place.name for place in found.places]
    order = [
        "params/network/hidden/kernel before the step",
        "input image, augmented",
        "output of backbone",
        "output of hidden",
        "output of head_va",
        "loss of va by example",
        "gradient of network/norm/scale",
    ]
    places = [next(i for i, name in enumerate(names) if name.startswith(part)) for part in order]
    assert places == sorted(places)
    assert found.places[places[1]].size == 16 * 8 * 8 * 3
    assert found.example_loss["va"].shape == (16,)
    # the same draws as the step's own
    train_step = step.make_train_step(
        network,
        OPTIMIZER,
        mesh,
        jax.tree.map(lambda leaf: leaf.sharding, made),
        **PARTS,
    )
    copy = jax.tree.map(lambda leaf: jax.device_put(leaf, leaf.sharding, may_alias=False), made)
    _, numbers = train_step(copy, jax.device_put(tiny_network.batch(0), sharding.by_example(mesh)))
    for name, value in numbers.items():
        assert found.numbers[name] == pytest.approx(float(value), rel=1e-4), name


def test_a_bad_target_names_its_examples():
    batch = tiny_network.batch(0)
    batch["targets"]["va"][6, 1] = np.inf
    batch["weights"]["va"][6] = 1
    found = look(batch)
    assert found.first_bad.name == "target of va [16, 2]"
    assert set(np.flatnonzero(found.first_bad.bad_B)) <= {6, 7}  # MixUp's pair
    assert found.first_bad.bad_B[6]
    assert not np.isfinite(found.numbers["loss"])


def test_a_bad_parameter_comes_before_all_it_spoils():
    def spoil(made):
        network = dict(made.params["network"])
        network["hidden"] = {
            **network["hidden"], "kernel": network["hidden"]["kernel"].at[3, 5].set(jnp.nan)
        }  # fmt: skip
        return dataclasses.replace(made, params={**made.params, "network": network})

    found = look(tiny_network.batch(0), spoil)
    assert found.first_bad.name.startswith("params/network/hidden/kernel before the step")
    assert found.first_bad.bad == 1
    later = [place.name for place in found.places if place.bad][1]
    assert later.startswith("output of hidden")
