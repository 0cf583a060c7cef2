"""Smoothing of predictions over time (paper, section 4), each video by itself.

The paper averages over windows of S = 30: valence and arousal as values, action units and
expressions as logits, without missing images. Here a window is centred on its frame, and counts
either

* `frames`: frame numbers of the video. A frame without a prediction is left out of the mean and
  shifts nothing; what lies beyond a gap longer than the window is not mixed in.
* `samples`: predictions in the order of their frames, however far apart these are.

The time for N rows is linear in N, whatever the window. Where videos lie one after the other,
those of some 20,000 rows are smoothed at a time. They share one axis, further apart than a window
reaches, so that nothing loops over videos.

Dimension letters: N rows or samples, U distinct images, C columns, K boxes, P interpolation nodes
in a box (18).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import scipy
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from mtl_face.errors import exact
from mtl_face.tables import (
    EPISTEMIC_FIELDS,
    STD_COLUMNS,
    PredictionError,
    PredictionTable,
    Scale,
    as_fields,
    row_codes,
    row_name,
)
from mtl_face.tasks import TASKS, VA

Kernel = Literal["box", "gaussian"]
Unit = Literal["frames", "samples"]

LONGEST_WINDOW = 1_000_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothing:
    """How predictions are smoothed.

    Attributes:
        kernel: `box`, the plain mean over a window; `gaussian`, the mean with the weights
            exp(-distance^2 / (2 std^2)) of everything within 8 std.
        unit: what windows and distances count, see the module.
        on: what is averaged, see `Scale`; `values` becomes `logits`.
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
        for name, words in (("kernel", Kernel), ("unit", Unit), ("on", Scale)):
            if getattr(self, name) not in get_args(words):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, expected one of {get_args(words)}"
                )
        if self.on == "values":
            object.__setattr__(self, "on", "logits")
        if set(self.windows) - set(TASKS):
            raise ValueError(f"windows of {sorted(self.windows)}, the tasks are {TASKS}")
        windows = {task: float(self.windows.get(task, 0)) for task in TASKS}
        for task, window in windows.items():
            if not 0 <= window <= LONGEST_WINDOW:
                raise ValueError(f"window {exact(window)} of {task} is not in 0..{LONGEST_WINDOW}")
            if self.kernel == "box" and window != round(window):
                raise ValueError(f"window {exact(window)} of {task} is not whole")
        object.__setattr__(self, "windows", windows)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `Smoothing(**values)` is the inverse."""
        return dataclasses.asdict(self)

    def changes(self, task: str) -> bool:
        """Whether the task is smoothed at all."""
        return self.windows[task] > (1 if self.kernel == "box" else 0)

    @property
    def changes_nothing(self) -> bool:
        """Whether every task is left as it is."""
        return not any(map(self.changes, TASKS))

    def __str__(self) -> str:
        windows = ", ".join(f"{task} {window:g}" for task, window in self.windows.items())
        return f"{self.kernel}, {self.unit}: {windows}"


def smooth(table: PredictionTable, smoothing: Smoothing) -> PredictionTable:
    """Smooths predictions within each (dataset, video).

    A row whose prediction of a task holds a NaN (no face was found, say) counts as missing for
    that task: it adds nothing to others and stays as it is. Rows of one image count once. The
    standard deviations are averaged like the values: neighbouring frames are taken to share their
    error.

    Returns:
        The rows in the same order, with `smoothing` in the metadata.

    Raises:
        PredictionError: the table holds decisions alone, was smoothed or calibrated before, or a
            value is infinite.
    """
    remedy = "give the predictions as the network made them"
    if table.metadata.get("smoothing"):
        raise PredictionError(
            f"the predictions were smoothed before: {table.metadata['smoothing']}", remedy=remedy
        )
    if table.is_calibrated:
        raise PredictionError(
            "the predictions were calibrated before; smoothing comes first", remedy=remedy
        )
    if smoothing.changes_nothing:
        return dataclasses.replace(table, metadata={**table.metadata, "smoothing": None})
    if np.abs(table.frame.astype(np.float64)).max(initial=0.0) > 2.0**61:
        raise PredictionError(
            f"there is a frame number beyond 2^61: {table.frame[np.argmax(abs(table.frame))]}",
            remedy="number the frames of each video from 0 or 1",
        )
    changes: dict[str, Any] = {}
    video_N = row_codes(table.dataset, table.video)
    for rows in _blocks(video_N):
        for name, column in _smoothed_fields(table.take(rows), video_N[rows], smoothing).items():
            if name not in changes:
                changes[name] = np.empty((len(table), *column.shape[1:]), order="F")
            changes[name][rows] = column
    metadata = {**table.metadata, "smoothing": smoothing.to_dict()}
    return dataclasses.replace(table, **changes, metadata=metadata)


_BLOCK = 20_000
"""Rows of the videos that are smoothed at once: what is needed of them stays in the cache."""


def _blocks(video_N: NDArray[np.int64]) -> list[slice]:
    """Slices of whole videos, of `_BLOCK` rows or one video more; one of all if videos mix."""
    end_V = np.append(np.flatnonzero(np.diff(video_N)) + 1, len(video_N))
    if len(end_V) > len(np.unique(video_N)):
        return [slice(0, len(video_N))]
    last_V = np.append(np.diff(end_V // _BLOCK) > 0, True)
    ends = end_V[last_V].tolist()
    return [slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def _smoothed_fields(
    table: PredictionTable, video_N: NDArray[np.int64], smoothing: Smoothing
) -> dict[str, NDArray[np.float64]]:
    """The fields of a table that smoothing changes."""
    axis = _Axis(video_N, table.frame, smoothing)
    changed: dict[str, NDArray[np.float64]] = {}
    for task in filter(smoothing.changes, TASKS):
        value_NC = table.values(task, smoothing.on)
        _require_finite(value_NC, table)
        smoothed_NC = axis.smoothed(value_NC, task)
        missing_N = np.isnan(value_NC).any(axis=1)
        for name, column in table.from_values(smoothed_NC, task, smoothing.on).items():
            # a softmax spreads one NaN over its row, which is to stay as it was
            column[missing_N] = getattr(table, name)[missing_N]
            changed[name] = column
        stds = [STD_COLUMNS] if task == VA else []
        for fields in (*stds, EPISTEMIC_FIELDS[task]):
            if getattr(table, fields[0]) is not None:
                std_NC = np.column_stack([getattr(table, name) for name in fields])
                _require_finite(std_NC, table)
                changed |= as_fields(fields, axis.smoothed(std_NC, task))
    return changed


def _require_finite(value_NC: NDArray[np.float64], table: PredictionTable) -> None:
    """Raises PredictionError if there is an infinite value; NaN stands for a missing one."""
    if np.isinf(value_NC).any():
        row = int(np.argmax(np.isinf(value_NC).any(axis=1)))
        raise PredictionError(
            f"the prediction of {row_name(table, row)} is infinite",
            remedy="use a checkpoint from before training diverged",
        )


class _Axis:
    """The rows of a table in time, and the means of windows of a task over them.

    What depends on the window and on the rows that lack a prediction is kept until one of the two
    changes: the columns of all tasks mostly share both.
    """

    def __init__(
        self, video_N: NDArray[np.int64], frame_N: NDArray[np.int64], smoothing: Smoothing
    ) -> None:
        self._video_N, self._frame_N, self._smoothing = video_N, frame_N, smoothing
        self._image_N = row_codes(video_N, frame_N)
        self._kept: tuple[float, NDArray[np.bool_], Means, NDArray[np.int64] | None] | None = None

    def smoothed(self, value_NC: NDArray[np.float64], task: str) -> NDArray[np.float64]:
        """Columns [N, C] smoothed with the window of a task; rows keep their order."""
        present_N = np.asarray(~np.isnan(value_NC).any(axis=1))
        means, place_M = self._means(self._smoothing.windows[task], present_N)
        result_NC = np.array(value_NC, order="F")
        if place_M is None:
            result_NC[present_N] = means(value_NC[present_N])
        else:
            number_U = np.bincount(place_M)
            sum_CU = [np.bincount(place_M, value_N[present_N]) for value_N in value_NC.T]
            result_NC[present_N] = means((np.array(sum_CU) / number_U).T)[place_M]
        return result_NC

    def _means(
        self, window: float, present_N: NDArray[np.bool_]
    ) -> tuple["Means", NDArray[np.int64] | None]:
        """Means over the present images, and the image of each present row.

        The second is None where each row is an image of its own, and rows lie in their order.
        """
        kept = self._kept
        if kept and kept[0] == window and np.array_equal(kept[1], present_N):
            return kept[2:]
        smoothing = self._smoothing
        image_M, video_M, frame_M = (
            column[present_N] for column in (self._image_N, self._video_N, self._frame_N)
        )
        place_M = None
        if (np.diff(image_M) <= 0).any():
            _, first_U, place_M = np.unique(image_M, return_index=True, return_inverse=True)
            video_M, frame_M = video_M[first_U], frame_M[first_U]
        if smoothing.unit == "samples":
            frame_M = np.arange(len(frame_M))
        if smoothing.kernel == "gaussian":
            # Beyond this nothing is mixed: a pair of boxes is kept if it may hold a pair of samples
            # within reach, and is 2 boxes wide.
            reach = math.ceil((_REACH + 4.0) * window) + 1
            means = gaussian_means(axis_positions(video_M, frame_M, reach), window)
        else:
            means = box_means(axis_positions(video_M, frame_M, int(window)), int(window))
        self._kept = window, present_N, means, place_M
        return means, place_M


Means = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Takes finite values of samples, [N, C], to weighted means around each sample, [N, C]."""

