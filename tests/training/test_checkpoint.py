"""What is kept, what comes back, and what is said of a disk or a checkpoint that fails."""

import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network
from optax import adamw

from mtl_face.errors import WorkdirError
from mtl_face.training import sharding
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.state import abstract_state, make_state

# Reading a damaged checkpoint leaves coroutines behind; when they are collected is chance.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def small_state(number=0):
    """A state with all kinds of leaves; `number` tells one from another."""
    mesh = sharding.make_mesh()
    leaves = {
        "kernel": jnp.arange(12.0).reshape(3, 4) + number,
        "step": jnp.int32(number),
        "key": jax.random.key(number),
        "nothing": {},
    }
    return jax.device_put(leaves, sharding.replicated(mesh))


def like(state):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def raw(state):
    """The leaves as bytes."""
    return [
        np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
                   else leaf).tobytes()
        for leaf in jax.tree.leaves(state)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def saved(folder):
    """Steps 5 (the best) and 12 (the newest)."""
    with Checkpoints(folder, keep=1) as checkpoints:
        for step, score in ((0, None), (5, 0.5), (10, 0.2), (12, None)):
            checkpoints.save(step, small_state(step), score=score)
    return folder


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_newest_and_best_are_kept(folder):
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.newest() is None
        assert checkpoints.best() is None
        expected = [
            (0, None, [0], None),
            (3, None, [3], None),
            (5, 0.5, [5], 5),
            (6, None, [5, 6], 5),
            (10, 0.2, [5, 10], 5),
            (12, None, [5, 12], 5),
            (15, 0.9, [15], 15),
            (18, 0.9, [18], 18),  # of equals the later
            (20, -0.1, [18, 20], 18),
        ]
        for step, score, kept, best in expected:
            checkpoints.save(step, small_state(step), score=score)
            checkpoints.wait()
            assert steps_in(folder) == kept
            assert checkpoints.newest() == step
            assert checkpoints.best() == best


def test_several_of_the_newest_are_kept(folder):
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in range(6):
            checkpoints.save(step, small_state(step), score=1.0 if step == 1 else None)
    assert steps_in(folder) == [1, 3, 4, 5]


def test_best_is_known_to_the_next_process(saved):
    with Checkpoints(saved, keep=1) as checkpoints:
        assert (checkpoints.newest(), checkpoints.best()) == (12, 5)
        checkpoints.save(15, small_state(15), score=0.4)
    assert steps_in(saved) == [5, 15]


@pytest.mark.parametrize("read_only", [False, True])
def test_every_bit_comes_back(saved, read_only):
    with Checkpoints(saved, keep=1, read_only=read_only) as checkpoints:
        for step in (5, 12):
            restored = checkpoints.restore(step, like(small_state()))
            assert jax.tree.structure(restored) == jax.tree.structure(small_state())
            assert raw(restored) == raw(small_state(step))
            assert jax.random.key_impl(restored["key"]) == "threefry2x32"


def test_reading_changes_nothing(saved):
    (saved / "13.orbax-checkpoint-tmp").mkdir()
    before = sorted(saved.rglob("*"))
    with Checkpoints(saved, keep=1, read_only=True) as checkpoints:
        checkpoints.restore(12, like(small_state()))
    assert sorted(saved.rglob("*")) == before


def test_a_step_is_saved_once(saved):
    with Checkpoints(saved, keep=1) as checkpoints:
        checkpoints.save(12, small_state(99))
        checkpoints.wait()
        assert raw(checkpoints.restore(12, like(small_state()))) == raw(small_state(12))


def test_saving_does_not_wait_for_the_disk_nor_hold_the_arrays(folder, monkeypatch):
    """The state may be donated to the next step at once, while its copy is being written."""
    import orbax.checkpoint as ocp

    begun = []
    original = ocp.StandardCheckpointHandler.finalize

    def slow(self, *arguments, **options):
        begun.append(time.perf_counter())
        time.sleep(0.5)
        return original(self, *arguments, **options)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", slow)
    with Checkpoints(folder, keep=1) as checkpoints:
        state = small_state(1)
        checkpoints.save(1, state)
        returned = time.perf_counter()
        assert steps_in(folder) == []
        for leaf in jax.tree.leaves(state):
            leaf.delete()
        checkpoints.wait()
        assert begun
        assert time.perf_counter() - returned > 0.2
        assert raw(checkpoints.restore(1, like(small_state()))) == raw(small_state(1))


