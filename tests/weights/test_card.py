"""Cards say what an export is; whatever does not fit is named."""

import ast
import contextlib
import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from export_cases import MODEL, card_text, make_card, schema_1_card
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mtl_face import config as config_lib
from mtl_face.errors import UserError, WeightsError
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES
from mtl_face.weights import card as cards
from mtl_face.weights import card_check, exported, provenance
from mtl_face.weights.card import ExportError

PATH = Path("/exports/model.json")


OF_SCHEMA_6 = {
    "model.backbone.convnext.depths": [3, 3, 9, 3],
    "model.backbone.convnext.final_norm": False,
    "model.backbone.convnext.global_response_norm": False,
    "model.backbone.convnext.layer_scale": True,
    "model.backbone.convnext.widths": [96, 192, 384, 768],
    "model.backbone.vit.activation": "gelu",
    "model.backbone.vit.class_token": True,
    "model.backbone.vit.depth": 12,
    "model.backbone.vit.final_norm": True,
    "model.backbone.vit.gated_mlp": False,
    "model.backbone.vit.layer_scale": False,
    "model.backbone.vit.mlp_width": 3072,
    "model.backbone.vit.norm_epsilon": 1e-6,
    "model.backbone.vit.num_heads": 12,
    "model.backbone.vit.patch": 16,
    "model.backbone.vit.positions": "learned",
    "model.backbone.vit.pre_norm": False,
    "model.backbone.vit.qkv_bias": "all",
    "model.backbone.vit.registers": 0,
    "model.backbone.vit.rotary_base": 100.0,
    "model.backbone.vit.width": 768,
}
"""What a ResNet or a MobileNet does not depend on."""


def problem_of(text):
    with pytest.raises(ExportError) as raised:
        cards.parse(text, PATH)
    assert raised.value.remedy
    assert raised.value.path == str(PATH)
    return raised.value.problem


def with_outputs(task, outputs):
    tasks = make_card()["tasks"]
    return card_text(tasks={**tasks, task: {**tasks[task], "outputs": outputs}})


@pytest.mark.parametrize(
    ("spread", "expected"),
    [
        (0.0, "the label less the prediction"),
        (1.0, "one annotator's rating less the prediction"),
        (0.3, "between the label less the prediction (0) and one annotator's rating less the "
         "prediction (1), at 0.3"),
    ],
)  # fmt: skip
def test_what_a_predicted_variance_is_the_variance_of(spread, expected):
    config = config_lib.validate(
        {
            "data": {"root": "/x", "soft_labels": True},
            "model": {"va_variance": "per_example"},
            "loss": {"va": {"spread": spread}},
        }
    )
    card = cards.make(config, temperatures={"va": 1, "au": 1, "expr": 1}, crop={}, step=1)
    assert card["tasks"]["va"]["variance"]["of"] == expected


def test_says_what_a_stranger_needs():
    card = make_card()
    assert card["tasks"]["va"]["outputs"] == ["valence", "arousal"]
    assert card["tasks"]["va"]["range"] == [-1, 1]
    assert card["tasks"]["au"]["outputs"][3] == "au6"
    assert card["tasks"]["au"]["descriptions"][3] == "cheek raiser"
    assert card["tasks"]["expr"]["outputs"][4] == "Happiness"
    assert card["input"]["size"] == 32
    assert card["input"]["mean"] == [1.0, 2.5, 3.0]
    assert card["input"]["channels"] == "RGB"
    assert card["config"]["model"]["backbone"]["stage_sizes"] == [1, 1]
    assert card["provenance"]["training_data"] == ["s-Aff-Wild2"]
    assert card == json.loads(json.dumps(card))


def test_comes_back_as_it_was():
    assert cards.parse(card_text(), PATH) == json.loads(card_text())


