"""Writes and checks submissions to the challenges."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_pipeline.formats.editions import find_edition
from data_pipeline.formats.submission import Deviation
from data_pipeline.formats.submission_check import validate_submission
from data_pipeline.formats.submission_write import write_submission
from data_pipeline.formats.test_list import load_test_list
from data_pipeline.formats.user_files import FaultList
from mtl_face.evaluation import prediction_files
from mtl_face.evaluation.joining import match
from mtl_face.run import Say
from mtl_face.tables import FrameTable, PredictionError, PredictionTable
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, VA
from mtl_face.weights.provenance import warnings_of_predictions

Fill = Literal["none", "nearest"]

_CERTAIN = 1e6
"""A logit beyond any threshold and bias of a calibration."""

_CONSTANTS = "valence and arousal 0, no action unit, Neutral"


def submit(
    predictions: Path,
    output: Path,
    *,
    edition: str,
    test_list: Path,
    fill: Fill = "none",
    fill_untrained: bool = False,
    say: Say,
) -> list[Deviation]:
    """Writes a submission from a file of predictions, and validates it.

    `output` is a file, or the folder for tracks that ask for a file a video; `edition` is a name in
    `editions.EDITIONS`; `fill` is that of `match_list`. With `fill_untrained`, a task that the
    network was never trained on is answered by a constant, see `with_constants`.

    Returns:
        Where the submission is not as the edition asks for.

    Raises:
        UserError: a file cannot be read or written, a row of the list has no prediction, the
            edition is unknown, or it asks for a task that the network was never trained on.
    """
    form = find_edition(edition)  # an unknown one is said before anything about the files
    table = prediction_files.read(predictions)
    table.check_numbers()
    silent = [task for task in form.tasks if task in table.untrained]
    if silent and not fill_untrained:
        raise PredictionError(
            f"the network was trained without a label of {' and '.join(silent)}, which {edition} "
            "asks for",
            path=predictions,
            remedy="train on such labels, submit to the track of a task that was trained, or add "
            f"--fill_untrained: {_CONSTANTS} in every row",
        )
    if silent:
        say(f"warning: {' and '.join(silent)} was never trained: {_CONSTANTS} in every row")
        table = with_constants(table, silent)
    wanted = load_test_list(test_list, Path())
    rows, filled = match_list(wanted, table, list_path=test_list, fill=fill)
    files = write_submission(
        output,
        edition=edition,
        test_list=wanted,
        predictions=table,
        rows=rows,
        list_path=test_list,
    )
    for warning in warnings_of_predictions(table.metadata):
        say(f"warning: {warning}")
    num_videos = len(set(wanted.video))
    say(f"{len(wanted)} rows of {num_videos} videos, from {len(table)} predictions")
    num_clipped = int((np.abs([table.valence, table.arousal]) > 1).sum())
    say(f"values of valence and arousal clipped to [-1, 1]: {num_clipped}")
    if fill == "nearest":
        say(f"rows filled from the nearest frame of their video: {filled.sum()}")
    what = "the submission" if len(files) == 1 else f"{len(files)} files of the submission"
    say(f"{what}: {output}")
    return validate_submission(output, edition=edition, test_list=wanted, list_path=test_list)


def with_constants(table: PredictionTable, names: Sequence[str]) -> PredictionTable:
    """The table with constants for some tasks: valence and arousal 0, no action unit, Neutral."""
    values = {
        VA: np.zeros((len(table), 2)),
        AU: np.full((len(table), len(AU_NAMES)), -_CERTAIN),
        EXPR: np.eye(1, len(EXPRESSION_NAMES)).repeat(len(table), axis=0) * _CERTAIN,
    }
    changes: dict[str, Any] = {}
    for task in names:
        changes |= table.from_values(values[task], task, "logits")
    return dataclasses.replace(table, **changes)


def match_list(
    test_list: FrameTable, predictions: PredictionTable, *, list_path: Path, fill: Fill = "none"
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Finds the prediction of each of the M rows of a test list by video and frame.

    Otherwise as `joining.match`. `fill` "none" refuses a row without a prediction; "nearest" takes
    the prediction of the nearest frame of the same video, the earlier one of two equally near.

    Returns:
        Row of the predictions for each row of the list, int64 [M], and whether it is that of
        another frame, bool [M].

    Raises:
        AnnotationError: rows have no prediction; names up to ten.
        PredictionError: an image has several predictions that contradict each other.
    """
    import pandas as pd

    # a list names no data set
    names = np.resize(test_list.dataset, len(predictions)).astype(np.str_)
    index_M = match(test_list, dataclasses.replace(predictions, dataset=names), lenient=True)
    missing_M = index_M < 0
    remedy = "predict the whole list, or add --fill=nearest"
    others = ""
    if fill == "nearest":
        remedy, others = "predict the whole list", ", nor for any other frame of its video"
        keys = ["video", "frame"]
        asked, known = (
            pd.DataFrame(
                {"video": t.video.astype(object), "frame": t.frame, "row": np.arange(len(t))}
            )
            for t in (test_list, predictions)
        )
        found = pd.merge_asof(
            asked[missing_M].sort_values("frame"),
            known.drop_duplicates(keys).sort_values("frame"),
            on="frame",
            by="video",
            direction="nearest",
        ).dropna()
        index_M[found["row_x"].to_numpy()] = found["row_y"].to_numpy()
    faults = FaultList(list_path)
    for row in np.flatnonzero(index_M < 0):
        problem = f"no prediction for {test_list.image[row]}{others}"
        faults.add(int(test_list.row[row]), problem, remedy)
    faults.raise_if_any()
    return index_M, missing_M


def validate(submission: Path, *, edition: str, test_list: Path) -> list[Deviation]:
    """Everything in which a submission is not as its edition asks for; UserError as `submit`."""
    find_edition(edition)
    wanted = load_test_list(test_list, Path())
    return validate_submission(submission, edition=edition, test_list=wanted, list_path=test_list)
