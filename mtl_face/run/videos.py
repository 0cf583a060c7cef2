"""Aligned face crops out of videos and photos (`run.py prepare --videos`)."""

import os
from pathlib import Path
from typing import Any

from mtl_face import files
from mtl_face.errors import ImageError, shortened
from mtl_face.faces import extract, layout
from mtl_face.faces.video import VideoError
from mtl_face.run import Progress, Say

_SHOWN = 10


def cut_faces(path: Path, output: Path, *, say: Say, progress: Progress) -> tuple[int, Path]:
    """Cuts the faces out of a video, a photo or a folder of them; finished sources are left alone.

    `output` is new, empty, or of an earlier call; `progress` counts frames.

    Returns:
        The number of crops, and the absolute path of the output, which holds what `faces.layout`
        names.

    Raises:
        UserError: nothing is found, or the output cannot be written; or, after all the others are
            done, for videos that cannot be read.
    """
    sources = layout.find_sources(path)
    output = layout.open_output(output)
    records = {source.name: layout.read_record(output, source) for source in sources}
    todo = [source for source in sources if records[source.name] is None]
    photos = sum(len(source.photos) for source in sources)
    videos = sum(not source.photos for source in sources)
    say(f"{path}: videos {videos:,}, photos {photos:,}")
    if len(todo) < len(sources):
        say(f"finished before and left alone: {len(sources) - len(todo):,} of {len(sources):,}")
    outcomes = extract.extract_all(todo, output, workers=os.cpu_count() or 1, progress=progress)
    failed = []
    for source, outcome in zip(todo, outcomes, strict=True):
        if isinstance(outcome, VideoError):
            failed.append(outcome)
        else:
            records[source.name] = outcome
            say(_summary(outcome))
    count = layout.write_lists(output, [record for record in records.values() if record])
    if failed:
        head = f"videos that cannot be read: {len(failed)} (crops of the others: {count:,})"
        raise VideoError(
            "\n  ".join([head, *shortened(failed, _SHOWN, files.first_words)]),
            remedy="repair or remove them, and run this again; it does the unfinished ones alone",
        )
    if not count:
        raise ImageError(
            "no face was found in any frame",
            path=path,
            remedy="look at the videos: are faces upright, and wider than about 40 pixels?",
        )
    return count, output


def _summary(record: dict[str, Any]) -> str:
    people = ", ".join(f"{person['video']} {len(person['rows']):,}" for person in record["people"])
    text = f"{record['source']}: {record['frames']:,} frames; crops: {people or 'none, no face'}"
    notes = shortened(record["notes"], _SHOWN)
    if record["ignored_faces"]:
        notes.append(f"faces of passers-by left out: {record['ignored_faces']:,}")
    return "\n".join([text, *(f"  {note}" for note in notes)])
