"""What is wrong with an export's card that was read (`mtl_face.weights.card`).

A card says all that the network reads of its settings. What an older one lacks, it lacks because
there was no choice then: `_MEANT` says what its absence means. No default of this version fills it.
"""

import itertools
import sys
from collections.abc import Mapping
from typing import Any

from mtl_face import probabilities
from mtl_face.config import fields, validate
from mtl_face.config.dotted import affects, flat
from mtl_face.config.schema import BackboneConfig, PointsConfig, TemporalConfig
from mtl_face.errors import ConfigError
from mtl_face.tasks import OUTPUT_NAMES, TASKS
from mtl_face.weights import card_network

SETTINGS = (
    *(name for name, _ in fields() if name.startswith("model.") and affects(name) == "network"),
    "model.compute_dtype",
    "uncertainty.kind",
    "data.image_size",
    "evaluation.probability",
)
"""Settings that predictions depend on: a card has each of them.

With a new one comes a new schema, and a line in `_MEANT` for the older ones.
"""

_OVER_TIME = tuple(
    name for name, _ in fields() if name.startswith("temporal.") and affects(name) == "network"
)
"""Settings that those of a network over time depend on too; a card of another may have none."""

_TWO_BACKBONES = {
    name: list(field.default) if isinstance(field.default, tuple) else field.default
    for name, field in fields()
    if name.startswith(("model.backbone.vit.", "model.backbone.convnext."))
}
"""A card of a ResNet or MobileNet does not depend on them."""

_IMAGES_ALONE = {
    **_TWO_BACKBONES,
    "model.inputs": ["image"],
    "model.points.unit": PointsConfig().unit,
    "model.backbone.kind": BackboneConfig().kind,
    "model.backbone.end": BackboneConfig().end,
}
_WITHOUT_CHOICE = {
    "model.va_variance": "shared",
    "evaluation.probability": probabilities.PAPER,
    **_IMAGES_ALONE,
}

_MEANT: Mapping[int, Mapping[str, Any]] = {
    1: _WITHOUT_CHOICE,
    2: _WITHOUT_CHOICE,
    3: _IMAGES_ALONE,
    4: _IMAGES_ALONE,
    5: _TWO_BACKBONES,
}
"""By schema: settings that did not exist yet, and the value that says what was done without."""

_STATED_TWICE = (
    (1, "input.size", "model.input_size"),
    (1, "input.mean", "model.input_mean"),
    (1, "input.std", "model.input_std"),
    (1, "input.stored_size", "data.image_size"),
    (3, "probability.definition", "evaluation.probability"),
)
"""What a card says in an entry of its own and in its settings: the schema since which it does."""

_POSITIVE = "a positive number"

_REQUIRED: tuple[tuple[int, str, type | tuple[type, ...] | str], ...] = (
    (1, "tasks", dict),
    (1, "temperatures", dict),
    (1, "temperatures.va", _POSITIVE),
    (1, "temperatures.au", _POSITIVE),
    (1, "temperatures.expr", _POSITIVE),
    (1, "input", dict),
    (1, "input.size", int),
    (1, "input.stored_size", int),
    (1, "input.mean", list),
    (1, "input.std", list),
    (1, "config", dict),
    (1, "config.model", dict),
    (1, "step", int),
    (1, "versions", dict),
    (1, "weights_sha256", str),
    (2, "crop", (dict, type(None))),
    (2, "tensors", dict),
    (2, "provenance", (dict, type(None))),
    (3, "probability", dict),
    (3, "probability.definition", str),
    (3, "probability.divisors", dict),
    (3, "probability.divisors.au", _POSITIVE),
    (3, "probability.divisors.expr", _POSITIVE),
    (4, "card_sha256", str),
    (5, "points", (dict, type(None))),
)
"""What a card holds: the schema since which it does, name and type."""


def problems(card: dict[str, Any], schema: int) -> list[str]:
    """What is wrong, a sentence each; puts in the settings that an older schema did not have."""
    return _faults(card, schema) or [*_label_differences(card), *_settings_faults(card, schema)]


def _entry(values: Any, name: str) -> Any:
    """The entry of a dotted name; `_ABSENT` if there is none."""
    for part in name.split("."):
        values = values.get(part, _ABSENT) if isinstance(values, Mapping) else _ABSENT
    return values


