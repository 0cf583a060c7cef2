"""Checks a set of settings against the schema: names, types, ranges, and rules between fields."""

import dataclasses
import difflib
import itertools
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import config_dict

from mtl_face.config.dotted import (
    describe,
    fields,
    find,
    is_name,
    is_section,
    kind_of,
    named_schema,
)
from mtl_face.config.schema import (
    HARD_SHARE,
    Config,
    DataConfig,
    DataSetConfig,
    ExprLossConfig,
    LoraConfig,
    ModelConfig,
    TemporalConfig,
)
from mtl_face.errors import ConfigError

_LONGEST_SHOWN = 80


def validate(values: Mapping[str, Any], *, reads_data: bool = True) -> Config:
    """Checks names, types, ranges and the rules between fields; ConfigError for the first breach.

    A setting that is absent gets its default. `reads_data` says whether the data set will be read,
    so that `data` must say where it is.
    """
    if isinstance(values, config_dict.ConfigDict):
        values = values.to_dict()
    config = build(values)
    rules = [_conflicts(config), *([_conflicts_of_data(config.data)] if reads_data else [])]
    for problem, remedy in itertools.chain(*rules):
        raise ConfigError(problem, remedy=remedy)
    return config


def parse_value(name: str, text: str) -> Any:
    """Turns the text of an override into a value of the field with this dotted name.

    It is written as in Python, strings without quotes; a tuple's values split by commas, with or
    without brackets; `none` where the field may be None. ConfigError for an unknown field, text
    that is not of its type, or a value out of range.
    """
    field = find(name)
    if field is None:
        raise _unknown(name)
    kind, may_be_none = kind_of(field)
    if may_be_none and text.lower() in ("none", "null", ""):
        return None
    value: Any
    try:
        if typing.get_origin(kind) is tuple:
            item = typing.get_args(kind)[0]
            parts = text.strip("()[] ").split(",")
            value = tuple(item(part) for part in (parts if parts[-1].strip() else parts[:-1]))
        elif kind is bool:
            value = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        else:
            value = kind(text)
    except (ValueError, KeyError):
        raise ConfigError(
            f"{name} is {_shown(text)}, expected {describe(kind)}",
            remedy=f"{name}: {field.metadata['meaning']} (default {field.default!r})",
        ) from None
    return _check(name, field, value)


