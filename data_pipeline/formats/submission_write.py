"""Writing submissions from predictions: each row of the test list gets its prediction.

Dimension letters: M rows of the test list, N rows of predictions, A action units (12).
"""

import collections
import os
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.editions import Form, find_edition
from data_pipeline.formats.submission_check import frame_counts
from data_pipeline.formats.user_files import FaultList
from mtl_face import tasks
from mtl_face.errors import WorkdirError
from mtl_face.files import replacing
from mtl_face.tables import FrameTable, PredictionError, PredictionTable

Fill = Literal["none", "nearest"]

_REMEDY: dict[Fill, str] = {
    "none": "predict the whole list, or add --fill=nearest",
    "nearest": "predict the whole list",
}

_DECIMALS = 6
_TOLERANCE = 1e-2
"""How far two predictions of one image may differ and still be one (rounding in bfloat16)."""


def match_list(
    test_list: FrameTable,
    predictions: PredictionTable,
    *,
    list_path: str | os.PathLike[str],
    fill: Fill = "none",
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Finds the prediction of each row of a test list by video and frame.

    The k-th row of an image in the list gets its k-th prediction, or the first if there are fewer.

    Predictions may be in any order; those that the list lacks are ignored. `fill` "none" refuses
    a row without a prediction; "nearest" takes the prediction of the nearest frame of the same
    video, the earlier one of two equally near.

    Returns:
        Row of the predictions for each row of the list, int64 [M], and whether it is that of
        another frame, bool [M].

    Raises:
        AnnotationError: rows have no prediction; names up to ten. Or an image has another number
            of predictions than rows in the list, and they contradict each other.
    """
    rows: dict[tuple[str, int], list[int]] = collections.defaultdict(list)
    for row, key in enumerate(zip(predictions.video, predictions.frame.tolist(), strict=True)):
        rows[str(key[0]), key[1]].append(row)
    wanted = collections.Counter(zip(test_list.video, test_list.frame.tolist(), strict=True))
    faults = FaultList(list_path)
    seen: collections.Counter[tuple[str, int]] = collections.Counter()
    frames_of: dict[str, list[int]] = collections.defaultdict(list)
    for video, frame in sorted(rows) if fill == "nearest" else ():
        frames_of[video].append(frame)
    index_M = np.empty(len(test_list), np.int64)
    filled_M = np.zeros(len(test_list), bool)
    for position, key in enumerate(zip(test_list.video, test_list.frame.tolist(), strict=True)):
        line = int(test_list.row[position])
        found = rows.get(key)
        if found is None:
            frames = frames_of.get(key[0])
            if frames is None:
                problem = f"no prediction for {test_list.image[position]}"
                if fill == "nearest":
                    problem += f", nor for any other frame of video {key[0]!r}"
                faults.add(line, problem, _REMEDY[fill])
                continue
            distance = np.abs(np.array(frames) - key[1])
            nearest = frames[np.argmin(distance)]  # the first of two: the earlier
            found = rows[key[0], nearest]
            filled_M[position] = True
        elif len(found) not in (1, wanted[key]) and not _agree(predictions, found):
            faults.add(
                line,
                f"{len(found)} predictions for {test_list.image[position]}, which contradict each "
                "other",
                "keep one prediction of each image: one data set, one network",
            )
            continue
        index_M[position] = found[seen[key]] if seen[key] < len(found) else found[0]
        seen[key] += 1
    faults.raise_if_any()
    return index_M, filled_M


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
    `rows` [M] are those of `predictions`, as `match_list` gives them. Predictions are finite;
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


def _agree(predictions: PredictionTable, rows: list[int]) -> bool:
    """Whether several predictions of one image say the same."""
    table = predictions.take(np.array(rows))
    return bool(
        np.ptp(table.valence.clip(-1.0, 1.0)) <= _TOLERANCE
        and np.ptp(table.arousal.clip(-1.0, 1.0)) <= _TOLERANCE
        and (table.expression == table.expression[0]).all()
        and (table.au == table.au[0]).all()
    )
