"""The files of a bad step, and where its first bad number appears."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_network

from mtl_face.errors import WorkdirError
from mtl_face.training import replay, sharding, step
from mtl_face.training.replay import diagnose
from mtl_face.training.state import TrainState


def written(folder):
    mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
    made = TrainState(
        step=jnp.int32(3),
        params={"w": jnp.ones(2)},
        batch_stats={},
        opt_state=(),
        key=jax.random.key(5),
    )
    batch = {
        "image": np.full((2, 4, 4, 3), 7, np.uint8),
        "targets": {"va": np.float32([[np.inf, 0], [1, 2]])},
        "weights": {"va": np.ones(2, np.float32)},
    }
    words = replay.write(
        folder,
        jax.device_put(made, sharding.replicated(mesh)),
        jax.device_put(batch, sharding.by_example(mesh)),
        {
            "seed": 5,
            "policy": "stop",
            "numbers": {"loss": float("inf"), "gradient_norm": 1.0},
            "rows": [8, 2],
            "images": ["a.jpg", "b.jpg"],
        },
        mesh=mesh,
    )
    return batch, words


def test_what_is_written_comes_back(tmp_path):
    batch, words = written(tmp_path / "replay")
    assert str(tmp_path / "replay" / "4.npz") in words
    for name in ("4.npz", "4.json"):
        dump = replay.read(tmp_path / "replay" / name)
        assert (dump.step, dump.images, dump.note["seed"]) == (4, ["a.jpg", "b.jpg"], 5)
        assert dump.note["numbers"] == {"loss": "inf", "gradient_norm": 1.0}
        jax.tree.map(np.testing.assert_array_equal, dump.batch, batch)
    assert (tmp_path / "replay" / "states" / "3").is_dir()


def test_the_state_is_kept_though_the_batch_cannot_be(tmp_path, monkeypatch):
    """Saving it is a step of all processes, which would wait for one that left it out."""

    def refuse(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replay.np, "savez", refuse)
    _, words = written(tmp_path)
    assert words.startswith("its batch could not be kept (")
    assert "No space left on device" in words
    assert [path.name for path in tmp_path.iterdir()] == ["states"]
    assert (tmp_path / "states" / "3").is_dir()


@pytest.mark.parametrize("name", ["seed", "host", "numbers", "key", "step", "images"])
def test_a_note_that_lacks_something(tmp_path, name):
    written(tmp_path)
    note = json.loads((tmp_path / "4.json").read_text())
    del note[name]
    (tmp_path / "4.json").write_text(json.dumps(note))
    with pytest.raises(WorkdirError, match=name):
        replay.read(tmp_path / "4.npz")


def test_no_file_at_all(tmp_path):
    for path in (Path("/"), tmp_path, tmp_path / "absent.npz"):
        with pytest.raises(WorkdirError, match="is no dump of a step") as caught:
            replay.read(path)
    assert caught.value.problem == "is no dump of a step: No such file or directory"
    assert caught.value.path == str(path)


OPTIMIZER = optax.sgd(0.05, momentum=0.9)
PARTS = {"augment": tiny_network.augment_and_mix, "objective": tiny_network.objective}


@functools.cache
def setup():
    network = tiny_network.TinyNetwork()
    mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
    return network, mesh, tiny_network.make_state(network, OPTIMIZER, mesh)


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
