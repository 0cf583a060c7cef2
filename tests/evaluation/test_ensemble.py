"""Ensembles against means taken row by row over a dictionary of keys."""

import dataclasses

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions, without
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.evaluation import prediction_files
from mtl_face.evaluation.ensemble import combine
from mtl_face.evaluation.smoothing import Smoothing, smooth
from mtl_face.tables import PredictionError


def key(table, row):
    return str(table.dataset[row]), str(table.video[row]), int(table.frame[row])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def make_members(num_members, num_rows=30, noise=1.0):
    labels = make_labels(num_rows)
    return [make_predictions(labels, seed=7 + i, noise=noise) for i in range(num_members)]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.sampled_from(["logits", "probabilities"]))
def test_mean_and_spread_by_key_whatever_the_order(num_members, seed, on):
    rng = np.random.default_rng(seed)
    members = [
        m.take(rng.permutation(30)[: rng.integers(1, 31)]) for m in make_members(num_members)
    ]
    names = [f"m{i}" for i in range(num_members)]
    mean = combine(members, names=names, on=on, missing="available")
    owned = {}
    for member in members:
        for row in range(len(member)):
            owned.setdefault(key(member, row), []).append((member, row))
    assert {key(mean, row) for row in range(len(mean))} == set(owned)
    assert [key(mean, row) for row in range(len(members[0]))] == [
        key(members[0], row) for row in range(len(members[0]))
    ]
    assert len(mean) == len(owned)
    for row in range(len(mean)):
        said = owned[key(mean, row)]
        valence = np.array([m.valence[r] for m, r in said])
        au = np.array([sigmoid(m.au_logits[r]) for m, r in said])
        expression = np.array([softmax(m.expression_logits[r]) for m, r in said])
        assert mean.valence[row] == pytest.approx(np.mean(valence))
        if on == "probabilities":
            np.testing.assert_allclose(sigmoid(mean.au_logits[row]), au.mean(0))
            np.testing.assert_allclose(np.exp(mean.expression_logits[row]), expression.mean(0))
        else:
            logits = np.mean([m.au_logits[r] for m, r in said], axis=0)
            np.testing.assert_allclose(mean.au_logits[row], logits)
        if len(said) == 1:
            assert np.isnan(mean.valence_epistemic_std[row])
        else:
            np.testing.assert_allclose(mean.valence_epistemic_std[row], np.std(valence))
            np.testing.assert_allclose(mean.au_epistemic_std[row], np.std(au, axis=0))
            np.testing.assert_allclose(
                mean.expression_epistemic_std[row], np.std(expression, axis=0), atol=1e-15
            )
    incomplete = sum(len(said) < num_members for said in owned.values())
    assert mean.metadata["ensemble"]["num_incomplete_rows"] == incomplete


def test_rows_that_are_not_everywhere_are_named():
    first, second, third = make_members(3)
    with pytest.raises(PredictionError) as error:
        combine(
            [first.take(np.arange(28)), second, third.take(np.arange(1, 30))], names=["a", "b", "c"]
        )
    message = str(error.value)
    assert "3 of 30 rows are not in all files" in message
    assert "a lacks 2: rendered/video2 frame 25, rendered/video2 frame 28" in message
    assert "b lacks" not in message
    assert "c lacks 1: rendered/video0 frame 1" in message
    assert "--missing=available" in message


def test_rows_that_occur_twice():
    first, second = make_members(2)
    twice = first.take(np.array([0, 1, 1, 2]))
    mean = combine([twice, second.take(np.arange(3))], names=["a", "b"])
    assert len(mean) == 4
    assert mean.valence[1] == mean.valence[2] == (first.valence[1] + second.valence[1]) / 2


def test_a_nan_is_a_missing_prediction_of_its_task():
    first, second = make_members(2)
    first.au_logits[3, 5] = np.nan
    first.valence[4] = second.valence[4] = np.nan
    mean = combine([first, second], names=["a", "b"])
    np.testing.assert_allclose(mean.au_logits[3], second.au_logits[3])
    assert mean.valence[3] == (first.valence[3] + second.valence[3]) / 2
    assert np.isnan(mean.valence[4])
    assert np.isnan(mean.arousal[4])


def test_variances_add_up_to_that_of_the_mixture():
    members = [
        dataclasses.replace(m, valence_std=np.full(30, s), arousal_std=np.full(30, 2 * s))
        for m, s in zip(make_members(2), (0.3, 0.1), strict=True)
    ]
    mean = combine(members, names=["a", "b"])
    draws = np.random.default_rng(0).normal(size=(2, 200_000))
    for row in (0, 7):
        mixture = np.concatenate(
            [m.valence[row] + m.valence_std[row] * d for m, d in zip(members, draws, strict=True)]
        )
        assert mean.valence_std[row] == pytest.approx(np.std(mixture), rel=0.01)
    one = combine([members[0], make_members(2)[1]], names=["a", "b"])
    assert one.valence_std is None
    assert one.valence_epistemic_std is not None


