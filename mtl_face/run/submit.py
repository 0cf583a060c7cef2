"""Writes and checks submissions to the challenges."""

import dataclasses
from pathlib import Path

import numpy as np

from data_pipeline.formats.submission import Deviation
from data_pipeline.formats.submission_check import validate_submission
from data_pipeline.formats.submission_write import Fill, match_list, write_submission
from data_pipeline.formats.test_list import load_test_list
from mtl_face.evaluation import prediction_files
from mtl_face.evaluation.joining import check_numbers
from mtl_face.weights.provenance import warnings_of_predictions


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A submission that was written.

    Attributes:
        num_rows: rows of the test list, and of the submission; `num_videos` are theirs.
        num_clipped: predicted values of valence and arousal outside [-1, 1].
        num_filled: rows with the prediction of another frame.
        warnings: on what the weights have seen.
        deviations: where the submission is not as the edition asks for.
    """

    num_files: int
    num_rows: int
    num_videos: int
    num_predictions: int
    num_clipped: int
    num_filled: int
    warnings: list[str]
    deviations: list[Deviation]


def submit(
    predictions: Path, output: Path, *, edition: str, test_list: Path, fill: Fill = "none"
) -> Submitted:
    """Writes a submission from a file of predictions, and validates it.

    `output` is a file, or the folder for tracks that ask for a file a video; `edition` is a name in
    `editions.EDITIONS`; `fill` is that of `match_list`.

    Raises:
        UserError: a file cannot be read or written, a row of the list has no prediction, or the
            edition is unknown.
    """
    table = prediction_files.read(predictions)
    check_numbers(table)
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
    return Submitted(
        num_files=len(files),
        num_rows=len(wanted),
        num_videos=len(set(wanted.video)),
        num_predictions=len(table),
        num_clipped=int((np.abs([table.valence, table.arousal]) > 1).sum()),
        num_filled=int(filled.sum()),
        warnings=warnings_of_predictions(table.metadata),
        deviations=validate_submission(
            output, edition=edition, test_list=wanted, list_path=test_list
        ),
    )


def validate(submission: Path, *, edition: str, test_list: Path) -> list[Deviation]:
    """Everything in which a submission is not as its edition asks for; UserError as `submit`."""
    wanted = load_test_list(test_list, Path())
    return validate_submission(submission, edition=edition, test_list=wanted, list_path=test_list)
