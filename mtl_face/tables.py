"""The two tables: frames with their labels, and what a network or a submission says about them.

Every reader of labels returns a `FrameTable`. Markers of the annotation files (-5, -1) never get
this far: a missing valence, arousal or action unit is NaN, a missing expression is -1 (the column
is an integer class).

A `PredictionTable` has the columns on disk, in this order: `dataset`, `video`, `frame`, `image`,
`valence`, `arousal`, optionally `valence_std` and `arousal_std`, `au1_logit` ... `au26_logit`,
`expr_neutral_logit` ... `expr_other_logit`, optionally the epistemic columns
`valence_epistemic_std`, `arousal_epistemic_std`, `au1_epistemic_std` ...
`expr_other_epistemic_std`. Truth is not among them: it is joined by (dataset, video, frame), so
that one table of predictions can be scored against any labels.

Dimension letters: N rows, A action units (12), E expressions (8).
"""

import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import scipy
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mtl_face.errors import UserError
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, TASKS, VA, VA_NAMES

if TYPE_CHECKING:
    import pandas as pd

VOTE_NAMES = tuple(f"votes_{name.lower()}" for name in EXPRESSION_NAMES)
"""Names of the columns of votes: `votes_neutral` ... `votes_other`."""

AU_PROBABILITY_NAMES = tuple(f"{name}_probability" for name in AU_NAMES)
"""Names of the columns of soft action units: `au1_probability` ... `au26_probability`."""

EXPRESSION_PROBABILITY_NAMES = tuple(
    f"expr_{name.lower()}_probability" for name in EXPRESSION_NAMES
)
"""Names of soft expressions in a file: `expr_neutral_probability` ... ; they are votes here."""

RATER_NAMES = ("valence_rater_std", "arousal_rater_std", "raters")
"""Names of the columns of what several annotators of valence and arousal said."""

_DTYPES: dict[str, DTypeLike] = {
    "dataset": object,
    "video": object,
    "frame": np.int64,
    "image": object,
    "root": object,
    "valence": np.float32,
    "arousal": np.float32,
    "raters": np.float32,
    "expression": np.int8,
    "votes": np.float32,
    "au": np.float32,
    "au_probability": np.float32,
    "label_weight": np.float32,
    "duplicate": bool,
    "row": np.int64,
}


_MATRICES = {
    "raters": RATER_NAMES,
    "au": AU_NAMES,
    "votes": VOTE_NAMES,
    "au_probability": AU_PROBABILITY_NAMES,
}
"""Columns of a `FrameTable` that are matrices, and the names of their columns in a DataFrame."""


