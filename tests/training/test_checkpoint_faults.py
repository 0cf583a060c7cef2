"""What becomes of a damaged checkpoint, of a flipped bit, and of a save that the disk refuses."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_checkpoint import DAMAGES, like, raw, small_state, steps_in

from mtl_face.errors import WorkdirError
from mtl_face.training import sharding
from mtl_face.training.checkpoint import Checkpoints, _sum_of_bits, _sum_on_device, fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def saved(folder):
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (5, 10, 12):
            checkpoints.save(step, small_state(step))
    return folder


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def changed_metadata(step):
    """Still JSON: only its check sum tells."""
    path = step / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace("fingerprint", "fingerprins"))


OWN = {
    "cut own metadata": lambda step: (step / "_CHECKPOINT_METADATA").write_text('{"custom'),
    "own metadata a list": lambda step: (step / "_CHECKPOINT_METADATA").write_text("[1]"),
    "no own metadata": lambda step: (step / "_CHECKPOINT_METADATA").unlink(),
    "changed own metadata": changed_metadata,
    "no commit marker": lambda step: (step / "commit_success.txt").unlink(),
    "no commit marker of the state": lambda step: (step / "state/commit_success.txt").unlink(),
}
"""Damages of what lies beside a sound state."""


@pytest.mark.parametrize("damage", OWN)
def test_no_state_is_read_unchecked(saved, damage):
    OWN[damage](saved / "12")
    with (
        Checkpoints(saved, keep=3) as checkpoints,
        pytest.raises(WorkdirError, match="the checkpoint's metadata cannot be read: ") as raised,
    ):
        checkpoints.restore(12, like(small_state()))
    assert raised.value.path == str(saved / "12")


def test_what_older_versions_wrote_is_read(saved):
    """No marker, and metadata without a check sum."""
    for marker in (saved / "12").rglob("commit_success.txt"):
        marker.unlink()
    path = saved / "12" / "_CHECKPOINT_METADATA"
    values = json.loads(path.read_text())
    values["custom_metadata"] = {"provenance": {}}
    path.write_text(json.dumps(values))
    with Checkpoints(saved, keep=3, read_only=True) as checkpoints:
        assert raw(checkpoints.restore(12, like(small_state()))) == raw(small_state(12))
        assert checkpoints.read_metadata(12) == {"provenance": {}}


@pytest.mark.parametrize("content", ["{", "", '{"score": "high"}', "[]", '{"score": 0.25}', None])
def test_a_damaged_score_is_mended(folder, content):
    """Orbax keeps it in a file of its own, without which it opens no step of the folder."""
    with Checkpoints(folder, keep=3) as checkpoints:
        checkpoints.save(5, small_state(5), score=0.5)
        checkpoints.save(10, small_state(10), score=0.3)
    path = folder / "5" / "metrics" / "metrics"
    if content is None:
        shutil.rmtree(path.parent)
    else:
        path.write_text(content)
    warnings = []
    with Checkpoints(folder, keep=3, warn=warnings.append) as checkpoints:
        assert (checkpoints.best(), checkpoints.newest()) == (5, 10)
    assert warnings == [f"{path} was damaged; the score is written again"]
    assert json.loads(path.read_text()) == {"score": 0.5}


@pytest.mark.parametrize("damage", [*DAMAGES, *OWN])
def test_the_one_before_is_taken(saved, damage):
    (DAMAGES | OWN)[damage](saved / "12")
    warnings = []
    with Checkpoints(saved, keep=3, warn=warnings.append) as checkpoints:
        step, state = checkpoints.restore_newest(like(small_state()))
        assert step == 10
        assert raw(state) == raw(small_state(10))
        assert checkpoints.newest() == 10
        assert names_in(saved) == ["10", "12.damaged", "5"]
        (warning,) = warnings
        assert warning.startswith("checkpoint 12 is damaged and was set aside as 12.damaged (")
        assert warning.endswith("; going on from checkpoint 10")
        checkpoints.save(12, small_state(99))  # the run comes by there again
    assert names_in(saved) == ["10", "12", "12.damaged", "5"]
    with Checkpoints(saved, keep=3) as checkpoints:
        assert raw(checkpoints.restore(12, like(small_state()))) == raw(small_state(99))


def test_two_damaged_ones_and_one_of_an_earlier_time(saved):
    (saved / "12.damaged").mkdir()
    for step in ("10", "12"):
        shutil.rmtree(saved / step / "state")
    warnings = []
    with Checkpoints(saved, keep=3, warn=warnings.append) as checkpoints:
        assert checkpoints.restore_newest(like(small_state()))[0] == 5
    assert names_in(saved) == ["10.damaged", "12.damaged", "12.damaged2", "5"]
    assert [warning.split()[1] for warning in warnings] == ["12", "10"]


def test_nothing_is_set_aside_if_none_can_be_read(saved):
    """As of another network: it is not the files that are at fault."""
    other = like(small_state()) | {"more": like(small_state())["kernel"]}
    with (
        Checkpoints(saved, keep=3) as checkpoints,
        pytest.raises(WorkdirError, match="cannot be read") as raised,
    ):
        checkpoints.restore_newest(other)
    assert raised.value.path == str(saved / "12")
    assert names_in(saved) == ["10", "12", "5"]


def test_a_sound_one_is_taken_without_a_word(saved):
    warnings = []
    with Checkpoints(saved, keep=3, warn=warnings.append) as checkpoints:
        step, state = checkpoints.restore_newest(like(small_state()))
        assert (step, raw(state)) == (12, raw(small_state(12)))
        assert checkpoints.read_metadata(12) == {}
    assert warnings == []
    assert names_in(saved) == ["10", "12", "5"]


def test_a_flipped_bit_never_passes(folder):
    """Storage has no check sum of its own: a fifth of such states came back without a word."""
    random = np.random.default_rng(0)
    state = jax.device_put(
        {"kernel": jnp.asarray(random.normal(size=(50, 40)), jnp.float32), "zero": jnp.zeros(99)},
        sharding.replicated(sharding.make_mesh()),
    )
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(1, state)
    (data,) = (folder / "1" / "state").glob("d/*")
    content = data.read_bytes()
    noticed = 0
    for _ in range(12):
        place = int(random.integers(len(content)))
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        data.write_bytes(bytes(flipped))
        with Checkpoints(folder, keep=1, read_only=True) as checkpoints:
            try:
                found = checkpoints.restore(1, like(state))
            except WorkdirError:
                noticed += 1
            else:  # a bit that nothing reads
                assert raw(found) == raw(state)
    assert noticed >= 4


class TestFingerprint:
    def test_any_bit_changes_it(self):
        state = small_state(3)
        first = fingerprint(state)
        assert len(first) == 32
        assert fingerprint(small_state(3)) == first
        bits = np.asarray(state["kernel"]).view(np.uint32).copy()
        bits[1, 2] ^= 1  # the last of the mantissa
        changed = state | {"kernel": jnp.asarray(bits.view(np.float32))}
        assert fingerprint(changed) != first
        assert fingerprint(state | {"step": jnp.int32(4)}) != first
        assert fingerprint(state | {"key": jax.random.key(4)}) != first

    @pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "bfloat16", "float16", "int32"])
    def test_of_every_type(self, dtype):
        values = jnp.arange(6).reshape(2, 3).astype(dtype)
        other = values.at[0, 0].set(jnp.ones((), dtype))
        assert fingerprint({"x": values}) != fingerprint({"x": other})
        for array in (values, other):  # the two ways to compute it
            assert _sum_of_bits(np.asarray(array)) == int(_sum_on_device(array))

    def test_the_mesh_does_not_matter(self):
        values = jnp.asarray(np.random.default_rng(0).normal(size=(64, 32)), jnp.float32)
        found = set()
        for shape in ((1, 1), (8, 1), (2, 4)):
            count = shape[0] * shape[1]
            mesh = sharding.make_mesh(data=shape[0], fsdp=shape[1], devices=jax.devices()[:count])
            for place in (sharding.replicated(mesh), sharding.by_example(mesh)):
                found.add(fingerprint({"x": jax.device_put(values, place)}))
        assert len(found) == 1


class TestRefusedSaves:
    """A disk that is full for a while."""

    @staticmethod
    def refuse(patch, checkpoints, method="save"):
        def fail(*arguments, **options):
            raise OSError(28, "No space left on device")

        patch.setattr(checkpoints._manager, method, fail)

    def test_go_on(self, saved, monkeypatch):
        warnings = []
        with Checkpoints(
            saved, keep=3, on_save_failure="continue", warn=warnings.append
        ) as checkpoints:
            for method in ("save", "wait_until_finished"):
                with monkeypatch.context() as patch:
                    self.refuse(patch, checkpoints, method)
                    if method == "save":
                        checkpoints.save(15, small_state(15))
                        assert checkpoints.newest() == 12
                    else:
                        checkpoints.wait()
            checkpoints.save(15, small_state(15))
        assert steps_in(saved) == [10, 12, 15]
        assert len(warnings) == 2
        for warning in warnings:
            assert f"could not be written to {saved}: No space left on device" in warning
            assert "the last good one is 12" in warning

    def test_stop(self, saved, monkeypatch):
        with Checkpoints(saved, keep=3) as checkpoints, monkeypatch.context() as patch:
            self.refuse(patch, checkpoints)
            with pytest.raises(WorkdirError, match="No space left"):
                checkpoints.save(15, small_state(15))
        assert steps_in(saved) == [5, 10, 12]


def test_replace(saved):
    with Checkpoints(saved, keep=3) as checkpoints:
        checkpoints.save(12, small_state(99), replace=True)
        checkpoints.wait()
        assert raw(checkpoints.restore(12, like(small_state()))) == raw(small_state(99))
    assert steps_in(saved) == [5, 10, 12]
