"""The first pass over sources: frames are decoded, faces found and answered, all of it journaled.

Decoding, finding and answering run side by side. A record of the journal holds the rows of some
frames of a video, or of some photos. Its notes: `sources`, by their place among all; `done`,
whether nothing more is to come of them; `failed`, photos that cannot be read; `remarks` for the
user; of a video the `last` frame.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face import pictures
from mtl_face.errors import ImageError, UserError
from mtl_face.face_table import FaceTable
from mtl_face.faces import camera
from mtl_face.faces.video import (
    Video,
    VideoError,
    ahead,
    batched,
    estimate_frames,
    open_video,
)
from mtl_face.inference.predictor import Predictor
from mtl_face.inference.stream import FaceStream, Finder, Seen, Sight, keyed, see
from mtl_face.inputs import BASELINE, POINTS, is_input
from mtl_face.run import Progress
from mtl_face.run.faces.journal import Journal, Record
from mtl_face.run.faces.sources import CAMERA, PHOTO, VIDEO, Source
from mtl_face.tables import KEY_COLUMNS, PredictionTable

_TOGETHER = 8  # frames or photos answered at a time

_RECORD, _RECORD_S = 64, 5.0  # frames and seconds of work in a record at most

_STATE = "state"  # array with the JSON in which following goes on

_UNREADABLE = (ImageError, VideoError, camera.CameraError)


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """Sources, and how their frames become rows.

    Attributes:
        journal: takes the rows, and says what is done already.
        sources: all of them.
        predictor: the network.
        finder: finds the faces of videos and cameras.
        photo_finder: finds those of photos.
        mesh: whether all points are kept.
        relative: whether persons of videos and cameras are judged by how they differ from
            themselves at rest. Of cameras, and for networks that take pixels too, that is done
            here, from what earlier frames showed; else see `is_second`.
        neutral: normalised points of a neutral picture, float32 [V, 3], taken out of all faces; or
            None.
        progress: called with frames and photos done and in all; the latter is an estimate, and 0
            while a camera is at work.
    """

    journal: Journal
    sources: Sequence[Source]
    predictor: Predictor
    finder: Finder
    photo_finder: Finder
    mesh: bool
    relative: bool
    neutral: NDArray[np.float32] | None
    progress: Progress

    def is_second(self, place: int) -> bool:
        """Whether points or tokens of a source's faces are kept, to be judged when all is known."""
        kind = self.sources[place].kind
        if self.predictor.frames is not None:
            return kind != PHOTO
        return kind == VIDEO and self.relative and self.predictor.inputs == (POINTS,)

    def do(self) -> dict[int, UserError]:
        """Works on all sources that are not done; Ctrl-C ends a camera, and is raised elsewhere.

        Returns:
            Why sources cannot be read, by place; the others are done.

        Raises:
            WorkdirError: the journal cannot be written.
            MissingExtraError: a library is not installed.
        """
        failed: dict[int, UserError] = {}
        done = finished(self.journal)
        counts = _Counts(self.sources, self.progress)
        for place, source in enumerate(self.sources):
            try:
                if place in done:
                    counts.total[place] = 0
                elif source.kind == VIDEO:
                    counts.total[place] = estimate_frames(source.path)
            except VideoError as error:
                failed[place] = error
        todo = [place for place in range(len(self.sources)) if place not in {*done, *failed}]
        for is_photo, group in itertools.groupby(todo, self._is_photo):
            for places in [list(group)] if is_photo else [[place] for place in group]:
                try:
                    self._add(self._batches(places), counts)
                except _UNREADABLE as error:
                    failed[places[0]] = error
                except KeyboardInterrupt:
                    if self.sources[places[0]].kind != CAMERA:
                        raise
        for entry in self.journal.entries:
            for place, (problem, remedy) in entry.notes.get("failed", []):
                path = self.sources[place].path
                failed[place] = ImageError(problem, path=path, remedy=remedy)
        return failed

    def _is_running(self, place: int) -> bool:
        """Whether the faces of a source are judged by earlier frames."""
        return self.relative and not self.is_second(place)

    def _is_photo(self, place: int) -> bool:
        return self.sources[place].kind == PHOTO

    def _batches(self, places: Sequence[int]) -> "Iterator[_Batch]":
        kind = self.sources[places[0]].kind
        if kind == PHOTO:
            return self._photos(places)
        return self._video(places[0]) if kind == VIDEO else self._camera(places[0])

    def _add(self, batches: "Iterator[_Batch]", counts: "_Counts") -> None:
        """Answers and journals batches, which are found in another thread meanwhile."""
        pending = _Pending(self.journal)
        try:
            for batch in ahead(batches, 2):
                pending.add(batch, self._answer(batch))
                for place, sight in zip(itertools.cycle(batch.sources), batch.sights):
                    counts.update(place, sight.number)
        finally:
            pending.write()
            counts.finish()

    def _answer(self, batch: "_Batch") -> Seen:
        """Answers each face by itself, beside the neutral picture, or beside earlier frames."""
        if batch.stream is not None and self._is_running(batch.sources[0]):
            return dataclasses.replace(batch.stream.answer(batch.sights), arrays={})
        seen = see(self.predictor, batch.sights, mesh=self.mesh)
        if self.neutral is not None:
            seen = seen.beside(self.predictor, self.neutral)
        kept = () if not self.is_second(batch.sources[0]) else seen.arrays.keys() - {BASELINE}
        return dataclasses.replace(seen, arrays={name: seen.arrays[name] for name in kept})

    def _photos(self, places: Sequence[int]) -> "Iterator[_Batch]":
        """Photos, each a source of one frame; the largest face is person 1."""

        def read(place: int) -> tuple[int, pictures.Picture | ImageError]:
            try:
                return place, pictures.read(self.sources[place].path)
            except ImageError as error:
                return place, error

        for batch in batched(ahead(map(read, places), 4), _TOGETHER):
            sights, failed, remarks = [], [], []
            for place, photo in batch:
                name = self.sources[place].name
                if isinstance(photo, ImageError):
                    failed.append((place, (photo.problem, photo.remedy)))
                    sights.append(Sight(name, 1, None, None))
                    continue
                if photo.is_first:
                    remarks.append(f"{name}: holds several pictures, the first was taken")
                picture = photo.upright()
                faces = self.photo_finder(picture)
                persons = range(1, len(faces) + 1)
                sights.append(Sight(name, 1, None, picture, faces, persons))
            notes = {"failed": failed, "remarks": remarks}
            yield _Batch([place for place, _ in batch], sights, notes, done=True)

    def _stream(self, place: int) -> tuple[FaceStream, int]:
        """Follows the faces of a source, from what the journal has of it; its last frame."""
        name = self.sources[place].name
        stream = FaceStream(self.predictor, source=name, finder=self.finder, mesh=self.mesh)
        newest = None
        for entry in self.journal.entries:
            if entry.notes["sources"] == [place]:
                newest = entry
        if newest is None:
            return stream, 0
        stream.restore(*json.loads(self.journal.read(newest).arrays[_STATE].tobytes()))
        return stream, newest.notes["last"]

    def _video(self, place: int) -> "Iterator[_Batch]":
        source = self.sources[place]
        video = open_video(source.path)
        stream, last = self._stream(place)
        for frames in batched(ahead(video.after(last), _TOGETHER), _TOGETHER):
            sights = []
            for frame in frames:
                sights += [
                    Sight(source.name, number, None, None)
                    for number in range(last + 1, frame.number)
                ]
                sights += stream.find([frame])
                last = frame.number
            yield _Batch([place], sights, {"last": last}, stream, stream.tracks())
        lost = [
            Sight(source.name, number, None, None) for number in range(last + 1, video.frames + 1)
        ]
        remarks = [f"{source.name}: {remark}" for remark in _remarks(video)]
        notes = {"last": max(last, video.frames), "remarks": remarks}
        yield _Batch([place], lost, notes, stream, stream.tracks(), done=True)

    def _camera(self, place: int) -> "Iterator[_Batch]":
        source = self.sources[place]
        stream, _ = self._stream(place)
        for frames in batched(camera.frames(int(str(source.path))), _TOGETHER):
            sights = stream.find(frames)
            yield _Batch([place], sights, {"last": frames[-1].number}, stream, stream.tracks())


