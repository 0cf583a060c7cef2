"""Cuts the faces out of sources, one process a source.

The crops of a source are written into a hidden folder, moved at the end, and then recorded: a
source is finished or absent.
"""

import functools
import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import jax
from PIL import Image

from mtl_face import files, pictures
from mtl_face.errors import ImageError, WorkdirError
from mtl_face.faces import layout
from mtl_face.faces.align import crop_face
from mtl_face.faces.detect import PHOTO_FACE_PX, Detector, Face, FaceFinder
from mtl_face.faces.layout import Source
from mtl_face.faces.track import Tracker, people
from mtl_face.faces.video import (
    MissingExtraError,
    VideoError,
    ahead,
    estimate_frames,
    open_video,
)

JPEG_QUALITY = 95

_DONE = "done"  # folder of the crops that are to be kept, below that of a source at work
_EVERY_S = 0.3  # between two reports of a process

_Thing = TypeVar("_Thing")

Report = Callable[[int, int], None]
"""Called with the number of frames done and in all; the latter is an estimate."""


Outcome = dict[str, Any] | Exception
"""The record of a source; or a UserError if it cannot be read; or any other error, a defect."""


def extract(source: Source, output: Path, detector: Detector, report: Report) -> dict[str, Any]:
    """Cuts the faces of a source and records them in a folder from `layout.open_output`.

    `report` is called for each frame; what it raises stops the work and leaves nothing behind.

    Returns:
        The record: `name`, `source`, `frames` in all, `damaged` frames, `ignored_faces` that
        belong to none of the people, `notes` in words, and `people`: for each `video` (its
        folder) and `source`, `rows` (frame, seconds, source, score, landmarks) and `gaps` (first
        and last frame, reason). Of photos, each face is one of the people.

    Raises:
        ImageError, VideoError: the source cannot be read.
        WorkdirError: the output cannot be written.
    """
    partial = source.partial(output)
    fingerprint = source.fingerprint()
    cut = _extract_photos if source.photos else _extract_video
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / _DONE).mkdir(parents=True)
        record = {**cut(source, partial, detector, report), "fingerprint": fingerprint}
        _publish(source, partial, output, record)
    except OSError as error:
        raise files.unwritable(error.filename or output, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _extract_video(
    source: Source, partial: Path, detector: Detector, report: Report
) -> dict[str, Any]:
    video = open_video(source.path)
    tracker = Tracker()
    seconds: dict[int, float | None] = {}
    found = 0
    for frame in ahead(video):
        faces = detector(frame.picture)
        found += len(faces)
        for face, track in zip(
            faces, tracker.update(frame.number, faces, frame.picture), strict=True
        ):
            _save(frame.picture, face, partial / f"track{track.number}", frame.number)
        seconds[frame.number] = frame.seconds
        report(len(seconds), max(video.frames, frame.number))
    chosen = people(tracker.tracks)
    total = max(video.frames, *seconds) if seconds else video.frames
    record = _record(source, total, len(seconds), video.damaged)
    for place, person in enumerate(chosen):
        name = source.person(place, len(chosen))
        folder = partial / _DONE / name
        folder.mkdir()
        rows = []
        for number, chosen_track in person.items():
            track = tracker.tracks[chosen_track]
            (partial / f"track{track.number}" / _file(number)).rename(folder / _file(number))
            face = track.faces[track.frames.index(number)]
            rows.append(_row(number, seconds[number], source.text(), face))
        gaps = _gaps(
            person, total, lambda number: "no face" if number in seconds else "not decoded"
        )
        record["people"].append(_person(name, source.text(), rows, gaps))
    record["ignored_faces"] = found - sum(len(person["rows"]) for person in record["people"])
    if video.orientation != 1:
        words = pictures.TURNS[video.orientation].words
        record["notes"].append(f"{words}, as the file says, to be upright")
    if video.variable_rate:
        record["notes"].append("uneven frame rate: frames are counted, their times are listed")
    if video.numbered_by_count:
        record["notes"].append("no usable time stamps: frames are numbered by counting")
    if total > len(seconds):
        record["notes"].append(f"{total - len(seconds)} frames could not be decoded")
    return record


def _extract_photos(
    source: Source, partial: Path, detector: Detector, report: Report
) -> dict[str, Any]:
    """Each face of a photo, the largest first, is a video of one frame."""
    people, notes = [], []
    damaged = 0
    for number, path in enumerate(source.photos, start=1):
        name, why = source.text(path), "no face"
        faces: Sequence[Face] = ()
        try:
            photo = pictures.read(path)
        except ImageError as error:
            damaged += 1
            why = f"unreadable: {error.problem}"
            notes.append(f"{name}: {error.problem} -> {error.remedy}")
        else:
            picture = photo.upright()
            faces = detector(picture)
            if photo.is_first:
                notes.append(f"{name}: holds several pictures, of which the first was searched")
        for place, face in enumerate(faces):
            video = source.face(path, place)
            _save(picture, face, partial / _DONE / video, 1)
            people.append(_person(video, name, [_row(1, None, name, face)], []))
        if not faces:
            people.append(_person(source.face(path, 0), name, [], [(1, 1, why)]))
        report(number, len(source.photos))
    record = _record(source, len(source.photos), len(source.photos) - damaged, damaged)
    return {**record, "people": people, "notes": notes}


def _publish(source: Source, partial: Path, output: Path, record: dict[str, Any]) -> None:
    """Moves the finished folders to their place, and replaces what an earlier try left there."""
    for old in (output / layout.CROPS).iterdir():
        if source.owns(old.name):
            shutil.rmtree(old)
    for folder in (partial / _DONE).iterdir():
        folder.rename(output / layout.CROPS / folder.name)
    layout.write_record(output, source, record)


def _record(source: Source, frames: int, decoded: int, damaged: int) -> dict[str, Any]:
    return {
        "version": layout.RECORD_VERSION,
        "name": source.name,
        "source": source.text(),
        "photos": bool(source.photos),
        "frames": frames,
        "decoded": decoded,
        "damaged": damaged,
        "ignored_faces": 0,
        "notes": [],
        "people": [],
    }


def _person(
    video: str, source: str, rows: list[dict[str, Any]], gaps: list[tuple[int, int, str]]
) -> dict[str, Any]:
    return {"video": video, "source": source, "rows": rows, "gaps": gaps}


def _row(frame: int, seconds: float | None, file: str, face: Face) -> dict[str, Any]:
    return {
        "frame": frame,
        "seconds": seconds,
        "source": file,
        "score": round(face.score, 4),
        "landmarks": face.landmarks.round(2).tolist(),
    }


def _gaps(
    present: Iterable[int], total: int, reason: Callable[[int], str]
) -> list[tuple[int, int, str]]:
    """Runs of frames of 1..total that are not present, by reason."""
    seen = set(present)
    runs: list[tuple[int, int, str]] = []
    for number in range(1, total + 1):
        if number in seen:
            continue
        why = reason(number)
        if runs and runs[-1][1] == number - 1 and runs[-1][2] == why:
            runs[-1] = (runs[-1][0], number, why)
        else:
            runs.append((number, number, why))
    return runs


def _save(picture: Image.Image, face: Face, folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    crop_face(picture, face.landmarks).save(folder / _file(number), quality=JPEG_QUALITY)


def _file(number: int) -> str:
    return f"{number:05}.jpg"


class _StoppedError(Exception):
    """The user interrupted the work."""


class _Totals:
    """Sums frames done and in all over the sources; counted frames replace the estimates."""

    def __init__(self, estimates: Sequence[int], progress: Report) -> None:
        self._total = list(estimates)
        self._done = [0] * len(self._total)
        self._progress = progress

    def update(self, index: int, done: int, total: int) -> None:
        self._done[index], self._total[index] = done, max(total, done)
        self._progress(sum(self._done), sum(self._total))

    def finish(self, index: int) -> None:
        self.update(index, self._done[index], self._done[index])


def extract_all(
    sources: Sequence[Source],
    output: Path,
    *,
    workers: int,
    progress: Report,
    detector: Detector | None = None,
    min_face: float | None = None,
) -> list[Outcome]:
    """Cuts the faces out of sources; a damaged one does not hold up the others.

    Args:
        sources: videos and photos; may be empty.
        output: a folder from `layout.open_output`.
        workers: processes. With one, or one source, everything runs in this process, the decoder in
            a thread beside the detector.
        progress: called with frames done and in all, summed over the sources.
        detector: finds faces, in this process; None: `FaceFinder`, in any.
        min_face: height of the smallest faces that it looks for, in pixels. None: as
            `FaceFinder` of videos, `PHOTO_FACE_PX` of photos.

    Returns what became of each source, in their order.

    Raises:
        MissingExtraError: a library is not installed.
        WorkdirError: the output cannot be written.
    """
    outcomes: dict[int, Outcome] = {}
    frames = []
    for index, source in enumerate(sources):
        count = _attempt(functools.partial(_estimate, source))
        frames.append(count if isinstance(count, int) else 0)
        if isinstance(count, Exception):
            outcomes[index] = count
    totals = _Totals(frames, progress)
    todo = [index for index in range(len(sources)) if index not in outcomes]
    if detector is None and min(workers, len(todo)) > 1:
        _in_processes(sources, todo, output, workers, min_face, totals, outcomes)
        todo = []
    for index in todo:
        finder = detector or _finder(sources[index], min_face)
        report = functools.partial(totals.update, index)
        work = functools.partial(extract, sources[index], output, finder, report)
        outcomes[index] = _attempt(work)
        totals.finish(index)
    return [outcomes[index] for index in range(len(sources))]


def _finder(source: Source, min_face: float | None) -> FaceFinder:
    return FaceFinder(PHOTO_FACE_PX if min_face is None and source.photos else min_face)


def _estimate(source: Source) -> int:
    return len(source.photos) or estimate_frames(source.path)


def _attempt(work: Callable[[], _Thing]) -> _Thing | Exception:
    """What work on one source returns, or its error; what would befall all sources is raised."""
    try:
        return work()
    except (MissingExtraError, WorkdirError, _StoppedError):
        raise
    except Exception as error:
        return error


def _in_processes(
    sources: Sequence[Source],
    todo: Sequence[int],
    output: Path,
    workers: int,
    min_face: float | None,
    totals: _Totals,
    outcomes: dict[int, Outcome],
) -> None:
    """Works on sources side by side; one that ends its process is found and left out."""
    while rest := [index for index in todo if index not in outcomes]:
        suspects = _in_pool(
            sources, rest, output, min(workers, len(rest)), min_face, totals, outcomes
        )
        for index in suspects:
            if _in_pool(sources, [index], output, 1, min_face, totals, outcomes):
                shutil.rmtree(sources[index].partial(output), ignore_errors=True)
                outcomes[index] = VideoError(
                    "the process that read it was ended by the system",
                    path=sources[index].path,
                    remedy="it may be damaged, or too large for the memory: convert it, or leave "
                    "it out",
                )


def _in_pool(
    sources: Sequence[Source],
    todo: Sequence[int],
    output: Path,
    workers: int,
    min_face: float | None,
    totals: _Totals,
    outcomes: dict[int, Outcome],
) -> list[int]:
    """Fills in outcomes. Returns the sources that were at work when a process died."""
    context = multiprocessing.get_context("spawn")  # a fork of one that runs threads can hang
    reports, stop = context.SimpleQueue(), context.Event()
    begun: set[int] = set()
    died: BaseException | None = None
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(reports, stop, min_face)
    ) as pool:
        try:
            futures = {pool.submit(_work, index, sources[index], output): index for index in todo}
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=_EVERY_S, return_when=FIRST_COMPLETED)
                while not reports.empty():
                    index, done, total = reports.get()
                    begun.add(index)
                    if total:
                        totals.update(index, done, total)
                for future in finished:
                    if isinstance(future.exception(), BrokenProcessPool):
                        died = future.exception()
                        continue
                    index = futures[future]
                    outcomes[index] = _attempt(future.result)
                    totals.finish(index)
        except BrokenProcessPool as error:  # of a submission
            died = error
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    suspects = sorted(begun - outcomes.keys())
    if died is not None and not suspects:  # before any work
        raise died
    return suspects


_shared: dict[str, Any] = {}


def _begin(reports: Any, stop: Any, min_face: float | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    jax.config.update("jax_platforms", "cpu")  # a GPU would not serve several processes
    _shared.update(reports=reports, stop=stop, min_face=min_face)


def _work(index: int, source: Source, output: Path) -> dict[str, Any]:
    last = 0.0
    _shared["reports"].put((index, 0, 0))

    def report(done: int, total: int) -> None:
        nonlocal last
        if _shared["stop"].is_set():
            raise _StoppedError
        now = time.monotonic()
        if now - last >= _EVERY_S or done == total:
            last = now
            _shared["reports"].put((index, done, total))

    return extract(source, output, _finder(source, _shared["min_face"]), report)
