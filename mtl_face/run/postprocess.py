"""What happens to predictions after the network: smoothing, ensembles, calibration.

Nothing here needs JAX or TensorFlow.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from data_pipeline.formats import read_labels
from data_pipeline.formats.user_files import BadRow
from mtl_face import tasks
from mtl_face.config.check import build
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import ConfigError, WorkdirError
from mtl_face.evaluation import calibration as calibrations
from mtl_face.evaluation import calibration_fit, ensemble, prediction_files
from mtl_face.evaluation.calibration import Calibration, CalibrationError
from mtl_face.evaluation.calibration_fit import Search
from mtl_face.evaluation.joining import asked_rows
from mtl_face.evaluation.smoothing import Scale, Smoothing, smooth
from mtl_face.files import read_json, sha256, write_json
from mtl_face.run import Say
from mtl_face.run import workdir as workdirs
from mtl_face.tables import EPISTEMIC_FIELDS, FrameTable, PredictionError, PredictionTable

if TYPE_CHECKING:
    from mtl_face.config import Config
    from mtl_face.inference.predictor import Predictor

RAW = "predictions_raw.parquet"
"""As the network made them; written where smoothing or calibration changed what was scored."""

SCORED = "predictions.parquet"


def predictions_of_run(workdir: Path, *names: str) -> Path:
    """The first of these files of an evaluation, before smoothing if there is one by default.

    WorkdirError if the run was not evaluated.
    """
    for name in names or (RAW, SCORED):
        path = workdir.expanduser() / workdirs.EVALUATION / name
        if path.is_file():
            return path
    raise WorkdirError(
        "holds no evaluation/predictions.parquet: it is no run, or was not evaluated yet",
        path=workdir,
        remedy="evaluate the run first: python run.py evaluate --model=RUN; of an export, give "
        "the files that its evaluation wrote",
    )


def smoothing_of_settings(settings: Any) -> Smoothing | None:
    """What `evaluation.smoothing` asks for, or None; ConfigError for a window out of range."""
    windows = {task: getattr(settings, task) for task in tasks.TASKS}
    try:
        found = Smoothing(
            kernel=settings.kernel, unit=settings.unit, on=settings.on, windows=windows
        )
    except ValueError as error:
        raise ConfigError(
            f"evaluation.smoothing: {error}",
            remedy="change evaluation.smoothing.va, .au and .expr; a box takes whole numbers",
        ) from error
    return None if found.changes_nothing else found


@dataclasses.dataclass(frozen=True)
class PostProcessing:
    """What is done to predictions: smoothing, then a calibration, read from a file; or neither.

    A calibration with a smoothing of its own brings that along where none is asked for.
    """

    smoothing: Smoothing | None = None
    calibration: Calibration | None = None
    file: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, smoothing: Smoothing | None, calibration: str | Path | None) -> Self:
        """Reads the file of a calibration; CalibrationError if it is none."""
        if calibration is None:
            return cls(smoothing)
        fitted = calibrations.read(calibration)
        file = {"file": str(calibration), "file_sha256": sha256(calibration)}
        return cls(smoothing or fitted.smoothing, fitted, file)

    @classmethod
    def of_settings(cls, config: "Config") -> Self:
        """What `evaluation.smoothing` and `evaluation.calibration` ask for; UserError if wrong.

        To be called before any image is read.
        """
        settings = config.evaluation
        return cls.of(smoothing_of_settings(settings.smoothing), settings.calibration)

    def with_own(self, model: "Predictor") -> Self:
        """These steps, with the calibration inside of a model where no other is asked for."""
        own = model.calibration
        if own is None or self.calibration is not None:
            return self
        return type(self)(self.smoothing or own.smoothing, own, model.calibration_file)

    def of_photos(self) -> Self:
        """These steps for pictures that do not follow each other: nothing is smoothed."""
        own = self.calibration
        alone = None if own is None else own.without_smoothing()
        return dataclasses.replace(self, smoothing=None, calibration=alone)

    def apply(self, table: PredictionTable, say: Say) -> tuple[PredictionTable, list[str]]:
        """Smooths and calibrates.

        Returns:
            The table (the very same if there is nothing to do), and warnings on what its scores
            mean, which were said.

        Raises:
            CalibrationError: the calibration does not fit the predictions.
            PredictionError: the predictions cannot be smoothed.
        """
        warnings = [] if self.calibration is None else _warnings(table, self.calibration)
        if self.smoothing is not None:
            table = smooth(table, self.smoothing)
            say(f"smoothed: {self.smoothing}")
        if self.calibration is not None:
            path = self.file["file"]
            try:
                table = calibrations.apply(table, self.calibration)
            except CalibrationError as error:
                raise CalibrationError(error.problem, path=path, remedy=error.remedy) from None
            applied = {**table.metadata["calibration"], **self.file}
            table = dataclasses.replace(table, metadata={**table.metadata, "calibration": applied})
            say(f"calibrated with {path}")
        for line in warnings:
            say(f"warning: {line}")
        return table, warnings


def _warnings(table: PredictionTable, fitted: Calibration) -> list[str]:
    """Where a score of these predictions would not mean what it seems to."""
    lines = []
    fitted_on = fitted.fitted_on
    pairs = sorted(set(zip(table.dataset.tolist(), table.video.tolist(), strict=True)))
    datasets, videos = np.array(pairs).reshape(-1, 2).T
    groups = set(calibrations.group_names(datasets, videos).tolist())
    shared = groups & set(fitted_on.get("videos", ()))
    if shared:
        measured = fitted_on.get("scores", {}).get("cross_fitted", {}).get("p")
        lines.append(
            f"the calibration was fitted on {len(shared)} of the {len(groups)} videos scored "
            "here, so that this score flatters it"
            + ("" if measured is None else f"; its cross-fitted P was {measured:.4f}")
        )
    weights = fitted_on.get("weights_sha256"), calibrations.weights_of(table.metadata)
    if None not in weights and weights[0] != weights[1]:
        lines.append(
            "the calibration was fitted on predictions of other weights than these; fit one on "
            "those of these weights (run.py calibrate)"
        )
    return lines


def average_files(
    paths: Sequence[Path],
    output: Path,
    *,
    on: Scale,
    missing: ensemble.Missing,
    smoothing: Smoothing | None,
    calibration: Path | None = None,
    say: Say,
) -> PredictionTable:
    """Averages files of predictions, see `ensemble.combine`; each is smoothed before.

    A `calibration`, which was fitted on such a mean, is applied to the mean, with its smoothing.

    Raises:
        ConfigError: fewer than two members, or a file named twice.
        PredictionError: a file cannot be read, or the members cannot be averaged.
        CalibrationError: the calibration cannot be read, or does not fit the mean.
        WorkdirError: the mean cannot be written.
    """
    steps = PostProcessing.of(None, calibration)
    if len(paths) < 2:
        raise ConfigError(
            f"an ensemble of {len(paths)} is none",
            remedy="name two files of predictions or more, or --workdirs with folders of runs",
        )
    resolved = [path.resolve() for path in paths]
    repeated = next((path for path in resolved if resolved.count(path) > 1), None)
    if repeated is not None:
        raise ConfigError(f"{repeated} is named twice", remedy="name each member once")
    if output.resolve() in resolved:
        raise ConfigError(
            f"--output={output} is one of the members", remedy="choose another name for the mean"
        )
    members = []
    for path in paths:
        member = prediction_files.read(path)
        without = f", without {' and '.join(member.untrained)}" if member.untrained else ""
        say(f"{path}: {len(member)} rows{without}")
        members.append(member if smoothing is None else smooth(member, smoothing))
    mean = ensemble.combine(members, names=[*map(str, paths)], on=on, missing=missing)
    mean, _ = steps.apply(mean, say)
    prediction_files.write(mean, output)
    for line in prediction_files.lost(mean, output):
        say(line)
    return mean


def spreads(mean: PredictionTable) -> dict[str, float]:
    """How far the members of a mean differ, by task: root mean square of the epistemic columns.

    Tasks of which nothing is known are left out.
    """
    found = {}
    for task, fields in EPISTEMIC_FIELDS.items():
        spread = np.array([getattr(mean, field) for field in fields])
        if not np.isnan(spread).all():
            found[task] = float(np.sqrt(np.nanmean(np.square(spread))))
    return found


def data_set_of(table: PredictionTable, path: Path, *, remedy: str) -> str:
    """The one data set that the rows are of; PredictionError where they are of several."""
    names = np.unique(table.dataset).tolist()
    if len(names) > 1:
        found = f"holds predictions of {len(names)} data sets ({', '.join(names)})"
        raise PredictionError(found, path=path, remedy=remedy)
    return "".join(names)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Predictions and their labels, with where they come from."""

    predictions: Path
    table: PredictionTable
    labels: str
    truth: FrameTable


