"""What lies beside weights, in their folder or metadata, and what it says of the network."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_tanh"}
ACTIVATION = "hidden_act"
"""Key of an activation as others call it, in what `settings` gives."""

ARCHITECTURE = "architecture"
"""Key of timm's name of a network, likewise."""

_COLOURS = 255.0
_MENTIONS = re.compile(r"(?<![a-z0-9])(s[-_ ]?)?aff[-_ ]?wild[-_ ]?(?:2|ii)", re.IGNORECASE)


def settings(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `model` by name, `ACTIVATION` and `ARCHITECTURE`, as `config.json` says them.

    Hugging Face's and timm's are read. A value of another type than is expected says nothing.
    """
    config = stated.get("config.json", {})
    vision = config.get("vision_config")
    own = vision if isinstance(vision, Mapping) else config
    found: dict[str, Any] = {}
    for theirs, ours, kind in (
        ("num_attention_heads", "num_heads", int),
        ("layer_norm_eps", "norm_epsilon", float),
        ("rope_theta", "rotary_base", float),
    ):
        value = own.get(theirs)
        if isinstance(value, kind | int) and not isinstance(value, bool) and 0 < value < math.inf:
            found[f"backbone.vit.{ours}"] = kind(value)
    if isinstance(activation := own.get("hidden_act"), str):
        found[ACTIVATION] = activation
        if activation in _ACTIVATIONS:
            found["backbone.vit.activation"] = _ACTIVATIONS[activation]
    if isinstance(architecture := config.get("architecture"), str):
        found[ARCHITECTURE] = architecture
        if "quickgelu" in architecture:
            found["backbone.vit.activation"] = "quick_gelu"
    colours = stated.get("preprocessor_config.json", {})
    names = {"image_mean": "input_mean", "image_std": "input_std"}
    timm = config.get("pretrained_cfg")
    if isinstance(timm, Mapping):
        colours, names = timm, {"mean": "input_mean", "std": "input_std"}
    for theirs, ours in names.items():
        values = colours.get(theirs)
        if (
            isinstance(values, Sequence)
            and len(values) == 3
            and all(isinstance(value, int | float) for value in values)
        ):
            found[ours] = tuple(round(_COLOURS * value, 4) for value in values)
    return found


def licence(stated: Mapping[str, Any]) -> str | None:
    """The licence that `config.json` states."""
    config = stated.get("config.json", {})
    inside = config.get("pretrained_cfg")
    for values in (config, inside if isinstance(inside, Mapping) else {}):
        if isinstance(values.get("license"), str):
            return values["license"][:100]
    return None


def affect_data(stated: Mapping[str, Any]) -> list[str]:
    """The names under which Aff-Wild2, on which no ABAW entry may be pre-trained, is mentioned."""
    found = {match[0] for text in _texts(stated) for match in _MENTIONS.finditer(text)}
    return sorted(found)


def _texts(value: Any) -> list[str]:
    """All texts in nested values."""
    texts, values = [], [value]
    while values:
        value = values.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            values += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            values += value
    return texts
