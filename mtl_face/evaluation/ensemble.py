"""The mean of several predictions of the same images, and how far they differ (paper, section 4).

The paper's third submission is the mean of its first two. Rows are joined by (dataset, video,
frame), never by their position.

Dimension letters: M members, N rows, C columns.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_face import probabilities
from mtl_face.evaluation.joining import match
from mtl_face.evaluation.smoothing import Scale
from mtl_face.tables import KEY_COLUMNS, PredictionError, PredictionTable
from mtl_face.tasks import AU, EXPR

Missing = Literal["error", "available"]
"""A row that some members lack: an error, or the mean of the members that have it."""


def combine(
    members: Sequence[PredictionTable],
    *,
    names: Sequence[str],
    on: Scale = "probabilities",
    missing: Missing = "error",
) -> PredictionTable:
    """Averages predictions, all members with equal weight.

    The spread of the members goes into the epistemic columns: the standard deviation (division by
    M) of valence, of arousal and of each probability, NaN where a row has one member only. Where
    all members predict standard deviations of valence and arousal, the result's are those of the
    mixture: mean variance plus spread.

    Args:
        members: M tables, M > 0.
        names: what to call each member in messages and in the metadata, M of them.
        on: what is averaged for action units and expressions, see `Scale`. Valence and arousal
            are averaged as they are.
        missing: see `Missing`. A NaN counts as a missing prediction of its task.

    Returns:
        The rows of the first member in its order, then those that only later members have (with
        `missing="available"`). `ensemble` in the metadata says what it was made of; what all
        members agree on in theirs (config, smoothing) is kept.

    Raises:
        PredictionError: a row is not in all members (unless `available`), has no prediction in
            any, or a member was calibrated, or members were smoothed differently.
        ValueError: no members, or an unknown word.
    """
    if not members or len(members) != len(names):
        raise ValueError(f"{len(members)} members with {len(names)} names")
    if on not in ("values", "logits", "probabilities"):
        raise ValueError(f"on is {on!r}, expected values, logits or probabilities")
    if missing not in ("error", "available"):
        raise ValueError(f"missing is {missing!r}, expected error or available")
    metadata = _metadata(members, names, on, missing)
    rows = _all_rows(members)
    index_MN = np.stack([_match(rows, member) for member in members])
    if missing == "error" and (index_MN < 0).any():
        raise _incomplete(rows, index_MN, names)

    def gather(column: Callable[[PredictionTable], NDArray[np.float64]]) -> NDArray[np.float64]:
        """A column of all members, with NaN where a member lacks the row, [M, N, C]."""
        values = []
        for member, index_N in zip(members, index_MN, strict=True):
            value_NC = column(member)[np.maximum(index_N, 0)] if len(member) else None
            if value_NC is None:
                value_NC = np.full((len(rows), column(rows).shape[1]), np.nan)
            values.append(np.where(index_N[:, None] >= 0, value_NC, np.nan))
        gathered_MNC = np.stack(values)
        # a row with a NaN is a missing prediction as a whole
        return np.where(np.isnan(gathered_MNC).any(axis=2, keepdims=True), np.nan, gathered_MNC)

    va_MNC = gather(lambda t: np.column_stack([t.valence, t.arousal]))
    present_MNC = gather(lambda t: probabilities.sigmoid(t.logits(AU)))
    expression_MNC = gather(lambda t: probabilities.softmax(t.logits(EXPR)))
    va_NC, va_std_NC = _mean(va_MNC), _spread(va_MNC)
    if on == "probabilities":
        absent_MNC = gather(lambda t: probabilities.sigmoid(-t.logits(AU)))
        au_logits = probabilities.au_logits(_mean(present_MNC), _mean(absent_MNC))
        expression_logits = probabilities.expression_logits(_mean(expression_MNC))
    else:
        au_logits = _mean(gather(lambda t: t.logits(AU)))
        expression_logits = _mean(gather(lambda t: t.logits(EXPR)))
    std: dict[str, Any] = {"valence_std": None, "arousal_std": None}
    if all(member.valence_std is not None for member in members):
        variance_NC = _mean(gather(_predicted_variance)) + np.nan_to_num(va_std_NC) ** 2
        std = dict(zip(std, np.sqrt(variance_NC).T, strict=True))
    return dataclasses.replace(
        rows,
        valence=va_NC[:, 0],
        arousal=va_NC[:, 1],
        au_logits=au_logits,
        expression_logits=expression_logits,
        **std,
        valence_epistemic_std=va_std_NC[:, 0],
        arousal_epistemic_std=va_std_NC[:, 1],
        au_epistemic_std=_spread(present_MNC),
        expression_epistemic_std=_spread(expression_MNC),
        metadata={
            **metadata,
            "ensemble": {
                **metadata["ensemble"],
                "num_incomplete_rows": int((index_MN < 0).any(axis=0).sum()),
            },
        },
    )


def _mean(value_MNC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the members that are not NaN, [N, C]; NaN if none is left."""
    there_MNC = ~np.isnan(value_MNC)
    number_NC = there_MNC.sum(axis=0)
    total_NC = np.where(there_MNC, value_MNC, 0.0).sum(axis=0)
    return np.where(number_NC > 0, total_NC / np.maximum(number_NC, 1), np.nan)