def test_restore_onto_another_mesh(folder):
    begin = tiny_network.initial(tiny_network.TinyNetwork(), adamw(1e-3), {"va": jnp.zeros(())})
    meshes = {
        shape: sharding.make_mesh(
            data=shape[0], fsdp=shape[1], devices=jax.devices()[: shape[0] * shape[1]]
        )
        for shape in ((4, 2), (8, 1), (1, 1), (2, 4))
    }
    original = make_state(begin, abstract_state(begin, meshes[4, 2]), seed=1)
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(7, original)
        checkpoints.wait()
        for (_, fsdp), mesh in meshes.items():
            wanted = abstract_state(begin, mesh)
            restored = checkpoints.restore(7, wanted)
            assert raw(restored) == raw(original)
            kernel = restored.params["network"]["hidden"]["kernel"]
            assert kernel.addressable_shards[0].data.size * fsdp == kernel.size
            for leaf, other in zip(jax.tree.leaves(restored), jax.tree.leaves(wanted), strict=True):
                assert leaf.sharding == other.sharding


def test_what_a_kill_left_is_neither_seen_nor_kept(saved):
    (saved / "12").rename(saved / "12.orbax-checkpoint-tmp")
    shutil.copytree(saved / "5", saved / "15.orbax-checkpoint-tmp-17")
    with Checkpoints(saved, keep=1) as checkpoints:
        assert (checkpoints.newest(), checkpoints.best()) == (5, 5)
        assert sorted(path.name for path in saved.iterdir()) == ["5"]


def test_half_deleted_old_step_does_no_harm(saved):
    """A kill while an old step is being deleted."""
    shutil.rmtree(saved / "5" / "state")
    for path in (saved / "5" / "metrics").iterdir():
        path.unlink()
    with Checkpoints(saved, keep=1) as checkpoints:
        assert (checkpoints.newest(), checkpoints.best()) == (12, None)
        checkpoints.save(15, small_state(15))
    assert steps_in(saved) == [15]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "no state": lambda step: shutil.rmtree(step / "state"),
    "empty": lambda step: [shutil.rmtree(step), step.mkdir()],
    "cut data": lambda step: [cut(path) for path in (step / "state").rglob("d/*")],
    "no data": lambda step: shutil.rmtree(step / "state" / "d"),
    "cut manifest": lambda step: cut(step / "state" / "manifest.ocdbt"),
    "cut metadata": lambda step: cut(step / "state" / "_METADATA"),
    "empty metadata": lambda step: (step / "state" / "_METADATA").write_bytes(b""),
    "other metadata": lambda step: (step / "state" / "_METADATA").write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("read_only", [False, True])
def test_damaged_newest_step(saved, damage, read_only):
    DAMAGES[damage](saved / "12")
    with Checkpoints(saved, keep=1, read_only=read_only) as checkpoints:
        assert checkpoints.newest() == 12
        with pytest.raises(WorkdirError) as raised:
            checkpoints.restore(12, like(small_state()))
    error = raised.value
    assert error.path == str(saved / "12")
    assert error.problem.startswith("the checkpoint cannot be read: ")
    assert len(error.problem) < 500
    assert "move that folder away" in error.remedy
    assert steps_in(saved) == [5, 12]  # nothing is deleted for the user

    shutil.rmtree(saved / "12")  # the remedy
    with Checkpoints(saved, keep=1) as checkpoints:
        assert raw(checkpoints.restore(checkpoints.newest(), like(small_state()))) == raw(
            small_state(5)
        )


