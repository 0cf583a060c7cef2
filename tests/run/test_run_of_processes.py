"""`run.py train` as several processes on this machine, against one process."""

import random
import re
import shutil
import signal
import socket
import time

import numpy as np
import pytest
from forked_run import Launcher
from small_experiment import STEPS, Experiment
from test_kill_and_resume import (
    assert_same_state,
    curves,
    environment,
    metrics,
    newest_step,
    unfinished_saves,
    wait_for_a_save,
)

from mtl_face.training import history

TIMEOUT = 1200
KILLS = 4


class Group:
    """The processes of one run."""

    def __init__(self, experiment, count, workdir, *more, devices=1):
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
        self.processes = []
        for number in range(count):
            flags = [
                f"--coordinator=localhost:{port}",
                f"--num_processes={count}",
                f"--process_id={number}",
            ]
            words = experiment.arguments("train", *more, workdir=workdir)
            self.processes.append(
                experiment.launcher.start(
                    [*words, *(flags if count > 1 else [])],
                    environment(experiment.folder, devices=devices, threads=1),
                )
            )

    def wait_for(self, pattern):
        """Until process 0 prints such a line."""
        for line in self.processes[0].stdout:
            if re.match(pattern, line):
                return
        raise AssertionError(self.processes[0].stderr.read())

    def wait_for_step(self, number):
        """Until process 0 has taken so many steps, or evaluates."""
        for line in self.processes[0].stdout:
            step = re.match(r"step (\d+)/", line)
            if line.startswith("evaluating") or (step and int(step[1]) >= number):
                return
        raise AssertionError(self.processes[0].stderr.read())

    def finish(self):
        """(exit statuses, what each printed, what each complained of)."""
        try:
            texts = [process.communicate(TIMEOUT) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        statuses = [process.returncode for process in self.processes]
        return statuses, [out for out, _ in texts], [err for _, err in texts]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    experiment = Experiment(tmp_path_factory.mktemp("several"))
    with Launcher(environment(experiment.folder, threads=1)) as launcher:
        experiment.launcher = launcher
        yield experiment


def complete(experiment, count, name, **options):
    workdir = experiment.folder / name
    statuses, out, err = Group(experiment, count, workdir, **options).finish()
    assert statuses == [0] * count, err
    return workdir, out


@pytest.fixture(scope="module")
def alone(experiment):
    """An undisturbed run of one process."""
    return complete(experiment, 1, "alone")[0]


def rows(workdir, prefix):
    return {
        row["step"]: {name: value for name, value in row.items() if name.startswith(prefix)}
        for row in history.read(workdir / "history.jsonl")
        if any(name.startswith(prefix) for name in row)
    }


def assert_same_course(workdir, expected, stopped=None):
    """The same curves; a stop has a row of its own, and the next row starts there."""
    found, wanted = rows(workdir, "train/"), rows(expected, "train/")
    after = min((step for step in wanted if stopped is not None and step >= stopped), default=None)
    common = sorted(found.keys() & wanted.keys() - {stopped, after})
    assert common[-1] == STEPS
    for step in common:
        for name, value in wanted[step].items():
            np.testing.assert_allclose(
                found[step][name], value, rtol=2e-2, atol=2e-3, err_msg=f"{step} {name}"
            )
    assert metrics(workdir)["p"] == pytest.approx(metrics(expected)["p"], abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(1, 2), (2, 1)])
def test_the_run_of_one_process(experiment, alone, count, devices):
    workdir, out = complete(experiment, count, f"{count}x{devices}", devices=devices)
    assert_same_course(workdir, alone)
    if count > 1:
        assert f"compiling on {count * devices} cpu device(s) of {count} processes" in out[0]
        assert not any(line for text in out[1:] for line in text.splitlines() if "Gloo" not in line)
    # One writer: nothing is there twice, nothing is left over.
    names = {path.name for path in workdir.iterdir()}
    assert names == {path.name for path in alone.iterdir()}
    assert len(list((workdir / "logs").glob("events*"))) == 1
    steps = [row["step"] for row in history.read(workdir / "history.jsonl")]
    assert steps == [row["step"] for row in history.read(alone / "history.jsonl")]


@pytest.fixture(scope="module")
def stopped(experiment):
    """A run of two processes that a signal to the second stopped; and its newest step."""
    workdir = experiment.folder / "stopped"
    group = Group(experiment, 2, workdir)
    group.wait_for("step 8/")
    group.processes[1].send_signal(signal.SIGTERM)
    statuses, out, err = group.finish()
    assert statuses == [128 + signal.SIGTERM] * 2, err
    assert "stopped by SIGTERM at step" in out[0]
    newest = newest_step(workdir)
    assert 8 <= newest < STEPS
    return workdir, newest


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_another_number_of_processes_goes_on(experiment, alone, stopped, count):
    workdir = experiment.folder / f"on_{count}"
    shutil.copytree(stopped[0], workdir)
    statuses, out, err = Group(experiment, count, workdir).finish()
    assert statuses == [0] * count, err
    assert f"going on from step {stopped[1]}" in out[0]
    assert_same_course(workdir, alone, stopped=stopped[1])


