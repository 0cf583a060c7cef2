"""Photos, videos and cameras answered by a model, and written as tables of faces."""

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_face import files, locks
from mtl_face.errors import ConfigError, ImageError, UserError, shortened
from mtl_face.evaluation import face_files
from mtl_face.face_table import MEAN_OF_PERSON, FaceTable
from mtl_face.faces.detect import PHOTO_FACE_PX, FaceFinder
from mtl_face.inference.baseline import Baselines, neutrality
from mtl_face.inference.predictor import Predictor
from mtl_face.inference.stream import (
    Finder,
    Seen,
    about,
    check_crops,
    keyed,
    neutral_points,
    takes_baseline,
    with_answers,
)
from mtl_face.inputs import POINTS
from mtl_face.run import Progress, Say
from mtl_face.run.faces import first_pass, persons_over_time, sources
from mtl_face.run.faces.digest import Digest
from mtl_face.run.faces.journal import VERSION, Entry, Journal
from mtl_face.run.faces.products import Products, Wanted
from mtl_face.run.faces.sources import PHOTO, Source
from mtl_face.run.postprocess import PostProcessing
from mtl_face.tables import PredictionTable

_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Request:
    """What to look at, and what to write.

    Attributes:
        inputs: photos, folders, patterns of names, videos, `camera:0`.
        outputs: tables to write, of `face_files.ENDINGS`.
        mesh: whether they have all points of a face.
        relative: whether persons of videos and cameras are judged by how they differ from
            themselves at rest, by a model that takes points.
        neutral: a picture of the person at rest, from whom all faces are to differ.
        min_face: height of the smallest faces that are looked for, in pixels; None: as
            `FaceFinder` of videos and cameras, `PHOTO_FACE_PX` of photos.
        wanted: what to make besides tables.
    """

    inputs: Sequence[str | Path]
    outputs: Sequence[Path] = ()
    mesh: bool = False
    relative: bool = True
    neutral: Path | None = None
    min_face: float | None = None
    wanted: Wanted = dataclasses.field(default_factory=Wanted)

    @property
    def keeps_mesh(self) -> bool:
        """Whether the points are needed: in tables, or for the lines of hidden faces."""
        return self.mesh or self.wanted.anonymise


def predict_faces(
    predictor: Predictor,
    request: Request,
    *,
    steps: PostProcessing,
    say: Say,
    progress: Progress,
    finder: Finder | None = None,
    drawing: Progress | None = None,
) -> Digest:
    """Answers all faces of all inputs.

    What is done lies in a hidden file beside the first file to write until all is done: after an
    interruption, the same request goes on from there.

    Args:
        predictor: the model.
        request: see there.
        steps: smoothing and calibration of videos, and calibration of photos.
        say: called with each line for the user.
        progress: called with frames and photos done and in all.
        finder: finds faces; None: the networks of this package.
        drawing: called with annotated pictures done and in all.

    Returns:
        What was found, in brief.

    Raises:
        UserError: nothing can be read, or an output cannot be written; or, after all the others
            are written, for inputs that cannot be read.
    """
    check_crops(predictor)
    found = sources.find(request.inputs)
    for line in found.notes:
        say(line)
    _check_outputs(request, found.all)
    failed: list[UserError] = list(found.failed)
    digest = Digest()
    if found.all:
        of_photos = finder or FaceFinder(request.min_face or PHOTO_FACE_PX)
        finder = finder or FaceFinder(request.min_face)
        neutral = None
        if request.neutral is not None:
            neutral = neutral_points(predictor, request.neutral, of_photos)
        with _journal(request, predictor, found.all, say) as journal:
            work = first_pass.Pass(
                journal,
                found.all,
                predictor,
                finder,
                of_photos,
                mesh=request.keeps_mesh,
                relative=request.relative and neutral is None and takes_baseline(predictor),
                neutral=neutral,
                progress=progress,
            )
            failed += work.do().values()
            products = Products(
                request.wanted, found.all, say=say, progress=drawing or (lambda *_: None)
            )
            _write(work, request, steps, (digest, products), say)
            if journal.entries:
                products.finish()
            journal.delete()
    if not request.outputs and digest.rows:
        for line in digest.lines():
            say(line)
    _raise_failed(failed, digest)
    return digest


