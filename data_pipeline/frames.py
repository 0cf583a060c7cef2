"""The frame table: one row per labelled image, missing is missing.

Every reader returns this table and everything that needs labels or image paths starts from it.
Markers of the annotation files (-5, -1) never get this far: a missing valence, arousal or action
unit is NaN, a missing expression is -1 (the column is an integer class).

Dimension letters: N rows, A action units (12).
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_face import tasks

if TYPE_CHECKING:
    import pandas as pd

Labels = dict[str, npt.NDArray[np.float32]]

_DTYPES = {
    "dataset": np.dtype(object),
    "video": np.dtype(object),
    "frame": np.dtype(np.int64),
    "image": np.dtype(object),
    "root": np.dtype(object),
    "valence": np.dtype(np.float32),
    "arousal": np.dtype(np.float32),
    "expression": np.dtype(np.int8),
    "au": np.dtype(np.float32),
    "duplicate": np.dtype(bool),
    "row": np.dtype(np.int64),
}


@dataclasses.dataclass(frozen=True, eq=False)
class FrameTable:
    """Labelled images as columns of equal length N. Build one with `from_columns`.

    Rows are sorted by (dataset, video, frame), stably; names compare by code point. The exceptions
    are tables whose order has a meaning of its own: a test list (the order of the submission) and
    the result of `select`. A frame that a file lists twice is kept twice.

    Attributes:
        dataset: object [N] of str, name of the data set.
        video: object [N] of str, name of the video inside the data set.
        frame: int64 [N], frame number inside the video.
        image: object [N] of str, path of the image relative to `root`, forward slashes.
        root: object [N] of str, absolute path of the data set's image folder.
        valence: float32 [N] in [-1, 1], NaN where missing.
        arousal: float32 [N] in [-1, 1], NaN where missing.
        expression: int8 [N] in 0..7, -1 where missing.
        au: float32 [N, A] of 0 and 1, NaN where missing.
        duplicate: bool [N], true where an earlier row has the same (dataset, video, frame).
        row: int64 [N], line number in the file that the row was read from, from 1.
    """

    dataset: npt.NDArray[np.object_]
    video: npt.NDArray[np.object_]
    frame: npt.NDArray[np.int64]
    image: npt.NDArray[np.object_]
    root: npt.NDArray[np.object_]
    valence: npt.NDArray[np.float32]
    arousal: npt.NDArray[np.float32]
    expression: npt.NDArray[np.int8]
    au: npt.NDArray[np.float32]
    duplicate: npt.NDArray[np.bool_]
    row: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        num_rows = len(self.frame)
        for name, dtype in _DTYPES.items():
            column = getattr(self, name)
            shape = (num_rows, len(tasks.AU_NAMES)) if name == "au" else (num_rows,)
            if column.dtype != dtype or column.shape != shape:
                raise ValueError(
                    f"column {name} is {column.dtype} {column.shape}, expected {dtype} {shape}"
                )

    def __len__(self) -> int:
        return len(self.frame)

    def paths(self) -> list[str]:
        """Absolute path of each row's image."""
        return [
            os.path.join(root, *image.split("/"))
            for root, image in zip(self.root, self.image, strict=True)
        ]

    def select(self, rows: npt.ArrayLike) -> "FrameTable":
        """Rows by a boolean mask [N] or by integer indices, in the order asked for.

        `duplicate` is marked afresh: a row whose earlier twin was left out is no duplicate.
        """
        index = np.asarray(rows)
        if index.size == 0 and index.dtype != bool:
            index = index.astype(np.int64)  # an empty list arrives as float64
        columns = {name: getattr(self, name)[index] for name in _DTYPES}
        columns["duplicate"] = _find_duplicates(
            columns["dataset"], columns["video"], columns["frame"]
        )
        return FrameTable(**columns)

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a DataFrame: the same columns, with `au` spread over `au1` ... `au26`."""
        import pandas as pd

        columns: dict[str, Any] = {}
        for name in _DTYPES:
            if name == "au":
                columns.update(zip(tasks.AU_NAMES, self.au.T, strict=True))
            else:
                columns[name] = getattr(self, name)
        return pd.DataFrame(columns)

    def counts(self) -> dict[str, int]:
        """How many rows, images, videos and labels there are.

        Returns:
            `rows`, `unique_images`, `duplicates`, `videos`; rows labelled per task under `va`
            (both values), `au` (at least one of the twelve) and `expr`; `all_tasks` and
            `unlabelled`, rows with all three of these and with none.
        """
        labelled = np.stack(
            [
                ~np.isnan(self.valence) & ~np.isnan(self.arousal),
                ~np.isnan(self.au).all(axis=1),
                self.expression >= 0,
            ]
        )
        return {
            "rows": len(self),
            "unique_images": len(set(zip(self.root, self.image, strict=True))),
            "duplicates": int(self.duplicate.sum()),
            "videos": len(set(zip(self.dataset, self.video, strict=True))),
            **{task: int(mask.sum()) for task, mask in zip(tasks.TASKS, labelled, strict=True)},
            "all_tasks": int(labelled.all(axis=0).sum()),
            "unlabelled": int((~labelled.any(axis=0)).sum()),
        }


def from_columns(
    *,
    dataset: str | Iterable[str],
    video: Iterable[str],
    frame: npt.ArrayLike,
    image: Iterable[str],
    root: str | Iterable[str],
    valence: npt.ArrayLike | None = None,
    arousal: npt.ArrayLike | None = None,
    expression: npt.ArrayLike | None = None,
    au: npt.ArrayLike | None = None,
    row: npt.ArrayLike | None = None,
    sort: bool = True,
) -> FrameTable:
    """Builds a table from columns: sets dtypes, sorts, marks duplicates.

    Args:
        dataset: one name for all rows, or one a row.
        video: name of the video of each row.
        frame: [N] frame numbers.
        image: path of each image relative to `root`, forward slashes.
        root: image folder of all rows, or one a row; made absolute.
        valence: [N] in [-1, 1], NaN where missing; None: all missing.
        arousal: as `valence`.
        expression: [N] in 0..7, -1 where missing; None: all missing.
        au: [N, A] of 0, 1, NaN where missing; None: all missing.
        row: [N] line numbers; None: 1..N in the order given.
        sort: sort by (dataset, video, frame); false keeps the order given.

    Raises:
        ValueError: a column of another length, or a label outside its range. Readers check what
            users wrote before they come here.
    """
    frame_N = np.array(frame, dtype=np.int64)
    num_rows = len(frame_N)
    columns: dict[str, Any] = {
        "dataset": _text_column(dataset, num_rows),
        "video": _text_column(video, num_rows),
        "frame": frame_N,
        "image": _text_column(image, num_rows),
        "root": _absolute(_text_column(root, num_rows)),
        "valence": _label_column(valence, (num_rows,), np.nan, np.float32),
        "arousal": _label_column(arousal, (num_rows,), np.nan, np.float32),
        "expression": _label_column(expression, (num_rows,), -1, np.int8),
        "au": _label_column(au, (num_rows, len(tasks.AU_NAMES)), np.nan, np.float32),
        "row": np.arange(1, num_rows + 1) if row is None else np.array(row, dtype=np.int64),
    }
    for name in tasks.VA_NAMES:
        if (np.abs(columns[name]) > 1).any():  # a comparison with NaN is false
            raise ValueError(f"{name} outside [-1, 1]")
    if not np.isin(columns["expression"], range(-1, len(tasks.EXPRESSION_NAMES))).all():
        raise ValueError("expression outside -1..7")
    if not (np.isnan(columns["au"]) | np.isin(columns["au"], (0, 1))).all():
        raise ValueError("an action unit that is neither 0, 1 nor NaN")
    columns["duplicate"] = np.zeros(num_rows, dtype=bool)  # `select` marks them
    table = FrameTable(**columns)
    order = np.arange(num_rows)
    if sort:
        order = _sorted_order(table.dataset, table.video, table.frame)
    return table.select(order)


def concatenate(tables: Sequence[FrameTable]) -> FrameTable:
    """All rows of several tables as one table, sorted, duplicates across tables marked.

    Raises:
        ValueError: no table is given.
    """
    if not tables:
        raise ValueError("concatenate needs at least one table")
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in _DTYPES
        if name != "duplicate"
    }
    return from_columns(**joined)


def labels(table: FrameTable) -> tuple[Labels, Labels]:
    """Labels as arrays for a loss or a metric, and a weight for each: 1 present, 0 missing.

    Returns:
        `targets`: float32 arrays `va` [N, 2], `au` [N, A], `expr` [N, 8] (one-hot); 0 where
        missing, never NaN.
        `weights`: float32 arrays `va` [N] (1 only where both values are present), `au` [N, A],
        `expr` [N].
    """
    va_N2 = np.stack([table.valence, table.arousal], axis=1)
    has_va_N = ~(np.isnan(table.valence) | np.isnan(table.arousal))
    has_au_NA = ~np.isnan(table.au)
    class_E = np.arange(len(tasks.EXPRESSION_NAMES), dtype=np.int8)
    targets = {
        tasks.VA: np.where(has_va_N[:, None], va_N2, 0).astype(np.float32),
        tasks.AU: np.where(has_au_NA, table.au, 0).astype(np.float32),
        tasks.EXPR: (table.expression[:, None] == class_E).astype(np.float32),
    }
    weights = {
        tasks.VA: has_va_N.astype(np.float32),
        tasks.AU: has_au_NA.astype(np.float32),
        tasks.EXPR: (table.expression >= 0).astype(np.float32),
    }
    return targets, weights


def _text_column(values: str | Iterable[str], num_rows: int) -> npt.NDArray[np.object_]:
    # Object columns: rows of one video share one string, and one long path costs only itself.
    column = np.empty(num_rows, dtype=object)
    if isinstance(values, str):
        column[:] = values
    else:
        listed = list(values)
        if len(listed) != num_rows:
            raise ValueError(f"a text column has {len(listed)} values for {num_rows} rows")
        column[:] = listed
    return column


def _absolute(root_N: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    absolute = {root: os.path.abspath(root) for root in set(root_N)}
    return _text_column([absolute[root] for root in root_N], len(root_N))


def _label_column(
    values: npt.ArrayLike | None, shape: tuple[int, ...], missing: float, dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    return np.full(shape, missing, dtype) if values is None else np.array(values, dtype=dtype)


def _rank(values_N: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    rank = {value: position for position, value in enumerate(sorted(set(values_N)))}
    return np.fromiter((rank[value] for value in values_N), np.int64, len(values_N))


def _sorted_order(
    dataset_N: npt.NDArray[np.object_],
    video_N: npt.NDArray[np.object_],
    frame_N: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    return np.lexsort((frame_N, _rank(video_N), _rank(dataset_N)))  # stable; last key first


def _find_duplicates(
    dataset_N: npt.NDArray[np.object_],
    video_N: npt.NDArray[np.object_],
    frame_N: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    order = _sorted_order(dataset_N, video_N, frame_N)
    duplicate_N = np.zeros(len(order), dtype=bool)
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (dataset_N, video_N, frame_N):
        same &= (column[order][1:] == column[order][:-1]).astype(bool)
    duplicate_N[order[1:]] = same
    return duplicate_N
