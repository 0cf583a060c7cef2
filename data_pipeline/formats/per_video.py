"""Annotations of the one-task challenges (ABAW 3, 5, 6, 8): one file a video and task, joined.

Below a folder for each task lie folders of the sets, and in these one file `<video>.txt`: a header,
then line i + 1 for frame i. Nothing but the line's number says which frame it is about, so nothing
here ever shifts a line: a blank line within a file is refused, and labels meet images by frame
number. What has no partner is left out and counted: frames whose face was not found have labels
and no image; images behind the last line have no label; files of one video may differ in length.
`<video>_left` and `<video>_right`, the two persons of one video, are videos of their own.

Dimension letters: N rows, F frames of a video, C columns of a task, L all 15 columns: valence,
arousal, expression and the twelve action units.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.editions import PER_VIDEO
from data_pipeline.formats.user_files import (
    WHITESPACE,
    BadRow,
    FaultList,
    read_lines,
    text_files,
)
from data_pipeline.formats.values import (
    FRAME_FILE,
    MISSING_CLASS,
    MISSING_VA,
    CellError,
    check_ranges,
    header_names,
    to_numbers,
)
from data_pipeline.images import list_files, require_root
from mtl_face import tasks
from mtl_face.errors import AnnotationError, ImageError, quoted, shortened
from mtl_face.tables import FrameTable

DATASET = "per_video"
"""Name of the data set where nothing else names it."""

TASK_FOLDERS = {
    tasks.VA: ("VA_Estimation_Challenge",),
    tasks.AU: ("AU_Detection_Challenge",),
    tasks.EXPR: ("EXPR_Classification_Challenge", "EXPR_Recognition_Challenge"),
}
"""Names that the challenges have given to the folder of each task."""

_COLUMNS = {tasks.VA: slice(0, 2), tasks.EXPR: slice(2, 3), tasks.AU: slice(3, 15)}

_HEADER_REMEDY = (
    "the first line must be the header, and frame 1 the line below it: restore the original file"
)
_PERSONS = ("_left", "_right")

FloatArray = npt.NDArray[np.float64]


def read_per_video(
    root: str | os.PathLike[str],
    *,
    split_folder: str,
    image_root: str | os.PathLike[str],
    read_tasks: Sequence[str] = tasks.TASKS,
    missing_videos: Literal["error", "skip"] = "error",
    say: Callable[[str], None] = lambda line: None,
    skipped: list[BadRow] | None = None,
) -> FrameTable:
    """Reads one set of the one-task challenges as one table.

    `root` holds a folder for each of `read_tasks`, named as in `TASK_FOLDERS`, and each of these
    the set's, for instance `Train_Set`. The image folder `<video>/<frame>.jpg` is listed, because
    the images decide which frames there are; `missing_videos` is about videos with labels and no
    image folder. `say` is given one line on each thing that was left out. `skipped` is as for
    `read_video_file`.

    Returns:
        The sorted table: a row for every frame with an image and at least one label; a task whose
        file is absent, shorter, or marks the frame as invalid is missing in it. `row` is the line
        in the files.

    Raises:
        AnnotationError: a folder is absent, or a file has faults; names path, line and remedy.
        ImageError: the images of a video are absent (unless skipped) or ambiguous.
    """
    files = {task: _video_files(Path(root), task, split_folder) for task in read_tasks}
    absent: list[str] = []
    num_unequal = 0
    left_out = np.zeros(3, np.int64)
    frames: list[npt.NDArray[np.int64]] = []
    labels: list[FloatArray] = []
    images: list[str] = []
    for video in sorted({video for found in files.values() for video in found}):
        own = {task: found[video] for task, found in files.items() if video in found}
        label_FL, differ = _read_tasks(own, skipped)
        names = _list_frames(image_root, video)
        if names is None:
            if missing_videos == "error":
                raise _absent_video(image_root, video)
            absent.append(video)
            continue
        frame_N, of_video = _frames_to_keep(label_FL, names)
        left_out += of_video
        num_unequal += differ
        frames.append(frame_N)
        labels.append(label_FL[frame_N - 1])
        images += [f"{video}/{names[frame]}" for frame in frame_N.tolist()]
    for task, found in files.items():
        say(f"{task}: annotation files of {len(found)} videos")
    if absent:
        shown = ", ".join(shortened(absent, 3))
        say(f"left out {len(absent)} videos without images: {shown}")
    if num_unequal:
        say(f"files of one video differ in length for {num_unequal} videos: joined by frame")
    say(
        f"left out {left_out[0]} labelled frames without an image, {left_out[1]} images of frames "
        f"without a line, {left_out[2]} images without any valid label"
    )
    if not images:
        raise AnnotationError(
            "no frame has both a label and an image",
            path=root,
            remedy=f"check that {image_root} holds the crops, one folder a video",
        )
    return _to_table(images, np.concatenate(frames), np.concatenate(labels), image_root, DATASET)


def read_video_file(
    path: str | os.PathLike[str], task: str, skipped: list[BadRow] | None = None
) -> FloatArray:
    """Reads the annotation file of one video for one task; AnnotationError for faults.

    `skipped` is as for `FaultList`: the labels of a line that is left out are missing, and no other
    line moves. A blank line stays an error.

    float64 [F, C], row i for frame i + 1, NaN where missing.
    """
    form = PER_VIDEO[task]
    faults = FaultList(path, skipped)
    lines = read_lines(path, faults)
    _check_header(lines[0], task, path)
    lines = lines[1:]
    while lines and not lines[-1].strip(WHITESPACE):
        lines.pop()
    if not lines:
        raise AnnotationError(
            "no lines below the header", path=path, line=1, remedy="download it again"
        )
    blank = next((n for n, line in enumerate(lines, start=2) if not line.strip(WHITESPACE)), None)
    if blank is not None:
        raise AnnotationError(
            "a blank line within the file", path=path, line=blank, remedy=_HEADER_REMEDY
        )
    value_FC = _parse_quickly(lines, len(form.columns))
    line_numbers: Sequence[int] = range(2, len(lines) + 2)
    if value_FC is None:
        value_FC, parsed = _parse_carefully(lines, form.columns, faults)
        check_ranges(form.columns, value_FC[parsed], (np.flatnonzero(parsed) + 2).tolist(), faults)
    else:
        check_ranges(form.columns, value_FC, line_numbers, faults)
    missing = MISSING_VA if task == tasks.VA else MISSING_CLASS
    value_FC[(value_FC == missing) | ~faults.sound_rows(line_numbers)[:, None]] = np.nan
    return value_FC


def read_folder(folder: Path, *, dataset: str, skipped: list[BadRow] | None = None) -> FrameTable:
    """Reads the labels of one task and set for scoring, without any images.

    The folder holds a file `<video>.txt` for each video; the header of the first says which task
    they are of. AnnotationError if there is no such file, or one has faults. `skipped` is as for
    `read_video_file`.

    Returns:
        A row for every frame, images as `<video>/<frame>.jpg`; `row` is the line in its file.
    """
    remedy = "name the folder of one task and set, or a multi-task annotation file"
    files = text_files(folder, remedy=remedy)
    first = read_lines(files[0])[0]
    task = _task_of(header_names(first))
    if task is None:
        raise AnnotationError(
            f"unknown header {quoted(first, 100)}",
            path=files[0],
            line=1,
            remedy="the first line of a one-task file is one of "
            + "; ".join(form.header for form in PER_VIDEO.values()),
        )
    labels = [_read_tasks({task: file}, skipped)[0] for file in files]
    frames = [np.arange(1, len(label_FL) + 1) for label_FL in labels]
    images = [
        f"{file.stem}/{frame:05d}.jpg"
        for file, frame_F in zip(files, frames, strict=True)
        for frame in frame_F.tolist()
    ]
    return _to_table(images, np.concatenate(frames), np.concatenate(labels), folder, dataset)


def _check_header(line: str, task: str, path: str | os.PathLike[str]) -> None:
    names = header_names(line)
    expected = PER_VIDEO[task].header
    found = _task_of(names)
    if found == task:
        return
    remedy = _HEADER_REMEDY
    if found is not None:
        remedy = f"this is a file for the task {found}: put it into that task's folder"
    elif names == expected.lower().split(",")[:-1]:
        remedy = "this is a file of an earlier edition, with other classes: use a later one"
    raise AnnotationError(
        f"the first line is {quoted(line, 80)}, expected {expected}",
        path=path,
        line=1,
        remedy=remedy,
    )


def _task_of(names: list[str]) -> str | None:
    """The task whose header has these names."""
    forms = PER_VIDEO.items()
    return next((task for task, form in forms if names == form.header.lower().split(",")), None)


def _parse_quickly(lines: list[str], num_columns: int) -> FloatArray | None:
    """All values at once, or None if any line is out of the ordinary."""
    text = ",".join(lines)
    regular = all(line.count(",") == num_columns - 1 for line in lines)
    if not regular or "_" in text or not text.isascii():
        return None
    try:
        return np.array(text.split(","), dtype=np.float64).reshape(-1, num_columns)
    except ValueError:
        return None


def _parse_carefully(
    lines: list[str], names: Sequence[str], faults: FaultList
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The values, and which lines hold numbers; those of the others are 0."""
    value_FC = np.zeros((len(lines), len(names)))
    parsed_F = np.zeros(len(lines), bool)
    for row, line in enumerate(lines):
        cells = line.rstrip(WHITESPACE + ",").split(",")
        if len(cells) != len(names):
            remedy = f"a line holds {', '.join(shortened(names, 3))}"
            faults.add(row + 2, f"{len(cells)} values, expected {len(names)}", remedy)
            continue
        try:
            value_FC[row] = to_numbers(names, cells)
            parsed_F[row] = True
        except CellError as error:
            faults.add(row + 2, str(error), error.remedy)
    return value_FC, parsed_F


