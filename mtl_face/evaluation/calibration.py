"""A calibration: what to do to predictions so that probabilities and decisions fit the labels.

Applied in this order: smoothing, temperatures, thresholds and biases. Temperatures change the
probabilities and no decision; thresholds and biases the decisions and no probability.

Dimension letters: A action units (12), E expressions (8).
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face import probabilities
from mtl_face.errors import UserError, quoted
from mtl_face.evaluation.smoothing import Smoothing
from mtl_face.files import unreadable
from mtl_face.tables import STD_COLUMNS, PredictionTable, as_fields
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, VA_NAMES

SCHEMA = 1
"""Version of the file's layout."""


class CalibrationError(UserError):
    """A calibration that cannot be read, fitted, or applied to these predictions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What to do to predictions.

    Attributes:
        smoothing: what predictions are smoothed with before, or None.
        temperatures: what the logits of `au` and of `expr` are divided by.
        std_scales: of `valence` and `arousal`: factor of the predicted standard deviations, or
            the standard deviations themselves where the predictions have none; empty where there
            were no labels of both.
        std_is_predicted: whether the predictions have standard deviations of their own.
        au_thresholds: logit (after the temperature) above which an action unit is present, by
            name.
        expression_biases: what is added to an expression's logit (after the temperature) before
            the largest is taken, by name.
        fitted_on: provenance: files, their SHA-256, rows, videos, folds, scores; JSON values.
            `smoothing` and `probability` in it are those that the predictions came with.
    """

    smoothing: Smoothing | None
    temperatures: Mapping[str, float]
    std_scales: Mapping[str, float]
    std_is_predicted: bool
    au_thresholds: Mapping[str, float]
    expression_biases: Mapping[str, float]
    fitted_on: Mapping[str, Any]

    def __post_init__(self) -> None:
        expected = {
            "temperatures": (AU, EXPR),
            "std_scales": VA_NAMES,
            "au_thresholds": AU_NAMES,
            "expression_biases": EXPRESSION_NAMES,
        }
        for name, keys in expected.items():
            values = getattr(self, name)
            unfitted = name == "std_scales" and values == {}
            if not isinstance(values, Mapping) or not (unfitted or set(values) == set(keys)):
                raise ValueError(f"{name} does not hold {', '.join(keys)}")
            for key, value in values.items():
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if not number or not np.isfinite(value):
                    raise ValueError(f"{key} of {name} is {quoted(str(value))}, expected a number")
                if name in ("temperatures", "std_scales") and value <= 0:
                    raise ValueError(f"{key} of {name} is {value!r}, expected more than 0")

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as in the file."""
        smoothing = None if self.smoothing is None else self.smoothing.to_dict()
        return {"schema": SCHEMA, **vars(self), "smoothing": smoothing}

    def without_smoothing(self) -> "Calibration":
        """The same for predictions that are not smoothed, since each is of a picture by itself."""
        fitted_on = {**self.fitted_on, "smoothing": None}
        return dataclasses.replace(self, smoothing=None, fitted_on=fitted_on)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Calibration":
        """Inverse of `to_dict`; ValueError or TypeError for another mapping."""
        fields = dict(values)
        if (schema := fields.pop("schema", None)) != SCHEMA:
            raise ValueError(f"schema is {quoted(str(schema))}, this program reads {SCHEMA}")
        if fields.get("smoothing") is not None:
            fields["smoothing"] = Smoothing(**fields["smoothing"])
        return cls(**fields)


def apply(table: PredictionTable, calibration: Calibration) -> PredictionTable:
    """Applies a calibration.

    The epistemic columns stay as they are: they tell how the members differed before. The table
    must be smoothed already, with `calibration.smoothing` or else as the one of the fit was.

    Returns:
        The same rows; logits are divided by the temperatures, `valence_std` and `arousal_std` are
        set where `std_scales` holds anything, the metadata hold `calibration` and the `decisions`
        that `au` and `expression` follow.

    Raises:
        CalibrationError: the table was calibrated before, was smoothed differently, has another
            probability, or has standard deviations where those of the fit had none, or the
            reverse.
    """
    _check_fits(table, calibration)
    stds: dict[str, Any] = {}
    if calibration.std_scales:
        std_N2 = np.ones((len(table), 2)) if table.va_std is None else table.va_std
        scale_2 = [calibration.std_scales[name] for name in VA_NAMES]
        stds = as_fields(STD_COLUMNS, np.where(np.isnan(table.va), np.nan, std_N2 * scale_2))
    decisions = {
        "au_thresholds": [calibration.au_thresholds[name] for name in AU_NAMES],
        "expression_biases": [calibration.expression_biases[name] for name in EXPRESSION_NAMES],
    }
    applied = {"calibration": calibration.to_dict(), "decisions": decisions}
    return dataclasses.replace(
        table,
        au_logits=table.values(AU) / calibration.temperatures[AU],
        expression_logits=table.values(EXPR) / calibration.temperatures[EXPR],
        **stds,
        metadata={**table.metadata, **applied},
    )


def check_uncalibrated(table: PredictionTable) -> None:
    """Raises CalibrationError if the table was calibrated."""
    if table.is_calibrated:
        raise CalibrationError(
            "the predictions were calibrated before",
            remedy="give the predictions as the network made them",
        )


def _check_fits(table: PredictionTable, calibration: Calibration) -> None:
    """Raises CalibrationError unless the table is like the one that the calibration is of."""
    check_uncalibrated(table)
    own, has = calibration.smoothing, table.metadata.get("smoothing")
    had = calibration.fitted_on.get("smoothing")
    if own is not None and not own.changes_nothing:
        had = own.to_dict()
    if (had or None) != (has or None):
        raise CalibrationError(
            f"the calibration was fitted on predictions with smoothing {had or 'none'}, these "
            f"have {has or 'none'}",
            remedy="smooth both alike, or calibrate anew",
        )
    # calibrations from before there was a choice were fitted on `fitted`
    past = {"definition": probabilities.FITTED, "divisors": None}
    fitted = calibration.fitted_on.get("probability", past)
    if not table.stands_for(fitted):
        raise CalibrationError(
            f"the calibration was fitted on the probability {fitted['definition']}, these "
            f"predictions have {table.metadata['probability']['definition']}",
            remedy="calibrate anew, or evaluate with evaluation.probability="
            + fitted["definition"],
        )
    if (table.valence_std is not None) != calibration.std_is_predicted:
        words = ("without", "with") if calibration.std_is_predicted else ("with", "without")
        raise CalibrationError(
            f"the predictions are {words[0]} standard deviations, those of the fit were {words[1]}",
            remedy="calibrate anew on predictions of this model",
        )


def weights_of(metadata: Mapping[str, Any]) -> str | list[str] | None:
    """Hash of the weights that made a table; of an ensemble its members', sorted; None: unknown."""
    members = (metadata.get("ensemble") or {}).get("members")
    if members is None:
        return metadata.get("weights_sha256")
    hashes = [member.get("weights_sha256") for member in members]
    return None if None in hashes else sorted(hashes)


def group_names(dataset_N: NDArray[Any], video_N: NDArray[Any]) -> NDArray[np.str_]:
    """What belongs together: a video, with both of its persons where it shows two, str [N]."""
    pairs = zip(dataset_N.tolist(), video_N.tolist(), strict=True)
    names = [f"{d}/{v.removesuffix('_left').removesuffix('_right')}" for d, v in pairs]
    return np.asarray(names, np.str_)


def read(path: str | os.PathLike[str]) -> Calibration:
    """Reads a file that holds a calibration's `to_dict` as JSON.

    Raises:
        CalibrationError: the file is missing, or no calibration of a layout known here.
    """
    remedy = "give a file that run.py calibrate wrote"
    try:
        return Calibration.of(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        problem, way_out = unreadable(error, "calibration")
        raise CalibrationError(problem, path=path, remedy=way_out) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise CalibrationError(f"is no calibration ({error})", path=path, remedy=remedy) from error
