import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import pearsonr
from sklearn import metrics as sklearn_metrics

from mtl_face.evaluation.measures import (
    always,
    area_under_risk,
    average_precision,
    binary_f1,
    concordance,
    concordance_of_sums,
    concordance_parts,
    confusion_matrix,
    f1_per_class,
    macro_f1,
    mean_of_defined,
    moments,
    precision_per_class,
    ratio,
    recall_per_class,
    risk_coverage,
)

SETTINGS = settings(deadline=None, derandomize=True, max_examples=150)


def sums_of(truth, prediction):
    """The sums that the concordance of rows is a function of."""
    return np.stack(moments(np.asarray(truth), np.asarray(prediction)), axis=1).sum(axis=0)


def groups_of(score, weights):
    """Rows and summed weights by falling score."""
    _, group = np.unique(-np.asarray(score), return_inverse=True)
    return np.bincount(group).astype(float), np.bincount(group, weights=weights)


def pairs_of_classes(num_classes):
    return st.integers(1, 40).flatmap(
        lambda n: st.tuples(
            *(hnp.arrays(np.int64, n, elements=st.integers(0, num_classes - 1)) for _ in range(2))
        )
    )


@SETTINGS
@given(pairs_of_classes(8))
def test_macro_f1_is_scikit_learns_over_all_classes(pair):
    truth, prediction = pair
    expected = sklearn_metrics.f1_score(
        truth, prediction, labels=range(8), average="macro", zero_division=0
    )
    assert macro_f1(truth, prediction, num_classes=8) == pytest.approx(expected, abs=1e-12)


@SETTINGS
@given(pairs_of_classes(8))
def test_confusion_matrix_is_scikit_learns(pair):
    truth, prediction = pair
    expected = sklearn_metrics.confusion_matrix(truth, prediction, labels=range(8))
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, num_classes=8), expected)


@SETTINGS
@given(pairs_of_classes(2))
def test_binary_f1_is_scikit_learns(pair):
    truth, prediction = pair
    expected = sklearn_metrics.f1_score(truth, prediction, zero_division=0)
    assert binary_f1(truth, prediction) == pytest.approx(expected, abs=1e-12)
    assert binary_f1(truth.astype(bool), prediction.astype(float)) == binary_f1(truth, prediction)


def test_binary_f1_without_a_positive_is_zero():
    assert binary_f1(np.zeros(3), np.zeros(3)) == 0.0


@SETTINGS
@given(st.integers(2, 50), st.integers(0, 2**32 - 1), st.floats(-2, 2), st.floats(0.01, 3))
def test_concordance_is_the_closed_form(num_rows, seed, shift, scale):
    truth, noise = np.random.default_rng(seed).normal(size=(2, num_rows))
    prediction = shift + scale * truth + 0.3 * noise
    covariance = np.cov(truth, prediction, ddof=0)
    expected = (
        2
        * covariance[0, 1]
        / (covariance[0, 0] + covariance[1, 1] + (truth.mean() - prediction.mean()) ** 2)
    )
    assert concordance(truth, prediction) == pytest.approx(expected, abs=1e-12)
    assert concordance(prediction, truth) == pytest.approx(expected, abs=1e-12)


def test_concordance_uses_population_statistics():
    # by hand: cov 0.5, var 0.25 and 1, means 0.5 and 1 -> 2 * 0.5 / (0.25 + 1 + 0.25)
    assert concordance([0.0, 1.0], [0.0, 2.0]) == pytest.approx(2 / 3)


def test_concordance_of_perfect_and_mirrored_predictions():
    truth = np.linspace(-1, 1, 11)
    assert concordance(truth, truth) == pytest.approx(1.0)
    assert concordance(truth, -truth) == pytest.approx(-1.0)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1.0])
def test_concordance_of_a_constant_is_exactly_zero(constant):
    truth = np.linspace(-0.9, 0.7, 1001)
    constant_prediction = np.full_like(truth, constant)
    assert concordance(truth, constant_prediction) == 0.0
    assert concordance(constant_prediction, truth) == 0.0
    assert concordance(constant_prediction, constant_prediction) == 0.0


def test_concordance_of_float32_columns_is_computed_in_float64():
    rng = np.random.default_rng(0)
    truth = (rng.normal(size=100_000) * 1e-3 + 100).astype(np.float32)
    prediction = (truth + rng.normal(size=100_000) * 1e-3).astype(np.float32)
    wide = concordance(truth.astype(np.float64), prediction.astype(np.float64))
    assert concordance(truth, prediction) == wide


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [([], []), ([0.0, 1.0], [0.0]), ([np.nan, 1.0], [0.0, 1.0]), ([0.0, 1.0], [0.0, np.inf])],
)
def test_concordance_refuses_what_it_cannot_measure(truth, prediction):
    with pytest.raises(ValueError, match=r"rows|shapes|finite"):
        concordance(np.asarray(truth), np.asarray(prediction))


@pytest.mark.parametrize("bad", [-1, 8, 0.5, np.nan])
def test_classes_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="other than the classes"):
        confusion_matrix(np.array([bad, 0]), np.array([0, 0]), num_classes=8)


@SETTINGS
@given(pairs_of_classes(8))
def test_precision_and_recall_are_scikit_learns(pair):
    truth, prediction = pair
    confusion = confusion_matrix(truth, prediction, num_classes=8)
    for measure, reference in (
        (precision_per_class, sklearn_metrics.precision_score),
        (recall_per_class, sklearn_metrics.recall_score),
    ):
        expected = reference(truth, prediction, labels=range(8), average=None, zero_division=np.nan)
        np.testing.assert_allclose(measure(confusion), expected, atol=1e-12)


