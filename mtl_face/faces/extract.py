"""Cuts the faces out of one source: a video, or the photos of a folder.

Everything is written into a hidden folder first and moved at the end, then recorded: a source is
finished or not there at all.
"""

import queue
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, ImageOps

from mtl_face.faces import layout
from mtl_face.faces.align import crop_face
from mtl_face.faces.detect import Detector, Face
from mtl_face.faces.sources import Source
from mtl_face.faces.track import Person, Track, Tracker, people
from mtl_face.faces.video import open_video

JPEG_QUALITY = 95

MAX_PHOTO_PIXELS = 200_000_000

_AHEAD = 8  # frames that are decoded while others are searched

_Thing = TypeVar("_Thing")

Report = Callable[[int, int], None]
"""Called with the number of frames done and in all."""


def extract(source: Source, output: Path, detector: Detector, report: Report) -> dict[str, Any]:
    """Cuts the faces of a source and records them.

    Args:
        source: the video or photos.
        output: a folder from `layout.open_output`.
        detector: finds faces.
        report: is told of each frame; what it raises stops the work and leaves nothing behind.

    Returns:
        The record: `name`, `source`, `frames` in all, `damaged` frames, `ignored_faces` that
        belong to none of the people, `notes` in words, and `people`: for each `video` (its
        folder), `rows` (frame, seconds, source, score, landmarks) and `gaps` (first and last
        frame, reason).

    Raises:
        VideoError: the video cannot be read.
        WorkdirError: the output cannot be written.
    """
    partial = output / f".partial-{source.name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if source.photos:
            record = _extract_photos(source, partial, detector, report)
        else:
            record = _extract_video(source, partial, detector, report)
        _publish(source, partial, output, record)
    except OSError as error:
        raise layout.unwritable(output, error) from error
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
    for frame in _ahead(video):
        faces = detector(frame.picture)
        found += len(faces)
        for face, track in zip(faces, tracker.update(frame.number, faces), strict=True):
            _save(frame.picture, face, partial / f"track{track.number}", frame.number)
        seconds[frame.number] = frame.seconds
        report(len(seconds), max(video.frames, frame.number))
    chosen = people(tracker.tracks) if tracker.tracks else []
    total = max(video.frames, *seconds) if seconds else video.frames
    record = _record(source, total, len(seconds), video.damaged)
    record["people"] = [
        _gather(source, person, tracker.tracks, seconds, total, partial, name)
        for person, name in zip(chosen, _names(source.name, len(chosen)), strict=True)
    ]
    record["ignored_faces"] = found - sum(len(person["rows"]) for person in record["people"])
    if video.rotation:
        record["notes"].append(f"turned by {video.rotation} degrees to stand upright")
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
    """Photos are numbered by name; all but the largest face get folders of their own."""
    rows: list[list[dict[str, Any]]] = []
    unreadable: dict[int, str] = {}
    for number, path in enumerate(source.photos, start=1):
        try:
            picture = _read_photo(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unreadable[number] = f"unreadable: {error}"
            report(number, len(source.photos))
            continue
        for place, face in enumerate(detector(picture)):
            if place == len(rows):
                rows.append([])
            _save(picture, face, partial / f"face{place}", number)
            rows[place].append(_row(number, None, path.name, face))
        report(number, len(source.photos))
    total = len(source.photos)
    record = _record(source, total, total - len(unreadable), len(unreadable))
    for place, listed in enumerate(rows):
        name = source.name if place == 0 else f"{source.name}_face{place + 1}"
        seen = {row["frame"] for row in listed}
        # A photo with one face is no gap of the second.
        gaps = _gaps(seen, total, lambda number: unreadable.get(number, "no face"))
        record["people"].append({"video": name, "rows": listed, "gaps": [] if place else gaps})
        (partial / f"face{place}").rename(partial / f"done-{name}")
    record["notes"] += [
        f"{source.photos[number - 1].name}: {reason}" for number, reason in unreadable.items()
    ]
    return record


def _read_photo(path: Path) -> Image.Image:
    with Image.open(path) as image:
        if image.width * image.height > MAX_PHOTO_PIXELS:
            raise ValueError(f"more than {MAX_PHOTO_PIXELS:,} pixels")
        return ImageOps.exif_transpose(image).convert("RGB")


def _gather(
    source: Source,
    person: Person,
    tracks: list[Track],
    seconds: dict[int, float | None],
    total: int,
    partial: Path,
    name: str,
) -> dict[str, Any]:
    """Moves the crops of a person's tracks into one folder."""
    folder = partial / f"done-{name}"
    folder.mkdir()
    rows = []
    for frame, number in person.choice.items():
        track = tracks[number]
        file = _file(frame)
        (partial / f"track{number}" / file).rename(folder / file)
        face = track.faces[track.frames.index(frame)]
        rows.append(_row(frame, seconds[frame], source.path.name, face))
    gaps = _gaps(
        person.choice, total, lambda frame: "no face" if frame in seconds else "not decoded"
    )
    return {"video": name, "rows": rows, "gaps": gaps}


def _publish(source: Source, partial: Path, output: Path, record: dict[str, Any]) -> None:
    """Moves the finished folders to their place, in the stead of an older try's."""
    for old in (output / layout.CROPS).iterdir():
        if old.name in _possible_names(source, old.name):
            shutil.rmtree(old)
    for person in record["people"]:
        (partial / f"done-{person['video']}").rename(output / layout.CROPS / person["video"])
    layout.write_record(output, source, record)


def _names(name: str, count: int) -> list[str]:
    """Folders of a video's people: as in Aff-Wild2, two get the side on which they are seen."""
    return [name] if count == 1 else [f"{name}_left", f"{name}_right"][:count]


def _possible_names(source: Source, folder: str) -> set[str]:
    """Names of folders that an earlier try at the source may have left."""
    if source.photos:
        rest = folder.removeprefix(f"{source.name}_face")
        return {source.name, folder if rest.isdigit() else source.name}
    return {source.name, f"{source.name}_left", f"{source.name}_right"}


def _record(source: Source, frames: int, decoded: int, damaged: int) -> dict[str, Any]:
    return {
        "version": layout.RECORD_VERSION,
        "name": source.name,
        "source": source.path.name,
        "fingerprint": source.fingerprint(),
        "frames": frames,
        "decoded": decoded,
        "damaged": damaged,
        "ignored_faces": 0,
        "notes": [],
        "people": [],
    }


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
    folder.mkdir(exist_ok=True)
    crop_face(picture, face.landmarks).save(folder / _file(number), quality=JPEG_QUALITY)


def _file(number: int) -> str:
    return f"{number:05}.jpg"


def _ahead(things: Iterable[_Thing]) -> Iterator[_Thing]:
    """Iterates in a thread of its own, a few things ahead: decoding beside searching."""
    box: queue.Queue[tuple[str, Any]] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not stop.is_set():
            try:
                box.put((kind, value), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for thing in things:
                put("thing", thing)
                if stop.is_set():
                    return
            put("end", None)
        except BaseException as error:  # raised again by the consumer
            put("error", error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = box.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stop.set()
        thread.join()
