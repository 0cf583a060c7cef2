"""Smoothing of predictions over time (paper, section 4), one video at a time.

The paper averages over windows of S = 30: valence and arousal as values, action units and
expressions as logits, and ignores missing images. Here a window is centred on its frame, and
counts either

* `frames`: frame numbers of the video. A frame without a prediction is left out of the mean and
  shifts nothing; what lies beyond a gap longer than the window is not mixed in.
* `samples`: predictions in the order of their frames, however far apart these are.

Dimension letters: N rows, U distinct images, C columns.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_face import probabilities
from mtl_face.evaluation import window_means
from mtl_face.tables import PredictionError, PredictionTable
from mtl_face.tasks import AU, EXPR, TASKS, VA

Kernel = Literal["box", "gaussian"]
Unit = Literal["frames", "samples"]
Scale = Literal["values", "logits", "probabilities"]
"""What is averaged.

`logits`: the numbers of the table, which are the logits of action units and expressions; `values`
is another word for the same. `probabilities`: their probabilities, and the result is turned back
into logits. Valence and arousal are averaged as they are in either case.
"""

LONGEST_WINDOW = 1_000_000_000

_COLUMNS = {
    VA: ("valence", "arousal"),
    AU: ("au_logits",),
    EXPR: ("expression_logits",),
}
_SPREADS = {
    VA: (("valence_std", "arousal_std"), ("valence_epistemic_std", "arousal_epistemic_std")),
    AU: (("au_epistemic_std",),),
    EXPR: (("expression_epistemic_std",),),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothing:
    """How predictions are smoothed.

    Attributes:
        kernel: `box`, the plain mean over a window; `gaussian`, the mean with the weights
            exp(-distance^2 / (2 std^2)) of everything within 8 std.
        unit: what windows and distances count, see the module.
        on: what is averaged, see `Scale`.
        windows: of each task, the window's length (`box`, whole) or the standard deviation
            (`gaussian`), in `unit`; 0 leaves the task as it is, and so does a box of 1. A box of
            even length S reaches from S/2 before its frame to S/2 - 1 after it.

    Raises:
        ValueError: an unknown word, or a window that is negative, not whole (`box`) or too long.
    """

    kernel: Kernel = "box"
    unit: Unit = "frames"
    on: Scale = "logits"
    windows: Mapping[str, float]

    def __post_init__(self) -> None:
        words = {
            "kernel": ("box", "gaussian"),
            "unit": ("frames", "samples"),
            "on": ("values", "logits", "probabilities"),
        }
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {allowed}")
        if self.on == "values":
            object.__setattr__(self, "on", "logits")
        if set(self.windows) - set(TASKS):
            raise ValueError(f"windows of {sorted(self.windows)}, the tasks are {TASKS}")
        windows = {task: float(self.windows.get(task, 0)) for task in TASKS}
        for task, window in windows.items():
            if not 0 <= window <= LONGEST_WINDOW:
                raise ValueError(f"window {window:g} of {task} is not in 0..{LONGEST_WINDOW}")
            if self.kernel == "box" and window != round(window):
                raise ValueError(f"window {window:g} of {task} is not whole")
        object.__setattr__(self, "windows", windows)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Smoothing":
        """Inverse of `to_dict`; ValueError or TypeError if the mapping is none of these."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {**dataclasses.asdict(self), "windows": dict(self.windows)}

    @property
    def changes_nothing(self) -> bool:
        """Whether every task is left as it is."""
        longest = max(self.windows.values())
        return longest == 0 or (self.kernel == "box" and longest <= 1)