def _check_outputs(request: Request, all_: Sequence[Source]) -> None:
    """Raises ConfigError or WorkdirError for files that cannot be, or that are inputs."""
    for output in request.outputs:
        files.require_writable_file(face_files.check_ending(output))
    request.wanted.check(all_)
    inputs = {_identity(source.path) for source in all_} - {None}
    for made in (*request.outputs, *request.wanted.files(all_)):
        if _identity(made) in inputs:
            raise ConfigError(
                f"{made} is one of the inputs, and would be overwritten",
                remedy="give another file to write",
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _journal(
    request: Request, predictor: Predictor, all_: Sequence[Source], say: Say
) -> Iterator[Journal]:
    """The journal of a request, and what to say where the work is interrupted."""
    inputs = [[source.name, source.kind, *_fingerprint(source)] for source in all_]
    work = {
        VERSION: 3,
        "inputs": inputs,
        "weights": predictor.origin.get("weights_sha256"),
        "program": predictor.origin.get("program_sha256"),
        "step": predictor.step,
        "mesh": request.keeps_mesh,
        "relative": request.relative,
        "min_face": request.min_face,
        "neutral": None if request.neutral is None else files.sha256(request.neutral),
    }
    with contextlib.ExitStack() as stack:
        named = [*request.outputs, *request.wanted.files(all_)]
        if named:
            first = Path(named[0]).absolute()
        else:
            first = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "rows"
        path = first.with_name(f".{first.name}.unfinished")
        held = locks.hold(
            files.make_folder(first.parent) / f"{path.name}.lock",
            what=f"{first.name} is being made",
            remedy="wait for that process, stop it, or give another --output",
            say=say,
        )
        require = stack.enter_context(held).require
        journal = stack.enter_context(Journal(path, work, require, say))
        if journal.entries:
            done = len(first_pass.finished(journal))
            say(f"going on with {path}: {done:,} of {len(all_):,} photos and videos are done")
        try:
            yield journal
        except KeyboardInterrupt:
            if named:
                say(f"what is done is kept in {path}: the same command goes on with it")
            raise


def _fingerprint(source: Source) -> list[int]:
    """Size and time of change of a file; nothing of a camera."""
    try:
        status = source.path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _write(
    work: first_pass.Pass,
    request: Request,
    steps: PostProcessing,
    others: tuple[Digest, Products],
    say: Say,
) -> None:
    """Writes the rows of the first pass to all outputs, and gives them to others."""
    entries = work.journal.entries
    if not entries:
        return
    for entry in entries:
        for remark in entry.notes.get("remarks", []):
            say(remark)
    made_by = entries[0].notes["metadata"]
    metadata = about(made_by)
    if steps.smoothing is not None:
        metadata["smoothing"] = steps.smoothing.to_dict()
    if steps.calibration is not None:
        metadata["calibration"] = steps.file
    with contextlib.ExitStack() as stack:
        takers: list[Callable[[FaceTable], None]] = []
        for output in request.outputs:
            writing = face_files.writing(output, mesh=request.mesh, metadata=metadata)
            takers.append(stack.enter_context(writing))
        digest, products = others
        stack.enter_context(products)
        for table in _tables(work, made_by, steps, say):
            digest.add(table)
            products.add(table)
            if not request.mesh:
                table = dataclasses.replace(table, mesh=None)
            for take in takers:
                take(table)
    for output in request.outputs:
        say(f"faces: {output}")


def _tables(
    work: first_pass.Pass, metadata: dict[str, Any], steps: PostProcessing, say: Say
) -> Iterator[FaceTable]:
    """The answered rows of all sources, in their order, a record at a time."""
    say_once = _once(say)
    entries = sorted(work.journal.entries, key=lambda entry: entry.notes["sources"][0])
    for place, group in itertools.groupby(entries, lambda entry: entry.notes["sources"][0]):
        records = _Records(work, tuple(group), metadata)
        if work.sources[place].kind == PHOTO:
            yield from _processed(records, steps.of_photos(), say_once)
            continue
        if work.is_second(place):
            records = records.judged()
        yield from _processed(records, steps, say_once)


@dataclasses.dataclass(frozen=True, eq=False)
class _Records:
    """The rows of a source; iterating reads them from the journal, a record at a time.

    Attributes:
        baselines: points beside which the faces are answered again.
        answers: those of all faces, in place of the journal's.
    """

    work: first_pass.Pass
    entries: Sequence[Entry]
    metadata: dict[str, Any]
    baselines: Baselines | None = None
    answers: PredictionTable | None = None

    def __iter__(self) -> Iterator[Seen]:
        begin = 0
        for entry in self.entries:
            seen = first_pass.unpacked(self.work.journal.read(entry), self.metadata)
            if self.answers is not None:
                rows = begin + np.arange(len(seen.predictions))
                predictions = keyed(self.answers.take(rows), seen.table)
                seen = dataclasses.replace(seen, predictions=predictions)
                begin += len(rows)
            if self.baselines is not None:
                person_F = seen.table.person[seen.table.has_face]
                known = self.baselines.known(person_F)
                seen = seen.relative(self.work.predictor, *known, MEAN_OF_PERSON)
            yield seen

    def judged(self) -> "_Records":
        """The same, judged by all of these rows.

        By a network over time; by another each person beside the points at rest that they tell.
        """
        if self.work.predictor.frames is not None:
            folder = self.work.journal.path.parent
            return dataclasses.replace(
                self, answers=persons_over_time.answers(self.work.predictor, self, folder)
            )
        baselines = Baselines()
        for seen in self:
            if len(seen.predictions):
                person_F = seen.table.person[seen.table.has_face]
                baselines.add(person_F, seen.arrays[POINTS], neutrality(seen.predictions))
        return dataclasses.replace(self, baselines=baselines)


def _processed(records: _Records, steps: PostProcessing, say: Say) -> Iterator[FaceTable]:
    """The answered rows of a source, smoothed and calibrated.

    To be smoothed, all answers are in memory at once.
    """
    if steps.smoothing is None:
        for seen in records:
            if steps.calibration is not None and len(seen.predictions):
                seen = dataclasses.replace(seen, predictions=steps.apply(seen.predictions, say)[0])
            yield seen.answered()
        return
    answers = PredictionTable.joined([seen.predictions for seen in records])
    if len(answers):
        answers, _ = steps.apply(answers, say)
    begin = 0
    for seen in records:
        end = begin + len(seen.predictions)
        yield with_answers(seen.table, answers.take(np.arange(begin, end)))
        begin = end


def _once(say: Say) -> Say:
    """Says each line once: what is done to one source is done to all."""
    said: set[str] = set()

    def tell(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return tell


def _raise_failed(failed: Sequence[UserError], digest: Digest) -> None:
    """Raises one error for all inputs that cannot be read, if there are any."""
    if not failed:
        return
    if len(failed) == 1 and not digest.rows:
        raise failed[0]
    head = f"inputs that cannot be read: {len(failed):,} (rows of the others: {digest.rows:,})"
    raise ImageError(
        "\n  ".join([head, *shortened(failed, _SHOWN, _in_a_line)]),
        remedy="repair them or leave them out",
    )


def _in_a_line(error: UserError) -> str:
    return " ".join(str(error).split())
