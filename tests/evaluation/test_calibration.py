"""Applying and storing calibrations."""

import dataclasses
import json

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions

from mtl_face.evaluation import calibration as calibrations
from mtl_face.evaluation.calibration import Calibration, CalibrationError, apply
from mtl_face.evaluation.prediction_files import read, write
from mtl_face.evaluation.smoothing import Smoothing, smooth
from mtl_face.files import write_json
from mtl_face.tables import PredictionError
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES


def make_calibration(**changes):
    values = {
        "smoothing": None,
        "temperatures": {"au": 2.0, "expr": 4.0},
        "std_scales": {"valence": 0.25, "arousal": 0.5},
        "std_is_predicted": False,
        "au_thresholds": {name: 0.1 * i for i, name in enumerate(AU_NAMES)},
        "expression_biases": {name: -0.2 * i for i, name in enumerate(EXPRESSION_NAMES)},
        "fitted_on": {"smoothing": None},
    }
    return Calibration(**{**values, **changes})


def test_apply():
    table = make_predictions(make_labels(60))
    smoothing = Smoothing(windows={"va": 5, "au": 5, "expr": 5})
    smoothed = smooth(table, smoothing)
    calibrated = apply(smoothed, make_calibration(smoothing=smoothing))
    np.testing.assert_array_equal(calibrated.valence, smoothed.valence)
    np.testing.assert_array_equal(calibrated.au_logits, smoothed.au_logits / 2)
    np.testing.assert_array_equal(calibrated.expression_logits, smoothed.expression_logits / 4)
    np.testing.assert_array_equal(calibrated.valence_std, 0.25)
    np.testing.assert_array_equal(calibrated.au, smoothed.au_logits / 2 > 0.1 * np.arange(12))
    np.testing.assert_array_equal(
        calibrated.expression,
        np.argmax(smoothed.expression_logits / 4 - 0.2 * np.arange(8), axis=1),
    )
    assert calibrated.metadata["smoothing"] == smoothing.to_dict()
    assert calibrated.metadata["calibration"]["temperatures"] == {"au": 2.0, "expr": 4.0}


def test_predicted_standard_deviations_are_scaled():
    table = make_predictions(make_labels(10))
    own = dataclasses.replace(table, valence_std=np.full(10, 2.0), arousal_std=np.full(10, 3.0))
    scaled = apply(own, make_calibration(std_is_predicted=True))
    np.testing.assert_array_equal(scaled.valence_std, 0.5)
    np.testing.assert_array_equal(scaled.arousal_std, 1.5)
    with pytest.raises(CalibrationError, match="standard deviations"):
        apply(own, make_calibration())
    with pytest.raises(CalibrationError, match="standard deviations"):
        apply(table, make_calibration(std_is_predicted=True))


def test_what_a_calibration_does_not_fit():
    table = make_predictions(make_labels(10))
    once = apply(table, make_calibration())
    with pytest.raises(CalibrationError, match="calibrated before"):
        apply(once, make_calibration())
    smoothing = Smoothing(windows={"va": 5})
    smoothed = smooth(table, smoothing)
    with pytest.raises(CalibrationError, match="smoothing none"):
        apply(smoothed, make_calibration())
    fits = make_calibration(fitted_on={"smoothing": smoothing.to_dict()})
    assert apply(smoothed, fits).metadata["smoothing"] == smoothing.to_dict()
    for calibration in (fits, make_calibration(smoothing=smoothing)):
        with pytest.raises(CalibrationError, match="these have none"):
            apply(table, calibration)
    other = make_calibration(smoothing=Smoothing(windows={"va": 7}))
    with pytest.raises(CalibrationError, match=r"'va': 7.*these have .*'va': 5"):
        apply(smoothed, other)
    with pytest.raises(PredictionError, match="calibrated before"):
        smooth(once, smoothing)


@pytest.mark.parametrize(
    ("fitted", "refused"),
    [
        ({"probability": {"definition": "fitted", "divisors": {"au": 1.0, "expr": 1.0}}}, True),
        ({}, True),  # from before there was a choice
        ({"probability": {"definition": "fitted", "divisors": {"au": 1.0, "expr": 5.0}}}, False),
        ({"probability": {"definition": "paper", "divisors": {"au": 9.0, "expr": 9.0}}}, False),
        ({"probability": None}, False),  # nothing was known of the table
    ],
)
def test_a_calibration_belongs_to_one_probability(fitted, refused):
    """Temperatures and thresholds count in logits, which another divisor scales."""
    table = make_predictions(make_labels(10))
    paper = {"definition": "paper", "divisors": {"au": 1.0, "expr": 5.0}}
    table = dataclasses.replace(table, metadata={"probability": paper})
    calibration = make_calibration(fitted_on=fitted)
    if not refused:
        assert apply(table, calibration).metadata["probability"] == paper
        return
    with pytest.raises(CalibrationError, match="probability fitted, these predictions have paper"):
        apply(table, calibration)
    assert len(apply(make_predictions(make_labels(10)), calibration)) == 10


def test_files_read_back(tmp_path):
    calibration = make_calibration(smoothing=Smoothing(windows={"au": 30}))
    write_json(tmp_path / "c.json", calibration.to_dict())
    assert calibrations.read(tmp_path / "c.json") == calibration
    table = smooth(make_predictions(make_labels(20)), calibration.smoothing)
    calibrated = apply(table, calibration)
    write(calibrated, tmp_path / "p.parquet")
    again = read(tmp_path / "p.parquet")
    np.testing.assert_array_equal(again.au, calibrated.au)
    np.testing.assert_array_equal(again.expression, calibrated.expression)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"temperatures": {"au": 0.0, "expr": 1.0}},
        {"temperatures": {"au": 1.0}},
        {"au_thresholds": [0.0] * 12},
        {"expression_biases": dict.fromkeys(EXPRESSION_NAMES, "0")},
        {"smoothing": {"kernel": "hann", "windows": {}}},
        {"smoothing": 30},
        {"surplus": 1},
    ],
)
def test_wrong_files(tmp_path, change):
    values = {**make_calibration().to_dict(), **change}
    (tmp_path / "c.json").write_text(json.dumps(values))
    with pytest.raises(CalibrationError, match="no calibration") as error:
        calibrations.read(tmp_path / "c.json")
    assert error.value.path == str(tmp_path / "c.json")
    assert error.value.remedy


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_files_of_another_kind(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CalibrationError, match="no calibration"):
        calibrations.read(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match="the calibration does not exist"):
        calibrations.read(tmp_path / "absent.json")
