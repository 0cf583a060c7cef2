"""What a fit keeps, and whether it says honestly what that is worth."""

import dataclasses

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions, without

from mtl_face.evaluation import scoring
from mtl_face.evaluation.calibration import CalibrationError, apply, group_names
from mtl_face.evaluation.calibration_fit import Search, calibrate, make_folds
from mtl_face.evaluation.smoothing import Smoothing, smooth


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
    found = calibrate(labels, table, Search(windows=(0, 3)))
    scores = found.fitted_on["scores"]
    assert scores["uncalibrated"]["p"] == pytest.approx(scoring.score(labels, table)["p"])
    calibrated = apply(table, found)
    assert scores["in_sample"]["p"] == pytest.approx(scoring.score(labels, calibrated)["p"])
    for task in ("au", "expr"):
        assert scores["cross_fitted"][task] > scores["uncalibrated"][task] + 0.05
        assert scores["in_sample"][task] >= scores["cross_fitted"][task] - 0.01
    assert found.smoothing is None  # neighbouring frames have nothing in common here
    new_labels = make_labels(400, seed=9)
    new = biased_predictions(new_labels, shift=1.5, seed=4)
    gain = scoring.score(new_labels, apply(new, found))["p"] - scoring.score(new_labels, new)["p"]
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
    found = calibrate(labels, table, Search(windows=(0, 5), num_folds=3))
    scores, measured = found.fitted_on["scores"], found.fitted_on["measured"]
    for task in ("va", "au", "expr"):
        assert scores["cross_fitted"][task] >= scores["uncalibrated"][task]
        if measured[task] < scores["uncalibrated"][task]:
            assert scores["in_sample"][task] == scores["uncalibrated"][task]
            assert any(f"decisions of {task}" in line for line in found.fitted_on["refused"])
    assert found.fitted_on["refused"]
    everything = calibrate(labels, table, Search(windows=(0, 5), num_folds=3, keep_all=True))
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
    found = calibrate(labels, table, Search(windows=(0, 4, 30)))
    assert found.smoothing is not None
    assert found.smoothing.windows["va"] == 30
    assert found.smoothing.windows["au"] == 0
    again = calibrate(labels, table, Search(windows=(0, 4, 30)))
    assert again == found
    already = calibrate(
        labels, smooth(table, Smoothing(windows={"va": 3})), Search(windows=(0, 4, 30))
    )
    assert already.smoothing is None
    assert already.fitted_on["smoothing"]["windows"]["va"] == 3


def test_order_of_rows_does_not_matter():
    labels = make_labels(120)
    table = biased_predictions(labels, shift=1.0)
    rows = np.random.default_rng(0).permutation(120)
    one = calibrate(labels, table, Search(num_folds=3))
    two = calibrate(labels, table.take(rows), Search(num_folds=3))
    assert one == two


def test_too_few_videos():
    labels = make_labels(20)
    with pytest.raises(CalibrationError, match="2 videos") as raised:
        calibrate(labels, make_predictions(labels))
    assert "3 videos or more" in raised.value.remedy


@pytest.mark.parametrize("keep_all", [False, True])
def test_a_task_with_labels_of_one_video_is_left_alone(keep_all):
    labels = make_labels(40)
    of_one = np.where(labels.video == "video0", labels.expression, -1)
    labels = dataclasses.replace(labels, expression=of_one.astype(labels.expression.dtype))
    table = make_predictions(labels, seed=1)
    found = calibrate(labels, table, Search(windows=(3,), keep_all=keep_all))
    assert set(found.expression_biases.values()) == {0.0}
    assert found.temperatures["expr"] == 1.0
    assert found.temperatures["au"] != 1.0
    assert any(line.startswith("all of expr: ") for line in found.fitted_on["refused"])
    scores = found.fitted_on["scores"]
    assert scores["cross_fitted"]["expr"] == scores["uncalibrated"]["expr"]


def test_a_task_without_labels_is_left_alone():
    labels = make_labels(120)
    labels.expression[:] = -1
    found = calibrate(labels, make_predictions(labels))
    assert set(found.expression_biases.values()) == {0.0}
    assert found.fitted_on["scores"]["cross_fitted"]["expr"] is None
    assert found.fitted_on["scores"]["cross_fitted"]["p"] is None


def test_what_a_fit_records_and_refuses():
    labels = make_labels(60)
    table = make_predictions(labels)
    paper = {"definition": "paper", "divisors": {"au": 1.0, "expr": 5.0}}
    stated = dataclasses.replace(table, metadata={"probability": paper})
    found = calibrate(labels, stated, Search(num_folds=2))
    assert found.fitted_on["probability"] == paper
    assert calibrate(labels, table, Search(num_folds=2)).fitted_on["probability"] is None
    with pytest.raises(CalibrationError, match="calibrated before"):
        calibrate(labels, apply(stated, found))
    with pytest.raises(ValueError, match="not in 0"):
        Search(windows=(0, -1))


def test_nothing_is_fitted_to_a_task_without_labels_or_training():
    labels = make_labels(200)
    table = make_predictions(labels)
    for truth, predictions in (
        (labels.only_tasks(("au", "expr")), table),
        (labels, without(table, "va")),
    ):
        found = calibrate(truth, predictions, Search(windows=(5,)))
        assert found.std_scales == {}
        assert found.fitted_on["not_fitted"] == ["va"]
        applied = apply(
            smooth(predictions, found.smoothing) if found.smoothing else predictions, found
        )
        assert applied.va_std is None
        assert applied.untrained == predictions.untrained
    stds = {f"{name}_std": np.full(200, 0.5) for name in ("valence", "arousal")}
    table = dataclasses.replace(table, **stds)
    found = calibrate(labels.only_tasks(("au", "expr")), table)
    np.testing.assert_array_equal(apply(table, found).va_std, table.va_std)
    found = calibrate(labels.only_tasks(("va",)), without(table, "au", "expr"))
    assert found.temperatures == {"au": 1.0, "expr": 1.0}
    assert found.fitted_on["not_fitted"] == ["au", "expr"]


def test_temperatures_at_the_ends_of_their_range_are_explained():
    labels = make_labels(200)
    table = make_predictions(labels)
    opposite = dataclasses.replace(
        table,
        au_logits=-5 * (np.nan_to_num(labels.au) * 2 - 1),
        expression_logits=table.expression_logits,
    )
    notes = calibrate(labels, opposite).fitted_on["notes"]
    assert len(notes) == 1
    assert notes[0].startswith("temperature of au: 1000, the largest that is fitted: these logits")
    sure = dataclasses.replace(table, au_logits=5 * (np.nan_to_num(labels.au) * 2 - 1))
    (note,) = calibrate(labels, sure).fitted_on["notes"]
    assert note.startswith("temperature of au: 0.001, the smallest that is fitted: no decision")
    assert calibrate(labels, table).fitted_on["notes"] == []
