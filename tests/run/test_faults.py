"""Faults of a run through the command line: a bad batch, a refused save, a stalled input."""

import contextlib
import io
import json
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small_experiment import STEPS, Experiment

from data_pipeline import input as data_input
from data_pipeline import order
from mtl_face.cli import main
from mtl_face.training import history, replay

pytestmark = pytest.mark.slow

BAD_STEP = 4
SHORT = (
    "--config.optimizer.epochs=2",
    "--config.optimizer.batch_size=16",  # two for each of the eight devices, for MixUp
    "--config.augmentation.mixup_alpha=0.4",
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return Experiment(tmp_path_factory.mktemp("faults"))


def poison(monkeypatch, *steps):
    """A valence that is infinite, in the second example of some steps (from 1)."""
    original = data_input.train_batches

    def batches(table, *, start_step, **options):
        source = original(table, start_step=start_step, **options)
        for step, batch in enumerate(source, start=start_step + 1):
            if step in steps:
                batch["labels"]["va"][1] = np.inf
            yield batch

    monkeypatch.setattr(data_input, "train_batches", batches)


def saved_state(path):
    """Arrays of a checkpoint by name, as bytes."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree
        )
        state = checkpointer.restore(path, like)
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found[jax.tree_util.keystr(path)] = np.asarray(leaf).tobytes()
    return found


@pytest.fixture(scope="module")
def stopped(experiment):
    """A run that a bad batch ended: (exit status, standard output and error, workdir)."""
    workdir = experiment.folder / "stopped"
    out, err = io.StringIO(), io.StringIO()
    out.reconfigure = lambda **options: None
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        poison(patch, BAD_STEP)
        status = main.main(experiment.arguments("train", *SHORT, workdir=workdir))
    return status, out.getvalue(), err.getvalue(), workdir


class TestABadBatch:
    def test_ends_the_run(self, stopped):
        status, out, err, workdir = stopped
        assert status == 2
        assert f"error: step {BAD_STEP} was not taken: its loss is inf" in err or (
            f"error: step {BAD_STEP} was not taken: its loss is nan" in err
        )
        assert str(workdir / "replay" / f"{BAD_STEP}.npz") in err
        assert "training.on_bad_step=skip" in err
        assert "Traceback" not in err
        assert f"step {BAD_STEP}/" not in out
        steps = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
        assert max(steps) == 3
        assert max(row["step"] for row in history.read(workdir / "history.jsonl")) == 3

    def test_is_kept_with_its_rows_and_the_state_before(self, stopped, experiment):
        workdir = stopped[3]
        dump = replay.read(workdir / "replay" / f"{BAD_STEP}.npz")
        assert dump.step == BAD_STEP
        assert dump.batch["image"].shape == (16, 32, 32, 3)
        assert dump.batch["image"].dtype == np.uint8
        assert np.isinf(dump.batch["targets"]["va"][1]).all()
        rows = order.step_indices(order.Permutations(40, 0), 16, step=BAD_STEP - 1)
        assert dump.note["rows"] == rows.tolist()
        assert len(set(dump.images)) == 16
        assert all((experiment.data / "cropped_aligned" / name).is_file() for name in dump.images)
        # bit for bit what a run that never saw it had then: that of the checkpoint at step 3
        assert saved_state(workdir / "replay" / "states" / "3" / "state") == saved_state(
            workdir / "checkpoints" / "3" / "state"
        )

    def test_is_replayed(self, stopped, experiment, capsys):
        workdir = stopped[3]
        dump = workdir / "replay" / f"{BAD_STEP}.npz"
        status, out, err = experiment.run(
            capsys, "replay", *SHORT, f"--dump={dump}", workdir=workdir
        )
        assert (status, err) == (0, "")
        assert "taken again it is refused again" in out
        for words in ("loss of va ", "loss of au ", "loss of expr ", "gradient norm/stem "):
            assert words in out
        assert "the first value that is not finite: target of va [16, 2]: " in out
        images = json.loads(dump.with_suffix(".json").read_text())["images"]
        # of the two that MixUp blended
        assert f"{images[1]} (example 1, blended with {images[0]})" in out
        assert f"{images[5]} (example 5" not in out

    def test_is_replayed_under_the_runs_own_settings(self, stopped, capsys):
        workdir = stopped[3]
        dump = workdir / "replay" / f"{BAD_STEP}.npz"
        assert main.main(["replay", f"--model={workdir}", f"--dump={dump}"]) == 0
        assert "taken again it is refused again" in capsys.readouterr().out

    def test_a_file_that_is_no_dump(self, stopped, experiment, capsys, tmp_path):
        for content in (b"", b"PK\x03\x04 and no more", b"text"):
            (tmp_path / "4.npz").write_bytes(content)
            status, _, err = experiment.run(
                capsys, "replay", *SHORT, f"--dump={tmp_path / '4.npz'}", workdir=stopped[3]
            )
            assert status == 2
            assert "is no dump of a step" in err
            assert "Traceback" not in err


def test_a_bad_batch_is_skipped(experiment, capsys, monkeypatch):
    poison(monkeypatch, BAD_STEP, 5, STEPS)
    workdir = experiment.folder / "skipping"
    skip = "--config.training.on_bad_step=skip"
    status, out, err = experiment.run(capsys, "train", skip, workdir=workdir)
    assert (status, err) == (0, "")
    assert out.count("warning: step ") == 3
    assert f"step {STEPS}/{STEPS}" in out
    rows = history.read(workdir / "history.jsonl")
    bad = {row["step"]: row["train/bad_steps"] for row in rows if "train/bad_steps" in row}
    assert bad == {4: 1, 6: 1, STEPS: 1}
    assert all(np.isfinite(row["train/loss"]) for row in rows if "train/loss" in row)
    # A bad batch changes nothing at all: the same run goes another way round it to the same bits.
    again = experiment.folder / "again"
    monkeypatch.undo()
    poison(monkeypatch, BAD_STEP, 5, STEPS)
    assert experiment.run(capsys, "train", skip, workdir=again)[0] == 0
    assert saved_state(again / "checkpoints" / str(STEPS) / "state") == saved_state(
        workdir / "checkpoints" / str(STEPS) / "state"
    )


def test_going_on_after_a_stop_by_skipping(stopped, experiment, capsys, monkeypatch):
    """The remedy that the message names."""
    poison(monkeypatch, BAD_STEP)
    status, out, _ = experiment.run(
        capsys, "train", *SHORT, "--config.training.on_bad_step=skip", workdir=stopped[3]
    )
    assert status == 0
    assert "going on from step 3" in out
    assert f"warning: step {BAD_STEP} was not taken" in out


def test_a_stalled_input_names_its_host(experiment, capsys, monkeypatch):
    original = data_input.train_batches

    def batches(table, **options):
        for number, batch in enumerate(original(table, **options), start=1):
            if number == 5:
                time.sleep(3600)
            yield batch

    monkeypatch.setattr(data_input, "train_batches", batches)
    workdir = experiment.folder / "stalled"
    status, _, err = experiment.run(
        capsys, "train", "--config.training.input_timeout_s=2", workdir=workdir
    )
    assert status == 2
    assert "error: the input has stalled on host " in err
    assert "(process 0 of 1): no batch for step " in err
    assert "Traceback" not in err


def test_a_damaged_newest_checkpoint(experiment, capsys):
    workdir = experiment.folder / "damaged"
    status, _, _ = experiment.run(capsys, "train", workdir=workdir)
    assert status == 0
    expected = saved_state(workdir / "checkpoints" / str(STEPS) / "state")
    (data,) = list((workdir / "checkpoints" / str(STEPS) / "state").glob("d/*"))[:1]
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    # a longer run, for which the damaged checkpoint is not the last
    longer = json.loads((workdir / "config.json").read_text())
    longer["optimizer"]["epochs"] = 5
    (workdir / "config.json").write_text(json.dumps(longer))
    status, out, err = experiment.run(
        capsys, "train", "--config.optimizer.epochs=5", workdir=workdir
    )
    assert status == 0
    assert f"warning: checkpoint {STEPS} is damaged and was set aside as {STEPS}.damaged" in err
    assert "going on from step 18" in out
    assert (workdir / "checkpoints" / f"{STEPS}.damaged").is_dir()
    assert expected


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_saves_that_the_disk_refuses(experiment, capsys, monkeypatch, policy):
    """A disk that is full from step 6 to step 12."""
    original = ocp.CheckpointManager.save

    def save(self, step, *arguments, **options):
        if 6 <= step <= 12:
            raise OSError(28, "No space left on device")
        return original(self, step, *arguments, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)
    workdir = experiment.folder / f"full_{policy}"
    status, out, err = experiment.run(
        capsys, "train", f"--config.training.on_save_failure={policy}", workdir=workdir
    )
    assert "Traceback" not in err
    assert "No space left on device" in err
    if policy == "stop":
        assert status == 2
        assert "goes on from the last good checkpoint" in err
        assert sorted(int(p.name) for p in (workdir / "checkpoints").iterdir()) == [0, 3]
        monkeypatch.undo()
        status, out, err = experiment.run(capsys, "train", workdir=workdir)
        assert (status, err) == (0, "")
        assert "going on from step 3" in out
    else:
        assert status == 0
        assert err.count("warning: a checkpoint could not be written") == 4  # 6, 9, 10, 12
        assert "the last good one is 3" in err
    assert f"step {STEPS}/{STEPS}" in out