def _shown(value: Any) -> str:
    """A value as in Python; the beginning of a long one."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def section_expected(name: str) -> ConfigError:
    """The error for a value in place of a section."""
    return ConfigError(
        f"{name or 'the config'} is a section, not a value", remedy="set the fields that it holds"
    )


def _unknown(name: str) -> ConfigError:
    names = [known for known, _ in fields()]
    sections = sorted({known.rsplit(".", 1)[0] for known in names if "." in known})
    if name in sections:
        inside = ", ".join(known for known in names if known.startswith(name + "."))
        return ConfigError(f"{name} is a section, not a field", remedy=f"it holds {inside}")
    close = difflib.get_close_matches(name, [*names, *sections], n=1, cutoff=0.6)
    if not close:
        by_leaf = {known.rsplit(".", 1)[-1]: known for known in names}
        leaf = difflib.get_close_matches(name.rsplit(".", 1)[-1], by_leaf, n=1, cutoff=0.6)
        close = [by_leaf[leaf[0]]] if leaf else []
    remedy = f"did you mean {close[0]}?" if close else "`python run.py settings` lists the fields"
    return ConfigError(f"unknown config field '{name}'", remedy=remedy)


def build(values: Mapping[str, Any], schema: type = Config, prefix: str = "") -> Any:
    """Checks names, types and ranges, as `validate`, but no rules between fields."""
    if not isinstance(values, Mapping):
        raise section_expected(prefix.rstrip("."))
    known = {field.name: field for field in dataclasses.fields(schema)}
    for name in values:
        if name not in known:
            raise _unknown(prefix + str(name))
    built: dict[str, Any] = {}
    for name, field in known.items():
        if is_section(field):
            built[name] = build(values.get(name, {}), field.type, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif inside := named_schema(field):
            built[name] = _build_named(values.get(name, {}), inside, f"{prefix}{name}.")
        elif name in values:
            built[name] = _check(prefix + name, field, values[name])
    return schema(**built)


def _build_named(values: Mapping[str, Any], schema: type, prefix: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise section_expected(prefix.rstrip("."))
    for name in values:
        if not is_name(str(name)):
            raise ConfigError(
                f"{prefix.rstrip('.')} holds the name {name!r}",
                remedy="use letters, digits, _ and -, a letter first",
            )
    return {str(name): build(values[name], schema, f"{prefix}{name}.") for name in sorted(values)}


def _check(name: str, field: dataclasses.Field, value: Any) -> Any:
    """Returns `value` in the field's type, or raises ConfigError."""
    kind, may_be_none = kind_of(field)
    if value is None and may_be_none:
        return None
    meaning = field.metadata["meaning"]

    def wrong(expected: str) -> ConfigError:
        return ConfigError(
            f"{name} is {_shown(value)}, expected {expected}", remedy=f"{name}: {meaning}"
        )

    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise wrong(describe(kind))
        arguments = typing.get_args(kind)
        value = tuple(_cast(item, arguments[0]) for item in value)
        length = None if Ellipsis in arguments else len(arguments)
        if any(item is None for item in value) or (length and len(value) != length) or not value:
            raise wrong(describe(kind) + (f" ({length} of them)" if length else ""))
        items = value
    else:
        cast = _cast(value, kind)
        if cast is None:
            raise wrong(describe(kind))
        value, items = cast, (cast,)
    limits = field.metadata
    for item in items:
        if limits["choices"] and item not in limits["choices"]:
            close = difflib.get_close_matches(str(item), limits["choices"], n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise wrong("one of " + ", ".join(limits["choices"]) + hint)
        if isinstance(item, float) and not abs(item) < float("inf"):
            raise wrong("a finite number")
        if limits["minimum"] is not None and item < limits["minimum"]:
            raise wrong(f"at least {limits['minimum']}")
        if limits["maximum"] is not None and item > limits["maximum"]:
            raise wrong(f"at most {limits['maximum']}")
        if limits["above"] is not None and item <= limits["above"]:
            raise wrong(f"more than {limits['above']}")
    return value


def _cast(value: Any, kind: type) -> Any:
    """Returns `value` as `kind` where nothing is lost (an int may stand for a float), else None."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= sys.float_info.max else None
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    return None


def _conflicts(config: Config) -> Iterator[tuple[str, str]]:
    """Rules between fields: what is wrong, and its remedy."""
    model, backbone, optimizer = config.model, config.model.backbone, config.optimizer
    if not config.is_over_time:  # of `model` it takes the width of the tokens alone
        yield from _conflicts_of_frames(model)
    stages = backbone.num_stages
    if backbone.frozen_stages > stages:
        given = {
            "resnet": "stage_sizes has",
            "mobilenet": "end gives",
            "vit": "vit.depth gives",
            "convnext": "convnext.depths has",
        }[backbone.kind]
        yield (
            f"model.backbone.frozen_stages is {backbone.frozen_stages}, "
            f"and model.backbone.{given} {stages} stages",
            f"use {stages} to freeze the whole backbone",
        )
    if backbone.frozen_blocks > backbone.num_blocks:
        yield (
            f"model.backbone.frozen_blocks is {backbone.frozen_blocks}, "
            f"and the backbone has {backbone.num_blocks} blocks",
            f"use {backbone.num_blocks} to freeze the whole backbone",
        )
    if backbone.drop_path and backbone.kind == "mobilenet":
        yield (
            f"model.backbone.drop_path is {backbone.drop_path:g}, and a mobilenet has no residual "
            "branches",
            "leave it out",
        )
    if backbone.frozen_blocks >= 0 and backbone.frozen_stages >= 0:
        yield (
            "model.backbone.frozen_blocks and model.backbone.frozen_stages are both set",
            "leave one out: they count the same layers, by blocks and by stages",
        )
    if optimizer.layer_decay != 1 and set(optimizer.backbone_stage_multipliers) != {1.0}:
        yield (
            "optimizer.layer_decay and optimizer.backbone_stage_multipliers are both set",
            "leave one out: both say how much slower the backbone's first layers learn",
        )
    lora = optimizer.lora
    if not lora.rank and lora != LoraConfig():
        yield (
            "optimizer.lora is set, but optimizer.lora.rank is 0: there are no adapters",
            "set optimizer.lora.rank, as 8 or 16, or leave the others out",
        )
    if lora.rank and optimizer.trains:
        yield (
            "optimizer.trains and optimizer.lora.rank are both set",
            "leave trains out: optimizer.lora.trains says what learns besides the adapters",
        )
    if lora.rank and lora.trains != "all" and optimizer.layer_decay != 1:
        yield (
            f"optimizer.layer_decay is {optimizer.layer_decay:g}, but with optimizer.lora.trains="
            f"{lora.trains} the backbone does not learn",
            "leave layer_decay out, or set optimizer.lora.trains=all",
        )
    multipliers = len(optimizer.backbone_stage_multipliers)
    if multipliers not in (1, 1 + stages):
        yield (
            f"optimizer.backbone_stage_multipliers has {multipliers} values, "
            f"and the backbone a stem and {stages} stages",
            f"give {1 + stages} values, the stem's first, or one for all",
        )
    for name, unset in (("init_channels", "auto"), ("init_prefix", None)):
        value = getattr(backbone, name)
        if value != unset and backbone.init_from is None:
            yield (
                f"model.backbone.{name} is {value!r}, but model.backbone.init_from names no file",
                f"set model.backbone.init_from, or leave {name} out",
            )
    if backbone.init_from is not None and config.training.init_from is not None:
        yield (
            "training.init_from and model.backbone.init_from are both set",
            "leave the latter out: the former holds the backbone's weights too",
        )
    if config.augmentation.zoom[0] > config.augmentation.zoom[1]:
        yield (
            f"augmentation.zoom is {config.augmentation.zoom}, the smaller comes first",
            "exchange the two",
        )
    if config.augmentation.mixup_alpha > 0 and optimizer.batch_size % 2:
        yield (
            f"optimizer.batch_size {optimizer.batch_size} is odd, and MixUp pairs examples",
            "use an even batch size, or augmentation.mixup_alpha=0",
        )
    # Settings of the uncertainty that would have no effect.
    if config.uncertainty.beta_nll and not model.predicts_variance:
        yield (
            f"uncertainty.beta_nll is {config.uncertainty.beta_nll:g}, but model.va_variance is "
            f"{model.va_variance!r}, where it changes nothing",
            "set model.va_variance=per_example or from_features, or leave beta_nll out",
        )
    yield from _conflicts_of_loss(config)
    samples = config.evaluation.mc_dropout_samples
    if samples == 1:
        yield (
            "evaluation.mc_dropout_samples is 1, and one sample has no spread",
            "use 0 for none, or 10 to 50",
        )
    if samples and not model.dropout and not model.drop_path:
        yield (
            f"evaluation.mc_dropout_samples is {samples}, but model.dropout is 0: all samples "
            "would be the same",
            "set it to 0, or train a network with model.dropout above 0",
        )
    if config.is_over_time:
        yield from _conflicts_over_time(config)
    elif config.temporal != TemporalConfig():
        yield (
            "temporal is set, but temporal.kind is none: the network is one of frames",
            "set temporal.kind=gru, convolution or attention, or leave the others out",
        )
    if config.mesh.data == 0:
        yield "mesh.data is 0", "use -1 for all devices, or a positive number"


def _conflicts_of_frames(model: ModelConfig) -> Iterator[tuple[str, str]]:
    """Rules between the sizes of a network of frames."""
    if model.embed_dim % model.num_heads:
        yield (
            f"model.embed_dim {model.embed_dim} is not a multiple of "
            f"model.num_heads {model.num_heads}",
            "change one of the two",
        )
    divisor = 4 if model.position == "2d" else 2
    if model.embed_dim % divisor:
        yield (
            f"model.embed_dim {model.embed_dim} is not a multiple of {divisor}, "
            f"which the {model.position} position code needs",
            "change model.embed_dim",
        )
    if "image" in model.inputs:
        yield from _conflicts_of_backbone(model)


def _conflicts_of_loss(config: Config) -> Iterator[tuple[str, str]]:
    uncertainty, loss = config.uncertainty, config.loss
    floor, temperatures = uncertainty.temperature_floor, uncertainty.temperatures
    if floor and uncertainty.kind == "fixed":
        yield (
            f"uncertainty.temperature_floor is {floor:g}, but uncertainty.kind is 'fixed', where "
            "no temperature is learned",
            "set uncertainty.kind=learned or likelihood, or leave temperature_floor out",
        )
    lowest = min(temperatures.va, temperatures.au, temperatures.expr)
    if floor > lowest:
        yield (
            f"uncertainty.temperature_floor is {floor:g}, and a temperature starts at {lowest:g}",
            "start all of uncertainty.temperatures at the floor or above",
        )
    if loss.expr.effective_beta != ExprLossConfig().effective_beta and (
        loss.expr.class_weights != "effective"
    ):
        yield (
            f"loss.expr.effective_beta is {loss.expr.effective_beta:g}, but "
            f"loss.expr.class_weights is {loss.expr.class_weights!r}, where it changes nothing",
            "set loss.expr.class_weights=effective, or leave effective_beta out",
        )
    if loss.va.spread and not config.model.predicts_variance:
        yield (
            f"loss.va.spread is {loss.va.spread:g}, but model.va_variance is "
            f"{config.model.va_variance!r}, where it changes nothing",
            "set model.va_variance=per_example or from_features, or leave spread out",
        )
    if loss.va.ccc == 1 and (uncertainty.kind != "fixed" or config.model.predicts_variance):
        yield (
            "loss.va.ccc is 1, which leaves nothing to learn the variance of valence and arousal "
            "from",
            "set loss.va.ccc below 1, as 0.9; or uncertainty.kind=fixed and "
            "model.va_variance=shared",
        )


def _conflicts_over_time(config: Config) -> Iterator[tuple[str, str]]:
    """Rules of a network over time."""
    temporal, data = config.temporal, config.data
    if temporal.width % (8 if temporal.kind == "attention" else 2):
        multiple = "a multiple of 8" if temporal.kind == "attention" else "even"
        yield f"temporal.width {temporal.width} is not {multiple}", "change it"
    for name, value, plain, reason in (
        ("augmentation.mixup_alpha", config.augmentation.mixup_alpha, 0.0, "mixes faces"),
        ("data.sampling", data.sampling, "uniform", "draws rows"),
        (
            "uncertainty.kind=likelihood",
            config.uncertainty.kind == "likelihood",
            False,
            "divides the answers that the network starts from",
        ),
        ("optimizer.lora.rank", config.optimizer.lora.rank, 0, "adapts a network of frames"),
        ("evaluation.mc_dropout_samples", config.evaluation.mc_dropout_samples, 0, "samples faces"),
    ):
        if value != plain:
            yield (
                f"{name} {reason}, and temporal.kind is {temporal.kind}: whole windows of frames "
                "are trained on",
                f"leave {name} out, or set temporal.kind=none",
            )
    if data.mixture:
        yield (
            f"data.mixture names several data sets, and temporal.kind is {temporal.kind}",
            "train a network over time on one data set",
        )


def _conflicts_of_data(data: DataConfig) -> Iterator[tuple[str, str]]:
    """Rules between the fields of `data`, and of each data set of a mixture."""
    if data.mixture and data.validation not in data.mixture:
        yield (
            f"data.validation is {data.validation!r}, which is not a data set of data.mixture",
            "set data.validation to one of " + ", ".join(data.mixture),
        )
    if data.mixture and data.shards is not None and data.validate_each:
        yield (
            "data.validate_each is true, but shards hold one validation set",
            "set data.validate_each=false, or data.shards=none",
        )
    if not data.mixture and data.validation is not None:
        yield (
            f"data.validation is {data.validation!r}, but data.mixture names no data sets",
            "leave data.validation out, or name the data sets in data.mixture",
        )
    sets: dict[str, DataSetConfig] = {f"data.mixture.{n}": data.mixture[n] for n in data.mixture}
    for name, entry in (sets or {"data": data}).items() if data.shards is None else ():
        if entry.kind != "rendered_faces" and entry.root is None:
            yield (
                f"{name}.root is not set",
                f"name the folder that holds the annotations and {entry.image_folder}/: "
                f"--config.{name}.root=FOLDER, or in Python "
                f'load_config(..., **{{"{name}.root": FOLDER}})',
            )
        faces = entry.rendered_faces
        if faces.density == "sparse" and faces.hard_share != HARD_SHARE:
            yield (
                f"{name}.rendered_faces.hard_share is {faces.hard_share:g}, but density is sparse, "
                "where no stretch of a video is hard",
                f"set {name}.rendered_faces.density=dense, or leave hard_share out",
            )
        if not entry.manifest.va_range[0] < entry.manifest.va_range[1]:
            yield (
                f"{name}.manifest.va_range is {entry.manifest.va_range}, the lowest comes first",
                "as in -1,1 or 1,9",
            )


def _conflicts_of_backbone(model: ModelConfig) -> Iterator[tuple[str, str]]:
    """Rules between the sizes of a vision transformer or a ConvNeXt."""
    backbone, vit, convnext = model.backbone, model.backbone.vit, model.backbone.convnext
    if backbone.kind == "vit":
        if model.input_size % vit.patch:
            near = max(round(model.input_size / vit.patch), 1) * vit.patch
            yield (
                f"model.input_size {model.input_size} is not a multiple of "
                f"model.backbone.vit.patch {vit.patch}",
                f"use model.input_size={near}",
            )
        head, rest = divmod(vit.width, vit.num_heads)
        if rest:
            yield (
                f"model.backbone.vit.width {vit.width} is not a multiple of "
                f"model.backbone.vit.num_heads {vit.num_heads}",
                "change one of the two",
            )
        coded = {"rotary": ("a head", head), "sincos": ("model.backbone.vit.width", vit.width)}
        name, channels = coded.get(vit.positions, ("", 0))
        if channels % 4:
            yield (
                f"model.backbone.vit.positions {vit.positions} needs a multiple of 4 channels, and "
                f"{name} has {channels}",
                "change model.backbone.vit.width or model.backbone.vit.num_heads",
            )
    if backbone.kind == "convnext":
        if len(convnext.depths) != len(convnext.widths):
            yield (
                f"model.backbone.convnext.depths has {len(convnext.depths)} values and widths "
                f"{len(convnext.widths)}",
                "give one of each for a stage",
            )
        smallest = 4 * 2 ** (len(convnext.depths) - 1)
        if model.input_size < smallest:
            yield (
                f"model.input_size {model.input_size} leaves nothing of the map of "
                f"{len(convnext.depths)} stages",
                f"use {smallest} or more",
            )
