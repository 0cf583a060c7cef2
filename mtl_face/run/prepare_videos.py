"""`run.py prepare --videos`: cuts aligned faces out of videos and photos."""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

from mtl_face.errors import ImageError
from mtl_face.faces import batch, layout
from mtl_face.faces.sources import find_sources
from mtl_face.faces.video import VideoError

_SHOWN = 10


def run(options: argparse.Namespace, progress: Callable[[int, int], None]) -> int:
    """Cuts the faces out of what is found at a path.

    Args:
        options: `videos`, `output`.
        progress: counts frames.

    Returns:
        Exit status 0.

    Raises:
        UserError: nothing is found, or the output cannot be written; or, after all the others are
            done, for videos that cannot be read.
    """
    sources = find_sources(options.videos)
    output = layout.open_output(options.output)
    records = {source.name: layout.read_record(output, source) for source in sources}
    todo = [source for source in sources if records[source.name] is None]
    photos = sum(len(source.photos) for source in sources)
    videos = sum(not source.photos for source in sources)
    print(f"{options.videos}: videos {videos:,}, photos {photos:,}")
    if len(todo) < len(sources):
        print(f"finished before and left alone: {len(sources) - len(todo):,} of {len(sources):,}")
    outcomes = batch.extract_all(todo, output, workers=os.cpu_count() or 1, progress=progress)
    for outcome in outcomes:
        records[outcome.source.name] = outcome.record
        if outcome.record is not None:
            print(describe(outcome.record))
    done = [record for record in records.values() if record is not None]
    crops = layout.write_lists(output, done)
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failed:
        raise VideoError(
            _list(failed, crops),
            remedy="mend or remove them, and run this again: what is finished is not done again",
        )
    if not crops:
        raise ImageError(
            "no face was found in any frame",
            path=options.videos,
            remedy="look at the videos: are faces upright, and wider than about 40 pixels?",
        )
    print(f"{crops:,} crops: {output / layout.CROPS}")
    print(f"lists: {output / layout.MANIFEST}, {layout.TEST_LIST}, {layout.GAPS}")
    print(f"what a crop is: {output / layout.SPECIFICATION}")
    print(
        "next: look at some crops; then python run.py predict --workdir=RUN "
        f"--test_list={output / layout.TEST_LIST} --images={output / layout.CROPS} "
        "--output=predictions.parquet"
    )
    return 0


def describe(record: dict[str, Any]) -> str:
    """What was found in a source, in a line or a few."""
    people = ", ".join(f"{person['video']} {len(person['rows']):,}" for person in record["people"])
    text = f"{record['source']}: {record['frames']:,} frames; crops: {people or 'none, no face'}"
    notes = list(record["notes"][:_SHOWN])
    if len(record["notes"]) > _SHOWN:
        notes.append(f"and {len(record['notes']) - _SHOWN} more")
    if record["ignored_faces"]:
        notes.append(f"faces of passers-by left out: {record['ignored_faces']:,}")
    return "\n".join([text, *(f"  {note}" for note in notes)])


def _list(errors: Sequence[Exception], crops: int) -> str:
    listed = [f"  {str(error).splitlines()[0]}" for error in errors[:_SHOWN]]
    if len(errors) > _SHOWN:
        listed.append(f"  ... and {len(errors) - _SHOWN} more")
    head = f"videos that cannot be read: {len(errors)} (crops of the others: {crops:,})"
    return "\n".join([head, *listed])
