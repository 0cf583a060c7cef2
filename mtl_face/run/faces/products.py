"""What is made of rows besides tables: annotated pictures, a timeline, a summary with events.

Pictures are decoded once more, when the rows are final: smoothing needs the whole video first. What
draws is imported where it is used, since its libraries would delay every answer.
"""

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mtl_face import files, pictures
from mtl_face.errors import ConfigError, ImageError
from mtl_face.evaluation import face_summary
from mtl_face.evaluation.face_events import EventRules
from mtl_face.face_table import NOT_DECODED, FaceTable
from mtl_face.faces.video import VideoError, VideoFrame, ahead, estimate_frames, open_video
from mtl_face.run import Progress, Say
from mtl_face.run.faces.sources import CAMERA, PHOTO, VIDEO, Source

if TYPE_CHECKING:
    from mtl_face.report.annotated_files import AnnotatedVideo

_AHEAD = 4  # frames decoded in advance

_UNREADABLE = (ImageError, VideoError)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What to make; None: not.

    Attributes:
        annotate: the annotated photo or video of one source, or a folder for those of all.
        anonymise: whether faces are hidden in them.
        plot: timeline, of `face_timeline.ENDINGS`.
        summary: where `face_summary.paths` puts the summary and the events.
        rules: what an event is.
    """

    annotate: Path | None = None
    anonymise: bool = False
    plot: Path | None = None
    summary: Path | None = None
    rules: EventRules = dataclasses.field(default_factory=EventRules)

    def check(self, sources: Sequence[Source]) -> None:
        """Raises before any work what would fail after it.

        Raises:
            ConfigError: settings that do not fit the sources or each other.
            AnnotationOutputError, TimelineError: a name that is of no format.
            WorkdirError: a place that cannot be written.
        """
        if self.anonymise and self.annotate is None:
            raise ConfigError(
                "--anonymise without --annotate", remedy="say where annotated pictures go"
            )
        if self.annotate is not None:
            cameras = [source.name for source in sources if source.kind == CAMERA]
            if cameras:
                raise ConfigError(
                    f"--annotate: the pictures of {cameras[0]} are not kept",
                    remedy="record a video with another program, and name that",
                )
        if all(source.kind == PHOTO for source in sources):
            for flag, value in (("--plot", self.plot), ("--summary", self.summary)):
                if value is not None:
                    raise ConfigError(
                        f"{flag} without a video", remedy="of photos, look at the table (--output)"
                    )
        if self.plot is not None:
            from mtl_face.report import face_timeline

            face_timeline.check_ending(self.plot)
        for path in self.files(sources):
            files.require_writable_file(path)

    def files(self, sources: Sequence[Source]) -> list[Path]:
        """All files that are made of these sources."""
        made: list[Path] = []
        if self.annotate is not None:
            made += annotated_paths(self.annotate, sources).values()
        if self.plot is not None:
            made.append(self.plot)
        if self.summary is not None:
            made += face_summary.paths(self.summary)
        return made


def annotated_paths(target: Path, sources: Sequence[Source]) -> Mapping[str, Path]:
    """Where the annotated picture of each source goes, by the source's name.

    `target` is a file where there is one source and the name has an ending, else a folder.

    Raises:
        AnnotationOutputError: the ending is none for this kind of source.
        ConfigError: a file for several sources.
    """
    from mtl_face.report import annotated_files

    named = {**annotated_files.PHOTO_ENDINGS, **annotated_files.VIDEO_ENDINGS}
    if not target.is_dir():
        if len(sources) == 1 and target.suffix:
            (source,) = sources
            is_video = source.kind == VIDEO
            return {source.name: annotated_files.require_ending(target, video=is_video)}
        if target.suffix.lower() in named:
            raise ConfigError(
                f"--annotate={target} is one file for {len(sources):,} sources",
                remedy="name a folder",
            )
    stems = collections.Counter(source.path.stem for source in sources)
    found: dict[str, Path] = {}
    taken: set[Path] = set()
    for source in sources:
        # Of sources that share a name, their whole path tells which is which.
        alone = stems[source.path.stem] == 1
        stem = source.path.stem if alone else files.plain_name(source.name).strip("._")
        ending = ".mp4" if source.kind == VIDEO else ".jpg"
        path = target / f"{stem}_annotated{ending}"
        for number in itertools.count(2):
            if path not in taken:
                break
            path = target / f"{stem}_{number}_annotated{ending}"
        taken.add(path)
        found[source.name] = path
    return found


class Products:
    """Takes the rows of all sources in their order; a context manager.

    The annotated picture of a source is there when the rows of the next one come, or the block
    ends; `finish` makes the rest.

    Args:
        wanted: what to make, checked.
        sources: all of them.
        say: called with each line for the user.
        progress: called with pictures drawn and in all.
    """

    def __init__(
        self, wanted: Wanted, sources: Sequence[Source], *, say: Say, progress: Progress
    ) -> None:
        self._wanted = wanted
        self._sources = {source.name: source for source in sources}
        self._say = say
        self._progress = progress
        self._paths: Mapping[str, Path] = {}
        self._total = self._drawn = 0
        if wanted.annotate is not None:
            self._paths = annotated_paths(wanted.annotate, sources)
            self._total = sum(map(_estimate, sources))
        self._kept: list[FaceTable] = []
        self._current: _Drawing | None = None

    def __enter__(self) -> Self:
        if self._paths:
            self._progress(0, self._total)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._current is not None:
            self._current.close(*error)
        if self._paths and error[0] is None:
            self._say(f"annotated: {self._wanted.annotate}")

    def add(self, faces: FaceTable) -> None:
        """Takes the next rows."""
        if self._wanted.plot is not None or self._wanted.summary is not None:
            self._kept.append(dataclasses.replace(faces, mesh=None))
        if not self._paths or not len(faces):
            return
        changes = np.flatnonzero(faces.source[1:] != faces.source[:-1]) + 1
        for rows in np.split(np.arange(len(faces)), changes):
            self._draw(str(faces.source[rows[0]]), faces.take(rows))

    def finish(self) -> None:
        """Writes timeline and summary.

        Raises:
            TimelineError, EventError: no video has a face.
            WorkdirError: a file cannot be written.
        """
        faces = FaceTable.joined(self._kept)
        if self._wanted.summary is not None:
            summary = face_summary.summarise(faces, self._wanted.rules)
            for line in summary.in_words():
                self._say(line)
            for path in summary.write(self._wanted.summary):
                self._say(f"summary: {path}")
        if self._wanted.plot is not None:
            from mtl_face.report import face_timeline

            face_timeline.write_timeline(self._wanted.plot, faces)
            self._say(f"timeline: {self._wanted.plot}")

    def _draw(self, name: str, faces: FaceTable) -> None:
        if self._current is None or self._current.name != name:
            if self._current is not None:
                self._current.close(None, None, None)
            self._current = _Drawing(
                self._sources[name], self._paths[name], self._wanted.anonymise, self._say
            )
        for _ in self._current.add(faces):
            self._drawn += 1
            self._progress(self._drawn, max(self._total, self._drawn))


def _estimate(source: Source) -> int:
    """How many pictures a source has; 1 of a video that cannot be read, which others tell."""
    with contextlib.suppress(VideoError):
        return max(1, estimate_frames(source.path)) if source.kind == VIDEO else 1
    return 1


class _Drawing:
    """The annotated picture of one source."""

    def __init__(self, source: Source, path: Path, anonymise: bool, say: Say) -> None:
        self.name = source.name
        self._source = source
        self._path = path
        self._anonymise = anonymise
        self._say = say
        self._video: AnnotatedVideo | None = None
        self._frames: Generator[VideoFrame, None, None] | None = None
        self._failed = False

    def add(self, faces: FaceTable) -> Iterator[None]:
        """Draws the next rows; yields after each picture."""
        from mtl_face.report.annotated_files import AnnotatedVideo, write_annotated_photo

        faces = faces.take(faces.status != NOT_DECODED)
        if self._failed or not len(faces):
            return
        try:
            if self._source.kind == PHOTO:
                picture = pictures.read(self._source.path).upright()
                write_annotated_photo(self._path, picture, faces, anonymise=self._anonymise)
                yield
                return
            if self._video is None or self._frames is None:
                self._frames = ahead(open_video(self._source.path), _AHEAD)
                video = AnnotatedVideo(self._path, self._source.path, anonymise=self._anonymise)
                self._video = video.__enter__()
            changes = np.flatnonzero(np.diff(faces.frame)) + 1
            for rows in np.split(np.arange(len(faces)), changes):
                number = int(faces.frame[rows[0]])
                for frame in self._frames:
                    if frame.number >= number:
                        self._video.write(frame, faces.take(rows))
                        yield
                        break
        except _UNREADABLE as error:
            self._failed = True
            self._say(f"{self.name}: not annotated, {error.problem}")
            self.close(type(error), error, None)

    def close(self, *error: Any) -> None:
        """Ends the file: it is there if `error`, as of `__exit__`, is none."""
        video, self._video = self._video, None
        if self._frames is not None:
            self._frames.close()
        if video is None:
            return
        if error[0] is None:
            video.__exit__(None, None, None)
            for note in video.notes:
                self._say(f"{self.name}: {note}")
            return
        with contextlib.suppress(error[0]):
            video.__exit__(*error)