@SETTINGS
@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_parts_of_concordance_multiply_to_it(num_rows, seed):
    truth, noise = np.random.default_rng(seed).normal(size=(2, num_rows))
    prediction = 0.3 + 0.5 * truth + noise
    parts = concordance_parts(sums_of(truth, prediction))
    assert parts["correlation"] == pytest.approx(pearsonr(truth, prediction).statistic, abs=1e-9)
    assert parts["scale"] == pytest.approx(prediction.std() / truth.std())
    product = parts["correlation"] * parts["accuracy"]
    assert product == pytest.approx(concordance(truth, prediction), abs=1e-12)


def test_parts_of_concordance_by_hand():
    truth = np.array([-1.0, 1.0])
    parts = concordance_parts(sums_of(truth, 2 * truth + 3))
    assert parts == pytest.approx(
        {"correlation": 1.0, "scale": 2.0, "shift": 3 / np.sqrt(2), "accuracy": 2 / 7}
    )
    assert np.isnan(list(concordance_parts(sums_of(truth, np.zeros(2))).values())).all()


@SETTINGS
@given(
    st.integers(1, 50).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.int64, n, elements=st.integers(0, 1)),
            hnp.arrays(np.int64, n, elements=st.integers(-6, 6)),  # few values: many ties
        )
    )
)
def test_average_precision_is_scikit_learns(pair):
    truth, score = pair
    count, positive = groups_of(score, truth)
    value = average_precision(positive, count)
    if not truth.any():
        assert np.isnan(value)
        return
    expected = sklearn_metrics.average_precision_score(truth, score)
    assert value == pytest.approx(expected, abs=1e-12)


def test_average_precision_of_coarse_groups_is_close():
    rng = np.random.default_rng(0)
    truth = (rng.random(20_000) < 0.1).astype(float)
    score = truth + rng.normal(size=20_000)
    group = np.searchsorted(np.sort(-score)[np.arange(1, 500) * 40], -score)
    positive, count = np.bincount(group, weights=truth), np.bincount(group)
    exact = sklearn_metrics.average_precision_score(truth, score)
    assert average_precision(positive, count, spread=True) == pytest.approx(exact, abs=1e-3)


@SETTINGS
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=6),
)
def test_area_is_the_mean_over_all_orders_of_ties(rows):
    confidence = np.array([c for c, _ in rows], float)
    loss = np.array([x for _, x in rows], float)
    areas = []
    for order in itertools.permutations(range(len(rows))):
        order = list(order)
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            risks = np.cumsum(loss[order]) / np.arange(1, len(rows) + 1)
            areas.append(risks.mean())
    result = risk_coverage(confidence, loss)
    assert result["aurc"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert result["risk"][-1] == pytest.approx(loss.mean())


def test_curve_without_ties():
    confidence = np.arange(100.0)
    loss = (np.arange(100) < 30).astype(float)  # the least confident are wrong
    result = risk_coverage(confidence, loss)
    assert result["excess_aurc"] == 0.0
    assert result["coverage"] == pytest.approx(np.arange(1, 21) / 20)
    np.testing.assert_allclose(result["risk"][:14], 0.0, atol=1e-12)
    assert result["risk"][14:] == pytest.approx(
        [(k - 70) / k for k in (75, 80, 85, 90, 95, 100)], abs=1e-12
    )
    worst = risk_coverage(-confidence, loss)
    assert worst["excess_aurc"] > 0.4
    assert worst["risk"][0] == 1.0


def test_sums_of_parts_add_up():
    """Concordance and area are functions of the sums of parts, of several sets at a time."""
    truth, noise = np.random.default_rng(0).normal(size=(2, 60))
    columns = np.stack(moments(truth, truth + noise), axis=1)
    parts = columns.reshape(3, 20, 6).sum(axis=1)
    sets = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]) @ parts
    values = concordance_of_sums(sets)
    rows = np.r_[0:20, 0:20, 40:60]
    assert values[0] == pytest.approx(concordance(truth, truth + noise), abs=1e-12)
    assert values[1] == pytest.approx(concordance(truth[rows], (truth + noise)[rows]), abs=1e-12)
    assert np.isnan(values[2])


def test_area_of_no_rows_is_undefined():
    assert np.isnan(area_under_risk(np.zeros((2, 3)), np.zeros((2, 3)))).all()


def test_always_answers_a_constant():
    truth = np.repeat(np.arange(3), [5, 2, 3])
    confusion = confusion_matrix(truth, np.roll(truth, 1), num_classes=3)
    for answer in range(3):
        expected = confusion_matrix(truth, np.full(10, answer), num_classes=3)
        np.testing.assert_array_equal(always(confusion, answer), expected)


def test_measures_of_several_confusion_matrices():
    pairs = np.random.default_rng(0).integers(0, 4, (5, 2, 30))
    matrices = np.stack([confusion_matrix(*pair, num_classes=4) for pair in pairs])
    for measure in (f1_per_class, precision_per_class, recall_per_class):
        expected = [measure(matrix) for matrix in matrices]
        np.testing.assert_array_equal(measure(matrices), expected)


def test_ratio_and_mean_of_what_is_defined():
    np.testing.assert_array_equal(ratio([1, 2, 0], [2, 0, 0]), [0.5, np.nan, np.nan])
    values = np.array([[1.0, np.nan, 3.0], [np.nan] * 3])
    np.testing.assert_array_equal(mean_of_defined(values), [2.0, np.nan])
