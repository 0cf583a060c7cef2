"""Several processes as one run: joining, waiting for each other, and ending together.

A program is started once on every host (or once for every device), with the same settings. The
processes find each other through a coordinator, process 0; then `jax.devices()` lists the devices
of all, and one jitted step runs on them all.

Messages go over the coordinator's store of keys and values, not over the devices: that works before
they are touched, and however long one process takes.
"""

import contextlib
import datetime
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from jax._src import clusters, distributed  # jax.distributed shows neither

from mtl_face.errors import UserError, escaped
from mtl_face.training.processes import coordination, roll_call
from mtl_face.training.processes.roll_call import Place

_T = TypeVar("_T")

_END = "mtl_face/end"
"""Key of the message of the first process that fails, or of the last one's farewell."""

_FAREWELL = "farewell"

_LONGEST = datetime.timedelta(days=30) // datetime.timedelta(milliseconds=1)
"""Milliseconds: as long as a run may take."""

_GRACE = 3.0
"""Seconds that an ending process leaves for its message to spread."""

_leaving = threading.Lock()
_all_done = threading.Event()
_counter = itertools.count()


def find_place(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    timeout_seconds: float,
) -> Place | None:
    """This process's place in a run: as given, or as a TPU pod, SLURM or Open MPI name it.

    `coordinator` is `HOST:PORT` of process 0, which Open MPI 5, MPICH and Intel MPI do not tell;
    `num_processes=1` runs alone, wherever that is. None for a process that runs alone; UserError if
    only a part of the place is known.
    """
    if num_processes == 1:
        return None
    given = (coordinator, num_processes, process_id)
    devices: tuple[int, ...] | None = None
    launcher = None
    if None in given:
        names = [kind.name for kind in clusters.ClusterEnv._cluster_types if _is_present(kind)]
        mpi = None if names else next((mpi for mpi in _MPI if mpi.size in os.environ), None)
        launcher = _LAUNCHERS.get(names[0], names[0]) if names else mpi and mpi.name
        try:
            found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
                coordinator, num_processes, process_id, None, None, max(1, round(timeout_seconds))
            )
            coordinator, num_processes, process_id, own = found
            if mpi is not None and (size := int(os.environ[mpi.size])) > 1:
                rank, local = int(os.environ[mpi.rank]), int(os.environ[mpi.local])
                num_processes = size if num_processes is None else num_processes
                process_id = rank if process_id is None else process_id
                own = [local]
            if given == (None, None, None) and (num_processes or 1) == 1:
                return None
            if own is not None:
                devices = _own_gpu(own[0], os.environ)
        except (ValueError, KeyError) as error:
            raise UserError(
                f"the variables that {launcher} sets for each process do not fit: {error}",
                remedy="start the program by it, or give --num_processes=1, which runs alone",
            ) from error
        if mpi is not None and coordinator is None:
            raise UserError(
                f"{launcher} has started {num_processes} processes, and does not tell them where "
                "process 0 is",
                remedy="give all of them --coordinator=HOST:PORT, the host of process 0 and a free "
                "port there; or --num_processes=1, which runs alone",
            )
    if coordinator is None or num_processes is None or process_id is None:
        flags = {
            "--coordinator": coordinator,
            "--num_processes": num_processes,
            "--process_id": process_id,
        }
        missing = [name for name, value in flags.items() if value is None]
        raise UserError(
            f"one process of several needs {', '.join(missing)} too",
            remedy="give --coordinator=HOST:PORT --num_processes=N --process_id=I; "
            "TPU pods, SLURM (srun) and Open MPI (mpirun) need no flags",
        )
    return Place(coordinator, num_processes, process_id, devices, launcher)


_LAUNCHERS = {
    "slurm": "SLURM (srun)",
    "ompi": "Open MPI (mpirun)",
    "k8s": "Kubernetes",
    "gcetpu": "the TPU pod",
    "gketpu": "the TPU pod",
}
"""JAX's names of what starts processes, and those that users know."""


class _Mpi(NamedTuple):
    """Variables that an MPI's launcher sets for each process, where JAX knows none of them."""

    name: str
    size: str
    rank: str
    local: str


