"""Real runs of `run.py train`, killed and stopped, end with the bits of an undisturbed one.

The undisturbed one is started as a user starts it; the others are forked, as tests/forked_run.py
says, which saves each the seconds of importing.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from forked_run import Launcher
from small_experiment import ROOT, STEPS, Experiment, assert_is_users_error
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mtl_face.run.workdir import own_config
from mtl_face.training import history
from mtl_face.weights import exported

TIMEOUT = 1200  # a busy machine takes minutes for a start
KILLS = 25


def unfinished_saves(workdir):
    """Names of what a save has not finished."""
    folder = workdir / "checkpoints"
    return {name for name in os.listdir(folder) if "tmp" in name} if folder.is_dir() else set()


def wait_for_a_save(workdir, running, before):
    """Until a save begins that was none of `before`, or a process of those has ended."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and all(process.poll() is None for process in running):
        if unfinished_saves(workdir) - before:
            return


def environment(folder, *, devices=1, threads=2, cached=True):
    """Variables of a run on fake devices, whose programs are kept below a folder."""
    values = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "OMP_NUM_THREADS": str(threads),
    }
    if not cached:
        return values | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return values | {  # a start costs ten seconds of compiling otherwise
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


class Process:
    """`run.py train` in a process of its own; its lines as they come."""

    def __init__(self, process):
        self.lines = []
        self.process = process

    def wait_for(self, pattern):
        """Reads up to a line that matches; False if the process ended without one."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if re.search(pattern, line):
                return True
        return False

    def wait_for_step(self, number):
        """Reads up to the report of this step or a later one, or to the evaluation."""
        while self.wait_for(r"^(step \d+/|evaluating)"):
            step = re.match(r"step (\d+)/", self.lines[-1])
            if step is None or int(step[1]) >= number:
                return

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self):
        """(exit status, all lines, standard error)"""
        try:
            out, err = self.process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.lines += out.splitlines()
        return self.process.returncode, self.lines, err


class Runs:
    """Runs of one experiment in the same circumstances."""

    def __init__(self, folder, launcher, *, devices=1, cached=True):
        self.experiment = Experiment(folder)
        self.environment = environment(folder, devices=devices, cached=cached)
        self.launcher = launcher

    def start(self, workdir, *more):
        words = self.experiment.arguments("train", *more, workdir=workdir)
        return Process(self.launcher.start(words, self.environment))

    def start_anew(self, workdir):
        """As a user does, imports and all."""
        words = self.experiment.arguments("train", workdir=workdir)
        return Process(
            subprocess.Popen(
                [sys.executable, "run.py", *words],
                cwd=ROOT,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
        )

    def complete(self, workdir, *more):
        return completed_lines(self.start(workdir, *more))


def completed_lines(process):
    """What a run printed that ended well, without a complaint."""
    status, lines, err = process.finish()
    assert status == 0, err
    assert err == ""
    return lines


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    with Launcher(environment(tmp_path_factory.mktemp("launcher"))) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def runs(tmp_path_factory, launcher):
    return Runs(tmp_path_factory.mktemp("runs"), launcher)


@pytest.fixture(scope="module")
def undisturbed(runs):
    """A run that nothing disturbs."""
    workdir = runs.experiment.folder / "undisturbed"
    lines = completed_lines(runs.start_anew(workdir))
    assert any(line.startswith(f"step {STEPS}/{STEPS} ") for line in lines)
    return workdir


def final_state(workdir):
    """Every array of the last checkpoint, by name."""
    with ocp.StandardCheckpointer() as checkpointer:
        path = workdir / "checkpoints" / str(STEPS) / "state"
        tree = checkpointer.metadata(path).item_metadata.tree
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree
        )
        state = checkpointer.restore(path, like)
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def assert_same_state(workdir, other):
    found, expected = final_state(workdir), final_state(other)
    assert found.keys() == expected.keys()
    assert any("backbone" in name for name in found)
    for name, leaf in found.items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf, expected[name] = map(jax.random.key_data, (leaf, expected[name]))
        assert leaf.dtype == expected[name].dtype
        assert np.asarray(leaf).tobytes() == np.asarray(expected[name]).tobytes(), name


def curves(workdir):
    """Rows of the history without what depends on the clock."""
    return [
        {name: value for name, value in row.items() if not name.startswith(("speed/", "memory/"))}
        for row in history.read(workdir / "history.jsonl")
    ]


def drawn(workdir):
    """(step, tag) of every number that TensorBoard would draw, in order."""
    found = []
    for path in sorted((workdir / "logs").glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            found += [(event.step, value.tag) for value in event.summary.value]
    return sorted(found)


def metrics(workdir):
    return json.loads((workdir / "evaluation" / "metrics.json").read_text())


def newest_step(workdir):
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=None)


def test_killed_and_goes_on(runs, undisturbed):
    """SIGKILL, then the same command."""
    workdir = runs.experiment.folder / "killed"
    process = runs.start(workdir)
    assert process.wait_for(r"^step 10/")
    process.signal(signal.SIGKILL)
    assert process.finish()[0] == -signal.SIGKILL
    newest = newest_step(workdir)
    assert newest is not None
    assert newest < STEPS
    assert not (workdir / "evaluation").exists()

    lines = runs.complete(workdir)
    assert f"going on from step {newest}" in lines  # a save cut short by the kill is not seen
    assert_same_state(workdir, undisturbed)
    assert curves(workdir) == curves(undisturbed)
    assert metrics(workdir) == metrics(undisturbed)
    assert drawn(workdir) == drawn(undisturbed)


@pytest.mark.slow
def test_more_epochs(runs, undisturbed, capsys):
    """A finished run goes on, to the bits of one that had these epochs from its start."""
    workdir = runs.experiment.folder / "longer"
    first = runs.complete(workdir, "--config.optimizer.epochs=2")
    assert any(line.startswith(f"step {STEPS // 2}/{STEPS // 2} ") for line in first)
    lines = runs.complete(workdir)
    assert "optimizer.epochs was 2 and is 4" in lines
    assert f"going on from step {STEPS // 2}" in lines
    assert not any("learning rate of" in line for line in lines)
    assert_same_state(workdir, undisturbed)
    assert metrics(workdir) == metrics(undisturbed)
    assert own_config(workdir).optimizer.epochs == 4
    result = runs.experiment.run(capsys, "train", "--config.optimizer.epochs=3", workdir=workdir)
    assert_is_users_error(result, "optimizer.epochs was 4, is 3")


FINE_TUNING = (
    "--config.model.drop_path=0.2",
    "--config.model.backbone.stage_sizes=2,",
    "--config.model.backbone.drop_path=0.2",
    "--config.model.backbone.frozen_blocks=1",
    "--config.optimizer.layer_decay=0.7",
    "--config.optimizer.accumulation_steps=2",
    "--config.optimizer.lora.rank=2",
    "--config.optimizer.lora.kernels=encoder/.*attention/.*kernel,block2/conv2",
    "--config.optimizer.lora.trains=all",
    "--config.training.ema_decay=0.9",
    "--config.mesh.fsdp=2",
    "--config.mesh.rules=adapters/.*/b=-1,.=large",
)


@pytest.mark.slow
def test_fine_tuning_killed_and_goes_on(tmp_path, launcher, capsys):
    """With all of its options, on two devices that share the adapters."""
    runs = Runs(tmp_path, launcher, devices=2)
    undisturbed, workdir = tmp_path / "undisturbed", tmp_path / "killed"
    runs.complete(undisturbed, *FINE_TUNING)
    process = runs.start(workdir, *FINE_TUNING)
    assert process.wait_for(r"^step 10/")
    process.signal(signal.SIGKILL)
    assert process.finish()[0] == -signal.SIGKILL
    runs.complete(workdir, *FINE_TUNING)
    assert_same_state(workdir, undisturbed)
    assert metrics(workdir) == metrics(undisturbed)

    # What leaves the run is the average of a plain network.
    state = final_state(workdir)
    last = (*FINE_TUNING, "--config.evaluation.checkpoint=last")
    status, _, err = runs.experiment.run(capsys, "export", *last, workdir=workdir)
    assert (status, err) == (0, "")
    variables, card = exported.load(workdir / "export")
    assert card["step"] == STEPS
    kernel = "['network']['encoder']['layer1']['attention']['query']['kernel']"
    pair = "['adapters']['encoder']['layer1']['attention']['query']['kernel']"
    a, b = (state[f"['average']['params']{pair}['{name}']"] for name in "ab")
    np.testing.assert_allclose(
        variables["params"]["encoder"]["layer1"]["attention"]["query"]["kernel"],
        state[f"['params']{kernel}"] + 16 / 2 * np.asarray(a) @ np.asarray(b),
        rtol=1e-5,
        atol=1e-6,
    )
    assert "adapters" not in variables["params"]
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables["batch_stats"])[0]:
        name = "['average']['batch_stats']" + jax.tree_util.keystr(path)
        np.testing.assert_array_equal(state[name], leaf)

    without = [option for option in FINE_TUNING if "ema_decay" not in option]
    result = runs.experiment.run(capsys, "train", *without, workdir=workdir)
    assert_is_users_error(result, "training.ema_decay was 0.9, is 0.0")


@pytest.mark.slow
def test_a_second_run_in_the_same_workdir(runs, undisturbed):
    """It is refused with the name of the first, which goes on as if nothing had been."""
    workdir = runs.experiment.folder / "twice"
    first = runs.start(workdir)
    assert first.wait_for(r"^step 4/")
    status, _, err = runs.start(workdir).finish()
    assert status == 2
    assert f"error: {workdir}: is in use by process {first.process.pid} on " in err
    status, _, err = first.finish()
    assert (status, err) == (0, "")
    assert_same_state(workdir, undisturbed)
    assert curves(workdir) == curves(undisturbed)
    assert not (workdir / "training.lock").exists()


@pytest.fixture(scope="module")
def completed(runs, undisturbed):
    """A copy to be worked on."""
    workdir = runs.experiment.folder / "completed"
    shutil.copytree(undisturbed, workdir)
    return workdir


class TestCompletedRun:
    """What can be done with a workdir afterwards, here on eight devices instead of one."""

    def test_train_again_only_evaluates(self, runs, completed, capsys):
        before = metrics(completed)
        (completed / "evaluation" / "metrics.json").unlink()
        checkpoint = sorted((completed / "checkpoints").rglob("*"))
        status, out, err = runs.experiment.run(capsys, "train", workdir=completed)
        assert (status, err) == (0, "")
        assert f"training is complete ({STEPS} steps)" in out
        assert f"best checkpoint, step {before['checkpoint_step']}" in out
        assert "compiling" not in out
        assert sorted((completed / "checkpoints").rglob("*")) == checkpoint
        after = metrics(completed)
        assert after["p"] == pytest.approx(before["p"], abs=1e-3)

    @pytest.mark.slow
    def test_its_last_checkpoint_is_damaged(self, runs, completed, capsys, tmp_path):
        """The same command sets it aside and trains its last steps again."""
        copy = Path(shutil.copytree(completed, tmp_path / "copy"))
        state = copy / "checkpoints" / str(STEPS) / "state"
        largest = max(filter(Path.is_file, state.rglob("*")), key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 0xFF
        largest.write_bytes(content)
        status, out, err = runs.experiment.run(capsys, "train", workdir=copy)
        assert status == 0, err
        assert f"checkpoint {STEPS} is damaged and was set aside as {STEPS}.damaged" in err
        assert "going on from step" in out
        again = final_state(copy)
        for name, values in final_state(completed).items():
            if "params" in name:
                np.testing.assert_allclose(again[name], values, rtol=1e-3, atol=1e-3)

    def test_results(self, runs, completed):
        files = {path.name for path in (completed / "evaluation").iterdir()}
        assert files == {"metrics.json", "predictions.parquet", "predictions.csv", "report.html"}
        assert (completed / "parameters.txt").read_text().count("backbone") > 1
        assert list((completed / "logs").iterdir())
        report = (completed / "evaluation" / "report.html").read_text()
        assert "<html" in report
        assert "Traceback" not in report

    def test_export(self, runs, completed, capsys):
        status, out, err = runs.experiment.run(capsys, "export", workdir=completed)
        assert (status, err) == (0, "")
        folder = completed / "export"
        assert str(folder) in out
        variables, card = exported.load(folder)
        state = final_state(completed)
        leaves = jax.tree_util.tree_flatten_with_path(variables["params"])[0]
        assert len(leaves) > 20
        if card["step"] == STEPS:
            for path, leaf in leaves:
                name = "['params']['network']" + jax.tree_util.keystr(path)
                assert np.asarray(state[name]).tobytes() == np.asarray(leaf).tobytes()
        assert card["tasks"]["au"]["outputs"][0] == "au1"
        assert card["temperatures"] == {"va": 1.0, "au": 1.0, "expr": 5.0}
        assert card["input"]["size"] == 32
        assert card["metrics"] == metrics(completed)
        assert card["config"]["name"] == "small"

    def test_export_refuses_another_folder(self, runs, completed, capsys):
        target = runs.experiment.folder / "photos"
        target.mkdir()
        (target / "mine.jpg").write_text("mine")
        status, _, err = runs.experiment.run(
            capsys, "export", f"--output={target}", workdir=completed
        )
        assert status == 2
        assert "holds something that is no export" in err
        assert [path.name for path in target.iterdir()] == ["mine.jpg"]

    def test_other_config(self, runs, completed, capsys):
        for command in ("train", "evaluate", "export"):
            status, _, err = runs.experiment.run(
                capsys, command, "--config.seed=1", workdir=completed
            )
            assert status == 2
            assert "seed was 0, is 1" in err

    def test_damaged_settings(self, runs, completed, capsys, tmp_path):
        """Those beside the states take their place, where a run is read and where it goes on."""
        workdir = tmp_path / "damaged"
        shutil.copytree(completed, workdir)
        path = workdir / "config.json"
        before = json.loads(path.read_text())
        path.write_text("")
        assert own_config(workdir).name == "small"
        status, out, err = runs.experiment.run(capsys, "train", workdir=workdir)
        assert (status, err) == (0, "")
        assert f"warning: {path} cannot be read: " in out
        assert f"training is complete ({STEPS} steps)" in out
        assert json.loads(path.read_text()) == before

    def test_damaged_checkpoint(self, runs, completed, capsys, tmp_path):
        workdir = tmp_path / "damaged"
        shutil.copytree(completed, workdir)
        for step in (workdir / "checkpoints").iterdir():
            shutil.rmtree(step / "state")
        status, _, err = runs.experiment.run(capsys, "evaluate", workdir=workdir)
        assert status == 2
        assert "the checkpoint cannot be read" in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_killed_25_times_over(runs, undisturbed):
    """At random moments of starting, of training, inside saves, and of the last evaluation."""
    workdir = runs.experiment.folder / "random"
    moments = random.Random(0)
    reached, in_a_save = [0], 0
    for number in range(KILLS):
        before = unfinished_saves(workdir)
        process = runs.start(workdir)
        if number % 4 == 0:  # at the start; what it has done by then, it has done before
            process.wait_for("^(compiling|going on|training is complete)")
            time.sleep(moments.uniform(0, 2.0))
        elif number % 4 == 1:
            wait_for_a_save(workdir, [process.process], before)
        else:
            process.wait_for_step(reached[-1] + moments.randint(1, 8))
            time.sleep(moments.uniform(0, 0.3))
        process.signal(signal.SIGKILL)
        process.finish()
        in_a_save += bool(unfinished_saves(workdir) - before)
        reached.append(newest_step(workdir) or 0)
    print(f"newest checkpoint after each kill: {reached[1:]}; inside a save: {in_a_save}")
    assert in_a_save >= 3
    assert len(set(reached)) >= 4
    assert reached == sorted(reached)
    runs.complete(workdir)
    assert_same_state(workdir, undisturbed)
    assert curves(workdir) == curves(undisturbed)
    assert metrics(workdir) == metrics(undisturbed)
    assert drawn(workdir) == drawn(undisturbed)
    assert not unfinished_saves(workdir)


@pytest.mark.slow
def test_eight_devices_and_nothing_cached(tmp_path, launcher):
    runs = Runs(tmp_path, launcher, devices=8, cached=False)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert any("on 8 cpu device(s)" in line for line in runs.complete(whole))
    process = runs.start(killed)
    assert process.wait_for(r"^step 12/")
    process.signal(signal.SIGKILL)
    process.finish()
    runs.complete(killed)
    assert_same_state(killed, whole)
    assert curves(killed) == curves(whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_goes_on(runs, undisturbed, number):
    """A signal saves; the same command then ends with the bits of a run without it."""
    workdir = runs.experiment.folder / number.name
    process = runs.start(workdir)
    assert process.wait_for(r"^step 8/")
    process.signal(number)
    status, lines, err = process.finish()
    assert (status, err) == (128 + number, "")
    stop = newest_step(workdir)
    assert 8 <= stop < STEPS
    assert lines[-1] == (
        f"stopped by {number.name} at step {stop}, saved; run the same command again to go on"
    )
    steps_taken = [int(match[1]) for line in lines if (match := re.match(r"step (\d+)/", line))]
    assert steps_taken[-1] == stop  # nothing of what was done is lost
    assert not (workdir / "evaluation").exists()

    lines = runs.complete(workdir)
    assert f"going on from step {stop}" in lines
    assert_same_state(workdir, undisturbed)
    assert metrics(workdir) == metrics(undisturbed)
    assert len(drawn(workdir)) == len(set(drawn(workdir)))  # no step is drawn twice
    assert set(drawn(workdir)) >= set(drawn(undisturbed))
    # The stop wrote a row of its own, and the next row starts there.
    after = min(row["step"] for row in curves(undisturbed) if row["step"] >= stop)
    assert [row for row in curves(workdir) if row["step"] not in (stop, after)] == [
        row for row in curves(undisturbed) if row["step"] not in (stop, after)
    ]


@pytest.mark.slow
def test_full_disk(runs):
    """The limit on a file's size stands for a full disk; here the run itself meets it."""
    workdir = runs.experiment.folder / "full"
    command = [sys.executable, "run.py", *runs.experiment.arguments("train", workdir=workdir)]
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
    result = subprocess.run(
        [sys.executable, "-c", limit + "os.execv(sys.argv[1], sys.argv[1:])", *command],
        cwd=ROOT,
        env={name: value for name, value in runs.environment.items() if "CACHE" not in name}
        | {
            "XDG_CACHE_HOME": str(runs.experiment.folder / "full_cache")
        },  # its programs are cut off
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
    assert "checkpoints cannot be written: File too large" in result.stderr
    assert "Traceback" not in result.stderr