def test_older_schema_is_brought_up_to_date():
    old = schema_1_card("0" * 64)
    card = cards.parse(json.dumps(old), PATH)
    assert card["schema"] == cards.SCHEMA
    assert card["read_from_schema"] == 1
    assert card["tensors"] is None
    assert card["crop"] is None
    assert card["points"] is None
    assert card["network"] is None
    assert card["provenance"]["training_data"] == ["s-Aff-Wild2"]
    assert card["provenance"]["aff_wild2_pretrained"] is False
    for name, value in old.items():
        assert name in ("schema", "config") or card[name] == value
    # There was no choice of variances then, and no other input than images.
    assert not {"va_variance", "inputs", "points"} & old["config"]["model"].keys()
    old["config"]["model"] |= {
        "va_variance": "shared",
        "inputs": ["image"],
        "points": {"unit": 0.03},
    }
    old["config"]["model"]["backbone"] |= {
        "kind": "resnet",
        "end": "pw13",
        "vit": {},
        "convnext": {},
    }
    for name, value in OF_SCHEMA_6.items():
        *_, family, setting = name.split(".")
        old["config"]["model"]["backbone"][family][setting] = value
    assert card["config"] == old["config"] | {"evaluation": {"probability": "paper"}}


@pytest.mark.parametrize("schema", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", card_check.SETTINGS)
def test_no_setting_of_the_network_is_guessed(monkeypatch, schema, name):
    """What a schema always had is not filled in; what it could not have means what was done."""
    card = schema_1_card("0" * 64) if schema == 1 else json.loads(card_text(schema=schema))
    section, _, leaf = f"config.{name}".rpartition(".")
    inside = card
    for part in section.split("."):
        inside = inside.setdefault(part, {})
    inside.pop(leaf, None)
    since, meant = {
        "model.va_variance": (3, "shared"),
        "evaluation.probability": (3, "paper"),
        "model.inputs": (5, ["image"]),
        "model.points.unit": (5, 0.03),
        "model.backbone.kind": (5, "resnet"),
        "model.backbone.end": (5, "pw13"),
        **{name: (6, value) for name, value in OF_SCHEMA_6.items()},
    }.get(name, (1, None))
    if schema < since:
        found = cards.parse(json.dumps(cards.sealed(card)), PATH)
        for part in section.split("."):
            found = found[part]
        assert found[leaf] == meant
    else:
        problem = problem_of(json.dumps(cards.sealed(card)))
        assert problem == f"its card does not fit: it has no config.{name}"


def test_the_settings_of_this_schema():
    """A setting more, of the network, needs a new schema and what its absence meant until then."""
    assert (cards.SCHEMA, sorted(card_check.SETTINGS)) == (
        6,
        [
            "data.image_size",
            "evaluation.probability",
            *(name for name in OF_SCHEMA_6 if name.startswith("model.backbone.convnext")),
            "model.backbone.end",
            "model.backbone.expansion",
            "model.backbone.kind",
            "model.backbone.stage_sizes",
            "model.backbone.variant",
            *(name for name in OF_SCHEMA_6 if name.startswith("model.backbone.vit")),
            "model.backbone.width",
            "model.compute_dtype",
            "model.decoder_mlp",
            "model.decoder_modules",
            "model.embed_dim",
            "model.encoder_layers",
            "model.head_layers",
            "model.head_width",
            "model.input_mean",
            "model.input_size",
            "model.input_std",
            "model.inputs",
            "model.mlp_ratio",
            "model.norm",
            "model.num_heads",
            "model.points.unit",
            "model.position",
            "model.va_variance",
            "uncertainty.kind",
        ],
    )


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("size", 48, "input.size is 48, and config.model.input_size is 32"),
        ("stored_size", 17, "input.stored_size is 17, and config.data.image_size is 16"),
        ("mean", [1.0, 2.5, 3.5], "input.mean is [1.0, 2.5, 3.5], and config.model.input_mean is"),
        ("std", [], "input.std is [], and config.model.input_std is"),
    ],
)
def test_what_is_said_twice_is_compared(entry, value, words):
    stated = make_card()["input"] | {entry: value}
    for schema in (2, 3, 4, 5):
        assert words in problem_of(card_text(schema=schema, input=stated))


