"""Names, types and ranges of settings, and the messages on wrong ones."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mtl_face import config
from mtl_face.config.dotted import describe, kind_of
from mtl_face.errors import ConfigError

FIELDS = dict(config.fields())
QUICK = hypothesis_settings(deadline=None, derandomize=True, max_examples=300)


def problem_of(values):
    with pytest.raises(ConfigError) as raised:
        config.validate(values)
    return str(raised.value)


def nested(name, value):
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def with_root(values):
    """The values, in a config that is otherwise sound."""
    return {"data": {"root": "/data"} | values.pop("data", {})} | values


def test_every_setting_is_documented():
    assert len(FIELDS) > 50
    for name, field in FIELDS.items():
        meaning = field.metadata["meaning"]
        assert len(meaning) > 5, name
        assert not meaning.endswith("."), name
        kind, may_be_none = kind_of(field)
        assert describe(kind)
        assert may_be_none or field.default is not None


def test_every_section_is_documented():
    def sections(schema):
        yield schema
        for field in dataclasses.fields(schema):
            if dataclasses.is_dataclass(field.type):
                yield from sections(field.type)

    assert all(section.__doc__ for section in sections(config.Config))


@pytest.mark.parametrize("name", FIELDS)
def test_defaults_are_in_range(name):
    """A default given as text comes back as itself, through the same checks."""
    default = FIELDS[name].default
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    assert config.parse_value(name, text) == default


def test_json_round_trip():
    original = config.validate(with_root({"model": {"input_std": [1, 2, 3]}}))
    again = config.validate(json.loads(json.dumps(config.to_dict(original))))
    assert again == original
    assert again.model.input_std == (1.0, 2.0, 3.0)


def test_default_is_locked():
    settings = config.default()
    with pytest.raises(AttributeError):
        settings.batchsize = 3
    with pytest.raises(TypeError):
        settings.optimizer.batch_size = "many"
    settings.data.root = "/data"  # None by default, text by type
    assert config.validate(settings).data.root == "/data"


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.validate(with_root({})).seed = 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("optimizer.batchsize", "did you mean optimizer.batch_size?"),
        ("optimizer.lerning_rate", "did you mean optimizer.learning_rate?"),
        ("batch_sise", "did you mean optimizer.batch_size?"),
        ("model.backbone.witdh", "did you mean model.backbone.width?"),
        ("sede", "did you mean seed?"),
        ("xyzzy", "`python run.py settings` lists the fields"),
    ],
)
def test_unknown_field_names_the_nearest(name, expected):
    message = problem_of(with_root(nested(name, 3)))
    assert f"unknown config field '{name}'" in message
    assert expected in message
    with pytest.raises(ConfigError, match="unknown config field"):
        config.parse_value(name, "3")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", "3", "expected a whole number"),
        ("seed", 1.5, "expected a whole number"),
        ("seed", True, "expected a whole number"),
        ("seed", None, "expected a whole number"),
        ("seed", -1, "expected at least 0"),
        ("seed", 2**32, "expected at most"),
        ("optimizer.learning_rate", "fast", "expected a number"),
        ("optimizer.learning_rate", float("nan"), "expected a finite number"),
        ("optimizer.learning_rate", float("inf"), "expected a finite number"),
        ("optimizer.learning_rate", 10**400, "expected a number"),
        ("optimizer.epsilon", 0.0, "expected more than 0.0"),
        ("model.dropout", 0.96, "expected at most 0.95"),
        ("augmentation.flip", 1, "expected true or false"),
        ("name", 3, "expected text"),
        ("model.input_std", (1.0, 2.0), "(3 of them)"),
        ("model.input_std", (1.0, 0.0, 1.0), "expected more than 0.0"),
        ("model.input_std", 1.0, "expected a list of values"),
        ("model.backbone.stage_sizes", (), "expected a list of values"),
        ("model.backbone.stage_sizes", (1, 2.5), "expected a list of values"),
        ("model.compute_dtype", "bfloat", "did you mean bfloat16?"),
        ("model.compute_dtype", "int8", "expected one of float32, bfloat16"),
    ],
)
def test_wrong_value(name, value, expected):
    message = problem_of(with_root(nested(name, value)))
    assert message.startswith(f"{name} is ")
    assert expected in message
    assert FIELDS[name].metadata["meaning"] in message


def test_value_in_place_of_section_and_the_reverse():
    assert "model is a section, not a value" in problem_of(with_root({"model": 3}))
    assert "seed is {" in problem_of(with_root({"seed": {"x": 1}}))
    with pytest.raises(ConfigError, match=r"model\.backbone is a section, not a field"):
        config.parse_value("model.backbone", "3")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"data": {"root": None}}, "data.root is not set"),
        ({"model": {"embed_dim": 100}}, "not a multiple of model.num_heads"),
        ({"model": {"embed_dim": 6, "num_heads": 1}}, "the 2d position code"),
        ({"augmentation": {"zoom": (1.1, 0.9)}}, "the smaller comes first"),
        (
            {"augmentation": {"mixup_alpha": 0.4}, "optimizer": {"batch_size": 3}},
            "MixUp pairs examples",
        ),
        ({"mesh": {"data": 0}}, "mesh.data is 0"),
    ],
)
def test_rules_between_fields(values, expected):
    assert expected in problem_of(with_root(values))


def test_few_rendered_faces():
    """As few as `generate` makes."""
    for name, fewest in (("num_videos", 3), ("frames_per_video", 2)):
        name = f"data.rendered_faces.{name}"
        assert config.parse_value(name, str(fewest)) == fewest
        with pytest.raises(ConfigError, match=f"at least {fewest}"):
            config.parse_value(name, str(fewest - 1))


def test_rules_allow_what_they_should():
    config.validate(
        with_root(
            {
                "model": {"embed_dim": 6, "num_heads": 1, "position": "1d"},
                "optimizer": {"batch_size": 3},
            }
        )
    )
    config.validate({"data": {"kind": "rendered_faces"}})
    over_time = {"temporal": {"kind": "gru"}, "model": {"embed_dim": 100, "input_size": 33}}
    config.validate(with_root(over_time))  # the heads and patches are the network of frames' own


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ConfigError) as raised:
        config.parse_value("seed", "9" * 5000)
    assert len(str(raised.value)) < 400


@QUICK
@given(st.sampled_from(sorted(FIELDS)), st.text(max_size=20))
def test_any_text_is_a_value_or_a_config_error(name, text):
    try:
        value = config.parse_value(name, text)
    except ConfigError:
        return
    assert value is None or isinstance(value, (int, float, str, tuple))


@QUICK
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.integers() | st.floats() | st.none(), max_size=4),
        lambda values: st.dictionaries(
            st.sampled_from(
                ["data", "root", "model", "backbone", "width", "input_std", "seed", "optimizer"]
            )
            | st.text(max_size=4),
            values,
            max_size=4,
        ),
        max_leaves=8,
    ).filter(lambda values: isinstance(values, dict))
)
def test_any_nested_values_are_a_config_or_a_config_error(values):
    try:
        result = config.validate(values)
    except ConfigError:
        return
    assert isinstance(result, config.Config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uncertainty": {"beta_nll": 0.5}}, "va_variance=per_example"),
        ({"loss": {"va": {"spread": 1.0}}}, "set model.va_variance=per_example or from_features"),
        ({"evaluation": {"mc_dropout_samples": 1}}, "no spread"),
        ({"evaluation": {"mc_dropout_samples": 20}, "model": {"dropout": 0.0}}, "dropout is 0"),
        ({"model": {"va_variance": "each"}}, "one of shared, per_example"),
        (
            {"model": {"va_variance": "per_example"}, "uncertainty": {"beta_nll": 2.0}},
            "at most 1",
        ),
        ({"data": {"kind": "rendered_faces", "rendered_faces": {"va_noise": "pitch"}}}, "yaw"),
        ({"uncertainty": {"temperature_floor": 0.1}}, "no temperature is learned"),
        ({"uncertainty": {"temperature_floor": 2.0, "kind": "learned"}}, "starts at 1"),
        ({"uncertainty": {"kind": "learned"}, "loss": {"va": {"ccc": 1.0}}}, "the variance"),
        ({"model": {"va_variance": "per_example"}, "loss": {"va": {"ccc": 1}}}, "the variance"),
        ({"loss": {"expr": {"class_weights": "rare"}}}, "one of none, inverse, effective"),
        ({"loss": {"au": {"margin": 1.0}}}, "at most 0.9"),
        ({"loss": {"expr": {"effective_beta": 0.9}}}, "where it changes nothing"),
        ({"temporal": {"frame_model": "RUN"}}, "temporal.kind is none"),
        ({"data": {"rendered_faces": {"hard_share": 0.2}}}, "density is sparse"),
    ],
)
def test_settings_of_the_uncertainty_that_would_change_nothing(changes, words):
    assert words in problem_of(with_root(changes))


def test_settings_of_the_uncertainty_that_go_together():
    changes = {
        "model": {"va_variance": "per_example"},
        "uncertainty": {"beta_nll": 0.5, "kind": "learned"},
        "evaluation": {"mc_dropout_samples": 20},
    }
    assert config.validate(with_root(changes)).uncertainty.beta_nll == 0.5
    assert config.validate(with_root({})).model.va_variance == "shared"


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        (
            {"kind": "vit", "vit": {"patch": 14}},
            "model.input_size 100 is not a multiple of model.backbone.vit.patch 14",
        ),
        (
            {"kind": "vit", "vit": {"patch": 10, "num_heads": 5}},
            "model.backbone.vit.width 768 is not a multiple of model.backbone.vit.num_heads 5",
        ),
        (
            {"kind": "vit", "vit": {"patch": 10, "num_heads": 128, "positions": "rotary"}},
            "positions rotary needs a multiple of 4 channels, and a head has 6",
        ),
        (
            {"kind": "vit", "vit": {"patch": 10, "depth": 3}, "frozen_stages": 4},
            "frozen_stages is 4, and model.backbone.vit.depth gives 3 stages",
        ),
        (
            {"kind": "convnext", "convnext": {"depths": [1, 1]}},
            "model.backbone.convnext.depths has 2 values and widths 4",
        ),
        (
            {"kind": "convnext", "convnext": {"depths": [1] * 6, "widths": [4] * 6}},
            "model.input_size 100 leaves nothing of the map of 6 stages",
        ),
    ],
)
def test_sizes_of_transformers_and_convnexts(backbone, words):
    values = {"data": {"root": "/x"}, "model": {"input_size": 100, "backbone": backbone}}
    with pytest.raises(ConfigError) as raised:
        config.validate(values)
    assert words in raised.value.problem