@dataclasses.dataclass(frozen=True, eq=False)
class FrameTable:
    """Labelled images as columns of equal length N. Build one with `from_columns`.

    Rows are sorted by (dataset, video, frame), stably; names compare by code point. The exceptions
    are tables whose order has a meaning of its own: a test list (the order of the submission) and
    the result of `take`. A frame that a file lists twice is kept twice.

    Attributes:
        dataset, video: object [N] of str, names of the data set and of the video inside it.
        frame: int64 [N], frame number inside the video.
        image: object [N] of str, path of the image relative to `root`, forward slashes.
        root: object [N] of str, absolute path of the data set's image folder.
        valence, arousal: float32 [N] in [-1, 1], NaN where missing.
        raters: float32 [N, 3], of several annotators' ratings of valence and of arousal the sample
            standard deviations (division by their number less 1), and their number, at least 2; all
            three NaN where it is not known how far they differed.
        expression: int8 [N] in 0..7, -1 where missing.
        votes: float32 [N, E], how many annotators chose each expression, or its probabilities;
            NaN where none is known.
        au: float32 [N, A] of 0 and 1, NaN where missing.
        au_probability: float32 [N, A] in [0, 1], share of annotators or probability of each action
            unit, NaN where none is known; `au` is the decision.
        label_weight: float32 [N] in [0, 1], what the row's labels count in training.
        duplicate: bool [N], true where an earlier row has the same (dataset, video, frame).
        row: int64 [N], line number in the file that the row was read from, from 1.
    """

    dataset: NDArray[np.object_]
    video: NDArray[np.object_]
    frame: NDArray[np.int64]
    image: NDArray[np.object_]
    root: NDArray[np.object_]
    valence: NDArray[np.float32]
    arousal: NDArray[np.float32]
    raters: NDArray[np.float32]
    expression: NDArray[np.int8]
    votes: NDArray[np.float32]
    au: NDArray[np.float32]
    au_probability: NDArray[np.float32]
    label_weight: NDArray[np.float32]
    duplicate: NDArray[np.bool_]
    row: NDArray[np.int64]

    def __post_init__(self) -> None:
        num_rows = len(self.frame)
        for name, dtype in _DTYPES.items():
            column = getattr(self, name)
            shape = (num_rows, len(_MATRICES[name])) if name in _MATRICES else (num_rows,)
            if column.dtype != dtype or column.shape != shape:
                found = f"{column.dtype} {column.shape}"
                raise ValueError(f"column {name} is {found}, expected {np.dtype(dtype)} {shape}")

    @classmethod
    def from_columns(
        cls,
        *,
        dataset: str | Iterable[str],
        video: Iterable[str],
        frame: ArrayLike,
        image: Iterable[str],
        root: str | Iterable[str],
        valence: ArrayLike | None = None,
        arousal: ArrayLike | None = None,
        raters: ArrayLike | None = None,
        expression: ArrayLike | None = None,
        votes: ArrayLike | None = None,
        au: ArrayLike | None = None,
        au_probability: ArrayLike | None = None,
        label_weight: ArrayLike | None = None,
        row: ArrayLike | None = None,
        sort: bool = True,
    ) -> Self:
        """Builds a table from columns as the class has them: sets dtypes, marks duplicates.

        `dataset` and `root` may be one name for all rows, and `root` is made absolute. A label that
        is None is missing in all rows; without `label_weight` each is 1; without `row`, rows are
        numbered from 1 as given. Unless `sort` is false, they are sorted by (dataset, video,
        frame).

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
            "raters": _label_column(raters, (num_rows, len(RATER_NAMES)), np.nan, np.float32),
            "expression": _label_column(expression, (num_rows,), -1, np.int8),
            "votes": _label_column(votes, (num_rows, len(VOTE_NAMES)), np.nan, np.float32),
            "au": _label_column(au, (num_rows, len(AU_NAMES)), np.nan, np.float32),
            "au_probability": _label_column(
                au_probability, (num_rows, len(AU_NAMES)), np.nan, np.float32
            ),
            "label_weight": _label_column(label_weight, (num_rows,), 1, np.float32),
            "row": np.arange(1, num_rows + 1) if row is None else np.array(row, dtype=np.int64),
        }
        for name in VA_NAMES:
            if (np.abs(columns[name]) > 1).any():  # a comparison with NaN is false
                raise ValueError(f"{name} outside [-1, 1]")
        if not np.isin(columns["expression"], range(-1, len(EXPRESSION_NAMES))).all():
            raise ValueError("expression outside -1..7")
        known_N = ~np.isnan(columns["raters"]).all(axis=1)
        if not (columns["raters"][known_N] >= (0, 0, 2)).all():
            raise ValueError("raters below 2, or their standard deviations missing or below 0")
        if (columns["votes"] < 0).any():
            raise ValueError("votes below 0")
        if not (np.isnan(columns["au"]) | np.isin(columns["au"], (0, 1))).all():
            raise ValueError("an action unit that is neither 0, 1 nor NaN")
        for name in ("au_probability", "label_weight"):
            if (columns[name] < 0).any() or (columns[name] > 1).any():
                raise ValueError(f"{name} outside [0, 1]")
        if np.isnan(columns["label_weight"]).any():
            raise ValueError("label_weight is missing")
        columns["duplicate"] = np.zeros(num_rows, dtype=bool)  # `take` marks them
        table = cls(**columns)
        order = np.arange(num_rows)
        if sort:
            order = np.argsort(row_codes(table.dataset, table.video, table.frame), kind="stable")
        return table.take(order)

    @classmethod
    def joined(cls, parts: Sequence[Self], *, sort: bool = True) -> Self:
        """Tables one behind the other; sorted as `from_columns`. There must be one."""
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in _DTYPES
            if name != "duplicate"
        }
        return cls.from_columns(**columns, sort=sort)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def va(self) -> NDArray[np.float32]:
        """Valence and arousal side by side, float32 [N, 2]."""
        return np.column_stack([self.valence, self.arousal])

    def paths(self) -> list[str]:
        """Absolute path of each row's image."""
        return [
            os.path.join(root, *image.split("/"))
            for root, image in zip(self.root, self.image, strict=True)
        ]

    def take(self, rows: ArrayLike) -> Self:
        """Rows by a boolean mask [N] or by integer indices, in the order asked for.

        `duplicate` is marked afresh: a row whose earlier twin was left out is no duplicate.
        """
        index = np.asarray(rows)
        if index.size == 0 and index.dtype != bool:
            index = index.astype(np.int64)  # an empty list arrives as float64
        columns = {name: getattr(self, name)[index] for name in _DTYPES}
        keys = row_codes(columns["dataset"], columns["video"], columns["frame"])
        columns["duplicate"] = np.ones(len(keys), dtype=bool)
        columns["duplicate"][np.unique(keys, return_index=True)[1]] = False
        return type(self)(**columns)

    def only_tasks(self, names: Collection[str]) -> Self:
        """The same rows with the labels of these tasks alone; those of the others are missing."""
        missing: dict[str, NDArray[Any]] = {}
        if VA not in names:
            missing["valence"] = missing["arousal"] = np.full_like(self.valence, np.nan)
            missing["raters"] = np.full_like(self.raters, np.nan)
        if AU not in names:
            missing["au"] = np.full_like(self.au, np.nan)
            missing["au_probability"] = np.full_like(self.au, np.nan)
        if EXPR not in names:
            missing["expression"] = np.full_like(self.expression, -1)
            missing["votes"] = np.full_like(self.votes, np.nan)
        return dataclasses.replace(self, **missing)

    def hard(self) -> Self:
        """The same rows with their hard labels alone, each of whole weight."""
        return dataclasses.replace(
            self,
            raters=np.full_like(self.raters, np.nan),
            votes=np.full_like(self.votes, np.nan),
            au_probability=np.full_like(self.au_probability, np.nan),
            label_weight=np.ones_like(self.label_weight),
        )

    @property
    def is_hard(self) -> bool:
        """Whether there are hard labels alone, each of whole weight."""
        soft = (self.raters, self.votes, self.au_probability)
        unknown = all(np.isnan(column).all() for column in soft)
        return unknown and bool((self.label_weight == 1).all())

    def rater_variance(self) -> NDArray[np.float32]:
        """Mean square distance of the annotators' ratings from their mean, float32 [N, 2].

        Of valence and of arousal, NaN where it is not known.
        """
        number_N1 = self.raters[:, 2:]
        return np.square(self.raters[:, :2]) * (number_N1 - 1) / number_N1

    def expression_shares(self) -> NDArray[np.float32]:
        """Share of each expression in the votes, float32 [N, E]; rows sum to 1, or are NaN.

        A row has no shares where nobody voted, and where its votes have one winner and it has no
        label all the same: then its reader took it away, as most votes were for none of these.
        """
        votes_NE = np.nan_to_num(self.votes)
        total_N = votes_NE.sum(axis=1)
        winners_N = (votes_NE == votes_NE.max(axis=1, keepdims=True)).sum(axis=1)
        known_N = (total_N > 0) & ((self.expression >= 0) | (winners_N > 1))
        share_NE = votes_NE / np.where(known_N, total_N, 1)[:, None]
        return np.where(known_N[:, None], share_NE, np.nan).astype(np.float32)

    def to_dataframe(self) -> "pd.DataFrame":
        """The table as a DataFrame: the same columns, with `au` spread over `au1` ... `au26`.

        The columns of votes, `VOTE_NAMES`, are there if any vote is known, `RATER_NAMES` if
        annotators' spread is, `AU_PROBABILITY_NAMES` if any probability is, and `label_weight` if
        one is not 1.
        """
        import pandas as pd

        columns: dict[str, Any] = {}
        for name in _DTYPES:
            soft = name in ("raters", "votes", "au_probability")
            if soft and np.isnan(getattr(self, name)).all():
                continue
            if name == "label_weight" and (self.label_weight == 1).all():
                continue
            if name in _MATRICES:
                columns |= zip(_MATRICES[name], getattr(self, name).T, strict=True)
            else:
                columns[name] = getattr(self, name)
        return pd.DataFrame(columns)

    def labelled(self) -> dict[str, NDArray[np.bool_]]:
        """Which rows are labelled: bool [N] by task (`au`: for at least one of the twelve).

        A tie of votes is none of `expr`: it has no class, although its shares can be trained on.
        """
        return {
            VA: np.all(~np.isnan(self.va), axis=1),
            AU: np.any(~np.isnan(self.au), axis=1),
            EXPR: self.expression >= 0,
        }

    def counts(self) -> dict[str, int]:
        """How many rows, images, videos and labels there are.

        Returns:
            `rows`, `unique_images`, `duplicates`, `videos`; rows labelled per task, as `labelled`,
            under `va`, `au` and `expr`; `all_tasks` and `unlabelled`, rows with all three of these
            and with none.
        """
        masks = self.labelled()
        labelled = np.stack([*masks.values()])
        return {
            "rows": len(self),
            "unique_images": len(set(zip(self.root, self.image, strict=True))),
            "duplicates": int(self.duplicate.sum()),
            "videos": len(set(zip(self.dataset, self.video, strict=True))),
            **{task: int(mask.sum()) for task, mask in masks.items()},
            "all_tasks": int(labelled.all(axis=0).sum()),
            "unlabelled": int((~labelled.any(axis=0)).sum()),
        }


