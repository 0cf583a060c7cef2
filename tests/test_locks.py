"""A lock that one process holds: on one machine, across machines, and after a kill."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mtl_face import locks
from mtl_face.errors import WorkdirError

ROOT = Path(__file__).parents[1]

_HOLDER = """
import sys, time
from pathlib import Path
from mtl_face import locks
with locks.hold(Path(sys.argv[1]), what="is in use", remedy="wait"):
    print("held", flush=True)
    sys.stdin.readline()
"""


HUGE = b'{"host":"","machine":"","process":1e999,"started":"","since":"","token":""}'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture
def quick(monkeypatch):
    """Heartbeats and waits of a tenth of a second and less."""
    monkeypatch.setattr(locks, "_RENEWAL", 0.05)
    monkeypatch.setattr(locks, "_STALE", 0.5)
    monkeypatch.setattr(locks, "_LOOK", 0.02)


def hold(path, **options):
    return locks.hold(path, what="is in use", remedy="wait for it", **options)


@contextlib.contextmanager
def other_process(path):
    """A process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def write_lock(path, **changes):
    """The lock of a process of another machine."""
    values = {
        "host": "node7",
        "machine": "node7 elsewhere",
        "process": os.getpid(),
        "started": "1",
        "since": "2026-01-01 00:00:00",
        "token": "t",
    }
    path.write_text(json.dumps(values | changes))


def test_held_and_released(path):
    with hold(path) as held:
        assert path.is_file()
        held.require()
    assert list(path.parent.iterdir()) == []


def test_released_after_an_exception(path):
    with pytest.raises(KeyError), hold(path):
        raise KeyError
    assert list(path.parent.iterdir()) == []


def test_the_holder_is_named_at_once(path):
    with other_process(path) as process:
        said = []
        with pytest.raises(WorkdirError) as raised, hold(path, say=said.append):
            pass
        assert said == []
        assert raised.value.path == str(path.parent)
        assert f"is in use by process {process.pid} on " in raised.value.problem
        assert ", since 20" in raised.value.problem
        assert raised.value.remedy == "wait for it"


def test_this_process_counts_too(path):
    with hold(path), pytest.raises(WorkdirError, match=f"process {os.getpid()} on"), hold(path):
        pass


@pytest.mark.parametrize("reaped", [False, True])
def test_of_a_killed_process_it_is_taken_over_at_once(path, reaped):
    with other_process(path) as process:
        process.kill()
        if reaped:
            process.wait()
        else:
            while locks._start_of(process.pid) is not None:
                time.sleep(0.01)
        said = []
        with hold(path, say=said.append) as held:
            held.require()
            assert f'"process": {os.getpid()}' in path.read_text()
        assert said == []
    assert list(path.parent.iterdir()) == []


def test_another_process_with_its_number(path):
    """As process 1 of every container."""
    write_lock(path, machine=locks._machine(), started="1")
    with hold(path):
        pass


def test_a_hidden_process_of_another_user_may_live(path, quick, monkeypatch):
    """Systems that show a user nothing of others' processes still say that they are there."""

    def refuse(process, number):
        raise PermissionError

    write_lock(path, machine=locks._machine(), process=2**31 - 1)
    monkeypatch.setattr(os, "kill", refuse)
    said = []
    with hold(path, say=said.append):
        pass
    assert len(said) == 1


def test_a_living_one_elsewhere_is_seen_by_its_heartbeat(path, quick, monkeypatch):
    monkeypatch.setattr(locks, "_STALE", 60.0)
    write_lock(path, process=999)
    end = threading.Event()

    def beat():
        number = 0
        while not end.wait(0.05):
            number += 1
            os.utime(path, ns=(0, number))  # a clock that is wrong by half a century

    thread = threading.Thread(target=beat)
    thread.start()
    said = []
    try:
        with (
            pytest.raises(WorkdirError, match="is in use by process 999 on node7, since 2026"),
            hold(path, say=said.append),
        ):
            pass
    finally:
        end.set()
        thread.join()
    (line,) = said
    assert line.startswith("waiting for process 999 on node7, since 2026-01-01 00:00:00, which ")
    assert f"holds {path}" in line


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b'{"process": "x"}', HUGE, b"\xff\x00"]
)
def test_without_a_heartbeat_it_is_taken_over(path, quick, content):
    """Of another machine, or of a holder that cannot be read; whatever time it bears."""
    write_lock(path)
    if content is not None:
        path.write_bytes(content)
    os.utime(path, (4e9, 4e9))
    said = []
    start = time.monotonic()
    with hold(path, say=said.append):
        assert time.monotonic() - start > 0.4
    assert len(said) == 1
    assert "if 0.5 s show no heartbeat" in said[0]


def test_the_heartbeat_changes_the_files_time(path, quick):
    with hold(path):
        before = path.stat().st_mtime_ns
        time.sleep(0.2)
        assert path.stat().st_mtime_ns > before


def test_waiting_for_the_end(path, quick):
    with other_process(path) as process:
        said = []

        def end():
            process.stdin.write("\n")
            process.stdin.flush()

        threading.Timer(0.3, end).start()
        with hold(path, wait=True, say=said.append):
            assert f'"process": {os.getpid()}' in path.read_text()
        (line,) = said
        assert line.startswith(f"waiting for process {process.pid} on ")
        assert line.endswith(f", which holds {path}")


def test_no_waiting_for_the_process_that_waits_for_this_one(path):
    code = (
        "import sys, pathlib; from mtl_face import locks\n"
        "with locks.hold(pathlib.Path(sys.argv[1]), what='is used', remedy='', wait=True): pass"
    )
    with hold(path):
        result = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert result.returncode == 1
    assert f"is used by process {os.getpid()} on " in result.stderr


def test_many_at_once(path, quick):
    """One holds it at a time, over a stale lock and those that follow."""
    write_lock(path, machine=locks._machine())
    inside, most, done = [], [], []

    def work():
        with hold(path, wait=True):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(done) == 8
    assert set(most) == {1}
    assert list(path.parent.iterdir()) == []


def test_a_claim_whose_maker_was_killed(path, quick):
    write_lock(path, machine=locks._machine())
    (path.parent / f"lock.{locks.hashlib.sha256(path.read_bytes()).hexdigest()[:12]}").touch()
    with hold(path):
        pass
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("how", ["taken", "removed"])
def test_a_lost_lock_is_noticed(path, quick, how):
    with hold(path) as held:
        held.require()
        if how == "taken":
            write_lock(path)
        else:
            path.unlink()
        time.sleep(0.3)
        with pytest.raises(WorkdirError) as raised:
            held.require()
    assert ("taken over by process" if how == "taken" else "removed") in raised.value.problem
    assert path.exists() == (how == "taken")  # another one's is not removed


def test_a_process_that_was_stopped_looks_before_it_goes_on(path, monkeypatch):
    """Its heartbeat stood still as long as all of it did."""
    with hold(path) as held:
        write_lock(path)
        held.require()
        monkeypatch.setattr(held, "_seen", time.time() - 100)
        with pytest.raises(WorkdirError, match="was taken over"):
            held.require()


def test_a_folder_that_cannot_be_written():
    with pytest.raises(WorkdirError, match="cannot be written"), hold(Path("/proc/lock")):
        pass
