"""Applying, storing and selecting calibrations."""

import dataclasses
import json

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions

from mtl_face.evaluation import calibration as calibrations
from mtl_face.evaluation import metrics
from mtl_face.evaluation.calibration import Calibration, CalibrationError, apply
from mtl_face.evaluation.calibration_crossfit import calibrate
from mtl_face.evaluation.calibration_selection import group_names, make_folds
from mtl_face.evaluation.predictions import read, write
from mtl_face.evaluation.smoothing import Smoothing, smooth
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
    calibrated = apply(table, make_calibration(smoothing=smoothing))
    smoothed = smooth(table, smoothing)
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
    with pytest.raises(CalibrationError, match="these have none"):
        apply(table, fits)
    for step in (lambda: smooth(once, smoothing), lambda: calibrate(make_labels(10), once)):
        with pytest.raises((PredictionError, CalibrationError), match="calibrated before"):
            step()


def test_files_read_back(tmp_path):
    calibration = make_calibration(smoothing=Smoothing(windows={"au": 30}))
    calibrations.write(calibration, tmp_path / "c.json")
    assert calibrations.read(tmp_path / "c.json") == calibration
    calibrated = apply(make_predictions(make_labels(20)), calibration)
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
    with pytest.raises(CalibrationError, match="no calibration of ours") as error:
        calibrations.read(tmp_path / "c.json")
    assert error.value.path == str(tmp_path / "c.json")
    assert error.value.remedy


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_files_of_another_kind(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CalibrationError, match="no calibration of ours"):
        calibrations.read(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match="cannot be read"):
        calibrations.read(tmp_path / "absent.json")


def test_folds_keep_videos_and_their_persons_together():
    names = group_names(
        np.array(["d"] * 6), np.array(["1", "1_left", "1_right", "2", "22", "2_left"])
    )
    assert names.tolist() == ["d/1", "d/1", "d/1", "d/2", "d/22", "d/2"]
    rng = np.random.default_rng(0)
    group = rng.integers(0, 17, 500)
    rows = np.flatnonzero(rng.random(500) < 0.8)
    folds = make_folds(group, rows, 5)
    assert sorted(np.concatenate(folds)) == rows.tolist()
    for fold in folds:
        others = np.setdiff1d(rows, fold)
        assert not set(group[fold]) & set(group[others])
        assert 0.1 < len(fold) / len(rows) < 0.35
    for one, two in zip(folds, make_folds(group, rows, 5), strict=True):
        np.testing.assert_array_equal(one, two)
    assert len(make_folds(group, np.flatnonzero(group < 3), 5)) == 3


def biased_predictions(labels, *, shift, seed=3):
    """Good predictions whose decisions are off by a constant."""
    table = make_predictions(labels, seed=seed, noise=0.5)
    return dataclasses.replace(
        table,
        au_logits=table.au_logits - shift,
        expression_logits=table.expression_logits * 2 + shift * (np.arange(8) == 2),
    )


def test_what_holds_for_all_videos_is_found_and_honestly_measured():
    labels = make_labels(400)
    table = biased_predictions(labels, shift=1.5)
    found = calibrate(labels, table, windows=(0, 3))
    scores = found.fitted_on["scores"]
    assert scores["uncalibrated"]["p"] == pytest.approx(metrics.score(labels, table)["p"])
    calibrated = apply(table, found)
    assert scores["in_sample"]["p"] == pytest.approx(metrics.score(labels, calibrated)["p"])
    for task in ("au", "expr"):
        assert scores["cross_fitted"][task] > scores["uncalibrated"][task] + 0.05
        assert scores["in_sample"][task] >= scores["cross_fitted"][task] - 0.01
    assert found.smoothing is None  # neighbouring frames have nothing in common here
    new_labels = make_labels(400, seed=9)
    new = biased_predictions(new_labels, shift=1.5, seed=4)
    gain = metrics.score(new_labels, apply(new, found))["p"] - metrics.score(new_labels, new)["p"]
    promised = scores["cross_fitted"]["p"] - scores["uncalibrated"]["p"]
    assert gain == pytest.approx(promised, abs=0.1)