def smooth(table: PredictionTable, smoothing: Smoothing) -> PredictionTable:
    """Smooths predictions within each (dataset, video).

    A row whose prediction of a task holds a NaN (no face was found, say) counts as missing for
    that task: it adds nothing to others and stays as it is. Rows of one image count once. The
    standard deviations are averaged like the values: the error of neighbouring frames is taken
    for one and the same.

    Args:
        table: rows in any order.
        smoothing: how.

    Returns:
        The rows in the same order, with `smoothing` in the metadata.

    Raises:
        PredictionError: the table was smoothed or calibrated before, or a value is infinite.
    """
    _check_raw(table)
    metadata = {**table.metadata, "smoothing": smoothing.to_dict()}
    if smoothing.changes_nothing:
        return dataclasses.replace(table, metadata={**metadata, "smoothing": None})
    order = _Order.of(table)
    changes: dict[str, Any] = {}
    for task in TASKS:
        window = smoothing.windows[task]
        if window == 0 or (smoothing.kernel == "box" and window == 1):
            continue
        values_NC = _task_values(table, task, smoothing.on)
        smoothed_NC = _smooth_columns(values_NC, order, window, smoothing)
        missing_N = np.isnan(values_NC).any(axis=1)
        for name, column in _task_columns(task, smoothed_NC, smoothing.on).items():
            # a softmax spreads one NaN over its row, which is to stay as it was
            column[missing_N] = getattr(table, name)[missing_N]
            changes[name] = column
        for names in _SPREADS[task]:
            if getattr(table, names[0]) is not None:
                spread_NC = np.column_stack([getattr(table, name) for name in names])
                smoothed_NC = _smooth_columns(spread_NC, order, window, smoothing)
                changes |= _split(names, smoothed_NC)
    return dataclasses.replace(table, **changes, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class _Order:
    """Rows by (video, frame), and which of them are one image.

    Attributes:
        row: row number at each place of the order, [N].
        image: number of the image at each place, [N], from 0 in steps of 0 or 1.
        start: first place of each image, [U].
        group: number of each image's video, [U].
        frame: frame number of each image, [U].
    """

    row: NDArray[np.int64]
    image: NDArray[np.int64]
    start: NDArray[np.int64]
    group: NDArray[np.int64]
    frame: NDArray[np.int64]

    @classmethod
    def of(cls, table: PredictionTable) -> "_Order":
        if np.abs(table.frame.astype(np.float64)).max(initial=0.0) > 2.0**61:
            raise PredictionError(
                f"there is a frame number beyond 2^61: {table.frame[np.argmax(abs(table.frame))]}",
                remedy="number the frames of each video from 0 or 1",
            )
        _, dataset_N = np.unique(table.dataset, return_inverse=True)
        names, video_N = np.unique(table.video, return_inverse=True)
        group_N = dataset_N * np.int64(max(1, len(names))) + video_N
        row_N = np.lexsort((table.frame, group_N))
        group_N, frame_N = group_N[row_N], table.frame[row_N]
        new_N = np.ones(len(row_N), np.bool_)
        new_N[1:] = (np.diff(group_N) != 0) | (np.diff(frame_N) != 0)
        start_U = np.flatnonzero(new_N)
        return cls(row_N, np.cumsum(new_N) - 1, start_U, group_N[start_U], frame_N[start_U])


def _smooth_columns(
    value_NC: NDArray[np.float64], order: _Order, window: float, smoothing: Smoothing
) -> NDArray[np.float64]:
    """Smooths some columns, float64 [N, C], given and returned in the order of the rows."""
    if np.isinf(value_NC).any():
        row = int(np.argmax(np.isinf(value_NC).any(axis=1)))
        raise PredictionError(
            f"the prediction of row {row} (from 0) is infinite",
            remedy="use a checkpoint from before training diverged",
        )
    sorted_NC = value_NC[order.row]
    present_N = np.logical_not(np.isnan(sorted_NC).any(axis=1))
    if not present_N.any():
        return value_NC
    number_U = np.add.reduceat(present_N.astype(np.int64), order.start)
    sum_UC = np.add.reduceat(np.where(present_N[:, None], sorted_NC, 0.0), order.start, axis=0)
    kept_U = number_U > 0
    mean_UC = sum_UC[kept_U] / number_U[kept_U][:, None]

    gaussian = smoothing.kernel == "gaussian"
    reach = window_means.gaussian_reach(window) if gaussian else int(window)
    group_U, frame_U = order.group[kept_U], order.frame[kept_U]
    if smoothing.unit == "samples":
        frame_U = np.arange(len(frame_U))
    position_U = window_means.axis_positions(group_U, frame_U, reach)
    if gaussian:
        mean_UC = window_means.gaussian_means(position_U, mean_UC, window)
    else:
        mean_UC = window_means.box_means(position_U, mean_UC, int(window))

    index_U = np.cumsum(kept_U) - 1
    smoothed_NC = sorted_NC.copy()
    smoothed_NC[present_N] = mean_UC[index_U[order.image[present_N]]]
    result_NC = np.empty_like(value_NC)
    result_NC[order.row] = smoothed_NC
    return result_NC


def _task_values(table: PredictionTable, task: str, on: Scale) -> NDArray[np.float64]:
    """What is averaged for a task, float64 [N, C]."""
    if on == "probabilities" and task == AU:
        # the probability of absence beside that of presence: it cannot be had from 1 - p near 1
        return np.column_stack([probabilities.sigmoid(s * table.logits(AU)) for s in (1.0, -1.0)])
    if on == "probabilities" and task == EXPR:
        return probabilities.softmax(table.logits(EXPR))
    return np.column_stack([getattr(table, name) for name in _COLUMNS[task]])


def _task_columns(
    task: str, value_NC: NDArray[np.float64], on: Scale
) -> dict[str, NDArray[np.float64]]:
    """Inverse of `_task_values`: columns of the table by name."""
    if on == "probabilities" and task == AU:
        half = value_NC.shape[1] // 2
        return {"au_logits": probabilities.au_logits(value_NC[:, :half], value_NC[:, half:])}
    if on == "probabilities" and task == EXPR:
        return {"expression_logits": probabilities.expression_logits(value_NC)}
    return _split(_COLUMNS[task], value_NC)


def _split(names: tuple[str, ...], value_NC: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """One matrix as one column, or as two."""
    return {names[0]: value_NC} if len(names) == 1 else dict(zip(names, value_NC.T, strict=True))


def _check_raw(table: PredictionTable) -> None:
    """Raises PredictionError if the table was smoothed or calibrated."""
    if table.metadata.get("smoothing"):
        raise PredictionError(
            f"the predictions were smoothed before: {table.metadata['smoothing']}",
            remedy="give the predictions as the network made them",
        )
    if table.metadata.get("calibration") or table.metadata.get("decisions"):
        raise PredictionError(
            "the predictions were calibrated before; smoothing comes first",
            remedy="give the predictions as the network made them",
        )