def test_probability_is_that_of_the_settings():
    other = {"definition": "paper", "divisors": {"au": 1.0, "expr": 5.0}}
    assert "and config.evaluation.probability is 'fitted'" in problem_of(
        card_text(probability=other)
    )
    other = {"definition": "fitted", "divisors": {"au": 1.0, "expr": 5.0}}
    assert "probability.divisors are not {" in problem_of(card_text(probability=other))


def test_a_changed_card_is_noticed():
    card = json.loads(card_text())
    assert cards.parse(json.dumps(card, indent=7), PATH) == card  # the same in other blanks
    for name in ("step", "metrics", "versions", "note", "weights_sha256", "card_sha256"):
        changed = card | {name: {"step": 13, "versions": {}}.get(name, "1" * 64)}
        problem = problem_of(json.dumps(changed))
        assert problem.endswith("it was changed after it was written, as its hash shows"), name
    changed = json.loads(card_text())
    changed["config"]["model"]["num_heads"] = 6
    assert "network.encoder[0].branch[0].heads is 12, here 6" in problem_of(json.dumps(changed))
    changed["network"] = None
    assert "as its hash shows" in problem_of(json.dumps(changed))
    del card["card_sha256"]
    assert problem_of(json.dumps(card)).endswith("it has no card_sha256")


@pytest.mark.parametrize("value", [0, -1.0, 10**400, 1e999, float("nan"), True, "1", None])
def test_temperatures_are_positive_numbers(value):
    temperatures = {"va": 1.0, "au": value, "expr": 5.0}
    assert "temperatures.au is " in problem_of(card_text(temperatures=temperatures))


def test_a_card_without_a_statement_means_the_formula_that_it_gives():
    """Until schema 3 that was eq. 1 for every network."""
    reading = "probability: sigmoid(logit / temperature); present: logit above 0"
    old = json.loads(card_text(schema=2, probability="GONE"))
    old["tasks"]["au"]["reading"] = reading
    del old["config"]["evaluation"]["probability"]
    card = cards.parse(json.dumps(old), PATH)
    assert card["tasks"]["au"]["reading"] == reading
    assert card["probability"] == {"definition": "paper", "divisors": {"au": 1.0, "expr": 5.0}}
    assert card["read_from_schema"] == 2
    assert card["crop"] == {"size": 16}
    assert card["provenance"]["training_data"] == ["s-Aff-Wild2"]
    oldest = cards.parse(json.dumps(schema_1_card("0" * 64)), PATH)
    assert oldest["probability"] == card["probability"]


@pytest.mark.parametrize("wrong", [{}, {"definition": "paper"}, {"divisors": {"au": 1.0}}])
def test_a_statement_that_lacks_something_is_named(wrong):
    assert "it has no probability." in problem_of(card_text(probability=wrong))


def test_another_network_than_that_of_the_settings_is_refused():
    network = make_card()["network"]
    network["image"][3]["epsilon"] = 1e-3
    network["image"][0]["antialias"] = True
    network["heads"]["va"]["layers"].pop()
    assert problem_of(card_text(network=network)) == (
        "its card does not fit: network.image[0] has 'antialias', which this version does not "
        "know; network.image[3].epsilon is 0.001, here 1e-05; network.heads.va.layers has 6 "
        "entries, here 7"
    )
    assert "network is of type list" in problem_of(card_text(network=[3]))
    assert "network states fewer layers than" in problem_of(card_text(network={}))


def test_what_a_card_does_not_state_of_its_network():
    """Other words, or a fact less, are no other network; a card may state nothing at all."""
    network = make_card()["network"]
    network["words"] = {"relu": "the positive part"}
    del network["image"][3]["epsilon"]
    assert cards.parse(card_text(network=network), PATH)["network"] == network
    for change in ("GONE", None):
        assert cards.parse(card_text(network=change), PATH)["network"] is None


def test_newer_schema_is_refused_with_what_to_do():
    with pytest.raises(ExportError) as raised:
        cards.parse(card_text(schema=cards.SCHEMA + 1), PATH)
    assert raised.value.problem == "has a card of schema 7, this version reads up to 6"
    assert "install mtl_face 0.1.0 or newer" in raised.value.remedy
    assert "docs/export.md" in raised.value.remedy
    # whatever else a newer card holds, the schema is what is spoken of
    assert "schema 9" in problem_of('{"schema": 9}')


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"schema": "1"}', '{"schema": true}', '{"schema": 0}', "{}"]
)
def test_no_card(text):
    assert problem_of(text).startswith(("is no export", "its card has no schema number"))


