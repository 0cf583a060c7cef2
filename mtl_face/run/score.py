"""Scores a file of predictions, or compares two, without JAX or TensorFlow.

A file of predictions is a .parquet or .csv of this program, the folder of an evaluated run, or a
submission to a challenge.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import images
from data_pipeline.formats.editions import MULTI_TASK
from data_pipeline.formats.submission import read_submission
from data_pipeline.formats.user_files import BadRow
from mtl_face.errors import ConfigError
from mtl_face.evaluation import comparison, prediction_files, scoring
from mtl_face.evaluation.bootstrap import NUM_RESAMPLES
from mtl_face.evaluation.joining import check_rows, join_both, join_file
from mtl_face.report import Report, write_report
from mtl_face.run import Say, postprocess
from mtl_face.run import workdir as workdirs
from mtl_face.tables import (
    TRAINING,
    FrameTable,
    PredictionError,
    PredictionTable,
    label_counts,
)
from mtl_face.weights.provenance import warnings_of_predictions

_IMAGE_SIZE = 112


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How files are scored.

    Attributes:
        truth: a multi-task annotation file, a manifest, or for one task the folder of files
            `<video>.txt`.
        dataset: score the predictions of this data set alone; None: there is one only.
        lenient: score what fits, instead of refusing a file that departs from its form or whose
            rows are not those of the labels.
        skip_bad_rows: leave out rows of labels that cannot be read, and say so.
        num_resamples: resamples of the videos for intervals, 0 for none.
    """

    truth: Path
    dataset: str | None = None
    lenient: bool = False
    skip_bad_rows: bool = False
    num_resamples: int = NUM_RESAMPLES
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredFile:
    """A file of predictions with its scores.

    Attributes:
        truth: the labels of the tasks that it answers.
        raw: the predictions before a calibration was applied, or None.
        result: what `scoring.score` returns, with `matching`, `warnings` (on what the weights have
            seen), `provenance` and `files`.
    """

    path: Path
    truth: FrameTable
    predictions: PredictionTable
    raw: PredictionTable | None
    result: dict[str, Any]


def score_file(
    predictions: Path, how: Scoring, *, calibration: Path | None = None, say: Say
) -> ScoredFile:
    """Scores a file of predictions against labels; a calibration is applied before the score.

    Raises:
        PredictionError: the predictions cannot be read or do not fit the labels.
        CalibrationError: the calibration cannot be read or does not fit the predictions.
        AnnotationError: the labels or a submission cannot be read.
        ConfigError: there are no predictions of the data set.
    """
    path, table, notes = _read(predictions, how)
    cautions: list[str] = []
    raw = None
    if calibration is not None:
        if table.au_logits is None:
            raise PredictionError(
                "holds decisions alone, which cannot be calibrated",
                path=path,
                remedy="give a .parquet or .csv of this program, which holds logits",
            )
        raw = table
        table, cautions = postprocess.PostProcessing.of(None, calibration).apply(table, say)
    unread: list[BadRow] | None = [] if how.skip_bad_rows else None
    truth = postprocess.read_truth(
        how.truth, table, _data_set(path, table), skipped=unread, say=say
    ).only_tasks(table.tasks)
    say(f"{path}: {kind_of(table)}, {len(table)} rows")
    say(f"{how.truth}: {len(truth)} rows of labels")
    rules: dict[str, Any] = {
        "path": path,
        "lenient": how.lenient,
        "num_unread": len(unread or ()),
    }
    joined, found = join_file(truth, table, **rules)
    before = None if raw is None else join_file(truth, raw, **rules)[0]
    known = table.metadata.keys() & {"provenance", "ensemble", TRAINING}
    seen = warnings_of_predictions(table.metadata) if known else []
    if not label_counts(table.metadata.get(TRAINING)):
        seen += [f"no row has an answer for {task}: it is not scored" for task in table.untrained]
    for warning in (*notes, *found.lines(), *seen):
        say(f"warning: {warning}")
    result = scoring.score_joined(
        joined, before=before, num_resamples=how.num_resamples, seed=how.seed
    )
    result["matching"] = {
        "num_missing": joined.num_unpredicted,
        "num_extra": found.num_extra,
        "num_repeated": found.num_repeated,
        "warnings": [*notes, *cautions, *found.lines()],
    }
    training = table.metadata.get(TRAINING)
    result["selection"] = training.get("selection") if isinstance(training, dict) else None
    result["warnings"] = seen
    result["provenance"] = table.metadata.get("provenance")
    result["files"] = {"predictions": str(path), "truth": str(how.truth)}
    return ScoredFile(path, truth, table, raw, result)