@dataclasses.dataclass(frozen=True, eq=False)
class _Batch:
    """Frames on their way to the network, and what their record notes."""

    sources: list[int]
    sights: list[Sight]
    notes: Mapping[str, Any]
    stream: FaceStream | None = None
    tracks: Any = None  # of the stream, after these frames
    done: bool = False


class _Counts:
    """Sums what is done over the sources; what was counted replaces the estimates."""

    def __init__(self, sources: Sequence[Source], progress: Progress) -> None:
        self.total = [int(source.kind == PHOTO) for source in sources]
        self._done = [0] * len(sources)
        self._sources = sources
        self._progress = progress

    def update(self, place: int, done: int) -> None:
        """Notes the last frame of a source that is done."""
        self._done[place] = done
        self.total[place] = max(self.total[place], done)
        endless = self._sources[place].kind == CAMERA
        self._progress(sum(self._done), 0 if endless else sum(self.total))

    def finish(self) -> None:
        """Tells that a source has ended, as a camera does at some time."""
        done = sum(self._done)
        if done:
            self._progress(done, max(done, sum(self.total)))


class _Pending:
    """Rows that are answered and not journaled yet; a few seconds' work at most."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._parts: list[Seen] = []
        self._last: _Batch | None = None
        self._frames = 0
        self._written = time.monotonic()

    def add(self, batch: _Batch, seen: Seen) -> None:
        """Takes the rows of a batch of the same source as those before, or of photos."""
        self._parts.append(seen)
        self._last = batch
        self._frames += len(batch.sights)
        waited = time.monotonic() - self._written
        if batch.done or self._frames >= _RECORD or waited > _RECORD_S:
            self.write()

    def write(self) -> None:
        """Journals what is there."""
        if self._last is None:
            return
        names = self._parts[0].arrays
        seen = Seen(
            FaceTable.joined([part.table for part in self._parts]),
            PredictionTable.joined([part.predictions for part in self._parts]),
            {name: np.concatenate([part.arrays[name] for part in self._parts]) for name in names},
        )
        arrays = packed(seen)
        if self._last.stream is not None:
            state = [self._last.tracks, self._last.stream.learned()]
            arrays[_STATE] = np.frombuffer(json.dumps(state).encode(), np.uint8)
        notes = {"sources": self._last.sources, "done": self._last.done, **self._last.notes}
        if not self._journal.entries:
            notes["metadata"] = dict(seen.predictions.metadata)
        self._journal.add(arrays, **notes)
        self._parts, self._last, self._frames = [], None, 0
        self._written = time.monotonic()


def finished(journal: Journal) -> set[int]:
    """Places of the sources that are done."""
    done: set[int] = set()
    for entry in journal.entries:
        if entry.notes["done"]:
            done.update(entry.notes["sources"])
    return done


def packed(seen: Seen) -> dict[str, NDArray[Any]]:
    """Rows as arrays of a record."""
    table = {f"table.{name}": value for name, value in _arrays(seen.table)}
    kept = ((name, value) for name, value in _arrays(seen.predictions) if name not in KEY_COLUMNS)
    arrays = table | {f"predictions.{name}": value for name, value in kept}
    for name, array in seen.arrays.items():
        # Of points that is to 1/4000 of the eyes' distance.
        arrays[name] = array.astype(np.float16) if name == POINTS else array
    return arrays


def unpacked(record: Record, metadata: dict[str, Any]) -> Seen:
    """Inverse of `packed`; `metadata` are those of the predictions."""
    fields: dict[str, dict[str, Any]] = {"table": {}, "predictions": {}}
    for name, value in record.arrays.items():
        group, _, field = name.partition(".")
        if group in fields:
            fields[group][field] = value
    table = FaceTable(**fields["table"])
    blank = np.full(int(table.has_face.sum()), "")
    keys = {"dataset": blank, "video": blank, "image": blank, "frame": np.zeros(len(blank), int)}
    predictions = PredictionTable(**keys, **fields["predictions"], metadata=metadata)
    kept = {name: value for name, value in record.arrays.items() if is_input(name)}
    arrays = {name: v.astype(np.float32) if name == POINTS else v for name, v in kept.items()}
    return Seen(table, keyed(predictions, table), arrays)


def _arrays(table: FaceTable | PredictionTable) -> Iterator[tuple[str, NDArray[Any]]]:
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if field.name != "metadata" and value is not None:
            yield field.name, value


def _remarks(video: Video) -> list[str]:
    """What is odd about a decoded video, in words."""
    remarks = []
    if video.orientation != 1:
        words = pictures.TURNS[video.orientation].words
        remarks.append(f"{words}, as the file says, to be upright")
    if video.variable_rate:
        remarks.append("uneven frame rate: times are those of the frames")
    if video.numbered_by_count:
        remarks.append("no usable time stamps: frames are numbered by counting")
    if video.damaged:
        remarks.append(f"{video.damaged:,} frames or packets could not be decoded")
    return remarks