_REACH = 8.0
"""Standard deviations beyond which a Gaussian's weight (below 2e-14) is left out."""

_NODES = 18
_DIRECT = 24
"""Up to this many neighbours within reach on one side are added one by one."""

_MOST_GAPS = 4
"""Up to this many places a sample, gaps are filled with zeros."""


def axis_positions(
    group_N: NDArray[np.int64], frame_N: NDArray[np.int64], reach: int
) -> NDArray[np.int64]:
    """Lays the frames of all groups on one axis: int64 [N], strictly increasing, from 0.

    Distances within a group are kept up to `reach`, the longest that matters; a longer gap, and the
    step from one group to the next, become just longer than that. So positions stay small, whatever
    the frame numbers. Groups lie in blocks, and frame numbers strictly increase within one.
    """
    step_N = np.minimum(np.diff(frame_N), reach + 1)
    step_N[np.diff(group_N) != 0] = reach + 1
    return np.append(0, step_N).cumsum()[: len(frame_N)]


def box_means(position_N: NDArray[np.int64], window: int) -> Means:
    """Means over the samples at position - window // 2 ... position + (window - 1) // 2.

    Positions, [N], strictly increase, and the window is at least 1.

    The axis is cut into blocks as long as the window, so that a window is the end of one block
    and the beginning of the next. A window's sum is that of two running sums, from a block's begin
    and to its end. Nothing is subtracted, so no digit is lost, however long the axis.
    """
    if not len(position_N):
        return np.copy
    begin_N = position_N - window // 2
    first_N = np.searchsorted(position_N, begin_N, side="left")
    last_N = np.searchsorted(position_N, begin_N + window, side="left") - 1
    block_N = position_N // window
    left_N = block_N[first_N] == begin_N // window
    right_N = block_N[last_N] == begin_N // window + 1
    number_N = last_N - first_N + 1
    chain, chain_back = _chain(block_N), _chain(block_N[::-1])

    def means(value_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        mean_NC = np.empty(value_NC.shape, order="F")
        # A column at a time: what is needed of it stays in the cache.
        for value_N, mean_N in zip(value_NC.T, mean_NC.T, strict=True):
            to_end_N = _running_sums(chain_back, value_N[::-1])[::-1]
            np.multiply(to_end_N[first_N], left_N, out=mean_N)
            mean_N += _running_sums(chain, value_N)[last_N] * right_N
            mean_N /= number_N
        return mean_NC

    return means


def _chain(block_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Both diagonals of the system whose solution are sums that start anew with each block."""
    # y[i] = value[i] + y[i - 1] within a block
    diagonals = np.ones((2, len(block_N)), order="F")
    diagonals[1, :-1] = np.where(block_N[1:] == block_N[:-1], -1.0, 0.0)
    return diagonals


def _running_sums(chain: NDArray[np.float64], value_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running sums within the blocks of a `_chain`, float64 [N], in one pass."""
    sum_N, status = scipy.linalg.lapack.dtbtrs(chain, value_N, uplo="L", diag="U")
    assert status == 0, status
    return sum_N


def gaussian_means(position_N: NDArray[np.int64], std: float) -> Means:
    """Means with the weights exp(-distance^2 / (2 std^2)) of all samples within 8 std.

    Positions, [N], strictly increase, and `std`, in their unit, is above 0. Exact to about 1e-11 of
    the largest value.
    """
    within_N = np.searchsorted(position_N, position_N + _REACH * std) - np.arange(len(position_N))
    sums = _direct_sums if within_N.max(initial=0) <= _DIRECT else _interpolated_sums
    weighted_sums = sums(position_N, std)

    def means(value_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        sums_NC = weighted_sums(np.column_stack([value_NC, np.ones(len(position_N))]))
        return sums_NC[:, :-1] / sums_NC[:, -1:]

    return means


def _direct_sums(position_N: NDArray[np.int64], std: float) -> Means:
    """Weighted sums, neighbour by neighbour."""

    def sums(value_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        sums_NC = value_NC.copy()
        for k in range(1, len(position_N)):
            distance_N = position_N[k:] - position_N[:-k]
            weight_N = np.exp(-0.5 * (distance_N / std) ** 2)
            weight_N[distance_N > _REACH * std] = 0.0
            if not weight_N.any():
                break
            sums_NC[:-k] += weight_N[:, None] * value_NC[k:]
            sums_NC[k:] += weight_N[:, None] * value_NC[:-k]
        return sums_NC

    return sums


def _interpolated_sums(position_N: NDArray[np.int64], std: float) -> Means:
    """Weighted sums by a fast Gauss transform.

    The axis is cut into boxes about two standard deviations long. Within a pair of boxes the
    Gaussian equals its interpolation from Chebyshev nodes: samples are gathered at the nodes of
    their box, boxes act on boxes, and each sample reads the outcome off the nodes of its own. Only
    boxes with samples exist, so this is linear in N.
    """
    width = max(1, round(2.0 * std))
    box_K, index_N = np.unique(position_N // width, return_inverse=True)
    num_boxes = len(box_K)
    node_P = chebyshev.chebpts1(_NODES)
    gather, spread = _between_samples_and_nodes(index_N, position_N % width, width, node_P)
    steps = []
    farthest = math.ceil(_REACH * std / width)
    for away in range(-farthest, farthest + 1):
        other_K = np.searchsorted(box_K, box_K + away)
        # index num_boxes stands for an empty box
        other_K[box_K[np.minimum(other_K, num_boxes - 1)] != box_K + away] = num_boxes
        distance_PP = width * (away + (node_P[:, None] - node_P[None, :]) / 2.0)
        steps.append((other_K, np.exp(-0.5 * (distance_PP / std) ** 2)))

    def sums(value_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        sums_NC = np.empty(value_NC.shape, order="F")
        source_KP = np.zeros((num_boxes + 1, _NODES))
        for value_N, sum_N in zip(value_NC.T, sums_NC.T, strict=True):
            source_KP[:-1] = gather(value_N)
            target_KP = np.zeros((num_boxes, _NODES))
            for other_K, weight_PP in steps:
                target_KP += source_KP.take(other_K, axis=0) @ weight_PP
            sum_N[:] = spread(target_KP)
        return sums_NC

    return sums


def _between_samples_and_nodes(
    box_N: NDArray[np.int64],
    offset_N: NDArray[np.int64],
    width: int,
    node_P: NDArray[np.float64],
) -> tuple[Means, Means]:
    """Functions from values of samples [N] to sums at the nodes of boxes [K, P], and back.

    `offset_N` are places within the boxes, which are `width` long.
    """
    num_boxes = int(box_N[-1]) + 1
    coefficients_PP = np.linalg.inv(chebyshev.chebvander(node_P, _NODES - 1))

    def basis(offset: NDArray[np.int64]) -> NDArray[np.float64]:
        """Polynomials that are 1 at one node and 0 at the others, [..., P]."""
        return chebyshev.chebvander(2.0 * offset / width - 1.0, _NODES - 1) @ coefficients_PP

    if num_boxes * width <= _MOST_GAPS * len(box_N):  # frame after frame: a product of matrices
        basis_WP = basis(np.arange(width))
        place_N = box_N * width + offset_N

        def gather(value_N: NDArray[np.float64]) -> NDArray[np.float64]:
            value = np.zeros(num_boxes * width)
            value[place_N] = value_N
            return value.reshape(num_boxes, width) @ basis_WP

        return gather, lambda value_KP: (value_KP @ basis_WP.T).ravel()[place_N]
    column_NP = box_N[:, None] * _NODES + np.arange(_NODES)
    at_nodes = scipy.sparse.csr_array(
        (basis(offset_N).ravel(), column_NP.ravel(), _NODES * np.arange(len(box_N) + 1)),
        shape=(len(box_N), _NODES * num_boxes),
    )
    return (
        lambda value_N: (at_nodes.T @ value_N).reshape(num_boxes, _NODES),
        lambda value_KP: at_nodes @ value_KP.ravel(),
    )
