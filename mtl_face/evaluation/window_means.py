"""Weighted means over windows of irregularly spaced samples, linear in the number of samples.

Dimension letters: N samples, C columns, K boxes, P interpolation nodes in a box (18).

Both functions take samples at whole-numbered positions that increase strictly. Samples of several
videos lie on one axis, further apart than a window reaches (`axis_positions`), so that nothing
here loops over videos.
"""

import math

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

_REACH = 8.0
"""Standard deviations beyond which a Gaussian's weight (below 2e-14) is left out."""

_NODES = 18
_DIRECT = 24
"""Up to this many neighbours within reach on one side are gone through one by one."""

_COLUMNS_AT_ONCE = 8
"""Bounds the memory for values at nodes."""


def gaussian_reach(std: float) -> int:
    """Distance from which on `gaussian_means` keeps two samples apart."""
    # a pair of boxes is kept if it may hold a pair of samples within reach, and is 2 boxes wide
    return math.ceil((_REACH + 4.0) * std) + 1


def axis_positions(
    group_N: NDArray[np.int64], frame_N: NDArray[np.int64], reach: int
) -> NDArray[np.int64]:
    """Lays the frames of all groups on one axis.

    Distances within a group are kept up to `reach`; a longer gap, and the step from one group to
    the next, become just longer than that. So positions stay small, whatever the frame numbers.

    Args:
        group_N: group of each sample, int [N], in blocks.
        frame_N: frame number, int [N], strictly increasing within a group.
        reach: the longest distance that matters.

    Returns:
        int64 [N], strictly increasing, from 0.
    """
    step_N = np.minimum(np.diff(frame_N), reach + 1)
    step_N[np.diff(group_N) != 0] = reach + 1
    return np.concatenate([[0], np.cumsum(step_N)]) if len(frame_N) else np.zeros(0, np.int64)


def box_means(
    position_N: NDArray[np.int64], value_NC: NDArray[np.float64], window: int
) -> NDArray[np.float64]:
    """Mean over the samples at position - window // 2 ... position + (window - 1) // 2.

    The axis is cut into blocks as long as the window, so that a window is the end of one block
    and the beginning of the next. Sums from a block's begin and to its end are all that is
    needed: nothing is ever subtracted, so no digit is lost, however long the axis.

    Args:
        position_N: positions, int64 [N], strictly increasing.
        value_NC: finite values, float64 [N, C].
        window: length of the window, at least 1.

    Returns:
        float64 [N, C]; the mean over the samples that there are.
    """
    if not len(position_N):
        return value_NC.copy()
    begin_N = position_N - window // 2
    first_N = np.searchsorted(position_N, begin_N, side="left")
    last_N = np.searchsorted(position_N, begin_N + window, side="left") - 1
    block_N = position_N // window
    from_begin_NC = _sums_within(block_N, value_NC)
    to_end_NC = _sums_within(block_N[::-1], value_NC[::-1])[::-1]
    left_N = block_N[first_N] == begin_N // window
    right_N = block_N[last_N] == begin_N // window + 1
    total_NC = np.where(left_N[:, None], to_end_NC[first_N], 0.0)
    total_NC += np.where(right_N[:, None], from_begin_NC[last_N], 0.0)
    return total_NC / (last_N - first_N + 1)[:, None]


