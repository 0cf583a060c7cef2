"""Where the numbers come from, as sections of the report: settings, provenance, what is absent."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtl_face.report.html import Html, paragraph, table


def provenance(metadata: Mapping[str, Any], warnings: Sequence[str]) -> Iterator[Html]:
    """What the weights were trained on, and what a user must know of it.

    Args:
        metadata: of the predictions.
        warnings: sentences.
    """
    for line in warnings:
        yield paragraph(f"Warning: {line}.", css_class="notice")
    found = metadata.get("provenance")
    if isinstance(found, Mapping):
        yield table(
            ("Property", "Value"),
            list(_flatten(found)),
            caption="Provenance of the weights",
            css_class="words",
        )
    elif not warnings:
        yield paragraph("The predictions record no provenance of their weights.")


def settings(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> Iterator[Html]:
    """The configuration, and what the prediction table says of its own making."""
    if config:
        yield table(
            ("Setting", "Value"),
            _flatten(config),
            caption="Configuration of the run",
            css_class="words",
        )
    # the predictions' copy is only shown where the run's own was not given
    others = {
        key: value
        for key, value in metadata.items()
        if key != "provenance" and not (config and key == "config")
    }
    if others:
        yield table(
            ("Property", "Value"),
            _flatten(others),
            caption="Where the predictions come from",
            css_class="words",
        )
    if not config and not others:
        yield paragraph("No configuration was given.")


def absent(metrics: Mapping[str, Any]) -> Iterator[Html]:
    """Numbers that metrics.json holds no value for, and why."""
    reasons = metrics.get("unavailable") or {}
    if reasons:
        yield table(
            ("Number", "Reason"),
            reasons.items(),
            caption="Numbers that could not be computed, by their place in metrics.json",
            css_class="words",
        )
    else:
        yield paragraph("Nothing: every number was computed.")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names and values."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        else:
            yield name, json.dumps(value, default=str)