@pytest.mark.slow
def test_a_damaged_newest_checkpoint(experiment, alone, stopped):
    """Both processes go on from the one before it."""
    workdir = experiment.folder / "damaged"
    shutil.copytree(stopped[0], workdir)
    checkpoints = workdir / "checkpoints"
    for file in (checkpoints / str(stopped[1]) / "state" / "ocdbt.process_1" / "d").iterdir():
        file.write_bytes(b"damage")
    statuses, out, err = Group(experiment, 2, workdir).finish()
    assert statuses == [0, 0], err
    assert f"checkpoint {stopped[1]} is damaged and was set aside" in err[0]
    assert (checkpoints / f"{stopped[1]}.damaged").is_dir()
    assert not re.search(f"going on from step {stopped[1]}$", out[0], re.MULTILINE)
    assert "going on from step " in out[0]
    assert rows(workdir, "train/")[STEPS].keys() == rows(alone, "train/")[STEPS].keys()
    assert metrics(workdir)["p"] == pytest.approx(metrics(alone)["p"], abs=0.05)


@pytest.mark.slow
def test_one_of_two_killed_over_and_over(experiment):
    """Whichever it is and whenever: the other ends too, and the end has the same bits."""
    undisturbed, _ = complete(experiment, 2, "two")
    workdir = experiment.folder / "two_killed"
    moments = random.Random(1)
    reached = [0]
    for number in range(KILLS):
        before = unfinished_saves(workdir)
        group = Group(experiment, 2, workdir)
        if number % 4 == 3 and reached[-1] < STEPS:
            wait_for_a_save(workdir, group.processes, before)
        elif number in (1, 2):  # these two make progress, however long a save takes beside steps
            while (newest_step(workdir) or 0) <= reached[-1] and group.processes[0].poll() is None:
                time.sleep(0.01)
        else:
            group.wait_for_step(reached[-1] + moments.randint(2, 7))
            time.sleep(moments.uniform(0, 0.3))
        killed = moments.randrange(2)
        group.processes[killed].kill()
        statuses, _, err = group.finish()
        assert statuses[killed] == -signal.SIGKILL
        assert statuses[1 - killed] != 0, err
        reached.append(newest_step(workdir) or 0)
    print(f"newest checkpoint after each kill: {reached[1:]}")
    assert len(set(reached)) >= 3
    complete(experiment, 2, "two_killed")
    assert_same_state(workdir, undisturbed)
    assert curves(workdir) == curves(undisturbed)
    assert metrics(workdir) == metrics(undisturbed)


@pytest.mark.slow
def test_only_one_renders_the_embedded_data(experiment, tmp_path):
    data = tmp_path / "faces"
    group = Group(
        experiment,
        2,
        tmp_path / "run",
        "--config.data.kind=rendered_faces",
        f"--config.data.root={data}",
        "--config.data.rendered_faces.num_videos=12",
        "--config.data.rendered_faces.frames_per_video=4",
        "--config.data.rendered_faces.workers=1",
        "--config.optimizer.epochs=1",
    )
    statuses, out, err = group.finish()
    assert statuses == [0, 0], err
    assert "rendering faces" in out[0]
    assert "rendering faces" not in out[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "run"]


def start_differently(experiment, flags):
    """Two processes of one run, each with a flag of its own; what each complained of."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    running = [
        experiment.launcher.start(
            [
                *experiment.arguments("train", flag),
                f"--coordinator=localhost:{port}",
                "--num_processes=2",
                f"--process_id={number}",
                "--join_timeout_s=60",
            ],
            environment(experiment.folder, threads=1),
        )
        for number, flag in enumerate(flags)
    ]
    errors = [process.communicate(TIMEOUT)[1] for process in running]
    assert [process.returncode for process in running] == [2, 2]
    assert not any("Traceback" in error for error in errors)
    return errors


@pytest.mark.slow
def test_other_settings_on_one_host(experiment):
    for err in start_differently(experiment, ["--config.seed=0", "--config.seed=1"]):
        assert "process 1 (" in err
        assert "was started with other settings than process 0" in err


@pytest.mark.slow
def test_other_rows_on_one_host(experiment, tmp_path):
    """The folder of the data may be another one, but not what is in it."""
    shutil.copytree(experiment.data, tmp_path / "data")
    annotations = tmp_path / "data" / "training_set_annotations.txt"
    lines = annotations.read_text().splitlines(keepends=True)
    annotations.write_text("".join(lines[:-1]))
    roots = [f"--config.data.root={root}" for root in (experiment.data, tmp_path / "data")]
    for err in start_differently(experiment, roots):
        assert "process 1 of 2 (" in err
        assert "has read other rows than process 0: train: 39 here, 40 there" in err
