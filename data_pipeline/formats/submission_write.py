"""Writing submissions from predictions, a row for each row of the test list.

Dimension letter: M rows of the test list.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.editions import Form, find_edition
from data_pipeline.formats.submission_check import frame_counts
from mtl_face import tasks
from mtl_face.errors import WorkdirError
from mtl_face.files import replacing
from mtl_face.tables import FrameTable, PredictionError, PredictionTable

_DECIMALS = 6


def write_submission(
    path: str | os.PathLike[str],
    *,
    edition: str,
    test_list: FrameTable,
    predictions: PredictionTable,
    rows: npt.NDArray[np.int64],
    list_path: str | os.PathLike[str],
) -> list[Path]:
    """Writes a submission: one file, or a folder of files for tracks that ask for that.

    A file that exists is replaced; a folder must be new or empty. Missing parent folders are made.
    `rows` [M] are those of `predictions`, one for each row of the list. Predictions are finite;
    valence and arousal are clipped to [-1, 1].

    Returns:
        The files written.

    Raises:
        ConfigError: there is no such edition.
        AnnotationError: the list does not fit the edition.
        PredictionError: the predictions do not answer a task of the edition.
        WorkdirError: the place cannot be written.
    """
    form = find_edition(edition)
    silent = [task for task in form.tasks if task not in predictions.tasks]
    if silent:
        raise PredictionError(
            f"the predictions have no answer for {', '.join(silent)}, which {edition} asks for",
            remedy="give predictions of all tasks of the edition",
        )
    lines = _format_rows(form, test_list, predictions, rows)
    target = Path(path)
    if form.image_column:
        return [_write_lines(target, [form.header, *lines])]
    counts = frame_counts(test_list, list_path)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise WorkdirError(
            "exists and is no empty folder",
            path=target,
            remedy="name a new folder: the edition asks for one file a video",
        )
    by_video: dict[str, list[str]] = {video: [form.header] for video in counts}
    for video, line in zip(test_list.video, lines, strict=True):
        by_video[video].append(line)
    return [_write_lines(target / f"{video}.txt", text) for video, text in by_video.items()]


def _format_rows(
    form: Form, test_list: FrameTable, predictions: PredictionTable, rows: npt.NDArray[np.int64]
) -> list[str]:
    columns: list[list[str]] = [list(test_list.image)] if form.image_column else []
    table = predictions.take(rows)
    for task in form.tasks:
        if task == tasks.VA:
            for values_M in (table.valence, table.arousal):
                # + 0.0 turns -0.0 into 0.0
                rounded_M = np.round(np.clip(values_M, -1.0, 1.0), _DECIMALS) + 0.0
                columns.append([f"{value:.{_DECIMALS}f}" for value in rounded_M.tolist()])
        elif task == tasks.EXPR:
            columns.append([str(value) for value in table.expression.tolist()])
        else:
            columns.extend([str(value) for value in column_M.tolist()] for column_M in table.au.T)
    return [",".join(cells) for cells in zip(*columns, strict=True)]


def _write_lines(path: Path, lines: list[str]) -> Path:
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return path
