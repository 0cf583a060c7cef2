"""The card of an export: JSON that says what its arrays are, to people and to programs.

Whoever finds the file years later needs no more than this: names and order of the outputs, their
ranges and how to read them, what the input must look like and how its crops were made, the
settings, the versions, and where the weights come from. No heavy library is imported here.

Older schemas are read. Schema 1 had neither `crop`, `provenance` nor `tensors`. Before schema 3 a
card did not say which probability was scored: its formula is eq. 1, sigmoid(logit / temperature),
whatever the network (`mtl_face.probabilities`), while the scores beside it were of `fitted`. Since
schema 4 a card has its own hash. Before schema 5 a network took images alone, by a ResNet, and
before schema 6 by a ResNet or a MobileNet. A card without `network` (`card_network`) does not state
how its network computes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_face import probabilities
from mtl_face.config import Config, ModelConfig, to_dict
from mtl_face.config.dotted import affects, flat
from mtl_face.config.schema import TemporalConfig
from mtl_face.errors import WeightsError, shortened
from mtl_face.model.conventions import MAX_LOG_RATIO
from mtl_face.tasks import AU_DESCRIPTIONS, OUTPUT_NAMES, VA_LOG_VARIANCE
from mtl_face.weights import card_check, card_network
from mtl_face.weights import provenance as provenance_lib

SCHEMA = 6
"""Version of the card; a reader refuses a newer one."""

FILE = "model.json"
"""Name of the card's file in an export's folder."""

KEY = "model_json"
"""Key of the card in the metadata of a safetensors file."""

GIVE_AN_EXPORT = "give what `run.py export` wrote: its folder, or its model.safetensors"
"""Remedy where something else was given."""

_MOST_PROBLEMS = 30

_DEEPEST = 200
"""Objects and lists within each other; each ancestor of weights adds two to their provenance."""


class ExportError(WeightsError):
    """An export that cannot be read, is damaged, or does not fit."""


def make(
    config: Config,
    *,
    temperatures: Mapping[str, float],
    crop: Mapping[str, Any],
    step: int,
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The card of a network as JSON values; saving adds `tensors`, `weights_sha256` and its hash.

    `crop` says how the crops were cut and aligned, `metrics` are of this checkpoint, `step` is the
    number of training steps; `provenance` (see that module) and `training` (see
    `mtl_face.tables.TRAINING`) are None if unknown. Of a network that takes points, `points` is to
    say how they were made of the crops; it is None here. Of a network over time, `frames` is to be
    the whole card of the network of frames that it reads; it is None here.
    """
    model = config.model
    outputs = {task: list(names) for task, names in OUTPUT_NAMES.items()}
    varies = model.predicts_variance
    values = {
        "schema": SCHEMA,
        "tasks": {
            "va": {
                "outputs": outputs["va"],
                "kind": "values",
                "range": [-1.0, 1.0],
                "reading": "linear: clip to the range where a value is written or scored",
                **({"variance": _variance(config, outputs["va"])} if varies else {}),
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
        "probability": probabilities.statement(
            config.uncertainty.kind, temperatures, config.evaluation.probability
        ),
        "input": {
            "arrays": list(model.inputs),
            "stored_size": config.data.image_size,
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
        "points": None,
        "step": step,
        "metrics": metrics,
        "config": to_dict(config),
        "versions": provenance_lib.versions(),
        "provenance": provenance,
        "training": training,
        "network": card_network.over_time(config)
        if config.is_over_time
        else card_network.statement(model),
        "frames": None,
    }
    return json.loads(json.dumps(values))  # as it will be read: tuples are lists


def sealed(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card with its hash, `card_sha256`.

    That is the SHA-256 of all its other entries, as JSON in UTF-8 with sorted keys and no blanks.
    """
    rest = {name: value for name, value in card.items() if name != "card_sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**rest, "card_sha256": hashlib.sha256(text.encode()).hexdigest()}


def parse(text: str | bytes, path: Path) -> dict[str, Any]:
    """Reads a card from the file `path`, checks it, and brings an older one up to date.

    Returns:
        The card, as of `SCHEMA`. One of an older schema has `read_from_schema`, None for what that
        schema did not know, and each of `card_check.SETTINGS` as that schema meant it. `network`
        is None where it does not state how its network computes.

    Raises:
        ExportError: it is no card, has a newer schema, lacks something, says something twice and
            differently, was changed, or its labels or its network are not those of this version,
            with each difference.
    """
    try:
        value = json.loads(text)
        if _depth(value) > _DEEPEST:
            raise ValueError("it is nested without end")
        found = sealed(value)["card_sha256"] if isinstance(value, dict) else None
    except (UnicodeError, ValueError, RecursionError) as error:
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
            f"has a card of schema {schema!r:.20}, this version reads up to {SCHEMA}",
            path=path,
            remedy="install "
            + (f"mtl_face {made!s:.40} or newer" if made else "a newer mtl_face")
            + ", or read the arrays with NumPy alone (docs/export.md)",
        )
    problems = card_check.problems(value, schema)
    if not problems and schema >= 4 and value["card_sha256"] != found:
        problems = ["it was changed after it was written, as its hash shows"]
    if problems:
        raise ExportError(
            "its card does not fit: " + "; ".join(shortened(problems, _MOST_PROBLEMS)),
            path=path,
            remedy="export again from the run, with the version of mtl_face that trained it",
        )
    if value.get("provenance") is not None:
        provenance_lib.check(value["provenance"], path)
    value.setdefault("network", None)
    value.setdefault("frames", None)
    if value["frames"] is not None:
        value["frames"] = parse(json.dumps(value["frames"]), path)
    if schema == SCHEMA:
        return value
    if schema < 5:
        value |= {"points": None}
    if schema == 1:
        value |= {"crop": None, "tensors": None}
        value["provenance"] = provenance_lib.from_config(value["config"])
    if schema < 3:
        value["probability"] = probabilities.statement(
            value["config"]["uncertainty"]["kind"],
            value["temperatures"],
            value["config"]["evaluation"]["probability"],
        )
    return {**value, "schema": SCHEMA, "read_from_schema": schema}


def model_differences(
    card: Mapping[str, Any], model: ModelConfig, temporal: TemporalConfig | None = None
) -> list[str]:
    """How the network of a card that was read differs from that of the settings, a line a setting.

    Settings that a trained network does not depend on, such as dropout, may differ. `temporal` is
    that of the settings; None for a network of frames.
    """
    theirs = flat({"model": card["config"]["model"]})
    ours = flat({"model": dataclasses.asdict(model)})
    own = dataclasses.asdict(temporal or TemporalConfig())
    stated = {"kind": TemporalConfig().kind, **card["config"].get("temporal", {})}
    if {own["kind"], stated["kind"]} != {TemporalConfig().kind}:
        ours |= flat({"temporal": own})
        theirs |= flat({"temporal": stated})
    return [
        f"{name} is {theirs[name]!r} in the export, {ours[name]!r} in the config"
        for name in sorted(theirs.keys() & ours.keys())
        if theirs[name] != ours[name] and affects(name) in ("network", None)
    ]


def _variance(config: Config, names: list[str]) -> dict[str, Any]:
    """What a card says of predicted variances."""
    from_token = config.model.va_variance == "per_example"
    share = config.loss.va.spread
    of = {0.0: "the label less the prediction", 1.0: "one annotator's rating less the prediction"}
    between = f"between {of[0.0]} (0) and {of[1.0]} (1), at {share:g}"
    read = "outputs 2 and 3 of head_va" if from_token else "outputs of head_va_variance"
    return {
        "output": VA_LOG_VARIANCE,
        "outputs": names,
        "of": of.get(share, between),
        "kind": "logarithms of variances, over the temperature of va",
        "range": [-MAX_LOG_RATIO, MAX_LOG_RATIO],
        "reading": "standard deviation: sqrt(temperature * exp(value)), per example",
        "layer": f"{read}; value = {MAX_LOG_RATIO:g} tanh(output / "
        f"{MAX_LOG_RATIO:g}), done by the network",
    }


def _depth(value: Any) -> int:
    """Objects and lists within each other."""
    depth, level = 0, [value]
    while level:
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth
