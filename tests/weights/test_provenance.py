"""What weights have seen is inherited, and said."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.config.schema import ProvenanceConfig
from mtl_face.errors import WeightsError
from mtl_face.weights import provenance

VGGFACE2 = {"file": "resnet50.pkl", "sha256": "ab" * 32, "format": "pickle", "variant": "caffe"}


def started_from(parent, **more):
    """A run on s-Aff-Wild2 whose initial weights have a provenance of their own."""
    source = {"file": "export", "sha256": "cd" * 32, "format": "export", "provenance": parent}
    return provenance.record(training_data=["s-Aff-Wild2"], initial_weights=source, **more)


def test_versions_are_a_copy_each():
    found = provenance.versions()
    assert found["numpy"] == np.__version__
    found.clear()
    assert provenance.versions()["numpy"] == np.__version__


def test_random_weights():
    assert provenance.record(training_data=["s-Aff-Wild2"]) == {
        "training_data": ["s-Aff-Wild2"],
        "pretrained_on": [],
        "aff_wild2_pretrained": False,
        "reasons": [],
        "initial_weights": None,
    }
    assert provenance.warnings(provenance.record(training_data=["s-Aff-Wild2"])) == []


def test_file_of_weights():
    found = provenance.record(
        training_data=["s-Aff-Wild2"], pretrained_on=["VGGFace2"], initial_weights=VGGFACE2
    )
    assert found["initial_weights"] == VGGFACE2
    assert found["pretrained_on"] == ["VGGFace2"]
    assert found["aff_wild2_pretrained"] is False
    assert provenance.warnings(found) == []
    assert found == json.loads(json.dumps(found))


def test_file_of_weights_that_nobody_speaks_of():
    found = provenance.record(training_data=["s-Aff-Wild2"], initial_weights=VGGFACE2)
    (line,) = provenance.warnings(found)
    assert "nothing says what the initial weights (resnet50.pkl) were trained on" in line
    assert "--config.provenance.pretrained_on=" in line
    known = provenance.record(
        training_data=["x"], initial_weights=VGGFACE2 | {"trained_on": ["VGGFace2"]}
    )
    assert provenance.warnings(known) == []
    assert known["pretrained_on"] == ["VGGFace2"]


@pytest.mark.parametrize(
    "name",
    [
        "Aff-Wild2",
        "aff_wild2",
        "AffWild2",
        "AFF-WILD 2",
        "aff-wild-2",
        "Aff-Wild II",
        "ABAW5 Aff-Wild2 (VA)",
        "faces-aff-wild2",
        "s-Aff-Wild2 and Aff-Wild2",
    ],
)
def test_names_of_aff_wild2(name):
    found = provenance.record(training_data=["own"], pretrained_on=[name])
    assert found["aff_wild2_pretrained"] is True
    assert name in found["reasons"][0]


@pytest.mark.parametrize(
    "name", ["s-Aff-Wild2", "S-AFF-WILD2", "s_aff_wild2", "sAffWild2", "AffectNet", "Aff-Wild"]
)
def test_names_of_others(name):
    found = provenance.record(training_data=["own"], pretrained_on=[name])
    assert found["aff_wild2_pretrained"] is False
    assert found["reasons"] == []


def test_flag_set_by_the_settings():
    found = provenance.record(training_data=["own"], aff_wild2_pretrained=True)
    (line,) = provenance.warnings(found)
    assert line.startswith("weights pre-trained on Aff-Wild2 were used (the settings say so)")
    assert "rules forbid" in line


@pytest.mark.parametrize(
    "parent",
    [
        provenance.record(training_data=["Aff-Wild2"]),
        provenance.record(training_data=["own"], pretrained_on=["AffWild2"]),
        provenance.record(training_data=["own"], aff_wild2_pretrained=True),
    ],
)
def test_flag_is_inherited_over_generations(parent):
    for _ in range(3):
        child = started_from(parent)
        assert child["aff_wild2_pretrained"] is True
        assert "pre-trained on Aff-Wild2" in provenance.warnings(child)[0]
        parent = json.loads(json.dumps(child))


def test_data_sets_of_all_ancestors():
    first = provenance.record(training_data=["AffectNet"], pretrained_on=["VGGFace2"])
    second = started_from(first)
    third = started_from(second, pretrained_on=["MS1M", "VGGFace2"])
    assert second["pretrained_on"] == ["VGGFace2", "AffectNet"]
    assert third["pretrained_on"] == ["MS1M", "VGGFace2", "AffectNet", "s-Aff-Wild2"]
    assert third["initial_weights"]["provenance"] == second
    assert third["aff_wild2_pretrained"] is False


def test_an_earlier_stage_on_the_challenges_own_data_is_said_but_not_flagged():
    child = started_from(provenance.record(training_data=["s-Aff-Wild2"]))
    assert child["aff_wild2_pretrained"] is False
    (line,) = provenance.warnings(child)
    assert "trained on s-Aff-Wild2, a part of Aff-Wild2" in line


def test_a_network_over_time_and_its_network_of_frames_are_one_stage():
    """What its network of frames started from, and what else that learned from, is said of it."""

    def over_time(frames):
        source = {"file": "frames", "format": provenance.TASK_TOKENS, "provenance": frames}
        return provenance.record(training_data=["s-Aff-Wild2"], initial_weights=source)

    frames = provenance.record(training_data=["s-Aff-Wild2"])
    assert provenance.warnings(over_time(frames)) == []
    assert "a part of Aff-Wild2" in provenance.warnings(started_from(over_time(frames)))[0]
    other = provenance.record(training_data=["ours, in the layout of s-Aff-Wild2"])
    assert "trained on ours" in provenance.warnings(over_time(other))[0]
    unspoken = provenance.record(training_data=["s-Aff-Wild2"], initial_weights=VGGFACE2)
    (line,) = provenance.warnings(over_time(unspoken))
    assert "nothing says what the initial weights (resnet50.pkl) were trained on" in line
    spoken = provenance.record(
        training_data=["s-Aff-Wild2"], pretrained_on=["VGGFace2"], initial_weights=VGGFACE2
    )
    assert provenance.warnings(over_time(spoken)) == []


def test_training_on_aff_wild2_itself():
    found = provenance.record(training_data=["Aff-Wild2"])
    assert found["aff_wild2_pretrained"] is False
    (line,) = provenance.warnings(found)
    assert "allows s-Aff-Wild2 alone" in line


def test_what_a_teacher_has_seen_counts():
    """What it was trained on and pre-trained on; its flag; and one that says nothing."""
    parent = provenance.record(training_data=["AffectNet"], pretrained_on=["VGGFace2"])
    teacher = {"file": "runs/t", "sha256": "ab", "provenance": parent, "images_of": ["own"]}
    student = provenance.record(training_data=["own"], teachers=[teacher])
    assert student["pretrained_on"] == ["VGGFace2", "AffectNet"]
    assert not student["aff_wild2_pretrained"]
    assert provenance.warnings(student) == []
    assert provenance.amend(student, ProvenanceConfig())["teachers"] == student["teachers"]
    for seen in (
        provenance.record(training_data=["Aff-Wild2"]),
        provenance.record(training_data=["own"], aff_wild2_pretrained=True),
        student | {"aff_wild2_pretrained": True},
    ):
        taught = provenance.record(training_data=["own"], teachers=[teacher | {"provenance": seen}])
        assert taught["aff_wild2_pretrained"]
        assert "pre-trained on Aff-Wild2" in provenance.warnings(taught)[0]
    subset = provenance.record(training_data=["s-Aff-Wild2"])
    taught = provenance.record(training_data=["own"], teachers=[teacher | {"provenance": subset}])
    assert not taught["aff_wild2_pretrained"]
    unknown = provenance.record(training_data=["own"], teachers=[teacher | {"provenance": None}])
    (line,) = provenance.warnings(unknown)
    assert "runs/t" in line
    assert "unknown" in line


def test_ancestor_without_provenance_is_not_taken_for_clean():
    child = started_from(None)
    (line,) = provenance.warnings(child)
    assert "nothing says" in line
    (line,) = provenance.warnings(None)
    assert "unknown" in line


def test_from_the_settings_of_an_older_version():
    found = provenance.from_config({"data": {"kind": "rendered_faces"}})
    assert found == provenance.record(training_data=["rendered faces"])
    assert provenance.from_config({"data": {"kind": "mine"}})["training_data"] == ["mine"]
    for config in ({}, {"data": 3}, {"data": {}}):
        assert provenance.from_config(config) is None


class TestPredictions:
    clean = provenance.record(training_data=["s-Aff-Wild2"])
    flagged = provenance.record(training_data=["own"], aff_wild2_pretrained=True)

    def ensemble(self, **members):
        return {
            "ensemble": {
                "members": [{"name": name, "provenance": found} for name, found in members.items()]
            }
        }

    def test_of_one_network(self):
        assert provenance.warnings_of_predictions({"provenance": self.clean}) == []
        (line,) = provenance.warnings_of_predictions({"provenance": self.flagged})
        assert line == provenance.warnings(self.flagged)[0]
        (line,) = provenance.warnings_of_predictions({})
        assert "unknown" in line

    def test_of_an_ensemble(self):
        found = self.ensemble(a=self.clean, b=self.flagged, c=self.flagged)
        (line,) = provenance.warnings_of_predictions(found)
        assert line.startswith("weights pre-trained on Aff-Wild2 were used")
        assert line.endswith(" (of the ensemble's b, c)")
        assert provenance.warnings_of_predictions(self.ensemble(a=self.clean, b=self.clean)) == []

    def test_of_an_ensemble_with_a_member_that_says_nothing(self):
        (line,) = provenance.warnings_of_predictions(self.ensemble(a=self.clean, b=None))
        assert line.startswith("the weights record no provenance")
        assert line.endswith(" (of the ensemble's b)")

    def test_of_an_ensemble_whose_members_have_the_same(self):
        found = self.ensemble(a=self.flagged, b=self.flagged) | {"provenance": self.flagged}
        assert provenance.warnings_of_predictions(found) == provenance.warnings(self.flagged)

    @pytest.mark.parametrize("damaged", [{}, [], 3, {"training_data": 3}])
    def test_damaged(self, damaged):
        for metadata in ({"provenance": damaged}, {"ensemble": {"members": [damaged]}}):
            (line,) = provenance.warnings_of_predictions(metadata)
            assert "unknown" in line


def test_ancestor_with_a_damaged_record():
    with pytest.raises(WeightsError, match="export: holds no sound provenance"):
        started_from({"training_data": ["own"]})


class TestAmend:
    recorded = provenance.record(
        training_data=["s-Aff-Wild2"], pretrained_on=["VGGFace2"], initial_weights=VGGFACE2
    )

    def test_nothing(self):
        assert provenance.amend(self.recorded, ProvenanceConfig()) == self.recorded

    def test_adds(self):
        found = provenance.amend(
            self.recorded, ProvenanceConfig(training_data=("own",), pretrained_on=("MS1M",))
        )
        assert found["training_data"] == ["s-Aff-Wild2", "own"]
        assert found["pretrained_on"] == ["VGGFace2", "MS1M"]
        assert found["initial_weights"] == VGGFACE2

    def test_sets_the_flag(self):
        for said in ({"aff_wild2_pretrained": True}, {"pretrained_on": ("Aff-Wild2",)}):
            found = provenance.amend(self.recorded, ProvenanceConfig(**said))
            assert found["aff_wild2_pretrained"] is True

    def test_never_takes_it_back(self):
        said = ProvenanceConfig(aff_wild2_pretrained=True)
        flagged = provenance.amend(self.recorded, said)
        assert provenance.amend(flagged, ProvenanceConfig()) == flagged
        odd = {**self.recorded, "aff_wild2_pretrained": True}  # no reason was recorded
        assert provenance.amend(odd, ProvenanceConfig())["aff_wild2_pretrained"] is True


names = st.lists(st.sampled_from(["Aff-Wild2", "s-Aff-Wild2", "VGGFace2", "own"]), max_size=3)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.tuples(names, names, st.booleans()), min_size=1, max_size=5))
def test_flagged_if_and_only_if_an_ancestor_gives_reason(generations):
    current, expected = None, False
    for training, seen, flag in generations:
        expected |= flag or "Aff-Wild2" in seen
        source = None if current is None else {"file": "x", "provenance": current}
        current = provenance.record(
            training_data=training,
            pretrained_on=seen,
            aff_wild2_pretrained=flag,
            initial_weights=source,
        )
        assert current["aff_wild2_pretrained"] is expected
        assert bool(current["reasons"]) is expected
        assert provenance.check(json.loads(json.dumps(current)), "x") == current
        expected |= "Aff-Wild2" in training


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "not an object"),
        ({}, "training_data is None"),
        ({"training_data": "x"}, "training_data is 'x'"),
        ({"training_data": [3]}, "not a list of names"),
        ({"aff_wild2_pretrained": None}, "neither true nor false"),
        ({"aff_wild2_pretrained": "no"}, "neither true nor false"),
        ({"initial_weights": 3}, "initial_weights is 3"),
        (
            {"training_data": [], "pretrained_on": [], "reasons": []},
            "it has no initial_weights",
        ),
        ({"initial_weights": {"trained_on": 3}}, "trained_on is 3"),
        ({"initial_weights": {"provenance": []}}, "in initial_weights.provenance, it is list"),
    ],
)
def test_unsound(value, words):
    if isinstance(value, dict) and len(value) == 1:
        value = provenance.record(training_data=["own"]) | value
    with pytest.raises(WeightsError) as raised:
        provenance.check(value, Path("provenance.json"))
    assert words in str(raised.value)
    assert "provenance.json" in str(raised.value)
    assert raised.value.remedy