def test_bytes_that_are_no_text():
    assert problem_of(b"\xff\xfe\xfa").startswith("is no export")


@pytest.mark.parametrize("name", ["tasks", "input", "config", "step", "weights_sha256", "crop"])
def test_missing_and_mistyped_entries_are_named(name):
    assert problem_of(card_text(**{name: "GONE"})) == f"its card does not fit: it has no {name}" + (
        "".join(f"; it has no {name}.{part}" for part in _parts(name))
    )
    wrong = {"weights_sha256": 3}.get(name, "text")
    assert f"{name} is of type" in problem_of(card_text(**{name: wrong}))


def _parts(name):
    return {
        "tasks": [],
        "input": ["size", "stored_size", "mean", "std"],
        "config": ["model"],
    }.get(name, [])


def test_tensors_without_shape():
    assert "params/x has no shape" in problem_of(card_text(tensors={"params/x": [3]}))


CHOSEN = {"criterion": "score", "looks": 3, "step": 4, "score": 0.5, "last_step": 6} | {
    "last_score": 0.4
}


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (3, "training is of type int"),
        ({"labels": 3}, "training.labels are not counts"),
        ({"labels": {"va": "many"}}, "training.labels are not counts"),
        ({"labels": {"per_au": {"au1": None}}}, "training.labels are not counts"),
        ({"selection": 3}, "training.selection does not say"),
        ({"selection": CHOSEN | {"score": 10**400}}, "training.selection does not say"),
        ({"selection": {"criterion": "score"}}, "training.selection does not say"),
    ],
)
def test_unsound_record_of_the_training(training, words):
    assert words in problem_of(card_text(training=training))
    sound = {"labels": {"va": 0, "per_au": {"au1": 2}}, "selection": CHOSEN}
    for record in (None, {}, sound, {"labels": None, "selection": None}):
        assert cards.parse(card_text(training=record), PATH)["training"] == record


def test_unsound_provenance():
    unsound = make_card()["provenance"] | {"aff_wild2_pretrained": None}
    with pytest.raises(WeightsError, match="aff_wild2_pretrained is None"):
        cards.parse(card_text(provenance=unsound), PATH)


