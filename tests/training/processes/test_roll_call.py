"""The meeting of the processes before a run, each in a thread: who comes, and who is missed."""

import concurrent.futures
import functools
import socket
import threading
import time

import pytest

from mtl_face.errors import ConfigError, UserError
from mtl_face.training.processes import roll_call
from mtl_face.training.processes.roll_call import Place, meet


@pytest.fixture
def port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def wait_until_listening(port):
    deadline = time.monotonic() + 300
    while True:
        try:
            return socket.create_connection(("localhost", port)).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def start(port, process_id, *, count=3, settings="same", timeout=20.0):
    """A process in a thread; its outcome is the words of its error, or `here`."""
    outcome = []

    def run():
        place = Place(f"localhost:{port}", count, process_id)
        try:
            meet(place, settings=settings, timeout_seconds=timeout)
            outcome.append("here")
        except UserError as error:
            outcome.append(error.problem)

    thread = threading.Thread(target=run)
    thread.start()

    def finish():
        thread.join(300)
        return outcome[0]

    return finish


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_are_there(port, order):
    running = []
    for process_id in order:
        running.append(start(port, process_id))
        time.sleep(0.05)
    assert [finish() for finish in running] == ["here"] * 3
    # The port is free for what comes next.
    socket.create_server(("", port)).close()


def test_the_missing_are_named_to_all(port):
    running = [start(port, 0, count=5, timeout=2.0), start(port, 2, count=5)]
    host = socket.gethostname()
    expected = f"processes 1, 3, 4 of 5 did not join within 2 s; there were 0 ({host}), 2 ({host})"
    assert [finish() for finish in running] == [expected] * 2


def test_process_0_is_missing(port):
    problem = start(port, 1, timeout=1.0)()
    assert problem.startswith("process 0 did not join within 1 s: process 1 ")
    assert f"at localhost:{port} (Connection refused)" in problem


def test_a_port_that_a_killed_run_still_holds(port):
    held = socket.create_server(("127.0.0.1", port))
    threading.Timer(0.5, held.close).start()
    roll_call._listen(Place(f"127.0.0.1:{port}", 2, 0), 10.0).close()


@pytest.mark.parametrize(
    ("ids", "options", "words"),
    [
        ((0, 1, 1), {}, "two processes have --process_id=1"),
        ((0, 0), {}, None),
        ((0, 1), {"settings": "other"}, "process 1 .* other settings than process 0"),
        ((0, 1), {"count": 2}, "process 1 .* --num_processes=2, process 0 .* with 3"),
    ],
)
def test_processes_that_do_not_fit(port, ids, options, words):
    running = [start(port, 0, timeout=2.0)]
    wait_until_listening(port)
    for process_id in ids[1:]:
        timeout = 1.0 if words is None else 20.0  # a port in use may become free until then
        running.append(start(port, process_id, timeout=timeout, **options))
    problems = [finish() for finish in running]
    if words is None:
        assert f"port {port} cannot be opened" in problems[1]
        return
    for problem in problems:
        with pytest.raises(UserError, match=words):
            raise UserError(problem)


def test_strangers_and_restarts(port):
    """A scanner of ports, and a process that died while it waited and was started again."""
    first = start(port, 0)
    wait_until_listening(port)
    with socket.create_connection(("localhost", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\n")
    with socket.create_connection(("localhost", port)) as died:
        died.sendall(
            b'{"greeting": "mtl_face", "process_id": 1, "num_processes": 3, "host": "h", '
            b'"settings": "same"}\n'
        )
    second = start(port, 2)
    time.sleep(0.1)  # mostly it is there first: the dead one must not be taken for the last
    assert [finish() for finish in (first, second, start(port, 1))] == ["here"] * 3


@pytest.mark.parametrize(
    ("coordinator", "process_id", "words"),
    [
        ("host", 0, "expected HOST:PORT"),
        ("host:x", 0, "expected HOST:PORT"),
        ("host:70000", 0, "expected HOST:PORT"),
        ("host:1234", 2, "--process_id is 2 with --num_processes=2"),
    ],
)
def test_places_that_are_none(coordinator, process_id, words):
    with pytest.raises(ConfigError, match=words):
        Place(coordinator, 2, process_id)


@pytest.mark.parametrize(
    ("coordinator", "address"),
    [
        ("127.0.0.1:1", {"127.0.0.1"}),
        ("localhost:1", {"127.0.0.1", "::1"}),
        ("[::1]:1", {"::1", ""}),  # where there is no IPv6, that is none of this host
        ("192.0.2.1:1", {""}),  # of no host: reserved for documentation (RFC 5737)
        ("no-such-host.invalid:1", {""}),
    ],
)
def test_process_0_listens_where_it_is_named(coordinator, address):
    assert Place(coordinator, 2, 0).listens_at() in address


def test_one_that_is_gone_is_named(port):
    places = [Place(f"127.0.0.1:{port}", 3, process_id) for process_id in range(3)]
    meeting = functools.partial(meet, settings="same", timeout_seconds=20)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        peers = list(pool.map(meeting, places))
        gone = pool.submit(peers[0].wait_until_one_is_gone)
        assert not concurrent.futures.wait([gone], timeout=0.2).done
        peers[2].connections[0][1].close()  # as the system does for a process that is killed
        assert gone.result(timeout=300) == f"process 2 ({socket.gethostname()})"
        for _, connection in peers[0].connections.values():
            connection.close()
        assert peers[1].wait_until_one_is_gone() == f"process 0 ({socket.gethostname()})"
