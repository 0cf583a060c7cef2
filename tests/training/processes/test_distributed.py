"""Several processes on this machine: the numbers of one process, one stop, one end."""

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import one_of_several
import pytest

from mtl_face.errors import UserError
from mtl_face.training import sharding
from mtl_face.training.processes import coordination, distributed

HERE = Path(__file__).parent


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def run(folder, processes, devices, fsdp=1, mode="stay"):
    """Exit statuses and standard errors of all processes."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE.parents[1]}"}
    environment |= {"OMP_NUM_THREADS": "1", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    running = [
        subprocess.Popen(
            [sys.executable, HERE / "one_of_several.py", *map(str, (port, processes, process)),
             str(devices), str(fsdp), folder, mode],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=600)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], errors


@functools.cache
def alone(steps):
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    return one_of_several.train(mesh, steps=steps)


def check(folder, processes, steps=one_of_several.STEPS):
    losses, params = alone(steps)
    for process in range(processes):
        found = json.loads((folder / f"{process}.json").read_text())
        np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)
    with np.load(folder / "params.npz") as file:
        for name, leaf in zip(file.files, jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(file[name], leaf, rtol=1e-4, atol=1e-5)


def test_two_processes_and_a_stop_of_both(tmp_path):
    """The steps of one process, until a SIGTERM to the second one ends both after the same one."""
    statuses, errors = run(tmp_path, 2, 1, mode="leave")
    assert statuses == [0, 0], errors
    found = [json.loads((tmp_path / f"{process}.json").read_text()) for process in range(2)]
    assert [one["signal"] for one in found] == ["SIGTERM"] * 2
    # It was heard after step 2 and known to both a step later.
    assert [len(one["losses"]) for one in found] == [3, 3]
    check(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "fsdp"), [(1, 2, 1), (2, 2, 1), (4, 1, 1), (4, 2, 1), (2, 1, 2)]
)
def test_processes_and_devices(tmp_path, processes, devices, fsdp):
    """With `fsdp` 2, each of the two processes holds a half of the large parameters."""
    statuses, errors = run(tmp_path, processes, devices, fsdp)
    assert statuses == [0] * processes, errors
    check(tmp_path, processes)


@pytest.mark.slow
def test_one_fails_and_all_end(tmp_path):
    statuses, errors = run(tmp_path, 3, 1, mode="fail")
    assert statuses == [2, 2, 2]
    for error in errors:
        assert f"error: process 1 of 3 ({socket.gethostname()}): the disk is on fire" in error
        assert "put it out" in error
        assert "Traceback" not in error


def test_a_killed_process_is_named(tmp_path):
    """By the system, which closes its connections; not only when its heartbeat is missed."""
    statuses, errors = run(tmp_path, 4, 1, mode="killed1")
    assert statuses == [2, -9, 2, 2], errors
    for error in (errors[0], *errors[2:]):
        assert f"error: process 1 ({socket.gethostname()}) of 4 is gone" in error
        assert "start all processes again" in error
        assert "Traceback" not in error, error


def test_a_coordination_service_that_cannot_start():
    with pytest.raises(UserError, match=r"cannot listen at nowhere\.invalid:1: .+") as error:
        coordination._Service("jaxlib._jax", "nowhere.invalid:1", 1)
    assert "--coordinator" in error.value.remedy


@pytest.mark.slow
def test_no_process_outlives_the_first(tmp_path):
    statuses, errors = run(tmp_path, 4, 1, mode="killed0")
    assert statuses == [-9, 2, 2, 2]
    for error in errors[1:]:
        assert f"process 0 ({socket.gethostname()}) of 4 is gone" in error
        assert "Traceback" not in error


def test_one_process_alone(monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    find = functools.partial(distributed.find_place, timeout_seconds=1)
    assert find(None, None, None) is None
    assert find("host:1", 1, 0) is None
    with pytest.raises(UserError, match="needs --num_processes, --process_id too"):
        find("host:1", None, None)
    assert distributed.first(lambda: 3) == 3
    assert distributed.is_writer()
    distributed.wait_for_all()
    with distributed.joined(None, settings="", timeout_seconds=1):
        pass


@pytest.mark.parametrize("launcher", ["slurm", "ompi"])
def test_launchers_tell_the_place(monkeypatch, launcher):
    slurm = {
        "SLURM_JOB_ID": "4097",
        "SLURM_STEP_NODELIST": "node[007-009]",
        "SLURM_NTASKS": "3",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
    }
    ompi = {
        "OMPI_MCA_orte_hnp_uri": "8192.0;tcp://10.0.0.7,10.1.0.7:34911",
        "OMPI_COMM_WORLD_SIZE": "3",
        "OMPI_COMM_WORLD_RANK": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    }
    values = slurm if launcher == "slurm" else ompi
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    place = distributed.find_place(None, None, None, timeout_seconds=1)
    host = "node007:61441" if launcher == "slurm" else "10.0.0.7:61442"
    device = 0 if launcher == "slurm" else 1
    assert place == distributed.Place(host, 3, 2, local_devices=(device,))
    name = "SLURM (srun)" if launcher == "slurm" else "Open MPI (mpirun)"
    assert str(place) == f"process 2 of 3, as {name} says, at {host}"
    # One task alone is no run of several.
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert distributed.find_place(None, None, None, timeout_seconds=1) is None


@pytest.mark.parametrize(
    ("launcher", "names"),
    [
        (
            "Open MPI",
            ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ),
        ("MPICH", ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID")),
    ],
)
def test_launchers_that_tell_no_coordinator(monkeypatch, launcher, names):
    """Open MPI 5 no longer says where it was started; with the address all the rest is known."""
    for name, value in zip(names, ("3", "2", "1"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{launcher}.* has started 3 processes") as error:
        distributed.find_place(None, None, None, timeout_seconds=1)
    assert "--coordinator=HOST:PORT" in error.value.remedy
    place = distributed.find_place("node1:61442", None, None, timeout_seconds=1)
    assert place == distributed.Place("node1:61442", 3, 2, local_devices=(1,))
    assert distributed.find_place(None, 1, None, timeout_seconds=1) is None
    monkeypatch.setenv(names[0], "1")
    assert distributed.find_place(None, None, None, timeout_seconds=1) is None
    monkeypatch.setenv(names[0], "x")
    with pytest.raises(UserError, match=f"that {launcher}.* sets for each process do not fit"):
        distributed.find_place(None, None, None, timeout_seconds=1)


SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "JAX_PLATFORMS": "",
}


@pytest.mark.parametrize(
    ("visible", "on_node", "devices"),
    [
        ("0,1,2,3", "4", (1,)),  # all see all: the second takes the second
        ("0", "4", None),  # bound: each sees its own alone
        ("", "0", (1,)),  # no GPU at all
    ],
)
def test_gpus_of_a_task(monkeypatch, visible, on_node, devices):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", on_node)
    assert distributed.find_place(None, None, None, timeout_seconds=1).local_devices == devices


@pytest.mark.parametrize("visible", ["0", "0,1"])
def test_fewer_gpus_than_tasks(monkeypatch, visible):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError, match=r"is to run 4 processes.* GPUs? (is|are) visible") as error:
        distributed.find_place(None, None, None, timeout_seconds=1)
    assert "--num_processes=1" in error.value.remedy


def test_a_warning_does_not_act_on_the_terminal(capsys):
    distributed.warn("cannot write \x1b[2Jname")
    assert capsys.readouterr().err == "warning: cannot write \\x1b[2Jname\n"


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "SLURM_NODEID", "SLURM_GPUS_ON_NODE"])
def test_variables_of_a_launcher_that_do_not_fit(monkeypatch, name):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for variable, value in (SLURM | {name: "x"}).items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=r"SLURM \(srun\) sets for each process do not fit"):
        distributed.find_place(None, None, None, timeout_seconds=1)