def read_truth(
    labels: Path,
    table: PredictionTable,
    dataset: str,
    *,
    skipped: list[BadRow] | None = None,
    say: Say,
) -> FrameTable:
    """Reads labels under the name of a data set; AnnotationError for faults.

    A manifest's labels mean what the settings say that the predictions were made with, else what
    the defaults say. `skipped` takes rows that cannot be read and are left out, aloud; None: they
    are an error.
    """
    data = (table.metadata.get("config") or {}).get("data") or {}
    data = (data.get("mixture") or {}).get(data.get("validation"), data)
    settings = None
    if data.get("kind") == "manifest":
        known = {field.name for field in dataclasses.fields(ManifestConfig)}
        values = {name: data["manifest"][name] for name in known & data.get("manifest", {}).keys()}
        settings = build(values, ManifestConfig, "data.manifest.")
    return read_labels(labels, dataset=dataset, settings=settings, skipped=skipped, say=say)


def labelled_files(
    predictions: Path,
    labels: Path,
    *,
    skip_bad_rows: bool = False,
    say: Say = lambda line: None,
) -> Labelled:
    """Predictions with the labels of an annotation file or a manifest.

    `skip_bad_rows` leaves out rows of labels that cannot be read, and says so.

    Raises:
        PredictionError: the predictions cannot be read, are none, or of several data sets.
        AnnotationError: the labels cannot be read.
    """
    table = prediction_files.read(predictions)
    if not len(table):
        raise PredictionError(
            "holds no predictions", path=predictions, remedy="give those of the validation set"
        )
    name = data_set_of(table, predictions, remedy="calibrate on predictions of one")
    truth = read_truth(labels, table, name, skipped=[] if skip_bad_rows else None, say=say)
    truth = truth.take(asked_rows(truth, table))
    return Labelled(predictions, table, str(labels), truth)


