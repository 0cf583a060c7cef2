"""Cuts the faces out of many sources at a time, one process a source."""

import dataclasses
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from mtl_face.errors import UserError
from mtl_face.faces.detect import BlazeFaceDetector, Detector
from mtl_face.faces.extract import extract
from mtl_face.faces.sources import Source
from mtl_face.faces.video import VideoError, estimate_frames

_EVERY_S = 0.3  # between two reports of a process


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a source: a record, or the user's error."""

    source: Source
    record: dict[str, Any] | None
    error: UserError | None


class _StoppedError(Exception):
    """The user interrupted the work."""


class Totals:
    """Frames done and in all, over all sources; estimates give way to what is found.

    Args:
        frames: how many frames each source is thought to have.
        progress: is called with both numbers when they change.
    """

    def __init__(self, frames: Sequence[int], progress: Callable[[int, int], None]) -> None:
        self._total = list(frames)
        self._done = [0] * len(self._total)
        self._progress = progress

    def update(self, index: int, done: int, total: int) -> None:
        """Notes how far a source is."""
        self._done[index], self._total[index] = done, max(total, done)
        self._progress(sum(self._done), sum(self._total))

    def finish(self, index: int) -> None:
        """Notes that a source is done with, be it early."""
        self.update(index, self._done[index], self._done[index])


def extract_all(
    sources: Sequence[Source],
    output: Path,
    *,
    workers: int,
    progress: Callable[[int, int], None],
    detector: Detector | None = None,
) -> list[Outcome]:
    """Cuts the faces out of sources; a damaged one does not hold up the others.

    Args:
        sources: what to do, at least one.
        output: a folder from `layout.open_output`.
        workers: processes; with one, or one source, all is done in this process, and the decoder
            runs in a thread beside the detector.
        progress: called with frames done and frames in all; the latter is an estimate.
        detector: finds faces, in this process; None: BlazeFace, in any.

    Returns:
        What became of each source, in their order.

    Raises:
        MissingExtraError: a library is not installed.
        WorkdirError: the output cannot be written.
    """
    outcomes: dict[int, Outcome] = {}
    frames = []
    for index, source in enumerate(sources):
        try:
            frames.append(len(source.photos) or estimate_frames(source.path))
        except VideoError as error:
            frames.append(0)
            outcomes[index] = Outcome(source, None, error)
    totals = Totals(frames, progress)
    todo = [index for index in range(len(sources)) if index not in outcomes]
    if detector is not None or min(workers, len(todo)) <= 1:
        finder = detector or (BlazeFaceDetector() if todo else None)
        for index in todo:
            assert finder is not None
            try:
                record = extract(
                    sources[index],
                    output,
                    finder,
                    lambda done, total, index=index: totals.update(index, done, total),  # type: ignore[misc]
                )
                outcomes[index] = Outcome(sources[index], record, None)
            except VideoError as error:
                outcomes[index] = Outcome(sources[index], None, error)
            totals.finish(index)
    else:
        BlazeFaceDetector()  # what is missing is said here, and once
        _in_processes(sources, todo, output, min(workers, len(todo)), totals, outcomes)
    return [outcomes[index] for index in range(len(sources))]


def _in_processes(
    sources: Sequence[Source],
    todo: Sequence[int],
    output: Path,
    workers: int,
    totals: Totals,
    outcomes: dict[int, Outcome],
) -> None:
    # `spawn`: a fork of a process that runs threads can hang.
    context = multiprocessing.get_context("spawn")
    reports, stop = context.SimpleQueue(), context.Event()
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(reports, stop)
    ) as pool:
        futures: dict[Future[dict[str, Any]], int] = {
            pool.submit(_work, index, sources[index], output): index for index in todo
        }
        try:
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=_EVERY_S, return_when=FIRST_COMPLETED)
                while not reports.empty():
                    totals.update(*reports.get())
                for future in finished:
                    index = futures[future]
                    try:
                        outcomes[index] = Outcome(sources[index], future.result(), None)
                    except VideoError as error:
                        outcomes[index] = Outcome(sources[index], None, error)
                    totals.finish(index)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_shared: dict[str, Any] = {}


def _begin(reports: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells us when to stop
    _shared.update(reports=reports, stop=stop, detector=BlazeFaceDetector())


def _work(index: int, source: Source, output: Path) -> dict[str, Any]:
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if _shared["stop"].is_set():
            raise _StoppedError
        now = time.monotonic()
        if now - last >= _EVERY_S or done == total:
            last = now
            _shared["reports"].put((index, done, total))

    return extract(source, output, _shared["detector"], report)
