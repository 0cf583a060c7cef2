"""Labels of a one-task challenge for scoring: a folder of `<video>.txt`, without any images."""

from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.formats.editions import PER_VIDEO
from data_pipeline.formats.label_values import MISSING_CLASS, MISSING_VA
from data_pipeline.formats.per_video import read_video_file
from data_pipeline.formats.text_file import read_lines
from mtl_face import tables, tasks
from mtl_face.errors import AnnotationError


def read_folder(folder: Path, *, dataset: str) -> tables.FrameTable:
    """Reads all files of a folder; the header of the first says which task they are of.

    Args:
        folder: holds a file for each video: a header, then line i + 1 for frame i.
        dataset: name for the column `dataset`.

    Returns:
        A row for every frame, images as `<video>/<frame>.jpg`; `row` is the line in its file.

    Raises:
        AnnotationError: there is no such file, or one has faults.
    """
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise AnnotationError(
            "the folder holds no .txt file",
            path=folder,
            remedy="name the folder of one task and set, or a multi-task annotation file",
        )
    task = _task_of(files[0])
    values = [read_video_file(file, task) for file in files]
    lengths = [len(value_FC) for value_FC in values]
    value_NC = np.concatenate(values)
    frame_N = np.concatenate([np.arange(1, length + 1) for length in lengths])
    video_N = np.repeat([file.stem for file in files], lengths).tolist()
    labels: dict[str, Any]
    if task == tasks.VA:
        va_N2 = np.where(value_NC == MISSING_VA, np.nan, value_NC)
        labels = {"valence": va_N2[:, 0], "arousal": va_N2[:, 1]}
    elif task == tasks.AU:
        labels = {"au": np.where(value_NC == MISSING_CLASS, np.nan, value_NC)}
    else:
        labels = {"expression": value_NC[:, 0].astype(np.int64)}
    return tables.FrameTable.from_columns(
        dataset=dataset,
        video=video_N,
        frame=frame_N,
        image=[f"{video}/{frame:05d}.jpg" for video, frame in zip(video_N, frame_N, strict=True)],
        root=str(folder),
        row=frame_N + 1,
        **labels,
    )


def _task_of(path: Path) -> str:
    header = read_lines(path)[0].strip().rstrip(",").lower().replace(" ", "")
    for task, form in PER_VIDEO.items():
        if header == form.header.lower():
            return task
    raise AnnotationError(
        f"unknown header {header[:100]!r}",
        path=path,
        line=1,
        remedy="the first line of a one-task file is one of "
        + "; ".join(form.header for form in PER_VIDEO.values()),
    )
