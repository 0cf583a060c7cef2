"""Labels of the faces that a tool found in frames: which image each is about, and one a frame.

Such tables name a video and a frame in place of an image, and may hold several faces of a frame.
"""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data_pipeline.formats.layouts.layout import Place, photos
from data_pipeline.formats.user_files import WHITESPACE, Columns, FaultList
from data_pipeline.formats.values import to_number
from mtl_face import files, pictures
from mtl_face.errors import ConfigError, quoted

CROPS = "{video}/{frame:05}.jpg"
"""Where `run.py prepare --videos` puts the crop of a frame, counted from 1."""

OTHER_FACES = "rows of further faces in a frame are left out: the surest face is taken"

_FIELD = re.compile(r"\{(video|frame|face)(?::0?([0-9]{1,2}))?\}")


@dataclasses.dataclass(frozen=True)
class Faces:
    """Where faces were seen, one entry a row.

    Attributes:
        videos: name of the video.
        frames: number of the frame.
        faces: number of the face in its frame.
        scores: how sure the tool is of the face.
    """

    videos: Sequence[str]
    frames: Sequence[int]
    faces: Sequence[int]
    scores: Sequence[float]


def fill(pattern: str, video: str, frame: int, face: int = 0) -> str:
    """An image's path by the setting `image_pattern`; ConfigError for a pattern that is none."""
    values = {"video": video, "frame": str(frame), "face": str(face)}
    rest = _FIELD.sub("", pattern)
    if "{" in rest or "}" in rest:
        raise ConfigError(
            f"data.manifest.image_pattern is {pattern!r}",
            remedy="write {video}, {frame} and {face} where their values go, {frame:06} for six "
            f"digits, as in {CROPS}",
        )
    return _FIELD.sub(lambda match: values[match[1]].zfill(int(match[2] or 0)), pattern)


class Placed(NamedTuple):
    """Which rows to keep, the cells image, video and frame of all rows, and what was taken."""

    rows: list[int]
    cells: dict[str, list[str]]
    remarks: tuple[str, ...]


def put_in_frames(place: Place, found: Faces, pattern: str) -> Placed:
    """The image of each row, by the setting `image_pattern` or else `pattern`.

    A pattern without {face} stands for one image a frame, so that of several faces the one with
    the highest score is kept. With it all are, and each face is a video of its own. ConfigError if
    the pattern gives two frames one image.
    """
    if place.settings.image_pattern is None and pattern == CROPS:
        names = _crop_folders(place, dict.fromkeys(found.videos))
        found = dataclasses.replace(found, videos=[names[video] for video in found.videos])
    pattern = place.settings.image_pattern or pattern
    rows = range(len(found.frames))
    several = len(set(found.faces)) > 1 and "{face" in pattern
    best: dict[tuple[str, int, int], int] = {}
    for row in rows:
        key = (found.videos[row], found.frames[row], found.faces[row] if several else 0)
        if key not in best or found.scores[row] > found.scores[best[key]]:
            best[key] = row
    images = [fill(pattern, found.videos[i], found.frames[i], found.faces[i]) for i in rows]
    faces = [f"{found.videos[i]}_face{found.faces[i]}" for i in rows]
    kept = sorted(best.values())
    if len({images[row] for row in kept}) < len(kept):
        raise ConfigError(
            f"data.manifest.image_pattern={pattern} gives one image to several frames",
            remedy=f"write {{video}} and {{frame}} where their values go, as in {CROPS}",
        )
    cells = {
        "image": images,
        "video": faces if several else list(found.videos),
        "frame": [str(frame) for frame in found.frames],
    }
    return Placed(kept, cells, (f"images are taken by data.manifest.image_pattern={pattern}",))


def _crop_folders(place: Place, videos: Iterable[str]) -> dict[str, str]:
    """The folder of crops of each video, as `run.py prepare --videos` calls it, where it exists.

    That is the video's file name alone, or with the names of its folders before it where another
    video is called alike.
    """
    stems = Counter(video.rsplit("/", 1)[-1] for video in videos)
    folders = {}
    for video in videos:
        stem = video.rsplit("/", 1)[-1]
        names = [video, files.plain_name(video.replace("/", "_"))]
        if stems[stem] == 1 and place.stems[stem] <= 1:
            names.append(files.plain_name(stem))
        there = (name for name in names if (place.image_root / name).is_dir())
        folders[video] = next(there, video)
    return folders


def put_in_photos(images: Sequence[str], scores: Sequence[float]) -> Placed:
    """As `put_in_frames`, of photos that are named: of several faces in one the surest is kept."""
    best: dict[str, int] = {}
    for row, image in enumerate(images):
        if image not in best or scores[row] > scores[best[image]]:
            best[image] = row
    return Placed(sorted(best.values()), photos(images), ())


def whole_numbers(name: str, columns: Columns, faults: FaultList) -> list[int]:
    """A column of whole numbers from 0; an empty cell is 0. Others are faults, and 0."""
    numbers = []
    for line, cell in zip(columns.lines, columns.cells[name], strict=True):
        text = cell.strip(WHITESPACE)
        whole = text.removesuffix(".0") or "0"
        if not whole.isascii() or not whole.isdigit() or len(whole) > 18:
            faults.add(
                line, f"{name} is {quoted(text, 40)}, no whole number", "write the file again"
            )
            whole = "0"
        numbers.append(int(whole))
    return numbers


def number_or(cell: str, otherwise: float) -> float:
    """The number in a cell; `otherwise` where there is none, or NaN."""
    try:
        value = to_number(cell.strip(WHITESPACE))
    except ValueError:
        return otherwise
    return otherwise if value != value else value


def below(paths: Sequence[str], image_root: Path) -> list[str]:
    """Paths of images as below the image folder.

    Those below `image_root` lose it. Other absolute paths, of the machine on which a tool ran,
    lose the folder that they have in common.
    """
    slashed = [path.strip(WHITESPACE).replace("\\", "/") for path in paths]
    root = image_root.absolute().as_posix().rstrip("/") + "/"
    if all(path.startswith(root) for path in slashed):
        return [path.removeprefix(root) for path in slashed]
    if not all(path.startswith("/") or path[1:3] == ":/" for path in slashed):
        return slashed
    shared = _shared([PurePosixPath(path).parent.parts for path in slashed])
    return ["/".join(PurePosixPath(path).parts[shared:]) for path in slashed]


def is_video(path: str) -> bool:
    """Whether a path names a video, by its ending."""
    return os.path.splitext(path.strip(WHITESPACE))[1].lower() in pictures.VIDEO_ENDINGS


def videos_of(paths: Sequence[str], lines: Sequence[int], faults: FaultList) -> list[str]:
    """Names of videos by their paths: without their endings and the folder that all are in.

    A path without a name is a fault of its line.
    """
    files = []
    for path, line in zip(paths, lines, strict=True):
        file = PurePosixPath(path.strip(WHITESPACE).replace("\\", "/"))
        if file.name in ("", ".."):
            faults.add(line, f"{quoted(path, 40)} names no video", "write the file again")
            file = PurePosixPath("none")
        files.append(file)
    shared = _shared([file.parent.parts for file in dict.fromkeys(files)])
    return ["/".join(file.with_suffix("").parts[shared:]) for file in files]


def _shared(folders: Sequence[tuple[str, ...]]) -> int:
    """How many parts all folders begin with."""
    shared = 0
    while all(len(parts) > shared and parts[shared] == folders[0][shared] for parts in folders):
        shared += 1
    return shared