def _text_column(values: str | Iterable[str], num_rows: int) -> NDArray[np.object_]:
    # Object columns: rows of one video share one string, and one long path costs only itself.
    if isinstance(values, str):
        return np.full(num_rows, values, dtype=object)
    return np.array(list(values), dtype=object)


def _absolute(root_N: NDArray[np.object_]) -> NDArray[np.object_]:
    absolute = {root: os.path.abspath(root) for root in set(root_N)}
    return _text_column([absolute[root] for root in root_N], len(root_N))


def _label_column(
    values: ArrayLike | None, shape: tuple[int, ...], missing: float, dtype: DTypeLike
) -> NDArray[Any]:
    return np.full(shape, missing, dtype) if values is None else np.array(values, dtype=dtype)


def row_codes(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """A number for each row, int64 [N]: equal where all columns [N] are, and in their order.

    Columns count from the first to the last; text compares by code point.
    """
    num_rows = len(columns[0])
    code_N = np.zeros(num_rows, np.int64)
    for column in columns:
        if column.dtype.kind in "iu":
            distinct, rank_N = np.unique(column, return_inverse=True)
            base = len(distinct)
        else:
            # Rows of a video follow one another: text is looked up once for a run of equal rows.
            begin = np.flatnonzero(np.append(True, column[1:] != column[:-1])[:num_rows])
            values = column[begin].tolist()
            rank = {value: position for position, value in enumerate(sorted(set(values)))}
            base = len(rank)
            ranks = np.array([rank[value] for value in values], np.int64)
            rank_N = np.repeat(ranks, np.diff(begin, append=num_rows))
        # numbered anew after each column, so that the product cannot overflow
        _, code_N = np.unique(code_N * base + rank_N, return_inverse=True)
    return code_N


def row_name(table: "FrameTable | PredictionTable", row: int) -> str:
    """What a row is about, in words."""
    return f"{table.dataset[row]}/{table.video[row]} frame {table.frame[row]}"


KEY_COLUMNS = ("dataset", "video", "frame", "image")
"""Columns that say which image a row is about."""

STD_COLUMNS = ("valence_std", "arousal_std")
"""Optional columns: the predicted standard deviations of valence and arousal."""

VALUE_FIELDS = {VA: VA_NAMES, AU: ("au_logits",), EXPR: ("expression_logits",)}
"""Fields of a `PredictionTable` that hold what a network says, by task."""

TRAINING = "training"
"""Key of metadata, cards and checkpoints: a mapping.

`labels`: those that training saw in an epoch, by task, and by action unit under `per_au`.
`selection`: how the checkpoint was chosen, see `training.history.selection`; not in checkpoints.
`class_counts`: where the loss weighed classes, how often the first epoch showed each, as
`objective.class_weights.ClassCounts`.
All may be absent.
"""

CLASS_COUNTS = "class_counts"
"""Key in what stands under `TRAINING`."""


def untrained(training: Any) -> tuple[str, ...]:
    """The tasks of whose labels training saw none; nothing of what is recorded nowhere.

    `training` is what stands under `TRAINING`, if anything.
    """
    counts = label_counts(training)
    return tuple(task for task in TASKS if type(counts.get(task)) is int and not counts[task])


def label_counts(training: Any) -> Mapping[str, Any]:
    """The `labels` of what stands under `TRAINING`; empty if nothing is recorded."""
    labels = training.get("labels") if isinstance(training, Mapping) else None
    return labels if isinstance(labels, Mapping) else {}


EPISTEMIC_FIELDS = {
    VA: ("valence_epistemic_std", "arousal_epistemic_std"),
    AU: ("au_epistemic_std",),
    EXPR: ("expression_epistemic_std",),
}
"""Optional fields: how far members of an ensemble, or samples of dropout, differ, by task."""

_EXPRESSIONS = [f"expr_{name.lower()}" for name in EXPRESSION_NAMES]
_COLUMNS = {
    **{name: (name,) for name in (*KEY_COLUMNS, *VA_NAMES, *STD_COLUMNS)},
    "au_logits": tuple(f"{name}_logit" for name in AU_NAMES),
    "expression_logits": tuple(f"{name}_logit" for name in _EXPRESSIONS),
    **{name: (name,) for name in EPISTEMIC_FIELDS[VA]},
    "au_epistemic_std": tuple(f"{name}_epistemic_std" for name in AU_NAMES),
    "expression_epistemic_std": tuple(f"{name}_epistemic_std" for name in _EXPRESSIONS),
}
"""Columns on disk of each field of `PredictionTable`, in their order."""


def _columns(fields: Iterable[str]) -> tuple[str, ...]:
    return tuple(column for field in fields for column in _COLUMNS[field])


REQUIRED_COLUMNS = _columns((*KEY_COLUMNS, *VA_NAMES, "au_logits", "expression_logits"))
"""Columns that every file of predictions has."""

_OPTIONAL_FIELDS = {
    "predicted standard deviations": STD_COLUMNS,
    "ensemble spreads": [field for field in _COLUMNS if field.endswith("_epistemic_std")],
}

OPTIONAL_COLUMNS = {meaning: _columns(fields) for meaning, fields in _OPTIONAL_FIELDS.items()}
"""Groups of optional columns; a table has all of a group or none of it."""

_PREDICTION_DTYPES: dict[str, DTypeLike] = {
    **dict.fromkeys(("dataset", "video", "image"), np.str_),
    "frame": np.int64,
    "au_decisions": np.int8,
    "expression_decisions": np.int64,
}
"""Dtypes of the columns of predictions that are not float64."""

_WIDTHS = {
    "au_decisions": len(AU_NAMES),
    **{field: len(columns) for field, columns in _COLUMNS.items() if len(columns) > 1},
}

Scale = Literal["logits", "probabilities", "values"]
"""What is averaged of action units and expressions; valence and arousal are averaged as they are.

`logits`, or its other name `values`: the logits. `probabilities`: the probabilities, and their
mean is turned back into logits.
"""

_SMALLEST = 1e-15
"""Probabilities below this are raised to it before they become logits, which thus stay finite."""


def as_fields(names: Sequence[str], value_NC: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A matrix as fields of a `PredictionTable`: one, or one a column."""
    return {names[0]: value_NC} if len(names) == 1 else dict(zip(names, value_NC.T, strict=True))


class PredictionError(UserError):
    """A file of predictions that cannot be read, or that does not fit the labels."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PredictionTable:
    """Predictions of N images, as NumPy columns of equal length.

    A network gives logits for action units and expressions, and the decisions follow from them. A
    submission gives the decisions alone, and may leave a task unanswered: then valence and arousal
    are NaN, and `au` and `expression` are -1.

    Columns are converted to the dtypes below when the table is made. Values are taken as they are:
    valence and arousal are not clipped, and NaN is kept.

    Attributes:
        dataset, video: data set and video of each row, str [N].
        frame: frame number in its video, int64 [N].
        image: path of the image relative to its data set's image root, str [N].
        valence, arousal: float64 [N], nominally in [-1, 1].
        au_logits: action unit logits, float64 [N, 12], or None; present where above
            `au_thresholds`.
        expression_logits: expression logits, float64 [N, 8], or None; the class is the largest
            one, after `expression_biases` are added.
        au_decisions: decisions where there are no logits, int8 [N, 12]: 1 present, 0 absent, -1
            unanswered; or None.
        expression_decisions: classes where there are no logits, int64 [N] in 0..7, -1 unanswered;
            or None.
        valence_std, arousal_std: predicted standard deviations, float64 [N], or None. All that the
            prediction leaves open, the spread of an ensemble included.
        valence_epistemic_std, arousal_epistemic_std: standard deviations over the members of an
            ensemble, or over samples of dropout, float64 [N], or None; NaN for one member alone.
        au_epistemic_std, expression_epistemic_std: those of the probabilities, float64 [N, 12] and
            [N, 8], or None.
        metadata: what made the table, JSON values only. Keys in use: `config`, `weights_sha256`,
            `temperatures` (of the network, by task), `training` (see `TRAINING`), `probability`
            (which one the logits stand for, see `mtl_face.probabilities`), `mc_dropout_samples`,
            `smoothing`, `calibration`, `ensemble`, `versions`, and `decisions` with
            `au_thresholds` (12 numbers) and `expression_biases` (8 numbers).

    Raises:
        ValueError: a column has the wrong shape, a decision is out of range, or logits and
            decisions of one task are both given.
    """

    dataset: NDArray[np.str_]
    video: NDArray[np.str_]
    frame: NDArray[np.int64]
    image: NDArray[np.str_]
    valence: NDArray[np.float64]
    arousal: NDArray[np.float64]
    au_logits: NDArray[np.float64] | None = None
    expression_logits: NDArray[np.float64] | None = None
    au_decisions: NDArray[np.int8] | None = None
    expression_decisions: NDArray[np.int64] | None = None
    valence_std: NDArray[np.float64] | None = None
    arousal_std: NDArray[np.float64] | None = None
    valence_epistemic_std: NDArray[np.float64] | None = None
    arousal_epistemic_std: NDArray[np.float64] | None = None
    au_epistemic_std: NDArray[np.float64] | None = None
    expression_epistemic_std: NDArray[np.float64] | None = None
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        num_rows = len(self.frame)
        for name in self._columns_given():
            column = np.asarray(getattr(self, name))
            dtype = _PREDICTION_DTYPES.get(name, np.float64)
            # "safe", so that a frame number with a fraction is refused and not truncated
            safe = name == "frame" and column.size
            column = column.astype(dtype, casting="safe" if safe else "unsafe", copy=False)
            shape = (num_rows, _WIDTHS[name]) if name in _WIDTHS else (num_rows,)
            if column.shape != shape:
                raise ValueError(f"column {name} has shape {column.shape}, expected {shape}")
            object.__setattr__(self, name, column)
        for group in _OPTIONAL_FIELDS.values():
            if len({getattr(self, name) is None for name in group}) > 1:
                raise ValueError(f"{', '.join(group)} come together or not at all")
        for task, end in (("au", 2), ("expression", len(EXPRESSION_NAMES))):
            decisions = getattr(self, f"{task}_decisions")
            if decisions is None:
                continue
            if getattr(self, f"{task}_logits") is not None:
                raise ValueError(f"{task}_decisions beside {task}_logits, which decide")
            if not np.isin(decisions, range(-1, end)).all():
                raise ValueError(f"{task}_decisions outside -1..{end - 1}")
        _ = self.au_thresholds, self.expression_biases  # they refuse malformed metadata

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        num_videos = len(np.unique(row_codes(self.dataset, self.video)))
        columns = ", ".join(self._columns_given()[len(KEY_COLUMNS) :])
        return f"PredictionTable(rows: {len(self):,}, videos: {num_videos:,}; {columns})"

    @property
    def au_thresholds(self) -> NDArray[np.float64]:
        """Logit above which each action unit counts as present, float64 [12]; 0 by default."""
        return self._of_metadata("au_thresholds", len(AU_NAMES))

    @property
    def expression_biases(self) -> NDArray[np.float64]:
        """What is added to each expression's logit to decide, float64 [8]; 0 by default."""
        return self._of_metadata("expression_biases", len(EXPRESSION_NAMES))

    @property
    def au(self) -> NDArray[np.int8]:
        """Decision on each action unit, int8 [N, 12]: 1 present, 0 absent, -1 unanswered.

        Present is a logit above its threshold: without calibration above 0, a probability of 0.5.
        """
        if self.au_logits is not None:
            present_NA = (self.au_logits > self.au_thresholds).astype(np.int8)
            present_NA[np.isnan(self.au_logits)] = -1
            return present_NA
        if self.au_decisions is not None:
            return self.au_decisions
        return np.full((len(self), len(AU_NAMES)), -1, np.int8)

    @property
    def expression(self) -> NDArray[np.int64]:
        """Decision on the expression, int64 [N] in 0..7, -1 unanswered.

        It is the class of the largest biased logit, the first if tied.
        """
        if self.expression_logits is not None:
            biased_NE = self.expression_logits + self.expression_biases
            missing_N = np.isnan(biased_NE).any(axis=1)
            return np.where(missing_N, -1, np.argmax(biased_NE, axis=1)).astype(np.int64)
        if self.expression_decisions is not None:
            return self.expression_decisions
        return np.full(len(self), -1, np.int64)

    @property
    def au_probabilities(self) -> NDArray[np.float64] | None:
        """Probability of each action unit, sigmoid of its logit, float64 [N, 12], or None."""
        return None if self.au_logits is None else scipy.special.expit(self.au_logits)

    @property
    def expression_probabilities(self) -> NDArray[np.float64] | None:
        """Probability of each expression, softmax of the logits, float64 [N, 8], or None."""
        logits_NE = self.expression_logits
        return None if logits_NE is None else scipy.special.softmax(logits_NE, axis=1)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the table answers, in the order of `mtl_face.tasks.TASKS`."""
        answered = {
            VA: bool(self.answered(VA).any()) or not len(self),
            AU: self.au_logits is not None or self.au_decisions is not None,
            EXPR: self.expression_logits is not None or self.expression_decisions is not None,
        }
        silent = self.untrained
        return tuple(task for task in TASKS if answered[task] and task not in silent)

    @property
    def untrained(self) -> tuple[str, ...]:
        """Tasks left out because the network was never trained on them: NaN in every row.

        Where the metadata count no labels (CSV has none), a task that is NaN throughout beside one
        that is not.
        """
        if self.au_logits is None or self.expression_logits is None:
            return ()
        empty = [
            task
            for task in TASKS
            if len(self)
            and np.isnan(self.values(task)[:1]).all()
            and np.isnan(self.values(task)).all()
        ]
        if label_counts(training := self.metadata.get(TRAINING)):
            return tuple(task for task in untrained(training) if task in empty)
        return tuple(empty) if len(empty) < len(TASKS) else ()

    @property
    def va(self) -> NDArray[np.float64]:
        """Valence and arousal side by side, float64 [N, 2]."""
        return np.column_stack([self.valence, self.arousal])

    @property
    def va_std(self) -> NDArray[np.float64] | None:
        """Standard deviations of valence and arousal side by side, float64 [N, 2], or None."""
        if self.valence_std is None or self.arousal_std is None:
            return None
        return np.column_stack([self.valence_std, self.arousal_std])

    @property
    def is_calibrated(self) -> bool:
        """Whether a calibration was applied."""
        return bool(self.metadata.get("calibration") or self.metadata.get("decisions"))

    def stands_for(self, probability: Mapping[str, Any] | None) -> bool:
        """Whether the logits stand for a probability, as `probabilities.statement` states it.

        What states nothing is taken to agree.
        """
        own = self.metadata.get("probability")
        if not own or not probability or own["definition"] == probability["definition"]:
            return True
        return own["divisors"] is not None and own["divisors"] == probability["divisors"]

    def answered(self, task: str) -> NDArray[np.bool_]:
        """Which rows answer a task, bool [N]; for action units which of them, [N, 12]."""
        if task == VA:
            return np.all(~np.isnan(self.va), axis=1)
        return (self.au if task == AU else self.expression) >= 0

    def values(self, task: str, on: Scale = "logits") -> NDArray[np.float64]:
        """What a network says of a task, on a scale, float64 [N, C].

        Valence and arousal; logits; or probabilities, to which those of the absence of action units
        are joined (C = 24), since 1 - p does not give them where p is near 1.

        Raises:
            PredictionError: the table holds decisions alone.
        """
        if task == VA:
            return self.va
        logits_NC = self.au_logits if task == AU else self.expression_logits
        if logits_NC is None:
            raise PredictionError(
                "the predictions are decisions alone, and this needs logits",
                remedy="use a .parquet or .csv of predictions that this program wrote",
            )
        if on != "probabilities":
            return logits_NC
        if task == EXPR:
            return scipy.special.softmax(logits_NC, axis=1)
        return scipy.special.expit(np.column_stack([logits_NC, -logits_NC]))

    @staticmethod
    def from_values(
        value_NC: NDArray[np.float64], task: str, on: Scale
    ) -> dict[str, NDArray[np.float64]]:
        """Fields of what `values` gives, or of means of it."""
        if on == "probabilities" and task != VA:
            value_NC = np.log(np.maximum(value_NC, _SMALLEST))
            if task == AU:
                present_NA, absent_NA = np.hsplit(value_NC, 2)
                value_NC = present_NA - absent_NA
        return as_fields(VALUE_FIELDS[task], value_NC)

    def numbers(self) -> NDArray[np.float64]:
        """Everything that each row says side by side, [N, C]: logits, or else decisions."""
        au = self.au if self.au_logits is None else self.au_logits
        logits = self.expression_logits
        return np.column_stack([self.va, au, self.expression if logits is None else logits])

    def check_numbers(self) -> None:
        """Refuses predictions that are no finite numbers.

        In a table of decisions alone, a valence or arousal of NaN is a row without an answer; a
        task that the network was not trained on is left out.

        Raises:
            PredictionError: a value is NaN or infinite, or a standard deviation is not positive.
        """
        has_logits = self.au_logits is not None or self.expression_logits is not None
        bad_NC = np.isinf(self.numbers())
        if has_logits:
            silent = self.untrained
            left = [self.values(task) for task in TASKS if task not in silent]
            bad_NC = ~np.isfinite(np.column_stack([np.zeros(len(self)), *left]))
        self._refuse(bad_NC, "are not finite", "use a checkpoint from before training diverged")
        if (std_N2 := self.va_std) is not None and VA not in self.untrained:
            self._refuse(
                ~(np.isfinite(std_N2) & (std_N2 > 0.0)),
                "have a standard deviation that is not a positive number",
                "write the predictions again, or leave out valence_std and arousal_std",
            )

    def _refuse(self, bad_NC: NDArray[np.bool_], fault: str, remedy: str) -> None:
        bad = np.flatnonzero(bad_NC.any(axis=1))
        if len(bad):
            first = row_name(self, int(bad[0]))
            raise PredictionError(
                f"{len(bad)} of {len(self)} predictions {fault}, the first at {first}",
                remedy=remedy,
            )

    def _of_metadata(self, name: str, length: int) -> NDArray[np.float64]:
        """One entry of the metadata's `decisions`, or zeros; ValueError if it is malformed."""
        decisions = self.metadata.get("decisions") or {}
        values = np.asarray(decisions.get(name, np.zeros(length)), np.float64)
        if values.shape != (length,) or not np.isfinite(values).all():
            raise ValueError(f"decisions of the metadata: {name} is not {length} finite numbers")
        return values

    def _columns_given(self) -> list[str]:
        names = [field.name for field in dataclasses.fields(self) if field.name != "metadata"]
        return [name for name in names if getattr(self, name) is not None]

    def take(self, rows: NDArray[np.int64] | slice) -> Self:
        """These rows, with the same metadata: int [M], repetition allowed, or a slice, uncopied."""
        columns = {name: getattr(self, name)[rows] for name in self._columns_given()}
        return dataclasses.replace(self, **columns)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of tables with the same fields, one after the other; there must be one.

        The metadata are those of the first.
        """
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in parts[0]._columns_given()
        }
        return dataclasses.replace(parts[0], **columns)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns as on disk, by name and in order, each [N].

        Raises:
            PredictionError: the table has no logits, and a file of predictions has.
        """
        for task in (AU, EXPR):
            self.values(task)
        columns: dict[str, NDArray[Any]] = {}
        for field, names in _COLUMNS.items():
            if (values := getattr(self, field)) is not None:
                columns |= dict(zip(names, np.atleast_2d(values.T), strict=True))
        return columns

    @classmethod
    def from_columns(cls, columns: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> Self:
        """Inverse of `columns`: those of `REQUIRED_COLUMNS` and any groups of `OPTIONAL_COLUMNS`.

        Other columns are ignored.
        """
        fields: dict[str, NDArray[Any]] = {}
        for field, names in _COLUMNS.items():
            if names[0] in columns or names[0] in REQUIRED_COLUMNS:
                values = [columns[name] for name in names]
                fields[field] = np.stack(values, axis=1) if field in _WIDTHS else values[0]
        return cls(**fields, metadata=metadata)

    def readable_decisions(self) -> dict[str, NDArray[Any]]:
        """Columns `expression` (a name) and `au1_present` ... `au26_present` (0 or 1), each [N].

        An unanswered expression is the empty name, an unanswered action unit -1.
        """
        names = np.asarray([*EXPRESSION_NAMES, ""])  # class -1 is the last
        present = zip(AU_NAMES, self.au.T.astype(np.int64), strict=True)
        return {
            "expression": names[self.expression],
            **{f"{name}_present": column for name, column in present},
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """The table as a DataFrame, for notebooks.

        Its columns are those on disk, the decisions as `readable_decisions` names them, and the
        probabilities `au1_probability` ... and `expr_neutral_probability` ... . A table without
        logits has neither logits nor probabilities.
        """
        import pandas as pd

        columns: dict[str, Any] = {name: getattr(self, name) for name in (*KEY_COLUMNS, *VA_NAMES)}
        if self.au_logits is not None and self.expression_logits is not None:
            columns = dict(self.columns())
        columns |= self.readable_decisions()
        for field, probability_NC in (
            ("au_logits", self.au_probabilities),
            ("expression_logits", self.expression_probabilities),
        ):
            if probability_NC is not None:
                renamed = [name.replace("_logit", "_probability") for name in _COLUMNS[field]]
                columns |= dict(zip(renamed, probability_NC.T, strict=True))
        return pd.DataFrame(columns)
