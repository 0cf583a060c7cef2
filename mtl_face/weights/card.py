"""The card of an export: JSON that says what its arrays are, to people and to programs.

Whoever finds the file years later needs no more than this: names and order of the outputs, their
ranges and how to read them, what the input must look like and how its crops were made, the
settings, the versions, and where the weights come from. No heavy library is imported here.

Older schemas are read. Schema 1 had neither `crop`, `provenance` nor `tensors`. Before schema 3 a
card did not say which probability was scored: its formula is eq. 1, sigmoid(logit / temperature),
whatever the network, while the scores beside it were of `fitted` (`mtl_face.probabilities`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_face import probabilities
from mtl_face.config import ModelConfig
from mtl_face.errors import WeightsError
from mtl_face.tasks import AU_DESCRIPTIONS, OUTPUT_NAMES, VA_LOG_VARIANCE
from mtl_face.weights import differences
from mtl_face.weights import provenance as provenance_lib

SCHEMA = 3
"""Version of the card; a reader refuses a newer one."""

FILE = "model.json"
"""Name of the card's file in an export's folder."""

KEY = "model_json"
"""Key of the card in the metadata of a safetensors file."""

GIVE_AN_EXPORT = "give what `run.py export` wrote: its folder, or its model.safetensors"
"""Remedy where something else was given."""

_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "tasks": dict,
    "temperatures": dict,
    "temperatures.au": (int, float),
    "temperatures.expr": (int, float),
    "input": dict,
    "input.size": int,
    "input.stored_size": int,
    "input.mean": list,
    "input.std": list,
    "config": dict,
    "config.model": dict,
    "step": int,
    "versions": dict,
    "weights_sha256": str,
}
_REQUIRED_SINCE: dict[int, dict[str, type | tuple[type, ...]]] = {
    2: {"crop": dict, "tensors": dict, "provenance": (dict, type(None))},
    3: {
        "probability": dict,
        "probability.definition": str,
        "probability.divisors": dict,
        "probability.divisors.au": (int, float),
        "probability.divisors.expr": (int, float),
    },
}


class ExportError(WeightsError):
    """An export that cannot be read, is damaged, or does not fit."""


def make(
    *,
    model: ModelConfig,
    stored_size: int,
    crop: Mapping[str, Any],
    temperatures: Mapping[str, float],
    probability: Mapping[str, Any],
    step: int,
    metrics: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    provenance: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The card of a network, but for what is read off its arrays.

    Args:
        model: the network's settings.
        stored_size: side of the crops that it was trained on, pixels.
        crop: how the crops were cut and aligned.
        temperatures: of each task.
        probability: the statement of `mtl_face.probabilities`.
        step: training steps taken.
        metrics: the evaluation of this checkpoint, or None.
        config: the settings, nested.
        versions: of this program and its libraries.
        provenance: see `mtl_face.weights.provenance`.

    Returns:
        JSON values; saving adds `tensors` and `weights_sha256`.
    """
    outputs = {task: list(names) for task, names in OUTPUT_NAMES.items()}
    varies = model.va_variance == "per_example"
    values = {
        "schema": SCHEMA,
        "tasks": {
            "va": {
                "outputs": outputs["va"],
                "kind": "values",
                "range": [-1.0, 1.0],
                "reading": "linear: clip to the range where a value is written or scored",
                **({"variance": _variance(outputs["va"])} if varies else {}),
            },
            "au": {
                "outputs": outputs["au"],
                "descriptions": list(AU_DESCRIPTIONS),
                "kind": "logits, independent",
                "range": [0.0, 1.0],
                "reading": "probability: sigmoid(logit / divisor), see probability; present: logit "
                "above 0",
            },
            "expr": {
                "outputs": outputs["expr"],
                "kind": "logits, exclusive",
                "range": [0.0, 1.0],
                "reading": "probabilities: softmax(logits / divisor), see probability; class: "
                "largest logit",
            },
        },
        "temperatures": dict(temperatures),
        "probability": dict(probability),
        "input": {
            "stored_size": stored_size,
            "size": model.input_size,
            "resize": "bilinear, pixel centres at half pixels, no antialiasing",
            "layout": "NHWC",
            "channels": "RGB",
            "range": [0, 255],
            "mean": list(model.input_mean),
            "std": list(model.input_std),
            "normalisation": "(value - mean) / std; the network of mtl_face does it itself",
        },
        "crop": dict(crop),
        "step": step,
        "metrics": metrics,
        "config": config,
        "versions": dict(versions),
        "provenance": provenance,
    }
    return json.loads(json.dumps(values))  # as it will be read: tuples are lists