def _sums_within(block_N: NDArray[np.int64], value_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running sums that start anew with each block, float64 [N, C].

    y[i] = value[i] + y[i - 1] within a block is a linear system with two diagonals, which LAPACK
    solves in one pass.
    """
    from scipy.linalg import lapack

    diagonals = np.ones((2, len(block_N)))
    diagonals[1, :-1] = -(block_N[1:] == block_N[:-1]).astype(np.float64)
    sums_NC, status = lapack.dtbtrs(diagonals, value_NC, uplo="L", diag="U")
    assert status == 0, status
    return sums_NC


def gaussian_means(
    position_N: NDArray[np.int64], value_NC: NDArray[np.float64], std: float
) -> NDArray[np.float64]:
    """Mean with the weights exp(-distance^2 / (2 std^2)) of all samples within 8 std.

    Args:
        position_N: positions, int64 [N], strictly increasing.
        value_NC: finite values, float64 [N, C].
        std: standard deviation, in the unit of the positions, above 0.

    Returns:
        float64 [N, C]; exact to about 1e-11 of the largest value.
    """
    weighted_NC = np.column_stack([value_NC, np.ones(len(position_N))])
    within_N = np.searchsorted(position_N, position_N + _REACH * std) - np.arange(len(position_N))
    if within_N.max(initial=0) <= _DIRECT:
        sums_NC = _direct_sums(position_N, weighted_NC, std)
    else:
        sums_NC = _interpolated_sums(position_N, weighted_NC, std)
    return sums_NC[:, :-1] / sums_NC[:, -1:]


def _direct_sums(
    position_N: NDArray[np.int64], value_NC: NDArray[np.float64], std: float
) -> NDArray[np.float64]:
    """Weighted sums, neighbour by neighbour."""
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


def _interpolated_sums(
    position_N: NDArray[np.int64], value_NC: NDArray[np.float64], std: float
) -> NDArray[np.float64]:
    """Weighted sums by a fast Gauss transform.

    The axis is cut into boxes about two standard deviations long. Within a pair of boxes the
    Gaussian is so smooth that it is as good as its interpolation from Chebyshev nodes: samples
    are gathered at the nodes of their box, boxes act on boxes, and each sample reads the outcome
    off the nodes of its own. Only boxes with samples exist, so this is linear in N.
    """
    from scipy import sparse

    num_samples = len(position_N)
    width = max(1, round(2.0 * std))
    box_N = position_N // width
    box_K, index_N = np.unique(box_N, return_inverse=True)
    num_boxes = len(box_K)
    node_P, basis_NP = _chebyshev_basis(2.0 * (position_N % width) / width - 1.0)
    column_NP = index_N[:, None] + num_boxes * np.arange(_NODES)
    gather = sparse.csr_array(
        (basis_NP.ravel(), column_NP.ravel(), _NODES * np.arange(num_samples + 1)),
        shape=(num_samples, _NODES * num_boxes),
    )
    steps = []
    farthest = math.ceil(_REACH * std / width)
    for away in range(-farthest, farthest + 1):
        other_K = np.searchsorted(box_K, box_K + away)
        # index num_boxes stands for an empty box
        other_K[box_K[np.minimum(other_K, num_boxes - 1)] != box_K + away] = num_boxes
        distance_PP = width * (away + (node_P[None, :] - node_P[:, None]) / 2.0)
        steps.append((other_K, np.exp(-0.5 * (distance_PP / std) ** 2)))

    sums_NC = np.empty(value_NC.shape)
    for begin in range(0, value_NC.shape[1], _COLUMNS_AT_ONCE):
        some_NC = value_NC[:, begin : begin + _COLUMNS_AT_ONCE]
        num_columns = some_NC.shape[1]
        source_PKC = np.zeros((_NODES, num_boxes + 1, num_columns))
        source_PKC[:, :num_boxes] = (gather.T @ some_NC).reshape(_NODES, num_boxes, num_columns)
        target = np.zeros((_NODES, num_boxes * num_columns))
        for other_K, weight_PP in steps:
            target += weight_PP @ source_PKC.take(other_K, axis=1).reshape(_NODES, -1)
        sums_NC[:, begin : begin + _COLUMNS_AT_ONCE] = gather @ target.reshape(-1, num_columns)
    return sums_NC


def _chebyshev_basis(
    at_N: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Chebyshev nodes, and the polynomials that are 1 at one node and 0 at the others.

    Args:
        at_N: points in [-1, 1], [N].

    Returns:
        (nodes [P], value of each polynomial at each point [N, P]).
    """
    angle_P = np.pi * (np.arange(_NODES) + 0.5) / _NODES
    coefficient_PP = 2.0 / _NODES * np.cos(np.arange(_NODES)[:, None] * angle_P)
    coefficient_PP[0] /= 2.0
    return np.cos(angle_P), chebyshev.chebvander(at_N, _NODES - 1) @ coefficient_PP
