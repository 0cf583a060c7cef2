"""Aligned face crops out of videos and photos (`run.py prepare --videos`)."""

import os
from pathlib import Path
from typing import Any

from mtl_face import files
from mtl_face.errors import ImageError, UserError, escaped, shortened
from mtl_face.faces import extract, layout
from mtl_face.faces.video import VideoError
from mtl_face.run import Progress, Say

_SHOWN = 10


def cut_faces(
    path: Path, output: Path, *, min_face: float | None = None, say: Say, progress: Progress
) -> tuple[int, Path]:
    """Cuts the faces out of a video, a photo or a folder of them; finished sources are left alone.

    `output` is new, empty, or of an earlier call; `min_face` is as of `extract.extract_all`;
    `progress` counts frames.

    Returns:
        The number of crops, and the absolute path of the output, which holds what `faces.layout`
        names.

    Raises:
        UserError: nothing is found, or the output cannot be written; or, after all the others are
            done, for sources and photos that cannot be read.
    """
    found = layout.find_sources(path)
    sources = found.sources
    output = layout.open_output(output)
    records = {source.name: layout.read_record(output, source) for source in sources}
    todo = [source for source in sources if records[source.name] is None]
    photos = sum(len(source.photos) for source in sources)
    videos = sum(not source.photos for source in sources)
    say(f"{escaped(str(path))}: videos {videos:,}, photos {photos:,}")
    for line in found.left_aside_in_words():
        say(line)
    if len(todo) < len(sources):
        say(f"finished before and left alone: {len(sources) - len(todo):,} of {len(sources):,}")
    outcomes = extract.extract_all(
        todo, output, workers=os.cpu_count() or 1, progress=progress, min_face=min_face
    )
    failed: list[UserError] = list(found.closed)
    defects = []
    for source, outcome in zip(todo, outcomes, strict=True):
        if isinstance(outcome, UserError):
            failed.append(outcome)
        elif isinstance(outcome, Exception):
            defects.append((source, outcome))
        else:
            records[source.name] = outcome
            say(_summary(outcome))
    done = [record for record in records.values() if record]
    count = layout.write_lists(output, done)
    if defects:
        source, defect = defects[0]
        raise RuntimeError(f"a defect at {source.path}; the others are done") from defect
    if failed:
        head = f"sources that cannot be read: {len(failed)} (crops of the others: {count:,})"
        raise VideoError(
            "\n  ".join([head, *shortened(failed, _SHOWN, files.first_words)]),
            remedy="repair them or move them elsewhere, and run this again; it does the unfinished "
            "ones alone",
        )
    unread = sum(record["frames"] - record["decoded"] for record in done if record["photos"])
    if unread and count:
        raise ImageError(
            f"photos that cannot be read: {unread:,} (crops of the others: {count:,})",
            path=output / layout.GAPS,
            remedy="that list names them with the reason; repair them or move them elsewhere, and "
            "run this again",
        )
    if not any(record["decoded"] for record in done):
        raise ImageError(
            "no frame and no photo can be decoded",
            path=path,
            remedy="the reasons are above; repair the files, or copy them again",
        )
    if not count:
        raise ImageError(
            "no face was found in any frame",
            path=path,
            remedy="look at the pictures: are faces upright? --min_face=20 looks for faces from "
            "20 pixels of height on",
        )
    return count, output


def _summary(record: dict[str, Any]) -> str:
    people = [person for person in record["people"] if person["rows"]]
    if record["photos"]:
        having = len({person["source"] for person in people})
        text = f"photos {record['frames']:,}, with a face {having:,}; crops {len(people):,}"
    else:
        listed = ", ".join(f"{person['video']} {len(person['rows']):,}" for person in people)
        text = f"{record['frames']:,} frames; crops: {listed or 'none, no face'}"
    notes = shortened(record["notes"], _SHOWN)
    if record["ignored_faces"]:
        notes.append(f"faces of passers-by left out: {record['ignored_faces']:,}")
    return "\n".join([f"{record['source']}: {text}", *(f"  {note}" for note in notes)])