def _faults(card: Mapping[str, Any], schema: int) -> list[str]:
    lines = []
    for since, name, kind in _REQUIRED:
        value = _entry(card, name)
        if schema < since:
            continue
        if value is _ABSENT:
            lines.append(f"it has no {name}")
        elif isinstance(kind, str):
            if not _is_positive(value):
                lines.append(f"{name} is {value!r:.40}, not {kind}")
        elif not isinstance(value, kind) or isinstance(value, bool):
            lines.append(f"{name} is of type {type(value).__name__}")
    if lines:
        return lines
    for name, entry in (card.get("tensors") or {}).items():
        sound = (
            isinstance(entry, Mapping)
            and isinstance(entry.get("dtype"), str)
            and isinstance(entry.get("shape"), list)
            and all(isinstance(side, int) for side in entry["shape"])
        )
        if not sound:
            lines.append(f"tensors: {name:.100} has no shape and dtype")
    return lines + _training_faults(card.get("training"))


def _training_faults(training: Any) -> list[str]:
    """What is wrong with the record of a training, see `mtl_face.tables.TRAINING`."""
    if training is None:
        return []
    if not isinstance(training, Mapping):
        return [f"training is of type {type(training).__name__}"]
    lines = []
    labels, selection = training.get("labels"), training.get("selection")
    if labels is not None:
        counts = list(flat(labels).values()) if isinstance(labels, Mapping) else [None]
        if not all(type(count) is int for count in counts):
            lines.append("training.labels are not counts of labels")
    if selection is not None:
        sound = isinstance(_entry(selection, "criterion"), str) and all(
            _is_number(_entry(selection, name))
            for name in ("looks", "step", "score", "last_step", "last_score")
        )
        if not sound:
            lines.append("training.selection does not say how the checkpoint was chosen")
    return lines


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


_ABSENT = object()


def _settings_faults(card: dict[str, Any], schema: int) -> list[str]:
    """What is wrong with the settings of a card; puts in those that its schema did not have."""
    config = card["config"]
    for name, meant in _MEANT.get(schema, {}).items():
        *sections, leaf = name.split(".")
        inside: Any = config
        for section in sections:
            inside = inside.setdefault(section, {}) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            inside.setdefault(leaf, meant)
    is_over_time = _entry(config, "temporal.kind") not in (_ABSENT, TemporalConfig().kind)
    if is_over_time != (card.get("frames") is not None):
        return ["it has no card of the network of frames, or one too many (frames)"]
    names = (*SETTINGS, *_OVER_TIME) if is_over_time else SETTINGS
    lines = [f"it has no config.{name}" for name in names if _entry(config, name) is _ABSENT]
    if lines:
        return lines
    read: dict[str, Any] = {}
    for name in names:
        *sections, leaf = name.split(".")
        inside = read
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[leaf] = _entry(config, name)
    try:
        settings = validate(read, reads_data=False)
    except ConfigError as error:
        return [f"in its config, {error.problem:.150}"]
    checked = flat(settings)
    lines = [
        f"{name} is {_entry(card, name)!r:.60}, and config.{setting} is {checked[setting]!r:.60}"
        for since, name, setting in _STATED_TWICE
        if schema >= since and _entry(card, name) != checked[setting]
    ]
    if not lines and schema >= 3:
        expected = probabilities.divisors(
            checked["uncertainty.kind"], card["temperatures"], checked["evaluation.probability"]
        )
        if card["probability"]["divisors"] != expected:
            lines.append(f"probability.divisors are not {expected}, as its settings make them")
    if not lines and card.get("network") is not None:
        lines = card_network.differences(card["network"], settings)
    return lines


def _label_differences(card: Mapping[str, Any]) -> list[str]:
    """How the outputs differ from this version's, in names, number, order and range."""
    found, lines = card["tasks"], []
    for task in sorted(found.keys() - set(TASKS)):
        lines.append(f"task {task:.40}: this version knows no such task")
    for task in TASKS:
        if task not in found:
            lines.append(f"task {task}: the export has no such task")
            continue
        part = found[task] if isinstance(found[task], Mapping) else {}
        outputs = part.get("outputs")
        if not isinstance(outputs, list) or not all(isinstance(name, str) for name in outputs):
            lines.append(f"task {task}: the export does not name its outputs")
            continue
        pairs = itertools.zip_longest(outputs, OUTPUT_NAMES[task], fillvalue="absent")
        lines += [
            f"task {task}: output {place} is {theirs:.40} in the export, {ours} here"
            for place, (theirs, ours) in enumerate(pairs)
            if theirs != ours
        ]
        if task == "va" and part.get("range") != [-1.0, 1.0]:
            lines.append(
                f"task va: the export's range is {part.get('range')!r:.40}, here it is [-1, 1]"
            )
    return lines
