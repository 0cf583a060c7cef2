import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from mtl_face.evaluation.measures import binary_f1, concordance, confusion_matrix, macro_f1

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