def compare_files(first: Path, second: Path, how: Scoring) -> dict[str, Any]:
    """Whether two files differ by more than the choice of videos explains.

    Returns what `comparison.compare` does, with `files` and `warnings`.

    Raises:
        ConfigError: the two answer no common task.
        PredictionError: predictions do not fit the labels.
        AnnotationError: the labels or a submission cannot be read.
    """
    read = [_read(path, how) for path in (first, second)]
    (first, one, _), (second, two, _) = read
    common = tuple(task for task in one.tasks if task in two.tasks)
    if not common:
        raise ConfigError(
            f"{first} and {second} answer no common task",
            remedy="compare files of the same task",
        )
    dataset = _data_set(first, one)
    if _data_set(second, two) != dataset:  # a submission names none
        two = dataclasses.replace(two, dataset=np.full(len(two), dataset))
    asked: list[NDArray[np.int64]] = []
    warnings: list[str] = []
    unread: list[BadRow] | None = [] if how.skip_bad_rows else None
    truth = postprocess.read_truth(
        how.truth, one, dataset, skipped=unread, say=warnings.append
    ).only_tasks(common)
    for (path, _, notes), table in zip(read, (one, two), strict=True):
        rows, found = check_rows(
            truth, table, path=path, lenient=how.lenient, num_unread=len(unread or ())
        )
        asked.append(rows)
        warnings += [f"{path}: {line}" for line in (*notes, *found.lines())]
    truth = truth.take(np.intersect1d(asked[0], asked[1]))
    joined = join_both(truth, one, two, lenient=how.lenient)
    result = comparison.compare(*joined, num_resamples=how.num_resamples, seed=how.seed)
    result["files"] = {"first": str(first), "second": str(second), "truth": str(how.truth)}
    result["warnings"] = warnings
    return result


def report_file(scored: ScoredFile, path: Path, *, image_folder: Path | None) -> None:
    """Writes the report of a scored file.

    The paths of the labels start in `image_folder`; None leaves the pictures out, and so is a
    picture that is not there.

    Raises:
        ImageError: a picture is there and cannot be read.
        WorkdirError: the report cannot be written.
    """

    def picture(row: int) -> NDArray[np.uint8] | None:
        assert image_folder is not None
        place = os.path.join(image_folder, *str(scored.truth.image[row]).split("/"))
        if not os.path.isfile(place):
            return None
        return images.read_image(place, _IMAGE_SIZE, upright=upright)

    metadata = scored.predictions.metadata
    data = (metadata.get("config") or {}).get("data", {})
    upright = data.get("exif_orientation") == "apply"
    report = Report(
        title=f"Predictions of {scored.path.name}",
        metrics=scored.result,
        predictions=scored.predictions,
        truth=scored.truth,
        raw=scored.raw,
        images=None if image_folder is None else picture,
        config=metadata.get("config"),
        notice=f"Scored: {scored.path}, {kind_of(scored.predictions)}.",
        warnings=[*scored.result["matching"]["warnings"], *warnings_of_predictions(metadata)],
    )
    write_report(path, report)


def kind_of(table: PredictionTable) -> str:
    """What a file of these predictions is, in words."""
    if table.au_logits is not None:
        return "predictions with logits"
    in_order = [task for task in MULTI_TASK.tasks if task in table.tasks]
    return f"a submission of {', '.join(in_order)}"


def _read(path: Path, how: Scoring) -> tuple[Path, PredictionTable, list[str]]:
    """The file itself, its predictions (of one data set if that is named), and warnings."""
    if workdirs.is_run(path) or (path / workdirs.EVALUATION).is_dir():
        path = postprocess.predictions_of_run(path, postprocess.SCORED)
    elif workdirs.holds_export(path):
        raise PredictionError(
            "is an export, which holds no predictions",
            path=path,
            remedy="python run.py evaluate --model=EXPORT --output=DIR writes some: name the file "
            "predictions.parquet in that folder",
        )
    warnings: tuple[str, ...] = ()
    if path.is_file() and prediction_files.is_one(path):
        table = prediction_files.read(path)
    else:
        table, warnings = read_submission(path, strict=not how.lenient)
    if how.dataset is not None:
        rows = np.flatnonzero(table.dataset == how.dataset)
        if not len(rows):
            found = ", ".join(sorted(set(table.dataset.tolist())))
            raise ConfigError(
                f"{path} holds no predictions of --dataset={how.dataset}",
                remedy=f"it holds those of {found}",
            )
        table = table.take(rows)
    return path, table, list(warnings)


def _data_set(path: Path, table: PredictionTable) -> str:
    remedy = "choose the one that the labels are of: --dataset=NAME"
    return postprocess.data_set_of(table, path, remedy=remedy)
