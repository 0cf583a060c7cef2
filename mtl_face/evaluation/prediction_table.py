"""The prediction table: one row per image, what the network said about it, and how it came to be.

Dimension letters: N rows, A action units (12), E expressions (8).

Columns on disk, in this order: `dataset`, `video`, `frame`, `image`, `valence`, `arousal`,
optionally `valence_std` and `arousal_std`, `au1_logit` ... `au26_logit`, `expr_neutral_logit` ...
`expr_other_logit`. Truth is not among them: it lives in the frame table and is joined by
(dataset, video, frame), so that one table of predictions can be scored against any labels.
"""

import dataclasses
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import UserError
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

KEY_COLUMNS = ("dataset", "video", "frame", "image")
"""Columns that say which image a row is about."""

STD_COLUMNS = ("valence_std", "arousal_std")
"""Optional columns: the predicted standard deviations of valence and arousal."""

AU_LOGIT_COLUMNS = tuple(f"{name}_logit" for name in AU_NAMES)
"""Columns of the action units' logits, in the order of `mtl_face.tasks.AU_NAMES`."""

EXPRESSION_LOGIT_COLUMNS = tuple(f"expr_{name.lower()}_logit" for name in EXPRESSION_NAMES)
"""Columns of the expressions' logits, in the order of `mtl_face.tasks.EXPRESSION_NAMES`."""

REQUIRED_COLUMNS = (
    *KEY_COLUMNS,
    "valence",
    "arousal",
    *AU_LOGIT_COLUMNS,
    *EXPRESSION_LOGIT_COLUMNS,
)
"""Columns that every file of predictions has."""


class PredictionError(UserError):
    """A file of predictions that cannot be read, or that does not fit the labels."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PredictionTable:
    """Predictions of N images, as NumPy columns of equal length.

    Columns are converted to the dtypes below when the table is made. Values are taken as they are:
    valence and arousal are not clipped, and NaN is kept (a score refuses it).

    Attributes:
        dataset: data set of each row, str [N].
        video: video of each row, str [N].
        frame: frame number in its video, int64 [N].
        image: path of the image relative to its data set's image root, str [N].
        valence: predicted valence, float64 [N], nominally in [-1, 1].
        arousal: predicted arousal, float64 [N], nominally in [-1, 1].
        au_logits: action unit logits, float64 [N, 12]; present where above 0.
        expression_logits: expression logits, float64 [N, 8]; the class is the largest.
        valence_std: predicted standard deviation of valence, float64 [N], or None.
        arousal_std: the same of arousal.
        metadata: what made the table, JSON values only. Keys in use: `config`, `weights_sha256`,
            `smoothing`, `calibration`, `versions`.

    Raises:
        ValueError: a column has the wrong shape.
    """

    dataset: NDArray[np.str_]
    video: NDArray[np.str_]
    frame: NDArray[np.int64]
    image: NDArray[np.str_]
    valence: NDArray[np.float64]
    arousal: NDArray[np.float64]
    au_logits: NDArray[np.float64]
    expression_logits: NDArray[np.float64]
    valence_std: NDArray[np.float64] | None = None
    arousal_std: NDArray[np.float64] | None = None
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        num_rows = len(self.frame)
        widths = {"au_logits": len(AU_NAMES), "expression_logits": len(EXPRESSION_NAMES)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "metadata" or (field.name in STD_COLUMNS and value is None):
                continue
            column = np.asarray(value)
            if field.name in ("dataset", "video", "image"):
                column = column.astype(np.str_)
            elif field.name == "frame":
                # "safe" so that a frame number with a fraction is refused and not truncated
                column = column.astype(np.int64, casting="safe" if column.size else "unsafe")
            else:
                column = column.astype(np.float64)
            shape = (num_rows, widths[field.name]) if field.name in widths else (num_rows,)
            if column.shape != shape:
                raise ValueError(f"column {field.name} has shape {column.shape}, expected {shape}")
            object.__setattr__(self, field.name, column)
        if (self.valence_std is None) != (self.arousal_std is None):
            raise ValueError("valence_std and arousal_std come together or not at all")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @property
    def au_present(self) -> NDArray[np.bool_]:
        """Decision on each action unit, bool [N, 12]: logit above 0, probability above 0.5."""
        return self.au_logits > 0.0

    @property
    def expression(self) -> NDArray[np.int64]:
        """Decision on the expression, int64 [N]: the class of the largest logit, first if tied."""
        return np.argmax(self.expression_logits, axis=1).astype(np.int64)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The table of these rows, in this order, with the same metadata.

        Args:
            rows: row numbers, int [M], repetition allowed.

        Returns:
            A table of M rows.
        """
        columns = {
            field.name: getattr(self, field.name)[rows]
            for field in dataclasses.fields(self)
            if field.name != "metadata" and getattr(self, field.name) is not None
        }
        return dataclasses.replace(self, **columns)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns as on disk, by name and in order, each [N]."""
        columns: dict[str, NDArray[Any]] = {
            name: getattr(self, name) for name in (*KEY_COLUMNS, "valence", "arousal")
        }
        if self.valence_std is not None and self.arousal_std is not None:
            columns |= {"valence_std": self.valence_std, "arousal_std": self.arousal_std}
        columns |= dict(zip(AU_LOGIT_COLUMNS, self.au_logits.T, strict=True))
        columns |= dict(zip(EXPRESSION_LOGIT_COLUMNS, self.expression_logits.T, strict=True))
        return columns

    @classmethod
    def from_columns(cls, columns: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> Self:
        """Inverse of `columns`.

        Args:
            columns: the columns named in `REQUIRED_COLUMNS`, optionally those in `STD_COLUMNS`,
                each [N]; others are not looked at.
            metadata: see the class.

        Returns:
            The table.
        """
        return cls(
            **{name: columns[name] for name in (*KEY_COLUMNS, "valence", "arousal")},
            **{name: columns[name] for name in STD_COLUMNS if name in columns},
            au_logits=np.stack([columns[name] for name in AU_LOGIT_COLUMNS], axis=1),
            expression_logits=np.stack(
                [columns[name] for name in EXPRESSION_LOGIT_COLUMNS], axis=1
            ),
            metadata=metadata,
        )
