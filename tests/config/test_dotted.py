"""What each setting affects, and the lists that follow from it."""

import dataclasses
import json

import pytest

from mtl_face import config
from mtl_face.config import dotted

FIELDS = dict(config.fields())

MIXTURE = config.validate(
    {
        "data": {
            "mixture": {"one": {"root": "/a"}, "two-2": {"kind": "rendered_faces"}},
            "validation": "one",
        }
    }
)


def changed(settings, name, value):
    """The config with one setting changed, by its dotted name."""
    first, _, rest = name.partition(".")
    inner = getattr(settings, first) if not isinstance(settings, dict) else settings[first]
    inner = changed(inner, rest, value) if rest else value
    if isinstance(settings, dict):
        return settings | {first: inner}
    return dataclasses.replace(settings, **{first: inner})


def other(field):
    """Another value of the field's type."""
    value = field.default
    if field.metadata["choices"] and isinstance(value, str):
        return next(choice for choice in field.metadata["choices"] if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, value[-1])
    return {str: "other", type(None): "other", int: 17, float: 0.375}[type(value)]


def test_every_setting_says_what_it_affects():
    for name, field in FIELDS.items():
        facts = field.metadata
        assert facts["affects"] in config.AFFECTS, name
        assert isinstance(facts["step"], bool), name
        assert isinstance(facts["training_only"], bool), name
    assert {field.metadata["affects"] for field in FIELDS.values()} == config.AFFECTS.keys()


def test_a_setting_that_says_nothing_is_refused():
    from mtl_face.config import schema

    with pytest.raises(TypeError, match=r"Silent\.size: what does it affect"):

        class Silent(schema.Section):
            size: int = schema.setting(1, "of something")


def test_what_a_run_may_change():
    """Every setting that may change when a run goes on; all others may not."""
    places = {
        f"{section}{name}"
        for section in ("data.", f"data.mixture.{dotted.ANY_NAME}.")
        for name in (
            "root",
            "train_annotations",
            "validation_annotations",
            "image_folder",
            "rendered_faces.workers",
        )
    }
    free = {
        *places,
        "data.source",
        "data.shards",
        "data.features",
        "mesh.data",
        "mesh.fsdp",
        "mesh.rules",
        "model.remat",
        "model.backbone.convolution",
        "model.backbone.init_channels",
        "model.backbone.init_prefix",
        "temporal.frame_model",
        "training.log_every_steps",
        "training.keep_checkpoints",
        "training.on_save_failure",
        "training.on_bad_step",
        "training.loss_limit",
        "training.input_timeout_s",
        "training.compilation_cache",
        "training.xla_preset",
    }
    start = config.Config()
    for name, field in FIELDS.items():
        if dotted.ANY_NAME in name:
            continue
        found = config.differences(config.to_dict(start), changed(start, name, other(field)))
        expected = name in free or name.startswith(("evaluation.", "provenance."))
        assert (not found) == expected, name
    for name in places:
        if dotted.ANY_NAME in name:
            moved = changed(MIXTURE, name.replace(dotted.ANY_NAME, "two-2"), "elsewhere")
            assert config.differences(config.to_dict(MIXTURE), moved) == [], name
    moved = changed(MIXTURE, "data.mixture.two-2.weight", 3.0)
    assert config.differences(config.to_dict(MIXTURE), moved) == [
        "data.mixture.two-2.weight was 1.0, is 3.0"
    ]


@pytest.mark.parametrize("name", ["model.backbone.init_from", "training.init_from"])
def test_initial_weights_may_move_but_neither_come_nor_go(name):
    without = config.Config()
    here, there = changed(without, name, "/a/w.npz"), changed(without, name, "/b/w.npz")
    assert config.differences(config.to_dict(here), there) == []
    for one, two in ((without, here), (here, without)):
        (difference,) = config.differences(config.to_dict(one), two)
        assert difference.startswith(f"{name} was ")