def _video_files(root: Path, task: str, split_folder: str) -> dict[str, Path]:
    """The annotation files of one task and set, by the name of the video."""
    candidates = [root / name for name in TASK_FOLDERS[task]]
    found = [folder for folder in candidates if folder.is_dir()]
    if not found:
        raise AnnotationError(
            f"there is no folder {' or '.join(TASK_FOLDERS[task])} for the task {task}",
            path=root,
            remedy="set data.root to the folder that holds it, or leave the task out of "
            "data.per_video.tasks",
        )
    if len(found) > 1:
        raise AnnotationError(
            f"both {' and '.join(folder.name for folder in found)} are there",
            path=root,
            remedy="keep one: they are editions of the same annotations",
        )
    folder = found[0] / split_folder
    if not folder.is_dir():
        inside = sorted(entry.name for entry in found[0].iterdir() if entry.is_dir())
        raise AnnotationError(
            f"there is no folder {split_folder}",
            path=found[0],
            remedy=f"it holds {', '.join(inside[:5]) or 'no folders'}: set data.train_annotations "
            "and data.validation_annotations to the names of the sets",
        )
    remedy = "unpack the annotations into it"
    return {path.stem: path for path in text_files(folder, remedy=remedy)}


def _list_frames(image_root: str | os.PathLike[str], video: str) -> dict[int, str] | None:
    """File name of the image of each frame of a video; None if the video has no folder.

    Files that are not named by a number are ignored. ImageError if the image root does not exist,
    the folder cannot be listed, or a frame has two images.
    """
    folder = os.path.join(image_root, video)
    entries = list_files(folder)
    if entries is None:
        require_root(image_root)
        return None
    names: dict[int, str] = {}
    for name in sorted(entry.name for entry in entries):
        match = FRAME_FILE.fullmatch(name)
        if match is None:
            continue
        frame = int(match[1])
        if frame in names:
            raise ImageError(
                f"{names[frame]} and {name} are both images of frame {frame}",
                path=folder,
                remedy="keep one of the two",
            )
        names[frame] = name
    return names