def test_where_labels_say_nothing_no_decision_changes_much_and_no_gain_is_claimed():
    labels = make_labels(200)
    rng = np.random.default_rng(5)
    table = dataclasses.replace(
        make_predictions(labels),
        valence=rng.normal(size=200),
        arousal=rng.normal(size=200),
        au_logits=rng.normal(4, 1, (200, 12)),
        expression_logits=rng.normal(size=(200, 8)),
    )
    found = calibrate(labels, table, windows=(0, 5), num_folds=3)
    scores, measured = found.fitted_on["scores"], found.fitted_on["measured"]
    for task in ("va", "au", "expr"):
        assert scores["cross_fitted"][task] >= scores["uncalibrated"][task]
        if measured[task] < scores["uncalibrated"][task]:
            assert scores["in_sample"][task] == scores["uncalibrated"][task]
            assert any(f"decisions of {task}" in line for line in found.fitted_on["refused"])
    assert found.fitted_on["refused"]
    everything = calibrate(labels, table, windows=(0, 5), num_folds=3, keep_all=True)
    assert everything.fitted_on["scores"]["in_sample"]["p"] > scores["in_sample"]["p"]
    assert everything.fitted_on["refused"] == []
    # whatever is gained in sample is noise, and videos that were left out do not show it
    kept = everything.fitted_on["scores"]
    flattered = kept["in_sample"]["expr"] - kept["uncalibrated"]["expr"]
    assert flattered > 0.03
    assert kept["cross_fitted"]["expr"] - kept["uncalibrated"]["expr"] < flattered / 2
    assert everything.fitted_on["gains"]["biases of expr"] < flattered / 2
    assert everything.fitted_on["scores"]["cross_fitted"] == everything.fitted_on["measured"]


def test_smoothing_is_found_where_it_helps():
    labels = make_labels(300, missing=0.0)
    slow = np.sin(np.arange(300) // 10)  # one value for each video
    truth = (0.8 * slow).astype(np.float32)
    labels = dataclasses.replace(labels, valence=truth, arousal=truth)
    table = dataclasses.replace(
        make_predictions(labels),
        valence=0.8 * slow + np.random.default_rng(0).normal(0, 0.5, 300),
        arousal=0.8 * slow + np.random.default_rng(1).normal(0, 0.5, 300),
    )
    found = calibrate(labels, table, windows=(0, 4, 30))
    assert found.smoothing is not None
    assert found.smoothing.windows["va"] == 30
    assert found.smoothing.windows["au"] == 0
    again = calibrate(labels, table, windows=(0, 4, 30))
    assert again == found
    already = calibrate(labels, smooth(table, Smoothing(windows={"va": 3})), windows=(0, 4, 30))
    assert already.smoothing is None
    assert already.fitted_on["smoothing"]["windows"]["va"] == 3


def test_order_of_rows_does_not_matter():
    labels = make_labels(120)
    table = biased_predictions(labels, shift=1.0)
    rows = np.random.default_rng(0).permutation(120)
    one = calibrate(labels, table, num_folds=3)
    two = calibrate(labels, table.take(rows), num_folds=3)
    assert one == two


def test_too_few_videos():
    labels = make_labels(20)
    with pytest.raises(CalibrationError, match="2 videos"):
        calibrate(labels, make_predictions(labels))


def test_a_task_without_labels_is_left_alone():
    labels = make_labels(120)
    labels.expression[:] = -1
    found = calibrate(labels, make_predictions(labels))
    assert set(found.expression_biases.values()) == {0.0}
    assert found.fitted_on["scores"]["cross_fitted"]["expr"] is None
    assert found.fitted_on["scores"]["cross_fitted"]["p"] is None
