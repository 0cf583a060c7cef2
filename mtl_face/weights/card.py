"""The card of an export: JSON that says what its arrays are, to people and to programs.

Whoever finds the file years later needs no more than this: names and order of the outputs, their
ranges and how to read them, what the input must look like and how its crops were made, the
settings, the versions, and where the weights come from. No heavy library is imported here.

Schema 1 had neither `crop`, `provenance` nor `tensors`; it is still read.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtl_face.errors import WeightsError
from mtl_face.tasks import AU_DESCRIPTIONS, OUTPUT_NAMES, TASKS, VA_LOG_VARIANCE
from mtl_face.weights import provenance as provenance_lib

SCHEMA = 2
"""Version of the card; a reader refuses a newer one."""

FILE = "model.json"
"""Name of the card's file in an export's folder."""

KEY = "model_json"
"""Key of the card in the metadata of a safetensors file."""

_REMEDY = "give what `run.py export` wrote: its folder, or its model.safetensors"

_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "tasks": dict,
    "temperatures": dict,
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
_REQUIRED_SINCE_2: dict[str, type | tuple[type, ...]] = {
    "crop": dict,
    "tensors": dict,
    "provenance": (dict, type(None)),
}

_SAME_RESULT = frozenset(
    {"dropout", "token_init_std", "compute_dtype"}
    | {f"backbone.{name}" for name in ("batch_norm", "batch_norm_momentum", "convolution")}
    | {f"backbone.{name}" for name in ("frozen_stages", "init_from", "init_channels")}
)
"""Settings of the model that trained weights do not depend on."""


class ExportError(WeightsError):
    """An export that cannot be read, is damaged, or does not fit."""


def make(
    *,
    stored_size: int,
    input_size: int,
    input_mean: Iterable[float],
    input_std: Iterable[float],
    crop: Mapping[str, Any],
    temperatures: Mapping[str, float],
    step: int,
    metrics: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    provenance: Mapping[str, Any] | None,
    va_variance: bool = False,
) -> dict[str, Any]:
    """The card of a network, but for what is read off its arrays.

    Args:
        stored_size: side of the crops that it was trained on, pixels.
        input_size: side of the network's input, pixels.
        input_mean: subtracted from R, G, B in 0..255, inside the network.
        input_std: then divides, inside the network.
        crop: how the crops were cut and aligned.
        temperatures: of each task.
        step: training steps taken.
        metrics: the evaluation of this checkpoint, or None.
        config: the settings, nested.
        versions: of this program and its libraries.
        provenance: see `mtl_face.weights.provenance`.
        va_variance: whether the network predicts variances of valence and arousal.

    Returns:
        JSON values; saving adds `tensors` and `weights_sha256`.
    """
    outputs = {task: list(names) for task, names in OUTPUT_NAMES.items()}
    values = {
        "schema": SCHEMA,
        "tasks": {
            "va": {
                "outputs": outputs["va"],
                "kind": "values",
                "range": [-1.0, 1.0],
                "reading": "linear: clip to the range where a value is written or scored",
                **({"variance": _variance(outputs["va"])} if va_variance else {}),
            },
            "au": {
                "outputs": outputs["au"],
                "descriptions": list(AU_DESCRIPTIONS),
                "kind": "logits, independent",
                "range": [0.0, 1.0],
                "reading": "probability: sigmoid(logit / temperature); present: logit above 0",
            },
            "expr": {
                "outputs": outputs["expr"],
                "kind": "logits, exclusive",
                "range": [0.0, 1.0],
                "reading": "probabilities: softmax(logits / temperature); class: largest logit",
            },
        },
        "temperatures": dict(temperatures),
        "input": {
            "stored_size": stored_size,
            "size": input_size,
            "resize": "bilinear, pixel centres at half pixels, no antialiasing",
            "layout": "NHWC",
            "channels": "RGB",
            "range": [0, 255],
            "mean": list(input_mean),
            "std": list(input_std),
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
            f"is no export: its card is no JSON ({error})", path=path, remedy=_REMEDY
        ) from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ExportError("its card has no schema number", path=path, remedy=_REMEDY)
    if schema > SCHEMA:
        version = value.get("versions")
        made = version.get("mtl_face") if isinstance(version, dict) else None
        raise ExportError(
            f"has a card of schema {schema}, this version reads up to {SCHEMA}",
            path=path,
            remedy=f"install mtl_face {made or 'of a newer version'} or newer, or read the arrays "
            "with safetensors and numpy (docs/export.md)"
            if made
            else "install a newer mtl_face, or read the arrays with safetensors and numpy "
            "(docs/export.md)",
        )
    problems = _faults(value, schema) or label_differences(value)
    if problems:
        raise ExportError(
            "its card does not fit: " + "; ".join(problems),
            path=path,
            remedy="export again from the run, with the version of mtl_face that trained it",
        )
    if value.get("provenance") is not None:
        provenance_lib.check(value["provenance"], path)
    return _up_to_date(value, schema)


def label_differences(card: Mapping[str, Any]) -> list[str]:
    """How a card's outputs differ from this version's, in names, number, order and range.

    Args:
        card: a card with `tasks`.

    Returns:
        One sentence a difference; empty if all is the same.
    """
    found, lines = card["tasks"], []
    for task in sorted(found.keys() - set(TASKS)):
        lines.append(f"task {task}: this version knows no such task")
    for task in TASKS:
        if task not in found:
            lines.append(f"task {task}: the export has no such task")
            continue
        part = found[task] if isinstance(found[task], Mapping) else {}
        outputs = part.get("outputs")
        if not isinstance(outputs, list) or not all(isinstance(name, str) for name in outputs):
            lines.append(f"task {task}: the export does not name its outputs")
            continue
        lines += _name_differences(task, outputs, list(OUTPUT_NAMES[task]))
        if task == "va" and list(part.get("range", ())) != [-1.0, 1.0]:
            lines.append(f"task va: the export's range is {part.get('range')}, here it is [-1, 1]")
    return lines


def model_differences(card: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """How the network of a card differs from that of a config.

    Settings that trained weights do not depend on, such as dropout, may differ.

    Args:
        card: a card that was read.
        model: section `model` of a config, nested.

    Returns:
        One line a setting; empty if the weights fit.
    """
    theirs = _flat(card["config"]["model"])
    ours = _flat(json.loads(json.dumps(model)))
    return [
        f"model.{name} is {theirs[name]!r} in the export, {ours[name]!r} in the config"
        for name in sorted(theirs.keys() & ours.keys() - _SAME_RESULT)
        if theirs[name] != ours[name]
    ]


def tensor_differences(
    found: Mapping[str, tuple[tuple[int, ...], str]],
    expected: Mapping[str, tuple[tuple[int, ...], str]],
    *,
    expected_by: str,
) -> list[str]:
    """How tensors differ from what they should be.

    Args:
        found: shape and dtype of each tensor, by name.
        expected: the same, as it should be.
        expected_by: who says so, `the card`.

    Returns:
        One sentence each for missing and surplus tensors, and for those of another shape or dtype.
    """
    lines = []
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    if missing:
        lines.append(f"{_number(missing)} of {expected_by} missing: {_some(missing)}")
    if surplus:
        lines.append(f"{_number(surplus)} unknown to {expected_by}: {_some(surplus)}")
    wrong = []
    for name in sorted(expected.keys() & found.keys()):
        (shape, dtype), (wanted, wanted_dtype) = found[name], expected[name]
        if tuple(shape) != tuple(wanted):
            wrong.append(f"{name} has shape {_shape(shape)}, {expected_by} says {_shape(wanted)}")
        elif dtype != wanted_dtype:
            wrong.append(f"{name} is {dtype}, {expected_by} says {wanted_dtype}")
    return lines + wrong[:5] + ([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else [])


def listed_tensors(card: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]] | None:
    """Shape and dtype of each tensor that a card lists; None if its schema listed none."""
    tensors = card.get("tensors")
    if tensors is None:
        return None
    return {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in tensors.items()}


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


def _name_differences(task: str, found: list[str], expected: list[str]) -> list[str]:
    if found == expected:
        return []
    lines = []
    if len(found) != len(expected):
        lines.append(f"task {task}: {len(found)} outputs in the export, {len(expected)} here")
    unknown = [name for name in found if name not in expected]
    absent = [name for name in expected if name not in found]
    if unknown:
        lines.append(f"task {task}: the export's {', '.join(unknown)} is unknown here")
    if absent:
        lines.append(f"task {task}: the export has no {', '.join(absent)}")
    if not lines:
        place = next(
            i for i, pair in enumerate(zip(found, expected, strict=True)) if len({*pair}) > 1
        )
        lines.append(
            f"task {task}: the same outputs in another order: output {place} is {found[place]} in "
            f"the export, {expected[place]} here"
        )
    return lines


def _faults(card: Mapping[str, Any], schema: int) -> list[str]:
    required = _REQUIRED | (_REQUIRED_SINCE_2 if schema >= 2 else {})
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
    return {
        **card,
        "schema": SCHEMA,
        "read_from_schema": schema,
        "crop": None,
        "tensors": None,
        "provenance": provenance_lib.from_config(card["config"]),
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _number(names: list[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _shape(shape: Iterable[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