_MPI = (
    _Mpi(
        "Open MPI (mpirun)",
        *("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ),
    _Mpi("MPICH or Intel MPI (mpiexec)", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
)


def _is_present(kind: Any) -> bool:
    return not kind.opt_in_only_method and kind.is_env_present()


def _own_gpu(number: int, environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """GPUs of the process with a number on its host, one each; None for all that it sees.

    Raises:
        UserError: this host has fewer GPUs than processes.
    """
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        visible = len([name for name in shown.split(",") if name.strip()])
    else:
        visible = len(list(Path("/dev").glob("nvidia[0-9]*")))
    processes = max(_processes_on_this_host(environment), number + 1)
    if visible == 0 or visible >= processes or environment.get("JAX_PLATFORMS") == "cpu":
        return (number,)
    if visible == 1 and int(environment.get("SLURM_GPUS_ON_NODE", 1)) >= processes:
        return None  # each process sees its own alone
    raise UserError(
        f"this host ({socket.gethostname()}) is to run {processes} processes, one for each GPU, "
        f"and {visible} GPU{'s are' * (visible > 1) or ' is'} visible",
        remedy="ask for as many GPUs as tasks (SLURM: --ntasks-per-node=N --gpus-per-node=N), or "
        "give --num_processes=1, which runs alone on all that are visible",
    )


def _processes_on_this_host(environment: Mapping[str, str]) -> int:
    """As SLURM and Open MPI say; 1 if they do not."""
    counts: list[int] = []
    for words in environment.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):  # as 4(x2),3
        count, _, times = words.partition("(x")
        if count.isdigit():
            counts += [int(count)] * int(times.removesuffix(")") or 1)
    node = int(environment.get("SLURM_NODEID", 0))
    if node < len(counts):
        return counts[node]
    return int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", 1))


@contextlib.contextmanager
def joined(place: Place | None, *, settings: str, timeout_seconds: float) -> Iterator[None]:
    """Joins the processes of a run; at the end, waits for all of them.

    Must come before anything that touches the devices. If one process fails, all end with its
    message and exit status 2; at once, since the clean-up of an interpreter would wait for the
    devices of the others. A process without a place runs alone. Arguments and errors are those of
    `roll_call.meet`.
    """
    if place is None:
        yield
        return
    peers = roll_call.meet(place, settings=settings, timeout_seconds=timeout_seconds)
    address = place.listens_at() or "::"
    address = f"[{address}]" if ":" in address else address
    with coordination.apart():
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process_id,
            local_device_ids=place.local_devices,
            cluster_detection_method="deactivate",  # `find_place` has done it
            coordinator_bind_address=f"{address}:{place.port}",
        )
    # JAX takes the first SIGTERM for itself, and a process in its preparations would not end.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    watcher = threading.Thread(target=_watch, name="other processes", daemon=True)
    watcher.start()
    threading.Thread(target=_watch_peers, args=(peers,), name="their ends", daemon=True).start()
    try:
        yield
        wait_for_all()
        _all_done.set()
    except BaseException as error:
        _give_up(error)
    if jax.process_index() == 0:
        _client().key_value_set(_END, _FAREWELL)
    watcher.join()
    jax.distributed.shutdown()


def first(action: Callable[[], _T]) -> _T | None:
    """Calls `action` in process 0 while the others wait; if it raises, all processes end.

    Returns its result in process 0, None in the others.
    """
    if jax.process_count() == 1:
        return action()
    key = f"mtl_face/first/{next(_counter)}"
    if jax.process_index() > 0:
        _client().blocking_key_value_get(key, _LONGEST)
        return None
    result = action()
    _client().key_value_set(key, "done")
    return result


def of_first(value: str) -> str:
    """The value that process 0 gives."""
    if jax.process_count() == 1:
        return value
    key = f"mtl_face/value/{next(_counter)}"
    if jax.process_index() > 0:
        return _client().blocking_key_value_get(key, _LONGEST)
    _client().key_value_set(key, value)
    return value


def wait_for_all() -> None:
    """Returns when every process has come here, however long that takes."""
    if jax.process_count() > 1:
        _client().wait_at_barrier(f"mtl_face/barrier/{next(_counter)}", _LONGEST)


def is_writer() -> bool:
    """Whether this process is the one that writes the files of a run."""
    return jax.process_index() == 0


def in_first_process(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say` in process 0; nothing in the others."""

    def first(line: str) -> None:
        if is_writer():
            say(line)

    return first


def warn(sentence: str) -> None:
    """Prints a warning to standard error, in process 0 alone."""
    if is_writer():
        print(escaped(f"warning: {sentence}"), file=sys.stderr)


def this_host() -> str:
    """This host's name, and which of the processes this one is."""
    return f"host {socket.gethostname()} (process {jax.process_index()} of {jax.process_count()})"


def _client() -> Any:
    return distributed.global_state.client


def _watch() -> None:
    """Ends this process when another one has failed; runs in a thread."""
    try:
        words = _client().blocking_key_value_get(_END, _LONGEST)
    except jax.errors.JaxRuntimeError:
        return  # process 0 is gone: `_watch_peers` says so
    if words != _FAREWELL:
        _leave(words)


def _watch_peers(peers: roll_call.Peers) -> None:
    """Ends all processes when one has ended without a word; runs in a thread."""
    who = peers.wait_until_one_is_gone()
    if _all_done.is_set():
        return
    words = (
        f"error: {who} of {jax.process_count()} is gone: killed, short of memory, or its host is "
        "lost\n  -> start all processes again: the run goes on from its newest checkpoint"
    )
    if jax.process_index() == 0:
        _send(words)
        time.sleep(_GRACE)
    _leave(words)


def _send(words: str) -> None:
    # Refused if another one was earlier: its message is the cause, and the watcher prints it.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().key_value_set(_END, words)


def _give_up(error: BaseException) -> None:
    """Sends all the reason, and ends this process."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        time.sleep(_GRACE)  # if it is the end of another process, the watchers name that
    where = f"process {jax.process_index()} of {jax.process_count()} ({socket.gethostname()})"
    if isinstance(error, UserError):
        words = f"error: {where}: {error}"
    elif isinstance(error, KeyboardInterrupt):
        words = f"interrupted: {where}"
    else:
        with _leaving:  # held by a watcher that is ending this process: it says why
            sys.excepthook(type(error), error, error.__traceback__)
        words = f"error: {where} failed: {type(error).__name__}: {error}"
    _send(words)
    time.sleep(_GRACE)  # the watcher is to hear of it first
    _leave(words)


def _leave(words: str) -> None:
    with _leaving:  # the watcher or the main thread, not both
        print(words, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)
