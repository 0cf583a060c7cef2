"""Windows of frames, for a network over time: which rows each holds, and which of them it answers.

Rows of a video lie in the order of their frame numbers, whatever their order in the table, and a
window never holds rows of two videos. Windows overlap by half, so that each row lies near the
middle of one: that one answers it, in evaluation. In training all rows of all windows count, most
of them twice an epoch, in two surroundings.

Dimension letters: N rows, M windows, W rows of a window, B global batch of windows, b batch of one
process.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from data_pipeline import order
from data_pipeline.batch import WEIGHT, Batch, compact_labels
from mtl_face.inputs import GAPS, LONGEST_ABSENCE, LONGEST_GAP, causal_begin
from mtl_face.tables import FrameTable


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a table.

    Attributes:
        row_MW: int64 rows of the table, -1 behind the last row of a video that is shorter.
        gap_MW: int32 frame numbers since the row before, 0 for the first one, -1 where there is no
            row; at most `LONGEST_GAP`.
        answered_MW: int64 the row where this window answers it, else -1; each row once in all.
    """

    row_MW: npt.NDArray[np.int64]
    gap_MW: npt.NDArray[np.int32]
    answered_MW: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row_MW)

    @classmethod
    def of(cls, table: FrameTable, length: int, *, causal: bool = False) -> Self:
        """Windows of `length` (at least 2) rows.

        A row is answered by the window in whose middle it lies most, of two that are equal by the
        first; with `causal` by that of `mtl_face.inputs.causal_begin`, whose rows after a gap of
        more than `LONGEST_ABSENCE` frames count from 0.
        """
        names = np.char.add(np.char.add(table.dataset.astype(str), "\n"), table.video.astype(str))
        _, video_N = np.unique(names, return_inverse=True)
        sorted_N = np.lexsort((np.arange(len(table)), table.frame, video_N))
        ends_N = np.diff(video_N[sorted_N]) > 0
        if causal:
            ends_N |= np.diff(table.frame[sorted_N]) > LONGEST_ABSENCE
        ends = np.flatnonzero(ends_N) + 1
        rows, gaps, answered = [], [], []
        for of_video in np.split(sorted_N, ends):
            count = len(of_video)
            place = np.arange(count)
            if causal:
                begin_m, best = np.unique(causal_begin(place, length), return_inverse=True)
            else:
                begin_m = np.unique(np.minimum(place[:: length // 2], max(count - length, 0)))
                best = _nearest(place, begin_m, length)
            place_mW = begin_m[:, None] + np.arange(length)
            inside_mW = place_mW < count
            place_mW = np.minimum(place_mW, count - 1)
            gap = np.diff(table.frame[of_video], prepend=table.frame[of_video[0]])
            gap_mW = np.minimum(gap, LONGEST_GAP)[place_mW]
            gap_mW[:, 0] = 0
            rows.append(np.where(inside_mW, of_video[place_mW], order.PADDING))
            gaps.append(np.where(inside_mW, gap_mW, -1))
            own_mW = np.full(place_mW.shape, order.PADDING)
            own_mW[best, place - begin_m[best]] = of_video
            answered.append(own_mW)
        return cls(
            np.concatenate(rows), np.concatenate(gaps).astype(np.int32), np.concatenate(answered)
        )


def _nearest(place: order.Indices, begin_m: order.Indices, length: int) -> order.Indices:
    """The window in whose middle each place lies most, by their begins."""
    aim = 2 * place - (length - 1)
    later = np.minimum(np.searchsorted(2 * begin_m, aim), len(begin_m) - 1)
    earlier = np.maximum(later - 1, 0)
    nearer = abs(2 * begin_m[later] - aim) < abs(2 * begin_m[earlier] - aim)
    return np.where(nearer, later, earlier)


def train_batches(
    windows: Windows,
    table: FrameTable,
    features: Mapping[str, npt.NDArray[Any]],
    *,
    batch_size: int,
    rows: order.Order,
    start_step: int = 0,
    process: order.Process = order.ALONE,
) -> Iterator[Batch]:
    """Endless batches of windows for training, in the order that `order.step_indices` defines.

    `rows` gives the windows of each epoch; `features` are arrays [N, ...] by the names of inputs.

    Returns:
        Iterator of dicts: features [b, W, ...] by name and `gaps` int32 [b, W], 0 and -1 in
        padding; `labels` as `batch.compact_labels`, [b * W, ...], missing in padding.

    Raises:
        ConfigError: B does not divide, or exceeds an epoch. Raised at once.
    """
    order.steps_per_epoch(rows.length, batch_size)
    process.local_size(batch_size)
    columns = compact_labels(table)
    indices = order.batches(rows, batch_size, start_step=start_step, process=process)

    def made() -> Iterator[Batch]:
        for index_b in indices:
            row_R = windows.row_MW[index_b].reshape(-1)
            labels = {task: column[row_R] for task, column in columns.items()}
            for name, column in labels.items():
                missing = np.nan if column.dtype.kind == "f" else -1
                column[row_R == order.PADDING] = 0 if name == WEIGHT else missing
            yield {**_inputs(windows, features, index_b), "labels": labels}

    return made()


def eval_batches(
    windows: Windows,
    features: Mapping[str, npt.NDArray[Any]],
    *,
    batch_size: int,
    process: order.Process = order.ALONE,
) -> Iterator[Batch]:
    """Every window exactly once; the last batch is padded to full size.

    Returns:
        Iterator of dicts: features and `gaps` as of `train_batches`; `index` int32 [b * W], the
        row where its window answers it, else -1.

    Raises:
        ConfigError: B does not divide.
    """
    for index_b in order.eval_batches(len(windows), batch_size, process=process):
        answered_bW = np.where(index_b[:, None] < 0, order.PADDING, windows.answered_MW[index_b])
        yield {
            **_inputs(windows, features, index_b),
            "index": answered_bW.reshape(-1).astype(np.int32),
        }


def _inputs(
    windows: Windows, features: Mapping[str, npt.NDArray[Any]], index_b: order.Indices
) -> dict[str, npt.NDArray[Any]]:
    """What a network takes of windows; of index -1 padding alone."""
    padding_bW = (index_b < 0)[:, None] | (windows.row_MW[index_b] < 0)
    row_bW = windows.row_MW[index_b]
    arrays = {GAPS: np.where(padding_bW, np.int32(-1), windows.gap_MW[index_b])}
    for name, rows in features.items():
        arrays[name] = np.asarray(rows[row_bW])
        arrays[name][padding_bW] = 0
    return arrays
