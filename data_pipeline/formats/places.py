"""Video and frame of each image of a table that has a column for one of them or for none.

A video is what must stay in one split, what intervals resample and smoothing runs along. Paths
tell it if they show series of numbers: `P01/frame_0001.jpg` is frame 1 of the video `P01`. They do
not always: `images/0001.jpg` may be the first frame of a video, or the first of many photos. A
guess would be wrong for one of the two, so such a table is refused until the setting `video_from`
says what a video is.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from data_pipeline.formats.expression_maps import MAPS
from data_pipeline.formats.user_files import WHITESPACE, Columns, FaultList
from mtl_face.errors import AnnotationError, quoted, shortened

_FRAME_CELL = re.compile(r"[0-9]{1,18}", re.ASCII)
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})", re.ASCII | re.DOTALL)
_FRAME_REMEDY = "add a column frame, with whole numbers that do not go below 0"
_MOST, _FEW = 0.9, 0.1  # shares of the images that belong to a series

_TAKEN = {
    "folder": "each folder is a video",
    "name": "images whose paths differ in the number at the end are one video",
    "image": "each image is a video of its own, as of people who are all different",
}
"""What the setting `video_from` takes for a video."""


class _Name(NamedTuple):
    """An image's path: its folder, its name before the number at the end, and that number."""

    folder: str
    prefix: str
    number: int | None


def find_places(
    columns: Columns,
    names: dict[str, str],
    images: Sequence[str],
    *,
    video_from: str,
    faults: FaultList,
    say: Callable[[str], None],
) -> tuple[list[str], list[int]]:
    """Video and frame of each of N rows, as columns, setting and paths tell them.

    A column `video` goes before the setting `video_from`, a column `frame` before the number at the
    end of the image's name. Frames without either, and two images of one frame, are faults. `names`
    are the file's names of the columns; `images` are paths, empty where that is a fault already.
    `say` is given one line on what was taken for a video.

    Raises:
        AnnotationError: `video_from` is auto, and the paths do not tell what a video is.
    """
    parts = [_split(image) for image in images]
    cells: dict[str, list[str]] = {
        name: [cell.strip(WHITESPACE) for cell in columns.cells[names[name]]]
        for name in ("video", "frame", "expression")
        if name in names
    }
    if "video" in names:
        videos = cells["video"]
        for line, video in zip(columns.lines, videos, strict=True):
            if not video or not video.isprintable():
                problem = f"{quoted(video)} is no name of a video"
                faults.add(line, problem, "name it, or leave the column out")
    else:
        found = video_from
        if found == "auto":
            found = _decide(images, parts, cells) or _ask(images, parts, faults)
        videos = [_video(found, image, part) for image, part in zip(images, parts, strict=True)]
        count = len({video for video, image in zip(videos, images, strict=True) if image})
        say(
            f"no column video: {_TAKEN[found]} (data.manifest.video_from): {count:,} videos of "
            f"{len({*images} - {''}):,} images"
        )
        if found == "image":
            cells.setdefault("frame", ["1"] * len(images))
    numbers = _frames(columns, images, parts, cells.get("frame"), faults)
    if not {"video", "frame"} <= names.keys():
        _refuse_two_of_one_frame(columns, images, videos, numbers, faults)
    return videos, numbers


def _split(image: str) -> _Name:
    folder, _, name = os.path.splitext(image)[0].rpartition("/")
    match = _NUMBERED.fullmatch(name)
    return _Name(folder, match[1], int(match[2])) if match else _Name(folder, name, None)


def _video(video_from: str, image: str, part: _Name) -> str:
    if video_from == "image":
        return os.path.splitext(image)[0]
    prefix = part.prefix.rstrip("_-. ") if video_from == "name" else ""
    return "/".join(filter(None, (part.folder, prefix))) or "."


