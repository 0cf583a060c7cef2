"""`run.py calibrate`: fits a calibration on validation predictions, without JAX or TensorFlow."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_face import tasks
from mtl_face.errors import ConfigError
from mtl_face.evaluation import calibration as calibrations
from mtl_face.evaluation import predictions as prediction_files
from mtl_face.evaluation.calibration import Calibration
from mtl_face.evaluation.calibration_fit import Search, calibrate
from mtl_face.evaluation.joining import asked_rows, match
from mtl_face.run import prediction_paths
from mtl_face.run import smoothing as smooth_options
from mtl_face.tables import FrameTable, PredictionError

if TYPE_CHECKING:
    from mtl_face import config as config_lib

_REMEDY = "give --predictions=FILE --truth=ANNOTATIONS, or --config=... --workdir=DIR"


def run(config: "config_lib.Config | None", options: argparse.Namespace) -> int:
    """Fits a calibration and writes it to `options.output`.

    Args:
        config: names the validation set where a `workdir` is given, else None.
        options: `predictions` and `truth`, or `workdir`; `output`, `windows`, `kernel`, `unit`,
            `on`, `folds`, `keep_all`.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: the flags name no predictions, or a wrong window.
        PredictionError: the predictions cannot be read or do not fit the labels.
        CalibrationError: they were calibrated before, or are of too few videos.
    """
    windows = smooth_options.parse_window_list(options.windows, options)
    path, truth, truth_name = _inputs(config, options)
    table = prediction_files.read(path)
    if truth is None:
        truth = _read_truth(options.truth, table, path)
    print(f"{path}: {len(table)} rows; {truth_name}: {len(truth)} rows of labels")
    if table.metadata.get("smoothing"):
        print(
            f"the predictions are smoothed already, no window is fitted: "
            f"{table.metadata['smoothing']}"
        )
    fitted = calibrate(
        truth,
        table,
        Search(
            windows=windows,
            kernel=options.kernel,
            unit=options.unit,
            on=options.on,
            num_folds=options.folds,
            keep_all=options.keep_all,
        ),
    )
    provenance: dict[str, Any] = {
        "predictions": str(path),
        "predictions_sha256": calibrations.sha256(path),
        "truth": truth_name,
    }
    if Path(truth_name).is_file():
        provenance["truth_sha256"] = calibrations.sha256(truth_name)
    fitted = dataclasses.replace(fitted, fitted_on={**provenance, **fitted.fitted_on})
    calibrations.write(fitted, options.output)
    for line in describe(fitted):
        print(line)
    print(f"results: {options.output}")
    print(
        "next: run.py evaluate --calibration=" + str(options.output) + " with --predictions and "
        "--truth of other videos, or with --config and --workdir"
    )
    return 0


def describe(fitted: Calibration) -> list[str]:
    """What was found, and what it is worth, in lines."""
    scores = fitted.fitted_on["scores"]
    lines = [f"{'':14}{'va':>9}{'au':>9}{'expr':>9}{'P':>9}"]
    for name, words in (
        ("uncalibrated", "uncalibrated"),
        ("in_sample", "in sample"),
        ("cross_fitted", "cross-fitted"),
    ):
        values = [scores[name][key] for key in (*tasks.TASKS, "p")]
        lines.append(
            f"{words:14}" + "".join("     none" if v is None else f"{v:9.4f}" for v in values)
        )
    lines.append("(cross-fitted: videos scored by a fit to the others; the number to believe)")
    smoothing = fitted.smoothing
    if smoothing is not None:
        windows = ", ".join(f"{task} {window:g}" for task, window in smoothing.windows.items())
        lines.append(f"smoothing: {smoothing.kernel}, {smoothing.unit}: {windows}")
    lines += [
        "temperatures: " + _values(fitted.temperatures, 1.0),
        ("standard deviations times " if fitted.std_is_predicted else "standard deviations: ")
        + ", ".join(f"{name} {value:.4f}" for name, value in fitted.std_scales.items()),
        "thresholds (logit): " + _values(fitted.au_thresholds, 0.0),
        "biases (logit): " + _values(fitted.expression_biases, 0.0),
    ]
    return lines + [f"not used: {reason}" for reason in fitted.fitted_on["refused"]]


def _values(values: Any, default: float) -> str:
    changed = [f"{name} {value:.4g}" for name, value in values.items() if value != default]
    return ", ".join(changed) or "unchanged"


def _inputs(
    config: "config_lib.Config | None", options: argparse.Namespace
) -> tuple[Path, FrameTable | None, str]:
    """The file of predictions; the labels if a config names them; what to call the labels."""
    if options.workdir is None:
        if options.predictions is None or options.truth is None or config is not None:
            raise ConfigError("calibrate needs predictions and their labels", remedy=_REMEDY)
        return options.predictions, None, str(options.truth)
    if config is None or options.predictions is not None or options.truth is not None:
        raise ConfigError(
            "--workdir goes with --config, and without --predictions and --truth", remedy=_REMEDY
        )
    from mtl_face.run import datasets

    path = prediction_paths.of_workdir(options.workdir)
    root = datasets.ensure_data(config.data, print)
    table = datasets.load_split(config.data, root, "validation", print)
    name = datasets.evaluated(config.data).validation_annotations
    return path, table, str(root if name is None else root / name)


def _read_truth(path: Path, table: Any, predictions: Path) -> FrameTable:
    """The labels, under the name that the predictions give their data set."""
    from mtl_face.run import scored_files

    names = np.unique(table.dataset)
    if not len(names):
        raise PredictionError(
            "holds no predictions", path=predictions, remedy="give those of the validation set"
        )
    if len(names) != 1:
        raise ConfigError(
            f"{predictions} holds predictions of {len(names)} data sets",
            remedy="calibrate on predictions of one",
        )
    truth = scored_files.read_truth(path, dataset=str(names[0]), answered=tasks.TASKS)
    predicted_N = match(truth, table, lenient=True) >= 0
    return truth.take(asked_rows(truth, predicted_N))
