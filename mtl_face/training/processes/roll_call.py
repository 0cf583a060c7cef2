"""Waits until every process of a run is there, and names those that are not. Light: no JAX.

JAX's own start does not name a missing process. So the processes first meet at the address where
JAX's coordinator will listen: process 0 takes the names down, all others report to it, and either
all go on or all learn who is missing. A message is one line of JSON each way.

Their connections stay open as long as they run: the system closes those of a process that is
killed, so that the others learn at once which one is gone.
"""

import contextlib
import dataclasses
import errno
import ipaddress
import json
import selectors
import socket
import time

from mtl_face.errors import ConfigError, UserError
from mtl_face.training.processes.coordination import LINGERS

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
        launcher: what started the processes and told their places, in words; None: the flags did.

    Raises:
        ConfigError: `coordinator` is no address, or `process_id` out of range.
    """

    coordinator: str
    num_processes: int
    process_id: int
    local_devices: tuple[int, ...] | None = None
    launcher: str | None = dataclasses.field(default=None, compare=False)

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

    def __str__(self) -> str:
        by = "" if self.launcher is None else f", as {self.launcher} says"
        return f"process {self.process_id} of {self.num_processes}{by}, at {self.coordinator}"

    @property
    def port(self) -> int:
        """Where process 0 listens."""
        return int(self.coordinator.rpartition(":")[2])

    def listens_at(self) -> str:
        """The address at which process 0 listens; "" for all of its host.

        That of the coordinator, if it is one of this host. A name may stand for another one here
        than on other hosts (many give their own name to the loopback), and one of a gateway or a
        container's service for none of this host.
        """
        host = self.coordinator.rpartition(":")[0].strip("[]")
        try:
            address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
            loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
            if loopback and host != "localhost" and host != address:
                return ""
            with socket.create_server((address, 0), family=_family(address)):
                return address
        except OSError:
            return ""


@dataclasses.dataclass(frozen=True)
class Peers:
    """Open connections to other processes of a run: of process 0 to all, of the others to it.

    Attributes:
        connections: by the number of the process, its host and the connection.
    """

    connections: dict[int, tuple[str, socket.socket]]

    def wait_until_one_is_gone(self) -> str:
        """Returns, once a process has ended, which one it was, in words."""
        # A process says nothing more: what can be read of it is its end.
        number = min(_readable(self.connections, None))
        return f"process {number} ({self.connections[number][0]})"


def meet(place: Place, *, settings: str, timeout_seconds: float) -> Peers:
    """Returns when all processes are there; `settings` is a digest of what all must share.

    Raises:
        UserError: some process did not come, or came with another number or other settings. Every
            process that did come raises it.
    """
    if place.process_id == 0:
        return Peers(_take_down(place, settings, timeout_seconds))
    return Peers({0: _report(place, settings, timeout_seconds)})


def _take_down(
    place: Place, settings: str, timeout_seconds: float
) -> dict[int, tuple[str, socket.socket]]:
    deadline = time.monotonic() + timeout_seconds
    connections: list[socket.socket] = []
    present: dict[int, tuple[str, socket.socket]] = {}
    problem = None
    with _listen(place, min(timeout_seconds, 2 * LINGERS)) as server:
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
            answer = {"problem": problem} if problem else {"here": socket.gethostname()}
            for connection in connections:
                _say(connection, answer)
            kept = [] if problem else [connection for _, connection in present.values()]
            for connection in connections:
                if connection not in kept:
                    # The others close first: then this side's port is free at once.
                    _hear(connection)
                    connection.close()
    if problem:
        raise _refused(problem)
    return present


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


def _report(place: Place, settings: str, timeout_seconds: float) -> tuple[str, socket.socket]:
    host = place.coordinator.rpartition(":")[0].strip("[]")
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
        with contextlib.ExitStack() as stack:
            try:
                connection = socket.create_connection((host, place.port), timeout=left)
                stack.enter_context(connection)
                _say(connection, words)
                # Process 0 may have begun to wait later than this one: it decides.
                answer = _hear(connection, timeout_seconds + _PATIENCE)
            except OSError as error:
                reason = error.strerror or str(error)
                answer = None
            if answer is None:
                time.sleep(min(0.2, max(left, 0)))
            elif "problem" in answer:
                raise _refused(str(answer["problem"]))
            else:
                stack.pop_all()
                return str(answer["here"]), connection
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


def _listen(place: Place, patience: float) -> socket.socket:
    """Opens the port; one in use may be that of a run which has just been killed."""
    address = place.listens_at()
    both = not address and socket.has_dualstack_ipv6()
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                return socket.create_server(
                    (address, place.port),
                    family=socket.AF_INET6 if both else _family(address),
                    dualstack_ipv6=both,
                    backlog=1024,
                )
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                    raise
            time.sleep(0.1)
    except OSError as error:
        raise UserError(
            f"port {place.port} cannot be opened: {error.strerror}",
            remedy="choose another port in --coordinator, on every host",
        ) from error


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _all_here(place: Place, present: dict[int, tuple[str, socket.socket]]) -> bool:
    """Whether all have come, and none of them has died while it waited."""
    if len(present) == place.num_processes - 1:
        _forget_those_gone(present)
    return len(present) == place.num_processes - 1


def _forget_those_gone(present: dict[int, tuple[str, socket.socket]]) -> None:
    """A process that waits says nothing more: what can be read of it is its end."""
    for number in _readable(present, _LAST_WORDS) if present else []:
        del present[number]


def _readable(
    connections: dict[int, tuple[str, socket.socket]], timeout_seconds: float | None
) -> list[int]:
    """Numbers of the processes of which something can be read, within a time."""
    with selectors.DefaultSelector() as selector:
        for number, (_, connection) in connections.items():
            selector.register(connection, selectors.EVENT_READ, number)
        return [key.data for key, _ in selector.select(timeout_seconds)]


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
