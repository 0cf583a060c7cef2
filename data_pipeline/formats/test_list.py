"""Test lists: the images that a submission has to cover, in the order that it has to have."""

import os

from data_pipeline.formats import s_aff_wild2
from data_pipeline.formats.manifest import known_name
from data_pipeline.formats.user_files import WHITESPACE, FaultList, read_lines
from data_pipeline.formats.values import EXTENSIONS, CellError, check_path
from mtl_face import tables
from mtl_face.errors import AnnotationError, quoted

PHOTOS = "photos"
"""Name of the data set that paths of single images stand for."""

_MOST_FRAMES = 10_000_000  # 92 hours of video: more is no number of frames
_COUNT_REMEDY = (
    "write one line a video, its name and its number of frames, as in video45_1,370; or list "
    "every frame as video45_1/00001.jpg"
)


def load_test_list(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> tables.FrameTable:
    """Reads a test list of any edition.

    Three kinds are read: image ids, one a line, with or without a header and trailing commas (every
    edition that hands out such a list); `video,frames` lines, for the one-task tracks of the
    third edition, whose official lists name videos alone: each line stands for the frames 1 to
    `frames` of its video; and paths of images of which none has a number for a name, as
    `faces/anna.jpg`: each is a video of one frame, of the data set `photos`.

    Returns:
        A table without labels, in the order of the list with its duplicates, not sorted. `row` is
        the line of the list.

    Raises:
        AnnotationError: the file cannot be read or has faults; names path, line and remedy.
    """
    lines = read_lines(path)
    rows = [(n, line) for n, line in enumerate(lines, start=1) if line.strip(WHITESPACE)]
    if photos := _photos(rows):
        return _read_photos(path, photos, root)
    if any("/" in line or "\\" in line for _, line in rows[:2]):  # the first may be a header
        return s_aff_wild2.read_test_list(path, image_root=root)
    return _read_counts(path, rows, root)


def _photos(rows: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Line and path of each image, if all are images whose names are no numbers; else none."""
    cells = [(n, line.strip(WHITESPACE).rstrip(",").strip(WHITESPACE)) for n, line in rows]
    if cells and known_name(cells[0][1]) == "image":
        cells = cells[1:]
    images = [(n, cell) for n, cell in cells if cell.lower().endswith(EXTENSIONS)]
    stems = (os.path.splitext(cell.replace("\\", "/").rpartition("/")[2])[0] for _, cell in images)
    return images if len(images) == len(cells) and not any(map(str.isdigit, stems)) else []


def _read_photos(
    path: str | os.PathLike[str], photos: list[tuple[int, str]], root: str | os.PathLike[str]
) -> tables.FrameTable:
    faults = FaultList(path)
    images = []
    for number, cell in photos:
        try:
            images.append(check_path(cell))
        except CellError as error:
            faults.add(number, str(error), error.remedy)
    faults.raise_if_any()
    return tables.FrameTable.from_columns(
        dataset=PHOTOS,
        video=[os.path.splitext(image)[0] for image in images],
        frame=[1] * len(images),
        image=images,
        root=os.fspath(root),
        row=[number for number, _ in photos],
        sort=False,
    )


def _read_counts(
    path: str | os.PathLike[str], rows: list[tuple[int, str]], root: str | os.PathLike[str]
) -> tables.FrameTable:
    faults = FaultList(path)
    counts: dict[str, tuple[int, int]] = {}
    if [cell.strip(WHITESPACE).lower() for cell in rows[0][1].split(",")] == ["video", "frames"]:
        rows = rows[1:]
    for number, line in rows:
        cells = [cell.strip(WHITESPACE) for cell in line.rstrip(WHITESPACE + ",").split(",")]
        if len(cells) == 1:
            faults.add(number, f"{quoted(cells[0])} has no number of frames", _COUNT_REMEDY)
        elif len(cells) != 2 or not (cells[1].isascii() and cells[1].isdigit()):
            faults.add(number, f"{quoted(line)} is no video and number of frames", _COUNT_REMEDY)
        elif len(cells[1]) > 8 or not 1 <= int(cells[1]) <= _MOST_FRAMES:
            faults.add(number, f"{cells[1][:40]} frames", f"1 to {_MOST_FRAMES:,} are possible")
        elif not _is_file_name(cells[0]):
            faults.add(number, f"{quoted(cells[0])} is no name of a video", _COUNT_REMEDY)
        elif cells[0] in counts:
            problem = f"video {quoted(cells[0])} stands on line {counts[cells[0]][0]} already"
            faults.add(number, problem, "name each video once")
        else:
            counts[cells[0]] = (number, int(cells[1]))
    faults.raise_if_any()
    if not counts:
        raise AnnotationError("no videos in the list", path=path, line=1, remedy=_COUNT_REMEDY)
    if sum(count for _, count in counts.values()) > _MOST_FRAMES:
        raise AnnotationError(
            f"more than {_MOST_FRAMES:,} frames in all", path=path, line=1, remedy=_COUNT_REMEDY
        )
    places = [
        (number, video, frame)
        for video, (number, count) in counts.items()
        for frame in range(1, count + 1)
    ]
    return tables.FrameTable.from_columns(
        dataset=s_aff_wild2.DATASET,
        video=[video for _, video, _ in places],
        frame=[frame for _, _, frame in places],
        image=[f"{video}/{frame:05d}.jpg" for _, video, frame in places],
        root=os.fspath(root),
        row=[number for number, _, _ in places],
        sort=False,
    )


def _is_file_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and name.isprintable() and not {*name} & {*"/\\"}
