"""Cards say what an export is; whatever does not fit is named."""

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from export_cases import MODEL, card_text, make_card, schema_1_card
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.errors import WeightsError
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES
from mtl_face.weights import card as cards
from mtl_face.weights.card import ExportError

PATH = Path("/exports/model.json")


def problem_of(text):
    with pytest.raises(ExportError) as raised:
        cards.parse(text, PATH)
    assert raised.value.remedy
    assert raised.value.path == str(PATH)
    return raised.value.problem


def with_outputs(task, outputs):
    tasks = make_card()["tasks"]
    return card_text(tasks={**tasks, task: {**tasks[task], "outputs": outputs}})


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
    assert card["provenance"]["training_data"] == ["s-Aff-Wild2"]
    assert card["provenance"]["aff_wild2_pretrained"] is False
    for name, value in old.items():
        assert name == "schema" or card[name] == value


def test_a_card_without_a_statement_means_the_formula_that_it_gives():
    """Until schema 3 that was eq. 1 for every network."""
    reading = "probability: sigmoid(logit / temperature); present: logit above 0"
    old = json.loads(card_text(schema=2, probability="GONE"))
    old["tasks"]["au"]["reading"] = reading
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


def test_newer_schema_is_refused_with_what_to_do():
    with pytest.raises(ExportError) as raised:
        cards.parse(card_text(schema=cards.SCHEMA + 1), PATH)
    assert raised.value.problem == "has a card of schema 4, this version reads up to 3"
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
    return {"input": ["size", "stored_size", "mean", "std"], "config": ["model"]}.get(name, [])


def test_tensors_without_shape():
    assert "params/x has no shape" in problem_of(card_text(tensors={"params/x": [3]}))


def test_unsound_provenance():
    with pytest.raises(WeightsError, match="aff_wild2_pretrained is None"):
        cards.parse(
            card_text(provenance={"training_data": [], "pretrained_on": [], "reasons": []}), PATH
        )


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


@settings(deadline=None, derandomize=True, max_examples=200)
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


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.sampled_from([*json.loads(card_text()), "input.mean", "tasks.va"]), json_values)
def test_any_entry_replaced_by_anything(name, value):
    """A card is read, or refused in the user's words; nothing else is raised."""
    card = json.loads(card_text())
    section, _, leaf = name.rpartition(".")
    (card[section] if section else card)[leaf] = value
    error = None
    try:
        cards.parse(json.dumps(card), PATH)
    except WeightsError as raised:
        error = raised
    assert error is None or error.remedy


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
        timeout=60,
    )
    assert ast.literal_eval(result.stdout) == []
