"""Weights of rare classes against their definitions, and counts against a loop over rows."""

import dataclasses
import json

import numpy as np
import pytest

from mtl_face.objective import class_weights
from mtl_face.objective.class_weights import ClassCounts
from mtl_face.tables import FrameTable

COUNTS = (23976, 4555, 3168, 3122, 18135, 7609, 0, 24852)


def test_inverse_frequency_gives_each_class_the_same_sum():
    weights = np.asarray(class_weights.expression_weights(COUNTS, "inverse", beta=0.9))
    sums = weights * COUNTS
    seen = np.asarray(COUNTS) > 0
    np.testing.assert_allclose(sums[seen], sum(COUNTS) / seen.sum())
    assert weights[~seen] == [1.0]


def test_effective_numbers_are_those_of_the_sum():
    """An effective number is the sum of beta^k for k below n; the mean over labels is 1."""
    counts, beta = (3, 1, 7, 5, 2, 4, 6, 10), 0.9
    weights = np.asarray(class_weights.expression_weights(counts, "effective", beta=beta))
    inverse = np.asarray([1 / sum(beta**k for k in range(n)) for n in counts])
    np.testing.assert_allclose(weights / weights[0], inverse / inverse[0])
    assert weights @ counts == pytest.approx(sum(counts))
    flat = class_weights.expression_weights(counts, "effective", beta=0.0)
    np.testing.assert_allclose(flat, 1.0)
    nearly = class_weights.expression_weights(counts, "effective", beta=0.9999999)
    np.testing.assert_allclose(
        nearly, class_weights.expression_weights(counts, "inverse", beta=0), rtol=1e-5
    )


def test_positive_weights_balance_a_unit():
    present, labelled = (2, 0, 10, 5), (10, 10, 10, 10)
    inverse = class_weights.positive_weights(present, labelled, "inverse")
    assert inverse == pytest.approx((4.0, 1.0, 1.0, 1.0))
    assert class_weights.positive_weights(present, labelled, "sqrt") == pytest.approx((2, 1, 1, 1))


def test_none_is_none_and_other_words_are_refused():
    assert class_weights.expression_weights(COUNTS, "none", beta=0.9) is None
    assert class_weights.positive_weights((1,), (2,), "none") is None
    with pytest.raises(ValueError, match="rare"):
        class_weights.expression_weights(COUNTS, "rare", beta=0.9)
    with pytest.raises(ValueError, match="rare"):
        class_weights.positive_weights((1,), (2,), "rare")


def test_counts_are_those_of_the_rows_that_are_drawn():
    rng = np.random.default_rng(0)
    au = rng.integers(0, 2, (6, 12)).astype(np.float32)
    au[1:3] = np.nan
    au[4, 3] = np.nan
    table = FrameTable.from_columns(
        dataset="one",
        video=["v"] * 6,
        frame=range(6),
        image=[f"{number}.png" for number in range(6)],
        root="/faces",
        expression=[0, 7, -1, 0, 3, 3],
        au=au,
    )
    votes = np.full((6, 8), np.nan)
    votes[0] = [0, 3, 1, 0, 0, 0, 0, 0]
    soft = dataclasses.replace(
        table,
        votes=votes.astype(np.float32),
        label_weight=np.float32([1, 1, 1, 0.5, 1, 1]),
    )
    assert ClassCounts.of(soft, np.arange(6)).expr == (0.5, 0.75, 0.25, 2, 0, 0, 0, 1)
    drawn = np.array([0, 0, 1, 3, 4, 4, 2])
    counts = ClassCounts.of(table, drawn)
    assert counts.expr == (3, 0, 0, 2, 0, 0, 0, 1)
    for unit in range(12):
        values = [float(au[row, unit]) for row in drawn if not np.isnan(au[row, unit])]
        assert counts.au_present[unit] == sum(values)
        assert counts.au_labelled[unit] == len(values)
    kept = json.loads(json.dumps(dataclasses.asdict(counts)))
    assert ClassCounts.from_metadata(kept) == counts
    for damaged in (None, {}, {**kept, "expr": [1, 2]}, {**kept, "expr": ["a"] * 8}):
        assert ClassCounts.from_metadata(damaged) is None
