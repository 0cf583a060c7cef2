"""The mean of several predictions of the same images, and how far they differ (paper, section 4).

The paper's third submission is the mean of its first two. Rows are joined by (dataset, video,
frame), never by their position.

Dimension letters: M members, N rows, C columns.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.joining import find_discrepancies, match
from mtl_face.evaluation.measures import mean_of_defined
from mtl_face.tables import (
    EPISTEMIC_FIELDS,
    KEY_COLUMNS,
    STD_COLUMNS,
    TRAINING,
    PredictionError,
    PredictionTable,
    Scale,
    as_fields,
)
from mtl_face.tasks import OUTPUT_SIZES, TASKS, VA

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
    index_MN = np.stack([match(rows, member, lenient=True) for member in members])
    names_of_data = [set(member.dataset.tolist()) for member in members]
    shared = (index_MN >= 0).sum(axis=0).max(initial=0)
    if shared < 2 <= len(members) and all(names_of_data) and not set.intersection(*names_of_data):
        raise PredictionError(
            "no row is in more than one of the files, whose data sets are called "
            + ", ".join(sorted(set.union(*names_of_data))),
            remedy="predict the same images with each model: rows are joined by data set, video "
            "and frame",
        )
    num_incomplete = int((index_MN < 0).any(axis=0).sum())
    if missing == "error" and num_incomplete:
        lacks = [
            f"  {name} lacks {found.num_missing}: {found.missing}"
            for name, member in zip(names, members, strict=True)
            if (found := find_discrepancies(rows, member)).num_missing
        ]
        raise PredictionError(
            f"{num_incomplete} of {len(rows)} rows are not in all files:\n" + "\n".join(lacks),
            remedy="predict the same images with each model, or average what there is with "
            "--missing=available",
        )
    metadata["ensemble"]["num_incomplete_rows"] = num_incomplete

    def gather(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Columns of all members, [M, N, C]; NaN in all of a row that a member lacks a part of."""
        gathered_MNC = np.full((*index_MN.shape, values[0].shape[1]), np.nan)
        for value_NC, own, index_N in zip(gathered_MNC, values, index_MN, strict=True):
            value_NC[index_N >= 0] = own[index_N[index_N >= 0]]
            value_NC[np.isnan(value_NC).any(axis=1)] = np.nan
        return gathered_MNC

    changes: dict[str, Any] = {"metadata": metadata, **dict.fromkeys(STD_COLUMNS)}
    stds = [member.va_std for member in members if member.va_std is not None]
    for task in TASKS:
        mean_NC = _mean(gather([member.values(task, on) for member in members]))
        changes |= rows.from_values(mean_NC, task, on)
        said = [member.values(task, "probabilities") for member in members]
        spread_NC = _spread(gather(said))[:, : OUTPUT_SIZES[task]]  # without those of absence
        changes |= as_fields(EPISTEMIC_FIELDS[task], spread_NC)
        if task == VA and len(stds) == len(members):
            variance_NC = _mean(gather(stds) ** 2) + np.nan_to_num(spread_NC) ** 2
            changes |= as_fields(STD_COLUMNS, np.sqrt(variance_NC))
    return dataclasses.replace(rows, **changes)


def _mean(value_MNC: NDArray[np.float64]) -> NDArray[np.float64]:
    return mean_of_defined(value_MNC, axis=0)


def _spread(value_MNC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation over the members that are not NaN, [N, C]; NaN for one or none."""
    difference_MNC = value_MNC - _mean(value_MNC)
    number_NC = (~np.isnan(value_MNC)).sum(axis=0)
    return np.where(number_NC > 1, np.sqrt(_mean(difference_MNC**2)), np.nan)


def _all_rows(members: Sequence[PredictionTable]) -> PredictionTable:
    """The rows of the first member and those that only later ones have, of their first owner."""
    rows = members[0]
    for member in members[1:]:
        new = member.take(np.flatnonzero(match(member, rows, lenient=True) < 0))
        if len(new):
            names = [*KEY_COLUMNS, "valence", "arousal", "au_logits", "expression_logits"]
            columns: dict[str, Any] = {
                name: np.concatenate([getattr(rows, name), getattr(new, name)]) for name in names
            }
            rows = PredictionTable(**columns)
    return rows


def _metadata(
    members: Sequence[PredictionTable], names: Sequence[str], on: Scale, missing: Missing
) -> dict[str, Any]:
    """Metadata of the mean; PredictionError if the members cannot be averaged.

    Members of one definition of a probability may have different divisors, and those of the mean
    are then None.
    """
    smoothing = members[0].metadata.get("smoothing")
    probability: dict[str, Any] = {}  # of the first member that states one
    stated_by = ""
    for member, name in zip(members, names, strict=True):
        if member.is_calibrated:
            raise PredictionError(
                "was calibrated, and thresholds of single members mean nothing for their mean",
                path=name,
                remedy="average uncalibrated predictions, then calibrate the mean",
            )
        if (member.metadata.get("smoothing") or None) != (smoothing or None):
            raise PredictionError(
                f"was smoothed differently ({member.metadata.get('smoothing')}) from {names[0]} "
                f"({smoothing})",
                path=name,
                remedy="average unsmoothed predictions, and smooth them on the way: --window=30",
            )
        own = member.metadata.get("probability") or {}
        if not member.stands_for(probability):
            raise PredictionError(
                f"has the probability {own['definition']}, {stated_by} has "
                f"{probability['definition']}",
                path=name,
                remedy="evaluate or predict one of them again with the other's "
                "evaluation.probability",
            )
        if not probability:
            probability, stated_by = own, name
    shared = {
        key: value
        for key, value in members[0].metadata.items()
        if all(member.metadata.get(key) == value for member in members)
    }
    if all(member.metadata.get("probability") for member in members):
        shared.setdefault("probability", {**members[0].metadata["probability"], "divisors": None})
    kept = ("step", "weights_sha256", "provenance", "probability", TRAINING)
    return {
        **shared,
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
