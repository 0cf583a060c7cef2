"""Reads files to be scored: predictions of any kind, and the labels to score them against.

Imports neither JAX nor TensorFlow.
"""

import dataclasses
from pathlib import Path

import numpy as np

from data_pipeline.formats import s_aff_wild2
from data_pipeline.formats.submission import SubmissionTable, read_submission
from mtl_face import tasks
from mtl_face.errors import ConfigError
from mtl_face.evaluation import prediction_files
from mtl_face.evaluation.joining import only_tasks
from mtl_face.tables import FrameTable, PredictionError, PredictionTable

_WORKDIR_FILE = Path("evaluation", "predictions.parquet")
_DATASET = "s-aff-wild2"
"""Name of the data set of a submission, which itself names none."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredFile:
    """Predictions as read.

    Attributes:
        path: the file.
        predictions: what it says.
        tasks: the tasks that it answers.
        kind: what it is, in words.
        warnings: what a lenient reading overlooked.
    """

    path: Path
    predictions: PredictionTable
    tasks: tuple[str, ...]
    kind: str
    warnings: tuple[str, ...] = ()

    @property
    def dataset(self) -> str:
        """The one data set that the rows are of.

        Raises:
            PredictionError: they are of several.
        """
        names = sorted(set(self.predictions.dataset.tolist())) or [_DATASET]
        if len(names) > 1:
            raise PredictionError(
                f"holds predictions of {len(names)} data sets ({', '.join(names)})",
                path=self.path,
                remedy="choose the one that the labels are of: --dataset=NAME",
            )
        return str(names[0])

    def renamed(self, dataset: str) -> "ScoredFile":
        """The same rows under another name of their one data set."""
        if self.dataset == dataset:
            return self
        column = np.full(len(self.predictions), dataset)
        return dataclasses.replace(
            self, predictions=dataclasses.replace(self.predictions, dataset=column)
        )

    def of_dataset(self, name: str) -> "ScoredFile":
        """The rows of one data set alone.

        Raises:
            ConfigError: there are none.
        """
        rows = np.flatnonzero(self.predictions.dataset == name)
        if not len(rows):
            found = ", ".join(sorted(set(self.predictions.dataset.tolist())))
            raise ConfigError(
                f"{self.path} holds no predictions of --dataset={name}",
                remedy=f"it holds those of {found}",
            )
        return dataclasses.replace(self, predictions=self.predictions.take(rows))


def read_predictions(path: Path, *, lenient: bool) -> ScoredFile:
    """Reads our .parquet or .csv, the folder of an evaluated run, or a submission.

    Args:
        path: the file or folder.
        lenient: read a submission that departs from its form where it is clear what it means.

    Returns:
        The predictions.

    Raises:
        PredictionError: a file of ours cannot be read.
        AnnotationError: a submission cannot be read or departs from its form.
    """
    if (path / _WORKDIR_FILE).is_file():
        path = path / _WORKDIR_FILE
    elif path.is_dir() and (path / "config.json").is_file():
        raise PredictionError(
            "is a run that was not evaluated yet",
            path=path,
            remedy=f"run.py evaluate writes its {_WORKDIR_FILE}",
        )
    if not path.exists():
        raise PredictionError(
            "does not exist", path=path, remedy="check the path for a typing mistake"
        )
    if path.is_file() and _is_ours(path):
        table = prediction_files.read(path)
        return ScoredFile(path, table, tasks.TASKS, "predictions with logits")
    submission = read_submission(path, strict=not lenient)
    kind = f"a submission of {', '.join(submission.tasks)}"
    return ScoredFile(path, _table(submission), submission.tasks, kind, submission.warnings)


def read_truth(path: Path, *, dataset: str, answered: tuple[str, ...]) -> FrameTable:
    """Reads the labels.

    Args:
        path: a multi-task annotation file, or for one task the folder of files `<video>.txt`.
        dataset: name for the column `dataset`.
        answered: the tasks that the predictions answer; labels of others are left out.

    Returns:
        The labels, sorted.

    Raises:
        AnnotationError: the file cannot be read or has faults.
    """
    if path.is_dir():
        from data_pipeline.formats.per_video import read_folder

        table = read_folder(path, dataset=dataset)
    else:
        table = s_aff_wild2.read_annotations(path, image_root=".", dataset=dataset)
    return only_tasks(table, answered)


def _is_ours(path: Path) -> bool:
    """Whether a file is Parquet, or CSV with the columns of a prediction table."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise PredictionError(
            f"cannot be read ({error.strerror})", path=path, remedy="check its permissions"
        ) from error
    header = start.partition(b"\n")[0]
    return start.startswith(b"PAR1") or path.suffix == ".parquet" or b"_logit" in header


def _table(submission: SubmissionTable) -> PredictionTable:
    return PredictionTable(
        dataset=np.full(len(submission), _DATASET),
        video=submission.video.astype(np.str_),
        frame=submission.frame,
        image=submission.image.astype(np.str_),
        valence=submission.valence,
        arousal=submission.arousal,
        au_decisions=submission.au if tasks.AU in submission.tasks else None,
        expression_decisions=submission.expression if tasks.EXPR in submission.tasks else None,
    )