def _spread(value_MNC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation over the members that are not NaN, [N, C]; NaN for one or none."""
    difference_MNC = value_MNC - _mean(value_MNC)
    number_NC = (~np.isnan(value_MNC)).sum(axis=0)
    return np.where(number_NC > 1, np.sqrt(_mean(difference_MNC**2)), np.nan)


def _predicted_variance(table: PredictionTable) -> NDArray[np.float64]:
    """Predicted variances of valence and arousal, [N, 2]."""
    assert table.valence_std is not None
    assert table.arousal_std is not None
    return np.column_stack([table.valence_std, table.arousal_std]) ** 2


def _all_rows(members: Sequence[PredictionTable]) -> PredictionTable:
    """The rows of the first member and those that only later ones have, of their first owner."""
    rows = members[0]
    for member in members[1:]:
        new = member.take(np.flatnonzero(_match(member, rows) < 0))
        if len(new):
            names = [*KEY_COLUMNS, "valence", "arousal", "au_logits", "expression_logits"]
            columns: dict[str, Any] = {
                name: np.concatenate([getattr(rows, name), getattr(new, name)]) for name in names
            }
            rows = PredictionTable(**columns)
    return rows


def _match(rows: PredictionTable, member: PredictionTable) -> NDArray[np.int64]:
    """Row of `member` for each row of `rows`, or -1."""
    return match(rows, member, lenient=True)


def _incomplete(
    rows: PredictionTable, index_MN: NDArray[np.int64], names: Sequence[str]
) -> PredictionError:
    """The error that names the rows which some members lack."""
    parts = []
    for name, index_N in zip(names, index_MN, strict=True):
        absent = np.flatnonzero(index_N < 0)
        if len(absent):
            examples = [f"{rows.dataset[i]}/{rows.video[i]} frame {rows.frame[i]}" for i in absent]
            shown = ", ".join(examples[:3]) + (", ..." if len(examples) > 3 else "")
            parts.append(f"  {name} lacks {len(absent)}: {shown}")
    number = int((index_MN < 0).any(axis=0).sum())
    return PredictionError(
        f"{number} of {len(rows)} rows are not in all files:\n" + "\n".join(parts),
        remedy="predict the same images with each model, or average what there is with "
        "--missing=available",
    )


def _metadata(
    members: Sequence[PredictionTable], names: Sequence[str], on: Scale, missing: Missing
) -> dict[str, Any]:
    """Metadata of the mean; PredictionError if the members cannot be averaged."""
    for member, name in zip(members, names, strict=True):
        if member.metadata.get("calibration") or member.metadata.get("decisions"):
            raise PredictionError(
                "was calibrated, and thresholds of single members mean nothing for their mean",
                path=name,
                remedy="average uncalibrated predictions, then calibrate the mean",
            )
    first = members[0].metadata.get("smoothing")
    for member, name in zip(members, names, strict=True):
        if (member.metadata.get("smoothing") or None) != (first or None):
            raise PredictionError(
                f"was smoothed differently ({member.metadata.get('smoothing')}) from {names[0]} "
                f"({first})",
                path=name,
                remedy="average unsmoothed predictions, and smooth them on the way: --window=30",
            )
    shared = {
        key: value
        for key, value in members[0].metadata.items()
        if all(member.metadata.get(key) == value for member in members)
    }
    kept = ("step", "weights_sha256", "provenance", "probability")
    return {
        **shared,
        **_probability(members, names),
        "ensemble": {
            "on": "logits" if on == "values" else on,
            "missing": missing,
            "members": [
                {"name": str(name), "num_rows": len(member)}
                | {key: member.metadata[key] for key in kept if key in member.metadata}
                for member, name in zip(members, names, strict=True)
            ],
        },
    }


def _probability(members: Sequence[PredictionTable], names: Sequence[str]) -> dict[str, Any]:
    """The statement of the mean, empty if a member has none; PredictionError if they disagree.

    Members of one definition may have different divisors, and those of the mean are then None.
    """
    stated = [probabilities.stated(member.metadata) for member in members]
    known = [(statement, name) for statement, name in zip(stated, names, strict=True) if statement]
    for statement, name in known:
        first, first_name = known[0]
        if not probabilities.agree(first, statement):
            raise PredictionError(
                f"has the probability {statement['definition']}, {first_name} has "
                f"{first['definition']}",
                path=name,
                remedy="evaluate or predict one of them again with the other's "
                "evaluation.probability",
            )
    if len(known) < len(members):
        return {}
    same = all(statement == stated[0] for statement in stated)
    mixed = {"definition": known[0][0]["definition"], "divisors": None}
    return {"probability": stated[0] if same else mixed}
