"""Waits until every process of a run is there, and names those that are not. Light: no JAX.

JAX's own start does not name a missing process. So the processes first meet at the address where
JAX's coordinator will listen: process 0 takes the names down, all others report to it, and either
all go on or all learn who is missing. A message is one line of JSON each way.
"""

import contextlib
import dataclasses
import json
import selectors
import socket
import time

from mtl_face.errors import ConfigError, UserError

_LONGEST = 65536
_PATIENCE = 5.0
"""Seconds for the message of a process that has connected."""

_LAST_WORDS = 0.3
"""Seconds in which the end of a process that has died becomes known here."""

_GREETING = "mtl_face"


@dataclasses.dataclass(frozen=True)
class Place:
    """A process's place in a run.

    Attributes:
        coordinator: `HOST:PORT` of process 0.
        process_id: of this one, from 0.
        local_devices: numbers of the devices of this host that the launcher gives to this process;
            None for all.

    Raises:
        ConfigError: `coordinator` is no address, or `process_id` out of range.
    """

    coordinator: str
    num_processes: int
    process_id: int
    local_devices: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise ConfigError(
                f"--coordinator is {self.coordinator!r}, expected HOST:PORT",
                remedy="give an address at which every host reaches process 0, as node1:8476",
            )
        if not 0 <= self.process_id < self.num_processes:
            raise ConfigError(
                f"--process_id is {self.process_id} with --num_processes={self.num_processes}",
                remedy=f"number the processes 0 to {self.num_processes - 1}",
            )


def meet(place: Place, *, settings: str, timeout_seconds: float) -> None:
    """Returns when all processes are there; `settings` is a digest of what all must share.

    Raises:
        UserError: some process did not come, or came with another number or other settings. Every
            process that did come raises it.
    """
    if place.process_id == 0:
        _take_down(place, settings, timeout_seconds)
    else:
        _report(place, settings, timeout_seconds)


def _take_down(place: Place, settings: str, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    connections: list[socket.socket] = []
    present: dict[int, tuple[str, socket.socket]] = {}
    problem = None
    with _listen(int(place.coordinator.rpartition(":")[2])) as server:
        try:
            while problem is None and not _all_here(place, present):
                server.settimeout(max(deadline - time.monotonic(), 0.001))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    problem = _missing(place, present, timeout_seconds)
                    break
                connections.append(connection)
                said = _hear(connection)
                if said is None or said.get("greeting") != _GREETING:
                    continue  # something else
                number = int(said["process_id"])
                if number in present:
                    _forget_those_gone(present)  # it may have been started again
                problem = _objection(place, settings, said, present)
                present[number] = str(said["host"]), connection
        finally:
            answer = {"problem": problem} if problem else {"here": place.num_processes}
            for connection in connections:
                _say(connection, answer)
            for connection in connections:
                # The others close first: then this side's port is free at once.
                _hear(connection)
                connection.close()
    if problem:
        raise _refused(problem)


def _missing(
    place: Place, present: dict[int, tuple[str, socket.socket]], timeout_seconds: float
) -> str:
    absent = [str(n) for n in range(1, place.num_processes) if n not in present]
    words = "process" if len(absent) == 1 else "processes"
    came = [f"0 ({socket.gethostname()})", *(f"{n} ({present[n][0]})" for n in sorted(present))]
    return (
        f"{words} {', '.join(absent)} of {place.num_processes} did not join within "
        f"{timeout_seconds:g} s; there were {', '.join(came)}"
    )


def _objection(
    place: Place, settings: str, said: dict, present: dict[int, tuple[str, socket.socket]]
) -> str | None:
    number, host, own_host = said["process_id"], said["host"], socket.gethostname()
    if said["num_processes"] != place.num_processes:
        return (
            f"process {number} ({host}) was started with --num_processes={said['num_processes']}, "
            f"process 0 ({own_host}) with {place.num_processes}"
        )
    if number in present or not 0 < number < place.num_processes:
        other = present[number][0] if number in present else own_host
        return f"two processes have --process_id={number}, on {other} and on {host}"
    if said["settings"] != settings:
        return (
            f"process {number} ({host}) was started with other settings than process 0 ({own_host})"
        )
    return None


def _report(place: Place, settings: str, timeout_seconds: float) -> None:
    host, _, port = place.coordinator.rpartition(":")
    deadline = time.monotonic() + timeout_seconds
    words = {
        "greeting": _GREETING,
        "process_id": place.process_id,
        "num_processes": place.num_processes,
        "host": socket.gethostname(),
        "settings": settings,
    }
    reason = "nothing answers there"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=left) as line:
                _say(line, words)
                # Process 0 may have begun to wait later than this one: it decides.
                answer = _hear(line, timeout_seconds + _PATIENCE)
        except OSError as error:
            reason = error.strerror or str(error)
            answer = None
        if answer is None:
            time.sleep(min(0.2, max(left, 0)))
        elif "problem" in answer:
            raise _refused(str(answer["problem"]))
        else:
            return
    raise _refused(
        f"process 0 did not join within {timeout_seconds:g} s: process {place.process_id} "
        f"({socket.gethostname()}) waited for it at {place.coordinator} ({reason})"
    )


def _refused(problem: str) -> UserError:
    return UserError(
        problem,
        remedy="start the same command on every host, each process with its own --process_id and "
        "the same --coordinator; --join_timeout_s sets the time, --num_processes=1 runs alone",
    )


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port),
            family=socket.AF_INET6 if both else socket.AF_INET,
            dualstack_ipv6=both,
            backlog=1024,
        )
    except OSError as error:
        raise UserError(
            f"port {port} cannot be opened: {error.strerror}",
            remedy="choose another port in --coordinator, on every host",
        ) from error


def _all_here(place: Place, present: dict[int, tuple[str, socket.socket]]) -> bool:
    """Whether all have come, and none of them has died while it waited."""
    if len(present) == place.num_processes - 1:
        _forget_those_gone(present)
    return len(present) == place.num_processes - 1


def _forget_those_gone(present: dict[int, tuple[str, socket.socket]]) -> None:
    """A process that waits says nothing more: what can be read of it is its end."""
    with selectors.DefaultSelector() as selector:
        for number, (_, connection) in present.items():
            selector.register(connection, selectors.EVENT_READ, number)
        gone = [key.data for key, _ in selector.select(_LAST_WORDS)] if present else []
    for number in gone:
        del present[number]


def _say(connection: socket.socket, words: dict) -> None:
    # One that has gone hears nothing; JAX's own start will miss it.
    with contextlib.suppress(OSError):
        connection.sendall((json.dumps(words) + "\n").encode())


def _hear(connection: socket.socket, patience: float = _PATIENCE) -> dict | None:
    """One message of this protocol; None if there is none."""
    connection.settimeout(patience)
    try:
        with connection.makefile("rb") as lines:
            words = json.loads(lines.readline(_LONGEST))
    except (OSError, ValueError):
        return None
    return words if isinstance(words, dict) else None