def labelled_workdir(config: "Config", workdir: Path, say: Say) -> Labelled:
    """The predictions of an evaluated run with the validation set that the config names.

    WorkdirError if the run was not evaluated, UserError if the data cannot be read.
    """
    from mtl_face.run import datasets, rows

    path = predictions_of_run(workdir)
    root = datasets.ensure_data(config.data, say)
    truth = datasets.load_split(config.data, "validation", say)
    if changed := rows.changes(workdir, truth, "validation"):
        say(f"warning: these are other rows than those of its training: {changed}")
    name = datasets.evaluated(config.data).validation_annotations
    labels = root if name is None else root / name
    return Labelled(path, prediction_files.read(path), str(labels), truth)


_NEW_FILE = "give a new file as --output: this one is not written over"


def calibrate(source: Labelled, search: Search, output: Path, say: Say) -> Calibration:
    """Fits a calibration on validation predictions, and writes it.

    Raises:
        PredictionError: the predictions do not fit the labels.
        CalibrationError: they were calibrated before, or are of too few videos.
        WorkdirError: `output` is another file that exists, or cannot be written.
    """
    if output.exists() and "temperatures" not in read_json(output, remedy=_NEW_FILE):
        raise WorkdirError("holds no calibration", path=output, remedy=_NEW_FILE)
    path, table = source.predictions, source.table
    say(f"{path}: {len(table)} rows; {source.labels}: {len(source.truth)} rows of labels")
    if smoothed := table.metadata.get("smoothing"):
        say(f"the predictions are smoothed already, no window is fitted: {smoothed}")
    fitted = calibration_fit.calibrate(source.truth, table, search)
    files: dict[str, Any] = {
        "predictions": str(path),
        "predictions_sha256": sha256(path),
        "truth": source.labels,
    }
    if Path(source.labels).is_file():
        files["truth_sha256"] = sha256(source.labels)
    fitted = dataclasses.replace(fitted, fitted_on={**files, **fitted.fitted_on})
    write_json(output, fitted.to_dict())
    return fitted
