"""Settings by dotted name, and which of them a command goes by."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import config_dict

from mtl_face.config.schema import Config

ANY_NAME = "NAME"
"""Stands in a dotted name for one that the experiment chooses."""

_KEPT_BY_A_RUN = ("network", "training", "data", "course")
"""What the settings affect that a run keeps from its start to its end."""

_INITIAL_WEIGHTS = ("model.backbone.init_from", "training.init_from")


def fields(schema: type = Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """Yields (dotted name, field) of every setting, in the order of the schema.

    `ANY_NAME` stands for a name that the experiment chooses.
    """
    for field in dataclasses.fields(schema):
        name = prefix + field.name
        if is_section(field):
            yield from fields(field.type, name + ".")  # type: ignore[arg-type]
        elif named_schema(field):
            yield from fields(named_schema(field), f"{name}.{ANY_NAME}.")
        else:
            yield name, field


def find(name: str) -> dataclasses.Field | None:
    """The field of a dotted name, which may have a name of the experiment's own in it."""
    if name in _FIELDS:
        return _FIELDS[name]
    for known, field in _FIELDS.items():
        before, any_name, after = known.partition(f".{ANY_NAME}.")
        own = name.removeprefix(before + ".").removesuffix("." + after)
        if any_name and name == f"{before}.{own}.{after}" and is_name(own):
            return field
    return None


def is_name(text: str) -> bool:
    """Whether a section may be named so: letters, digits, _ and -, a letter first."""
    return text.replace("-", "_").isidentifier()


def affects(name: str) -> str | None:
    """What a setting affects, a key of `schema.AFFECTS`; None for one that is not known."""
    field = find(name)
    return None if field is None else field.metadata["affects"]


def flat(values: Config | Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted name, as JSON gives them back: tuples are lists."""
    nested = to_dict(values) if isinstance(values, Config) else values
    leaves: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            leaves |= {f"{name}.{inner}": leaf for inner, leaf in flat(value).items()}
        else:
            leaves[name] = list(value) if isinstance(value, tuple) else value
    return leaves


def differences(saved: Mapping[str, Any], config: Config) -> list[str]:
    """What keeps settings from being those of a run that was started before, a sentence a setting.

    Places, speed, safety, evaluation, display and notes may change: none of them changes the
    parameters of a run that meets no fault, but for rounding where other devices or kernels add up.
    A setting that the saved run did not know had the effect of its default.
    """
    old, new = flat(Config()) | flat(saved), flat(config)
    return [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
        and (
            affects(name) in (*_KEPT_BY_A_RUN, None)
            # Initial weights may move; whether there are any may not change.
            or (name in _INITIAL_WEIGHTS and None in (old.get(name), new.get(name)))
        )
    ]


def common(config: Config) -> dict[str, Any]:
    """The settings that the hosts of a run share: all but places."""
    return {name: value for name, value in flat(config).items() if affects(name) != "place"}


def of_step(config: Config) -> dict[str, Any]:
    """The settings that a compiled training step depends on, by dotted name.

    The size of the batch is not among them: the step takes it from its arguments.
    """
    return {
        name: value
        for name, value in flat(config).items()
        if (field := find(name)) and field.metadata["step"]
    }


def of_export(values: Mapping[str, Any], schema: type = Config) -> dict[str, Any]:
    """Nested settings without those that only training uses.

    What stands beside the sections and is unknown is left out, too; an unknown setting of a section
    stays, as a value in place of a section does, to be complained of.
    """
    known = {field.name: field for field in dataclasses.fields(schema)}
    kept: dict[str, Any] = {}
    for name, value in values.items():
        field = known.get(name)
        if field is not None and is_section(field):
            used = any(not inner.metadata["training_only"] for _, inner in fields(field.type))  # type: ignore[arg-type]
            if used:
                nested = isinstance(value, Mapping)
                kept[name] = of_export(value, field.type) if nested else value  # type: ignore[arg-type]
        elif (schema is not Config) if field is None else not field.metadata.get("training_only"):
            kept[name] = value
    return kept


def default() -> config_dict.ConfigDict:
    """Every setting at its default, as a locked ConfigDict to be changed by an experiment."""
    return config_dict.ConfigDict(_with_placeholders(Config)).lock()


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain dict of a config, ready for JSON (tuples become lists there)."""
    return dataclasses.asdict(config)


def named_schema(field: dataclasses.Field) -> Any:
    """Schema of the named sections that the field holds; None for other fields."""
    return field.metadata.get("named")


def is_section(field: dataclasses.Field) -> bool:
    """Whether the field holds further fields."""
    return dataclasses.is_dataclass(field.type)


def _with_placeholders(schema: type) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(schema):
        if is_section(field):
            values[field.name] = _with_placeholders(field.type)  # type: ignore[arg-type]
        elif named_schema(field):
            values[field.name] = {}
        elif field.default is None:
            kind, _ = kind_of(field)
            values[field.name] = config_dict.placeholder(typing.get_origin(kind) or kind)
        else:
            values[field.name] = field.default
    return values


def kind_of(field: dataclasses.Field) -> tuple[Any, bool]:
    """The type of a field, but for None, and whether it may be None."""
    if isinstance(field.type, types.UnionType):
        return typing.get_args(field.type)[0], True
    return field.type, False


def describe(kind: Any) -> str:
    """A field's type in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if typing.get_origin(kind) is tuple:
        return f"a list of values, each {words[typing.get_args(kind)[0]]}, split by commas"
    return words[kind]


_FIELDS = dict(fields())
