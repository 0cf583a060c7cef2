"""A file by which one process at a time holds something, on one host or on several that share it.

The file says who holds it. A process of the same machine is looked up there, so that the lock of
one that was killed is taken over at once. Of one elsewhere its heartbeat is watched: the time of
the file changes every few seconds, by whatever clock, as long as the holder lives. A time is
compared with an earlier look at the same file alone, never with the clock of this host.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from mtl_face import files
from mtl_face.errors import WorkdirError

_RENEWAL = 10.0
"""Seconds between two heartbeats."""

_STALE = 60.0
"""Seconds without a heartbeat after which a lock of another machine is taken over."""

_LOOK = 1.0
"""Seconds between two looks at another one's lock."""


class Held:
    """A lock that this process holds."""

    def __init__(self, path: Path, own: bytes) -> None:
        self._path = path
        self._own = own
        self._seen = time.time()
        self._lost = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="heartbeat", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raises WorkdirError if another process has taken the lock, as from a stopped machine."""
        if not self._lost and abs(time.time() - self._seen) > 2 * _RENEWAL:
            self._look()  # the heartbeat has stood still
        if self._lost:
            found = _read(self._path)
            raise WorkdirError(
                "was given up: its lock has been removed"
                if found is None
                else f"was taken over by {_Holder.of(found) or 'an unknown process'}",
                path=self._path.parent,
                remedy="let the other process go on, or stop it and give this command again",
            )

    def release(self) -> None:
        """Ends the heartbeat and removes the file, if it is still this process's."""
        self._end.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # of a folder that has gone
            if _read(self._path) == self._own:
                self._path.unlink()

    def _renew(self) -> None:
        while not self._end.wait(_RENEWAL) and not self._lost:
            self._look()

    def _look(self) -> None:
        with contextlib.suppress(OSError):  # a disk that fails for a while
            if _read(self._path) != self._own:
                self._lost = True
                return
            os.utime(self._path)
            self._seen = time.time()


@contextlib.contextmanager
def hold(
    path: Path,
    *,
    what: str,
    remedy: str,
    wait: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Held]:
    """Holds the lock file `path`, in a folder that exists, until the block ends.

    The lock of a process of this machine that has ended is taken over at once; that of another
    machine after 60 s without a heartbeat, for which it waits and says so.

    Args:
        path: the lock file.
        what: what it stands for, to begin a sentence with, as "it is in use".
        remedy: of the error.
        wait: wait for a living holder, however long, instead of raising, unless it is the process
            that started this one.
        say: called with a line before a wait.

    Raises:
        WorkdirError: another process holds it, or the file cannot be written.
    """
    own = _Holder.this_process().content()
    try:
        while not (_create(path, own) or _take_over(path, own, _wait_for_end(path, wait, say))):
            pass
    except _InUseError as error:
        raise WorkdirError(f"{what} by {error}", path=path.parent, remedy=remedy) from None
    except OSError as error:
        raise files.unwritable(path, error) from error
    held = Held(path, own)
    try:
        yield held
    finally:
        held.release()


class _InUseError(Exception):
    """A lock is held by a living process."""


@dataclasses.dataclass(frozen=True)
class _Holder:
    """Who holds a lock.

    Attributes:
        machine: host, its start and the namespace of process numbers, as far as they are known.
        started: when the process started, as its system counts.
        since: when it took the lock, for readers.
        token: tells this lock from any other.
    """

    host: str
    machine: str
    process: int
    started: str
    since: str
    token: str

    @classmethod
    def this_process(cls) -> "_Holder":
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            process=os.getpid(),
            started=_start_of(os.getpid()) or "",
            since=datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            token=uuid.uuid4().hex,
        )

    @classmethod
    def of(cls, content: bytes) -> "_Holder | None":
        """The holder that a lock file names; None if it names none."""
        try:
            values = json.loads(content)
            holder = cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})
            sound = isinstance(holder.process, int) and 0 < holder.process < 2**31
            return holder if sound else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def content(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self)) + "\n").encode()

    def has_ended(self) -> bool | None:
        """Whether the process has ended; None where this one cannot see it."""
        if self.machine != _machine():
            return None
        started = _start_of(self.process)
        if started is None and _is_hidden(self.process):
            return None
        return started != self.started

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


def _machine() -> str:
    """This host as long as it runs, and the namespace of its process numbers.

    Hosts may have one name (cloned machines, containers); all have the same namespace at first.
    """
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    except OSError:
        parts.append(f"{uuid.getnode():x}")
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _start_of(process: int) -> str | None:
    """When a process of this machine started; None if it has ended."""
    try:
        # In ticks since the machine started: `psutil.create_time` moves when a clock is set.
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        return None if state[0] in (b"Z", b"X") else state[19].decode()
    except (OSError, IndexError):
        pass  # ended, or a system without such files
    try:
        found = psutil.Process(process)
        return None if found.status() == psutil.STATUS_ZOMBIE else str(found.create_time())
    except psutil.Error:
        return None


def _is_hidden(process: int) -> bool:
    """Whether a process of another user is there, of which this system shows nothing else."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _create(path: Path, own: bytes) -> bool:
    """Makes a lock file with this process as holder; False if there is one."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, own)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
    return True


def _read(path: Path) -> bytes | None:
    return found[0] if (found := _seen(path)) else None


def _seen(path: Path) -> tuple[bytes, int] | None:
    """Content and time of a lock file; None if it is absent.

    It is opened for each look: a network's file system then asks its server.
    """
    try:
        with path.open("rb") as file:
            return file.read(65536), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _wait_for_end(path: Path, wait: bool, say: Callable[[str], None]) -> bytes | None:
    """The content of a lock whose holder has ended; None if there is no lock any more.

    Raises _InUseError if its holder lives, unless told to wait for its end.
    """
    found = _seen(path)
    deadline = time.monotonic() + _STALE
    told = False
    while found is not None:
        holder = _Holder.of(found[0])
        ended = holder.has_ended() if holder else None
        name = str(holder) if holder else "an unknown process"
        if ended or (ended is None and time.monotonic() > deadline):
            return found[0]
        # A process that started this one may be waiting for it.
        if ended is False and not (wait and holder and holder.process != os.getppid()):
            raise _InUseError(name)
        if not told:
            told = True
            say(
                f"waiting for {name}, which holds {path}"
                + ("" if ended is False else f": it has ended if {_STALE:g} s show no heartbeat")
            )
        time.sleep(_LOOK)
        again = _seen(path)
        if again is not None and again != found:
            if again[0] == found[0] and not wait:
                raise _InUseError(name)
            deadline = time.monotonic() + _STALE
        found = again
    return None


def _take_over(path: Path, own: bytes, stale: bytes | None) -> bool:
    """Puts this process in the place of a holder that has ended; False if another one did.

    Of several that try, one has the right to replace this very lock: the one whose file with a
    name that follows from its content was first.
    """
    if stale is None:
        return False
    claim = path.with_name(f"{path.name}.{hashlib.sha256(stale).hexdigest()[:12]}")
    if not _create(claim, own):
        time.sleep(_LOOK)
        if _read(path) == stale:  # its maker was killed between two calls
            claim.unlink(missing_ok=True)
        return False
    if _read(path) != stale:
        claim.unlink(missing_ok=True)
        return False
    with contextlib.suppress(FileNotFoundError):
        os.replace(claim, path)
    return _read(path) == own