def _read_tasks(
    files: Mapping[str, Path], skipped: list[BadRow] | None = None
) -> tuple[FloatArray, bool]:
    """The labels of a video, float64 [F, L] with NaN where missing; whether lengths differ."""
    values = {task: read_video_file(file, task, skipped) for task, file in files.items()}
    lengths = {len(value_FC) for value_FC in values.values()}
    label_FL = np.full((max(lengths), 15), np.nan)
    for task, value_FC in values.items():
        label_FL[: len(value_FC), _COLUMNS[task]] = value_FC
    return label_FL, len(lengths) > 1


def _frames_to_keep(
    label_FL: FloatArray, names: Mapping[int, str]
) -> tuple[npt.NDArray[np.int64], tuple[int, int, int]]:
    """Numbers of the frames of a video that have an image and a label; and what is left out.

    That is: labelled frames without an image, images without a line, images without a valid label.
    """
    has_value_FL = ~np.isnan(label_FL)
    # Valence and arousal count together only; an action unit counts alone.
    has_va_F = has_value_FL[:, _COLUMNS[tasks.VA]].all(axis=1)
    has_label_F = has_va_F | has_value_FL[:, 2:].any(axis=1)
    listed = np.array([frame for frame in names if 1 <= frame <= len(label_FL)], dtype=np.int64)
    has_image_F = np.zeros(len(label_FL), dtype=bool)
    has_image_F[listed - 1] = True
    left_out = (
        int((has_label_F & ~has_image_F).sum()),
        len(names) - len(listed),
        int((has_image_F & ~has_label_F).sum()),
    )
    return np.flatnonzero(has_label_F & has_image_F) + 1, left_out


def _to_table(
    images: list[str],
    frame_N: npt.NDArray[np.int64],
    label_NL: FloatArray,
    root: str | os.PathLike[str],
    dataset: str,
) -> FrameTable:
    expression_N = label_NL[:, 2]
    return FrameTable.from_columns(
        dataset=dataset,
        video=[image.rsplit("/", 1)[0] for image in images],
        frame=frame_N,
        image=images,
        root=os.fspath(root),
        valence=label_NL[:, 0],
        arousal=label_NL[:, 1],
        expression=np.where(np.isnan(expression_N), -1, expression_N),
        au=label_NL[:, _COLUMNS[tasks.AU]],
        row=frame_N + 1,
    )


def _absent_video(image_root: str | os.PathLike[str], video: str) -> ImageError:
    remedy = "unpack its crops there, or leave such videos out with data.missing_images=skip"
    for person in _PERSONS:
        whole = video.removesuffix(person)
        if whole != video and os.path.isdir(os.path.join(image_root, whole)):
            remedy += f"; the folder {whole} shows another person and is not taken for it"
        if whole == video and os.path.isdir(os.path.join(image_root, video + person)):
            remedy += f"; the folder {video + person} shows one of two persons, not taken for it"
    return ImageError(
        f"video {quoted(video)} has annotations, but no image folder",
        path=os.path.join(image_root, video),
        remedy=remedy,
    )