def test_state_of_another_model(saved):
    other = like(small_state()) | {"more": like(small_state())["kernel"]}
    fewer = {name: leaf for name, leaf in like(small_state()).items() if name != "kernel"}
    shape = like(small_state())
    shape["kernel"] = jax.ShapeDtypeStruct((3, 5), jnp.float32, sharding=shape["kernel"].sharding)
    with Checkpoints(saved, keep=1, read_only=True) as checkpoints:
        for wanted in (other, fewer, shape):
            with pytest.raises(WorkdirError, match="cannot be read"):
                checkpoints.restore(12, wanted)


def test_absent_step(saved):
    with Checkpoints(saved, keep=1) as checkpoints, pytest.raises(WorkdirError):
        checkpoints.restore(7, like(small_state()))


def test_damaged_score(saved):
    """A reader writes nothing; who trains mends it, if the score is kept in its second place."""
    (saved / "5" / "metrics" / "metrics").write_text("{")
    with pytest.raises(WorkdirError, match="cannot be opened") as raised:
        Checkpoints(saved, keep=1, read_only=True)
    assert "train command again" in raised.value.remedy
    (saved / "5" / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(WorkdirError, match="cannot be opened"):
        Checkpoints(saved, keep=1)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "checkpoints", Path("/proc/checkpoints")):
        with pytest.raises(WorkdirError, match="cannot be opened"):
            Checkpoints(path, keep=1)
    assert (tmp_path / "file").read_text() == "mine"


_SAVE_ON_A_FULL_DISK = """
import os, resource, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from mtl_face.errors import WorkdirError
from mtl_face.training.checkpoint import Checkpoints
folder = Path(sys.argv[1])
random = np.random.default_rng(0)
small, large = ({"x": jnp.asarray(random.normal(size=size))} for size in (100, 2**16))
try:
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(1, small)
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        checkpoints.save(2, large)
        checkpoints.wait()
except WorkdirError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
"""


def test_full_disk(folder):
    """The limit on a file's size stands for a full disk: the write fails in the background."""
    result = subprocess.run(
        [sys.executable, "-c", _SAVE_ON_A_FULL_DISK, str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(f"error: {folder}: checkpoints cannot be written: ")
    assert ": File too large\n" in result.stderr
    assert "goes on from the last good checkpoint" in result.stderr
    assert "Traceback" not in result.stderr
    assert steps_in(folder) == [1]  # the older one was not given up for it
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.newest() == 1


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(30, "Read-only file system", "/x"), "Read-only file system"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied"),
        (
            ValueError(
                "RESOURCE_EXHAUSTED: Error writing: Failed to write: No space left on device "
                "[os_error_code='28'] [tensorstore_spec='{...}']"
            ),
            "No space left on device",
        ),
    ],
)
def test_failures_of_the_disk(saved, monkeypatch, failure, words):
    with Checkpoints(saved, keep=1) as checkpoints:

        def fail(*arguments, **options):
            raise failure

        for method, call in (
            ("save", lambda: checkpoints.save(15, small_state(15))),
            ("wait_until_finished", checkpoints.wait),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(checkpoints._manager, method, fail)
                with pytest.raises(WorkdirError, match="cannot be written") as raised:
                    call()
            assert raised.value.path == str(saved)
            assert words in raised.value.problem
            assert "tensorstore_spec" not in raised.value.problem


def test_a_defect_is_not_taken_for_a_full_disk(saved, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("a defect")

    with Checkpoints(saved, keep=1) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "save", fail)
        with pytest.raises(ValueError, match="a defect"):
            checkpoints.save(15, small_state(15))


def test_an_exception_is_not_hidden_by_the_last_save(folder, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder, keep=1)
    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", fail)
    with pytest.raises(KeyError, match="first"), checkpoints:
        raise KeyError("first")


def test_orbax_is_quiet(saved, capfd, caplog):
    with Checkpoints(saved, keep=1) as checkpoints:
        checkpoints.save(15, small_state(15), score=0.7)
        checkpoints.wait()
        checkpoints.restore(15, like(small_state()))
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out == ""
    assert caplog.records == []
    assert json.loads((saved / "15" / "metrics" / "metrics").read_text()) == {"score": 0.7}
    # and other users of the same logger still speak
    logging.getLogger("absl").error("someone else")
    assert [record.message for record in caplog.records] == ["someone else"]
