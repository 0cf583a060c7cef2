"""Validating a finished submission against the test list: every deviation, by line."""

import bisect
import collections
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipeline.formats.editions import Form, find_edition
from data_pipeline.formats.submission import Deviation, Examined, Place, examine
from mtl_face.errors import AnnotationError, quoted
from mtl_face.tables import FrameTable


def validate_submission(
    path: str | os.PathLike[str],
    *,
    edition: str,
    test_list: FrameTable,
    list_path: str | os.PathLike[str],
) -> list[Deviation]:
    """Compares a submission with what its edition asks for.

    Checked: encoding, header, number of fields, trailing commas, blanks and blank lines, numbers,
    finiteness, ranges and spelling of the values; that the rows are those of the list, as often as
    there and in its order; for the one-task tracks of the third edition, that there is one file
    for each video with one line for each of its frames.

    Returns:
        The deviations, file by file and line by line; empty if the submission is as asked for. A
        row of the list that is missing is named by its line in the list.

    Raises:
        ConfigError: there is no such edition.
        AnnotationError: the submission is no text file (or no folder), or the list does not fit
            the edition.
    """
    form = find_edition(edition)
    if form.image_column:
        file = examine(path, form)
        compared = _compare(os.fspath(path), file, test_list, os.fspath(list_path))
        found = [*file.deviations, *compared]
        return sorted(found, key=lambda note: (note.path != os.fspath(path), note.line))
    return list(_compare_folder(Path(path), form, frame_counts(test_list, list_path)))


def frame_counts(test_list: FrameTable, list_path: str | os.PathLike[str]) -> dict[str, int]:
    """Number of frames of each video of a list that names every frame, in the list's order.

    AnnotationError if a video's frames are not 1, 2, 3, ... in this order.
    """
    counts: dict[str, int] = {}
    for video, frame, line in zip(test_list.video, test_list.frame, test_list.row, strict=True):
        expected = counts.get(video, 0) + 1
        if frame != expected:
            raise AnnotationError(
                f"frame {frame} of video {quoted(video)} comes where frame {expected} is expected",
                path=list_path,
                line=int(line),
                remedy="files of one video have a line for every frame of it: list all, in order, "
                "or write one line a video, as in video45_1,370",
            )
        counts[video] = expected
    return counts


def _compare(
    path: str, file: Examined, test_list: FrameTable, list_path: str
) -> Iterator[Deviation]:
    """Rows against the list: missing, surplus, order, spelling of the image ids, number."""
    if not file.places:  # another kind of file: one sentence in place of one for each image
        problem = f"no row has an image id, the list has {len(test_list)}"
        yield Deviation(path, file.line_count, "row count", problem)
        return
    wanted: dict[tuple[str, int], list[int]] = collections.defaultdict(list)
    for position, key in enumerate(zip(test_list.video, test_list.frame, strict=True)):
        wanted[key].append(position)
    seen: collections.Counter[tuple[str, int]] = collections.Counter()
    found: list[tuple[Place, int]] = []
    for place in file.places:
        line, written, key = place.line, place.written, (place.video, place.frame)
        positions = wanted.get(key, [])
        nth = seen[key]
        seen[key] += 1
        if nth < len(positions):
            found.append((place, positions[nth]))
            expected = test_list.image[positions[nth]]
            if expected != written:
                problem = f"image id {quoted(written)}, the list has {quoted(expected)}"
                yield Deviation(path, line, "image id", problem)
        elif positions:
            times = "once" if len(positions) == 1 else f"{len(positions)} times"
            problem = f"duplicate of {quoted(written)}, which the list has {times}"
            yield Deviation(path, line, "duplicate", problem)
        else:
            yield Deviation(path, line, "surplus", f"{quoted(written)} is not in the list")
    in_order = set(longest_ascent([position for _, position in found]))
    for index, (place, position) in enumerate(found):
        if index not in in_order:
            there = f"line {test_list.row[position]} there ({list_path})"
            problem = f"{quoted(place.written)} is out of order: it is {there}"
            yield Deviation(path, place.line, "order", problem)
    present = {position for _, position in found}
    for position, image in enumerate(test_list.image):
        if position not in present:
            line = int(test_list.row[position])
            yield Deviation(list_path, line, "missing", f"{quoted(image)} has no row in {path}")
    if len(file.places) != len(test_list):
        problem = f"{len(file.places)} rows with an image id, the list has {len(test_list)}"
        yield Deviation(path, file.line_count, "row count", problem)


def _compare_folder(folder: Path, form: Form, counts: dict[str, int]) -> Iterator[Deviation]:
    if not folder.is_dir():
        raise AnnotationError(
            "this is no folder; the edition asks for one file a video",
            path=folder,
            remedy="name the folder that holds the files <video>.txt",
        )
    for video, count in counts.items():
        path = folder / f"{video}.txt"
        if not path.is_file():
            yield Deviation(str(path), 1, "missing", f"no file for video {quoted(video)}")
            continue
        file = examine(path, form)
        yield from file.deviations
        if len(file.places) != count:
            problem = f"{len(file.places)} rows, the video has {count} frames"
            yield Deviation(str(path), file.line_count, "row count", problem)
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or (path.suffix == ".txt" and path.stem in counts):
            continue
        yield Deviation(str(path), 1, "surplus", "no video of the list has this file")


def longest_ascent(values: Sequence[int]) -> list[int]:
    """Indices of a longest strictly ascending subsequence: the rows that may stay where they are.

    So that one row that was moved is named alone, and not every row behind it.
    """
    tails: list[int] = []  # smallest last value of an ascent of each length
    tail_index: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        length = bisect.bisect_left(tails, value)
        before.append(tail_index[length - 1] if length else -1)
        if length == len(tails):
            tails.append(value)
            tail_index.append(index)
        else:
            tails[length] = value
            tail_index[length] = index
    ascent = []
    index = tail_index[-1] if tail_index else -1
    while index >= 0:
        ascent.append(index)
        index = before[index]
    return ascent[::-1]