def _decide(
    images: Sequence[str], parts: Sequence[_Name], cells: dict[str, list[str]]
) -> str | None:
    """What a video is, as the paths show it; None if they do not."""
    row_of = {image: row for row, image in enumerate(images) if image}
    distinct = [parts[row] for row in row_of.values()]
    if not distinct:  # each row has a fault already
        return "image"
    if "frame" in cells:  # then folders are videos, unless a frame comes twice in one
        places = {(parts[row].folder, cells["frame"][row]) for row in row_of.values()}
        return "folder" if len(places) == len(distinct) else None
    labels = cells.get("expression")
    if _are_classes(distinct, labels and [labels[row] for row in row_of.values()]):
        return "image"
    folders = Counter(part.folder for part in distinct)
    numbered = [part for part in distinct if part.number is not None]
    if all(count == 1 for count in folders.values()):
        return "folder" if len(numbered) == len(distinct) and "" not in folders else "image"
    series = Counter((part.folder, part.prefix) for part in numbered)
    # A folder's only image is one of a series as well as none, if it has a number.
    telling = [part for part in distinct if folders[part.folder] > 1 or part.number is None]
    share = sum(series[part.folder, part.prefix] > 1 for part in telling) / len(telling)
    if share <= _FEW:
        return "image" if len(folders) == 1 else None
    if share < _MOST or len(folders) == 1 or len(series) > len({folder for folder, _ in series}):
        return None
    # Videos count anew, or bear their names; photos that were only spread over folders do neither.
    counts_anew = len({part[1:] for part in numbered}) < len(numbered)
    return "folder" if counts_anew or len({prefix for _, prefix in series}) > 1 else None


def _are_classes(parts: Sequence[_Name], expressions: Sequence[str] | None) -> bool:
    """Whether the folders are expressions, as `happy`, and so no videos."""
    folders = [part.folder.rsplit("/", 1)[-1].lower() for part in parts]
    words = {word for classes in MAPS.values() for word in classes if not word.isdigit()}
    if set(folders) <= words:
        return True
    labels = [label.lower().removesuffix(".0") for label in expressions or ()]
    return labels == folders


def _ask(images: Sequence[str], parts: Sequence[_Name], faults: FaultList) -> str:
    if not faults.skips:  # what is wrong with labels is said first
        faults.raise_if_any()
    folders = Counter(part.folder or "." for part in parts)
    shown = shortened(folders.most_common(), 3, lambda entry: f"{quoted(entry[0])} {entry[1]:,}")
    raise AnnotationError(
        "no column video, and the paths do not tell whether a folder is a video or holds photos: "
        f"{len(images):,} images, by folder: {', '.join(shown)}",
        path=faults.path,
        line=1,
        remedy="add a column video, or say what a video is: data.manifest.video_from=folder "
        "(each folder: a video, or one person), data.manifest.video_from=name (images whose paths "
        "differ in the number at the end), or data.manifest.video_from=image (each image alone: "
        "no two show one person)",
    )


def _frames(
    columns: Columns,
    images: Sequence[str],
    parts: Sequence[_Name],
    cells: Sequence[str] | None,
    faults: FaultList,
) -> list[int]:
    numbers = []
    for row, (line, image, part) in enumerate(zip(columns.lines, images, parts, strict=True)):
        if cells is None:
            number, shown = part.number, part.prefix
        else:
            shown = cells[row]
            whole = shown.removesuffix(".0")  # tables with gaps turn whole numbers into 3.0
            number = int(whole) if _FRAME_CELL.fullmatch(whole) else None
        numbers.append(number or 0)
        if number is None and image:  # else it has a fault already
            faults.add(line, f"{quoted(shown)} is no frame number", _FRAME_REMEDY)
    return numbers


def _refuse_two_of_one_frame(
    columns: Columns,
    images: Sequence[str],
    videos: Sequence[str],
    numbers: Sequence[int],
    faults: FaultList,
) -> None:
    first: dict[tuple[str, int], str] = {}
    for row, (image, video, number) in enumerate(zip(images, videos, numbers, strict=True)):
        other = first.setdefault((video, number), image)
        if other != image and image and other:
            faults.add(
                columns.lines[row],
                f"{quoted(image)} and {quoted(other)} are both frame {number} of the video "
                f"{quoted(video)}",
                "add columns video and frame",
            )
