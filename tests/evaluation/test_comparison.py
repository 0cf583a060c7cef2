"""Paired differences of two tables of predictions."""

import dataclasses

import numpy as np
import pytest
from evaluation_tables import decisions_alone, make_labels, make_predictions

from mtl_face.evaluation import comparison
from mtl_face.evaluation.joining import join_both
from mtl_face.evaluation.scoring import score


@pytest.fixture(scope="module")
def tables():
    """100 rows of 10 videos, of which one has no valence and arousal labels at all."""
    labels = make_labels(100, seed=3)
    labels.valence[:10] = np.nan
    labels.au[13, 4] = np.nan
    predictions = make_predictions(labels)
    rng = np.random.default_rng(0)
    std = rng.uniform(0.2, 0.8, (2, 100))
    return labels, dataclasses.replace(predictions, valence_std=std[0], arousal_std=std[1])


def test_paired_difference_of_a_source_with_itself_is_nothing(tables):
    labels, predictions = tables
    result = comparison.compare(*join_both(labels, predictions, predictions), num_resamples=50)
    assert result["scores"]["p"]["p_value"] == 1.0
    assert result["scores"]["p"]["interval"] == [0.0, 0.0]
    for values in result["scores"].values():
        assert values["difference"] == 0.0
        assert values["p_value"] in (1.0, None)
        assert values["interval"] in ([0.0, 0.0], None)


def test_swapping_the_sources_turns_the_difference(tables):
    labels, predictions = tables
    other = make_predictions(labels, seed=9, noise=1.2)
    there = comparison.compare(*join_both(labels, predictions, other), num_resamples=300)
    back = comparison.compare(*join_both(labels, other, predictions), num_resamples=300)
    assert there["scores"].keys() == back["scores"].keys()
    for path in ("p", "va.score", "au.per_au.au4"):
        a, b = there["scores"][path], back["scores"][path]
        assert a["difference"] == -b["difference"]
        assert a["interval"] == pytest.approx([-end for end in reversed(b["interval"])], abs=1e-3)
        assert a["p_value"] == pytest.approx(b["p_value"], abs=0.01)


def test_pairs_know_a_difference_better_than_two_scores():
    """A small but steady improvement shows in pairs, though the two intervals overlap."""
    labels = make_labels(400, seed=2, missing=0.0)
    first = make_predictions(labels)
    better = dataclasses.replace(
        first,
        valence=first.valence + 0.1 * (labels.valence - first.valence),
        arousal=first.arousal + 0.1 * (labels.arousal - first.arousal),
    )
    separate = [
        score(labels, table, num_resamples=200)["bootstrap"]["intervals"]["va.score"]
        for table in (first, better)
    ]
    assert separate[0][1] > separate[1][0]
    values = comparison.compare(*join_both(labels, first, better), num_resamples=200)["scores"]
    assert values["va.score"]["interval"][0] > 0
    assert values["va.score"]["p_value"] < 0.01
    assert values["au.score"]["p_value"] == 1.0


def test_pairs_count_the_rows_that_both_answer(tables):
    labels, predictions = tables
    first = predictions.take(np.arange(80))
    second = predictions.take(np.arange(20, 100))
    result = comparison.compare(*join_both(labels, first, second, lenient=True), num_resamples=20)
    assert (result["num_rows"], result["num_unpredicted"]) == (60, 40)
    silent = dataclasses.replace(
        decisions_alone(predictions), expression_decisions=np.where(np.arange(100) < 30, -1, 2)
    )
    joined = join_both(labels, predictions, silent, lenient=True)
    assert joined[0].counted["expr"].sum() == (labels.expression[30:] >= 0).sum()
    assert (joined[0].counted["expr"] == joined[1].counted["expr"]).all()


def test_why_there_is_no_p(tables):
    labels, predictions = tables
    joined = join_both(labels.only_tasks(("va", "au")), predictions, predictions)
    result = comparison.compare(*joined, num_resamples=10)
    assert result["undefined"] == "not defined: no expression labels"
    names = {"files": {"first": "a", "second": "b"}}
    assert comparison.summary(result | names)[2] == "P is not defined: no expression labels"
    assert comparison.compare(*join_both(labels, predictions, predictions))["undefined"] is None