def test_what_hosts_may_differ_in():
    places = {name for name, field in FIELDS.items() if field.metadata["affects"] == "place"}
    assert places - {name for name in places if dotted.ANY_NAME in name} == {
        "data.root",
        "data.train_annotations",
        "data.validation_annotations",
        "data.image_folder",
        "data.source",
        "data.shards",
        "data.features",
        "data.rendered_faces.workers",
        "model.backbone.init_from",
        "model.backbone.init_channels",
        "model.backbone.init_prefix",
        "temporal.frame_model",
        "training.init_from",
        "training.compilation_cache",
        "evaluation.calibration",
    }
    start = config.Config()
    for name, field in FIELDS.items():
        if dotted.ANY_NAME not in name:
            same = config.common(changed(start, name, other(field))) == config.common(start)
            assert same == (name in places), name
    moved = changed(MIXTURE, "data.mixture.one.root", "/b")
    assert config.common(moved) == config.common(MIXTURE)
    assert "data.mixture.one.kind" in config.common(MIXTURE)


def test_what_shapes_a_compiled_step():
    outside = {
        "model.backbone.init_from",
        "model.backbone.init_channels",
        "model.backbone.init_prefix",
        "optimizer.batch_size",
        "temporal.frame_model",
    }
    for name, field in FIELDS.items():
        section = name.partition(".")[0]
        alone = ("data.image_size", "data.baseline", "training.loss_limit", "training.ema_decay")
        expected = name in alone or (
            section
            in ("model", "temporal", "uncertainty", "loss", "augmentation", "optimizer", "mesh")
            and name not in outside
        )
        assert field.metadata["step"] == expected, name
    assert config.of_step(MIXTURE) == config.of_step(config.Config())
    assert config.of_step(config.Config())["model.backbone.stage_sizes"] == [3, 4, 6, 3]


def test_what_two_cards_may_differ_in():
    """Of the model, what the function of trained parameters does not depend on."""
    free = {
        "model.dropout",
        "model.drop_path",
        "model.backbone.drop_path",
        "model.token_init_std",
        "model.compute_dtype",
        "model.remat",
        "model.backbone.batch_norm",
        "model.backbone.batch_norm_momentum",
        "model.backbone.convolution",
        "model.backbone.frozen_blocks",
        "model.backbone.frozen_stages",
        "model.backbone.init_from",
        "model.backbone.init_channels",
        "model.backbone.init_prefix",
    }
    of_model = {name for name in FIELDS if name.startswith("model.")}
    assert {name for name in of_model if dotted.affects(name) != "network"} == free


def test_what_an_export_keeps():
    values = json.loads(json.dumps(config.to_dict(MIXTURE)))
    kept = config.of_export(values)
    sections = {"data", "model", "temporal", "uncertainty", "loss", "evaluation"}
    assert set(kept) == {"name", "seed", *sections}
    for name in ("name", "seed", "data", "uncertainty", "evaluation"):
        assert kept[name] == values[name]
    for name in ("init_from", "init_channels", "init_prefix"):
        del values["model"]["backbone"][name]
    assert kept["model"] == values["model"]
    for name in ("frame_model", "dropout"):
        del values["temporal"][name]
    assert kept["temporal"] == values["temporal"]
    odd = config.of_export({"model": {"new": 1}, "optimizer": {"new": 1}, "new": {"x": 1}, "a": 2})
    assert odd == {"model": {"new": 1}}
    # A value in place of a section would else be replaced by defaults.
    assert config.of_export({"uncertainty": {"temperatures": 3}, "optimizer": 3}) == {
        "uncertainty": {"temperatures": 3}
    }


def test_unknown_names():
    for name in ("data.mixture.1.root", "data.mixture.a.b.root", "optimizer", "sede", ""):
        assert dotted.find(name) is None
    assert dotted.find("data.mixture.a-b.root") is FIELDS["data.mixture.NAME.root"]