class TestLabels:
    def test_order(self):
        order = [*AU_NAMES[:2], AU_NAMES[3], AU_NAMES[2], *AU_NAMES[4:]]
        assert problem_of(with_outputs("au", order)) == (
            "its card does not fit: task au: output 2 is au6 in the export, au4 here; "
            "task au: output 3 is au4 in the export, au6 here"
        )

    def test_alphabetical_expressions(self):
        problem = problem_of(with_outputs("expr", sorted(EXPRESSION_NAMES)))
        assert "output 0 is Anger in the export, Neutral here" in problem

    def test_names(self):
        names = ["Contempt" if name == "Other" else name for name in EXPRESSION_NAMES]
        problem = problem_of(with_outputs("expr", names))
        assert problem.endswith("fit: task expr: output 7 is Contempt in the export, Other here")

    def test_number(self):
        problem = problem_of(with_outputs("au", [*AU_NAMES[:-1]]))
        assert problem.endswith("fit: task au: output 11 is absent in the export, au26 here")

    def test_repeated_name(self):
        problem = problem_of(with_outputs("va", ["valence", "valence"]))
        assert problem.endswith("output 1 is valence in the export, arousal here")

    def test_tasks(self):
        tasks = make_card()["tasks"]
        tasks["pose"] = tasks.pop("va")
        problem = problem_of(card_text(tasks=tasks))
        assert "task pose: this version knows no such task" in problem
        assert "task va: the export has no such task" in problem

    @pytest.mark.parametrize("outputs", [None, "valence", [1, 2], {}])
    def test_no_names(self, outputs):
        assert "does not name its outputs" in problem_of(with_outputs("va", outputs))

    def test_range(self):
        tasks = make_card()["tasks"]
        tasks["va"]["range"] = [0, 1]
        assert "the export's range is [0, 1], here it is [-1, 1]" in problem_of(
            card_text(tasks=tasks)
        )


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.permutations(EXPRESSION_NAMES))
def test_every_other_order_is_refused(names):
    if names == list(EXPRESSION_NAMES):
        assert cards.parse(with_outputs("expr", names), PATH)
    else:
        assert "task expr: output " in problem_of(with_outputs("expr", names))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def places(value, path=()):
    """Where the entries of nested JSON values lie."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


CARDS = [
    json.loads(card_text(training={"labels": {"va": 0}, "selection": CHOSEN})),
    json.loads(card_text(schema=3)),
    schema_1_card("0" * 64),
]
numbers = st.sampled_from([10**400, -(10**30), 2**63, 1e308, 5e-324, -0.0, 0, 1, True])
odd = json_values | numbers | st.sampled_from(["\ud800", "\x1b[31m", "x" * 500, ["y" * 500] * 50])


@settings(
    deadline=None, derandomize=True, max_examples=500, phases=[Phase.generate]
)  # to shrink such values takes minutes
@given(st.data())
def test_any_entry_replaced_by_anything(data):
    """A card is read, or refused in the user's words; nothing else is raised, here or later on."""
    card = copy.deepcopy(data.draw(st.sampled_from(CARDS)))
    for _ in range(data.draw(st.integers(1, 3))):
        *before, last = data.draw(st.sampled_from([path for path in places(card) if path]))
        inside = card
        for key in before:
            inside = inside[key]
        if data.draw(st.booleans()):
            inside[last] = copy.deepcopy(data.draw(odd))  # another entry may be put into it
        else:
            del inside[last]
    with contextlib.suppress(UnicodeEncodeError):
        card = cards.sealed(card)
    try:
        found = cards.parse(json.dumps(card), PATH)
        config = config_lib.load_values(config_lib.of_export(found["config"]), [], PATH)
    except UserError as error:
        assert error.remedy  # noqa: PT017
        assert len(str(error)) < 3000  # noqa: PT017
        return
    cards.model_differences(found, config.model)
    exported.backbone_variant(found)
    recorded = found["provenance"]
    assert "\ud800" not in "".join(provenance.warnings(recorded))
    if recorded is not None:
        provenance.amend(recorded, config.provenance)


def test_nested_without_end():
    deep = "[" * 300 + "]" * 300
    card = json.loads(card_text())
    assert "nested without end" in problem_of(json.dumps(card)[:-1] + f', "x": {deep}}}')
    lineage = card["provenance"]
    for _ in range(60):  # generations of fine-tuning
        lineage = lineage | {"initial_weights": {"file": "x", "provenance": lineage}}
    assert cards.parse(card_text(provenance=lineage), PATH)["provenance"] == lineage


def test_model_that_differs_from_the_config():
    card = cards.parse(card_text(), PATH)
    assert cards.model_differences(card, MODEL) == []
    assert cards.model_differences(card, replace(MODEL, dropout=0.0, remat="blocks")) == []
    other = replace(MODEL, norm="pre", backbone=replace(MODEL.backbone, stage_sizes=(1, 2)))
    expected = [
        "model.backbone.stage_sizes is [1, 1] in the export, [1, 2] in the config",
        "model.norm is 'post' in the export, 'pre' in the config",
    ]
    assert cards.model_differences(card, other) == expected
    # Settings that this version does not know, and those that the export's did not, are no matter.
    model = card["config"]["model"]
    model["gone"] = 3
    del model["backbone"]["init_channels"]
    assert cards.model_differences(card, other) == expected


def test_light():
    """Cards, provenance and the hash need neither JAX nor a library of weights."""
    code = (
        "import sys\n"
        "from mtl_face.weights import card, exported, provenance\n"
        "print(sorted({'jax', 'orbax', 'flax', 'tensorflow', 'safetensors'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert ast.literal_eval(result.stdout) == []
