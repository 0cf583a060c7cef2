"""The prediction table: one row per image, what the network said about it, and how it came to be.

Dimension letters: N rows, A action units (12), E expressions (8).

Columns on disk, in this order: `dataset`, `video`, `frame`, `image`, `valence`, `arousal`,
optionally `valence_std` and `arousal_std`, `au1_logit` ... `au26_logit`, `expr_neutral_logit` ...
`expr_other_logit`, optionally the epistemic columns `valence_epistemic_std`,
`arousal_epistemic_std`, `au1_epistemic_std` ... `expr_other_epistemic_std`. Truth is not among
them: it lives in the frame table and is joined by (dataset, video, frame), so that one table of
predictions can be scored against any labels.

Decisions follow from the logits: an action unit is present above its threshold, the expression is
the class of the largest biased logit. Thresholds and biases are 0 unless the table was calibrated;
then they stand in its metadata under `decisions`, so that they stay with it wherever it goes.
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

EPISTEMIC_COLUMNS = (
    "valence_epistemic_std",
    "arousal_epistemic_std",
    *(f"{name}_epistemic_std" for name in AU_NAMES),
    *(f"expr_{name.lower()}_epistemic_std" for name in EXPRESSION_NAMES),
)
"""Optional columns: how far members of an ensemble, or samples of dropout, differ, by task."""

OPTIONAL_COLUMNS = {
    "predicted standard deviations": STD_COLUMNS,
    "ensemble spreads": EPISTEMIC_COLUMNS,
}
"""Groups of optional columns; a table has all of a group or none of it."""

_OPTIONAL_FIELDS = (
    ("valence_std", "arousal_std"),
    (
        "valence_epistemic_std",
        "arousal_epistemic_std",
        "au_epistemic_std",
        "expression_epistemic_std",
    ),
)
_WIDTHS = {
    "au_logits": len(AU_NAMES),
    "au_epistemic_std": len(AU_NAMES),
    "expression_logits": len(EXPRESSION_NAMES),
    "expression_epistemic_std": len(EXPRESSION_NAMES),
}

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
        au_logits: action unit logits, float64 [N, 12]; present where above `au_thresholds`.
        expression_logits: expression logits, float64 [N, 8]; the class is the largest one, after
            `expression_biases` are added.
        valence_std: predicted standard deviation of valence, float64 [N], or None. All that the
            prediction leaves open, the spread of an ensemble included.
        arousal_std: the same of arousal.
        valence_epistemic_std: standard deviation of valence over the members of an ensemble, or
            over samples of dropout, float64 [N], or None; NaN where there was one member only.
        arousal_epistemic_std: the same of arousal.
        au_epistemic_std: the same of each action unit's probability, float64 [N, 12], or None.
        expression_epistemic_std: the same of each expression's probability, float64 [N, 8].
        metadata: what made the table, JSON values only. Keys in use: `config`, `weights_sha256`,
            `temperatures` (of the network, by task), `mc_dropout_samples`, `smoothing`,
            `calibration`, `ensemble`, `versions`, and `decisions` with `au_thresholds` (12
            numbers) and `expression_biases` (8 numbers).

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
    valence_epistemic_std: NDArray[np.float64] | None = None
    arousal_epistemic_std: NDArray[np.float64] | None = None
    au_epistemic_std: NDArray[np.float64] | None = None
    expression_epistemic_std: NDArray[np.float64] | None = None
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        num_rows = len(self.frame)
        optional = {name for group in _OPTIONAL_FIELDS for name in group}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "metadata" or (field.name in optional and value is None):
                continue
            column = np.asarray(value)
            if field.name in ("dataset", "video", "image"):
                column = column.astype(np.str_)
            elif field.name == "frame":
                # "safe" so that a frame number with a fraction is refused and not truncated
                column = column.astype(np.int64, casting="safe" if column.size else "unsafe")
            else:
                column = column.astype(np.float64)
            width = _WIDTHS.get(field.name)
            shape = (num_rows,) if width is None else (num_rows, width)
            if column.shape != shape:
                raise ValueError(f"column {field.name} has shape {column.shape}, expected {shape}")
            object.__setattr__(self, field.name, column)
        for group in _OPTIONAL_FIELDS:
            if len({getattr(self, name) is None for name in group}) > 1:
                raise ValueError(f"{', '.join(group)} come together or not at all")
        self._decision("au_thresholds", len(AU_NAMES))
        self._decision("expression_biases", len(EXPRESSION_NAMES))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @property
    def au_thresholds(self) -> NDArray[np.float64]:
        """Logit above which each action unit counts as present, float64 [12]; 0 by default."""
        return self._decision("au_thresholds", len(AU_NAMES))

    @property
    def expression_biases(self) -> NDArray[np.float64]:
        """What is added to each expression's logit to decide, float64 [8]; 0 by default."""
        return self._decision("expression_biases", len(EXPRESSION_NAMES))

    @property
    def au_present(self) -> NDArray[np.bool_]:
        """Decision on each action unit, bool [N, 12]: logit above its threshold.

        Without calibration that is 0, a probability of 0.5.
        """
        return self.au_logits > self.au_thresholds

    @property
    def expression(self) -> NDArray[np.int64]:
        """Decision on the expression, int64 [N]: the largest biased logit, the first if tied."""
        biased_NE = self.expression_logits + self.expression_biases
        return np.argmax(biased_NE, axis=1).astype(np.int64)

    def _decision(self, name: str, length: int) -> NDArray[np.float64]:
        """One entry of the metadata's `decisions`, or zeros; ValueError if it is malformed."""
        decisions = self.metadata.get("decisions") or {}
        values = np.asarray(decisions.get(name, np.zeros(length)), np.float64)
        if values.shape != (length,) or not np.isfinite(values).all():
            raise ValueError(f"decisions of the metadata: {name} is not {length} finite numbers")
        return values

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
        if self.au_epistemic_std is not None:
            spread = [getattr(self, name) for name in _OPTIONAL_FIELDS[1]]
            columns |= dict(zip(EPISTEMIC_COLUMNS, np.column_stack(spread).T, strict=True))
        return columns

    @classmethod
    def from_columns(cls, columns: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> Self:
        """Inverse of `columns`.

        Args:
            columns: the columns named in `REQUIRED_COLUMNS`, optionally those of each group in
                `OPTIONAL_COLUMNS`, each [N]; others are not looked at.
            metadata: see the class.

        Returns:
            The table.
        """
        spread: dict[str, NDArray[Any]] = {}
        if EPISTEMIC_COLUMNS[0] in columns:
            spread_NC = np.stack([columns[name] for name in EPISTEMIC_COLUMNS], axis=1)
            first_expression = 2 + len(AU_NAMES)
            parts = (
                spread_NC[:, 0],
                spread_NC[:, 1],
                spread_NC[:, 2:first_expression],
                spread_NC[:, first_expression:],
            )
            spread = dict(zip(_OPTIONAL_FIELDS[1], parts, strict=True))
        return cls(
            **{name: columns[name] for name in (*KEY_COLUMNS, "valence", "arousal")},
            **{name: columns[name] for name in STD_COLUMNS if name in columns},
            **spread,
            au_logits=np.stack([columns[name] for name in AU_LOGIT_COLUMNS], axis=1),
            expression_logits=np.stack(
                [columns[name] for name in EXPRESSION_LOGIT_COLUMNS], axis=1
            ),
            metadata=metadata,
        )