def test_sure_members_stay_finite():
    first, second = make_members(2)
    sure = dataclasses.replace(first, au_logits=np.full((30, 12), 2000.0))
    opposite = dataclasses.replace(second, au_logits=np.full((30, 12), -2000.0))
    assert np.isfinite(combine([sure, sure], names="ab").au_logits).all()
    np.testing.assert_allclose(combine([sure, opposite], names="ab").au_logits, 0.0)


def test_metadata_keep_what_the_members_share():
    smoothing = Smoothing(windows={"va": 3})
    members = [smooth(m, smoothing) for m in make_members(2)]
    members[1] = dataclasses.replace(
        members[1], metadata={**members[1].metadata, "weights_sha256": "cd34"}
    )
    mean = combine(members, names=["a.parquet", "b.parquet"], on="values")
    assert mean.metadata["smoothing"] == smoothing.to_dict()
    assert "weights_sha256" not in mean.metadata
    assert mean.metadata["ensemble"]["on"] == "logits"
    assert mean.metadata["ensemble"]["members"] == [
        {"name": "a.parquet", "num_rows": 30, "weights_sha256": "ab12"},
        {"name": "b.parquet", "num_rows": 30, "weights_sha256": "cd34"},
    ]


def with_probability(table, **statement):
    return dataclasses.replace(table, metadata={**table.metadata, "probability": statement})


def test_the_mean_states_its_probability():
    members = make_members(2)
    assert "probability" not in combine(members, names="ab").metadata  # nothing is known of them
    ones, halves = {"au": 1.0, "expr": 1.0}, {"au": 2.0, "expr": 0.5}
    fitted = [with_probability(m, definition="fitted", divisors=ones) for m in members]
    assert combine(fitted, names="ab").metadata["probability"]["divisors"] == ones
    learned = [fitted[0], with_probability(members[1], definition="fitted", divisors=halves)]
    mean = combine(learned, names="ab").metadata
    assert mean["probability"] == {"definition": "fitted", "divisors": None}
    assert mean["ensemble"]["members"][1]["probability"]["divisors"] == halves
    assert "probability" not in combine([fitted[0], members[1]], names="ab").metadata


def test_members_of_different_probabilities_are_refused(tmp_path):
    """Also where one is from before there was a choice, which its settings tell."""
    first, second = make_members(2)
    paper = with_probability(second, definition="paper", divisors={"au": 1.0, "expr": 5.0})
    old = {"config": {"uncertainty": {"kind": "fixed"}}, "temperatures": {"au": 1.0, "expr": 5.0}}
    prediction_files.write(dataclasses.replace(first, metadata=old), tmp_path / "old.parquet")
    first = prediction_files.read(tmp_path / "old.parquet")
    with pytest.raises(PredictionError, match="has the probability paper, a has fitted") as error:
        combine([first, paper], names=["a", "b"])
    assert error.value.path == "b"
    same = with_probability(second, definition="paper", divisors={"au": 1.0, "expr": 1.0})
    assert len(combine([first, same], names="ab")) == 30


def test_members_that_cannot_be_averaged():
    first, second = make_members(2)
    with pytest.raises(PredictionError, match="smoothed differently"):
        combine([first, smooth(second, Smoothing(windows={"va": 3}))], names=["a", "b"])
    decided = dataclasses.replace(second, metadata={"decisions": {"au_thresholds": [0.1] * 12}})
    with pytest.raises(PredictionError, match="calibrated") as error:
        combine([first, decided], names=["a", "b"])
    assert error.value.path == "b"
    for wrong in ({"on": "votes"}, {"missing": "ignore"}, {"names": ["a"]}):
        with pytest.raises(ValueError, match=r"votes|ignore|names"):
            combine([first, second], **{"names": ["a", "b"], **wrong})


@pytest.mark.parametrize("missing", ["error", "available"])
def test_members_of_data_sets_with_different_names(missing):
    one, other = make_members(2)
    other = dataclasses.replace(other, dataset=np.full(len(other), "elsewhere"))
    with pytest.raises(PredictionError, match=r"data sets are called .*elsewhere"):
        combine([one, other], names=["a", "b"], missing=missing)


def test_no_row_in_common():
    first, second = make_members(2)
    empty = second.take(np.zeros(0, np.int64))
    np.testing.assert_allclose(
        combine([first, empty], names="ab", missing="available").au_logits, first.au_logits
    )
    with pytest.raises(PredictionError, match="b lacks 30"):
        combine([first, empty], names="ab")


@pytest.mark.parametrize("on", ["probabilities", "logits"])
def test_a_member_answers_for_the_tasks_that_it_was_trained_on(on):
    one, two = make_members(2)
    mean = combine([without(one, "va", "expr"), two], names=["one", "two"], on=on)
    np.testing.assert_array_equal(mean.va, two.va)
    np.testing.assert_allclose(mean.expression_probabilities, two.expression_probabilities)
    assert np.isnan(mean.valence_epistemic_std).all()
    assert mean.untrained == ()
    silent = combine([without(one, "va"), without(two, "va")], names=["one", "two"], on=on)
    assert silent.untrained == ("va",)
    smoothed = smooth(silent, Smoothing(windows={"va": 3, "au": 3, "expr": 3}))
    assert smoothed.untrained == ("va",)