def parse(text: str | bytes, path: Path) -> dict[str, Any]:
    """Reads a card, checks it, and brings an older one up to date.

    Args:
        text: the JSON.
        path: the file that it came from, for messages.

    Returns:
        The card, as of `SCHEMA`. One of an older schema has `read_from_schema`, and None for what
        that schema did not know.

    Raises:
        ExportError: it is no card, has a newer schema, lacks something, or its labels are not
            those of this version, with each difference.
    """
    try:
        value = json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ExportError(
            f"is no export: its card is no JSON ({error})", path=path, remedy=GIVE_AN_EXPORT
        ) from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ExportError("its card has no schema number", path=path, remedy=GIVE_AN_EXPORT)
    if schema > SCHEMA:
        version = value.get("versions")
        made = version.get("mtl_face") if isinstance(version, dict) else None
        raise ExportError(
            f"has a card of schema {schema}, this version reads up to {SCHEMA}",
            path=path,
            remedy="install "
            + (f"mtl_face {made} or newer" if made else "a newer mtl_face")
            + ", or read the arrays with NumPy alone (docs/export.md)",
        )
    problems = _faults(value, schema) or differences.labels(value)
    if problems:
        raise ExportError(
            "its card does not fit: " + "; ".join(problems),
            path=path,
            remedy="export again from the run, with the version of mtl_face that trained it",
        )
    if value.get("provenance") is not None:
        provenance_lib.check(value["provenance"], path)
    return _up_to_date(value, schema)


def _variance(names: list[str]) -> dict[str, Any]:
    """What a card says of predicted variances."""
    return {
        "output": VA_LOG_VARIANCE,
        "outputs": names,
        "kind": "logarithms of variances, over the temperature of va",
        "range": [-8.0, 8.0],
        "reading": "standard deviation: sqrt(temperature * exp(value)), per example",
        "layer": "outputs 2 and 3 of head_va; value = 8 tanh(output / 8), done by the network",
    }


def _faults(card: Mapping[str, Any], schema: int) -> list[str]:
    required = dict(_REQUIRED)
    for since, names in _REQUIRED_SINCE.items():
        required |= names if schema >= since else {}
    lines = []
    for name, kind in required.items():
        value: Any = card
        for part in name.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is _ABSENT:
            lines.append(f"it has no {name}")
        elif not isinstance(value, kind) or isinstance(value, bool):
            lines.append(f"{name} is of type {type(value).__name__}")
    for name, entry in (card.get("tensors") or {}).items() if not lines else ():
        sound = (
            isinstance(entry, Mapping)
            and isinstance(entry.get("dtype"), str)
            and isinstance(entry.get("shape"), list)
            and all(isinstance(side, int) for side in entry["shape"])
        )
        if not sound:
            lines.append(f"tensors: {name} has no shape and dtype")
    return lines


_ABSENT = object()


def _up_to_date(card: dict[str, Any], schema: int) -> dict[str, Any]:
    if schema == SCHEMA:
        return card
    unknown = {"crop": None, "tensors": None} if schema < 2 else {}
    lineage = {"provenance": provenance_lib.from_config(card["config"])} if schema < 2 else {}
    return {
        **card,
        **unknown,
        **lineage,
        "schema": SCHEMA,
        "read_from_schema": schema,
        "probability": probabilities.statement("fixed", card["temperatures"], probabilities.PAPER),
    }
