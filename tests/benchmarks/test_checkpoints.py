"""The benchmark of checkpoints, with the state of a tiny experiment."""

import jax
import numpy as np
import pytest
import small_experiment

import mtl_face
from benchmarks import checkpoints
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.experiment import Experiment


@pytest.fixture
def parts(tmp_path):
    settings = mtl_face.load_config(
        small_experiment.write_config(tmp_path), **{"data.root": str(tmp_path)}
    )
    return Experiment(settings, devices=jax.devices()[:1])


@pytest.mark.slow
def test_every_question_has_its_times(parts, tmp_path):
    folder, raw = tmp_path / "checkpoints", tmp_path / "raw"
    with Checkpoints(folder, keep=2) as kept:
        loop = checkpoints.Loop(parts, kept, batch_size=8)
        interval, stall = checkpoints.stalls(loop, rounds=2)
        writing = checkpoints.write_times(loop, raw, rounds=2)
        size = checkpoints.size(loop.state, folder / str(loop.saved))
        restoring = checkpoints.restore_times(loop, raw, rounds=2)
        newest = kept.newest()
    for group in (interval, stall, writing, restoring):
        assert group.reference in group.times
        assert {len(times) for times in group.times.values()} == {2}
    assert interval.name.startswith("Step interval, 3 steps of batch 8: a save takes ")
    assert newest == loop.saved == 1 + 2 + 1 + 2  # to measure, stalls, and each way once before
    assert raw.stat().st_size == 1e6 * size.times["the state's arrays"][0]
    assert size.times["on disk"][0] > 0


def test_the_raw_file_holds_every_array(parts, tmp_path):
    state = parts.make_state()
    checkpoints.write_raw(state, tmp_path / "raw")
    arrays = checkpoints.arrays(state)
    expected = b"".join(np.asarray(array).tobytes() for array in arrays)
    assert (tmp_path / "raw").read_bytes() == expected
    assert checkpoints.megabytes(state) == len(expected) / 1e6
