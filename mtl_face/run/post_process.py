"""What happens to predictions between the network and the score: smoothing, then calibration."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mtl_face.evaluation import calibration as calibrations
from mtl_face.evaluation.calibration import Calibration, CalibrationError, group_names
from mtl_face.evaluation.smoothing import Smoothing, smooth
from mtl_face.tables import PredictionTable


def post_process(
    table: PredictionTable,
    *,
    smoothing: Smoothing | None,
    calibration: str | Path | None,
    say: Callable[[str], None],
) -> tuple[PredictionTable, list[str]]:
    """Smooths, then calibrates.

    Args:
        table: predictions.
        smoothing: how to smooth, or None.
        calibration: a file of `run.py calibrate`, or None.
        say: prints a line.

    Returns:
        The table (the very same if there is nothing to do), and warnings on what its scores mean.

    Raises:
        CalibrationError: the file is no calibration, or does not fit the predictions.
        PredictionError: the predictions cannot be smoothed.
    """
    warnings = []
    if smoothing is not None:
        table = smooth(table, smoothing)
        windows = ", ".join(f"{task} {window:g}" for task, window in smoothing.windows.items())
        say(f"smoothed: {smoothing.kernel}, {smoothing.unit}: {windows}")
    if calibration is not None:
        fitted = calibrations.read(calibration)
        warnings = _warnings(table, fitted)
        try:
            table = calibrations.apply(table, fitted)
        except CalibrationError as error:
            raise CalibrationError(error.problem, path=calibration, remedy=error.remedy) from None
        metadata = {
            **table.metadata["calibration"],
            "file": str(calibration),
            "file_sha256": calibrations.sha256(calibration),
        }
        table = dataclasses.replace(table, metadata={**table.metadata, "calibration": metadata})
        say(f"calibrated with {calibration}")
    return table, warnings


def _warnings(table: PredictionTable, fitted: Calibration) -> list[str]:
    """Where a score of these predictions would not mean what it seems to."""
    lines = []
    fitted_on = fitted.fitted_on
    groups = set(group_names(*_distinct_videos(table)).tolist())
    shared = groups & set(fitted_on.get("videos", ()))
    if shared:
        measured = fitted_on.get("scores", {}).get("cross_fitted", {}).get("p")
        lines.append(
            f"the calibration was fitted on {len(shared)} of the {len(groups)} videos scored "
            "here, so that this score flatters it"
            + ("" if measured is None else f"; its cross-fitted P was {measured:.4f}")
        )
    weights = fitted_on.get("weights_sha256"), table.metadata.get("weights_sha256")
    if None not in weights and weights[0] != weights[1]:
        lines.append("the calibration was fitted on predictions of other weights than these")
    return lines


def _distinct_videos(table: PredictionTable) -> tuple[np.ndarray, np.ndarray]:
    pairs = sorted(set(zip(table.dataset.tolist(), table.video.tolist(), strict=True)))
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
