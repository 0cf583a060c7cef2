"""The files of a bad step: what is written comes back, and what is none is told in one message."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_face.errors import WorkdirError
from mtl_face.training import replay, sharding
from mtl_face.training.state import TrainState


def written(folder):
    mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
    state = TrainState(
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
        taken=3,
        state=jax.device_put(state, sharding.replicated(mesh)),
        batch=jax.device_put(batch, sharding.by_example(mesh)),
        numbers={"loss": float("inf"), "gradient_norm": 1.0},
        rows=np.array([8, 2]),
        images=["a.jpg", "b.jpg"],
        seed=5,
        policy="stop",
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
        with pytest.raises(WorkdirError, match="is no dump of a step"):
            replay.read(path)
