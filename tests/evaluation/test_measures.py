import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import pearsonr
from sklearn import metrics as sklearn_metrics

from mtl_face.evaluation.measures import (
    binary_f1,
    concordance,
    concordance_parts,
    confusion_matrix,
    macro_f1,
    precision_per_class,
    recall_per_class,
    root_mean_square_error,
    sign_agreement,
)
from mtl_face.evaluation.ranking import average_precision, average_precision_of_groups

SETTINGS = settings(deadline=None, derandomize=True, max_examples=150)


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
    parts = concordance_parts(truth, prediction)
    assert parts["correlation"] == pytest.approx(pearsonr(truth, prediction).statistic, abs=1e-9)
    assert parts["scale"] == pytest.approx(prediction.std() / truth.std())
    product = parts["correlation"] * parts["accuracy"]
    assert product == pytest.approx(concordance(truth, prediction), abs=1e-12)


def test_parts_of_concordance_by_hand():
    truth = np.array([-1.0, 1.0])
    parts = concordance_parts(truth, 2 * truth + 3)
    assert parts == pytest.approx(
        {"correlation": 1.0, "scale": 2.0, "shift": 3 / np.sqrt(2), "accuracy": 2 / 7}
    )
    assert concordance_parts(truth, np.zeros(2)) is None


def test_root_mean_square_error_and_sign_agreement():
    truth, prediction = np.random.default_rng(0).normal(size=(2, 40))
    expected = sklearn_metrics.root_mean_squared_error(truth, prediction)
    assert root_mean_square_error(truth, prediction) == pytest.approx(expected)
    assert sign_agreement([-1, 0, 0.5, 0.5], [-0.1, 0.2, 0.9, -0.1]) == 0.5


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
    value = average_precision(truth, score.astype(float))
    if not truth.any():
        assert value is None
        return
    expected = sklearn_metrics.average_precision_score(truth, score)
    assert value == pytest.approx(expected, abs=1e-12)


def test_average_precision_of_coarse_groups_is_close():
    rng = np.random.default_rng(0)
    truth = (rng.random(20_000) < 0.1).astype(float)
    score = truth + rng.normal(size=20_000)
    group = np.searchsorted(np.sort(-score)[np.arange(1, 500) * 40], -score)
    positive, count = np.bincount(group, weights=truth), np.bincount(group)
    exact = average_precision(truth, score)
    assert average_precision_of_groups(positive, count, spread=True) == pytest.approx(
        exact, abs=1e-3
    )
