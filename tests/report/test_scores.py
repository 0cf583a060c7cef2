"""The scores as the page shows them: beside their baselines, with intervals, or with reasons."""

import dataclasses

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions
from report_page import Page, report

from mtl_face.evaluation.scoring import score
from mtl_face.report.scores import Scores

pytestmark = pytest.mark.usefixtures("quick")


def test_a_score_by_its_path():
    metrics = {
        "va": {"score": 0.5, "valence": None},
        "unavailable": {"va.valence": "no row is labelled"},
        "bootstrap": {"intervals": {"va.score": [0.25, 0.75], "va.valence": [0.0, 1.0]}},
    }
    scores = Scores(metrics)
    assert scores.text("va.score") == "0.500 [0.250, 0.750]"
    assert scores.plain("va.score", form=".0%") == "50%"
    assert scores.text("va.valence", none="undefined") == "undefined"
    assert scores.text("va.score.deeper") == "no labels"
    assert scores.why("va.valence") == "no row is labelled"
    assert scores.why("va.arousal") == "it was not computed"
    assert Scores({"bootstrap": None}).intervals == {}


def test_numbers_stand_beside_their_baseline_and_count(tmp_path):
    labels = make_labels(300)
    predictions = make_predictions(labels)
    metrics = score(labels, predictions)
    _, page = report(tmp_path, labels, predictions)
    for name, task in {"mean CCC": "va", "mean F1": "au", "macro F1": "expr"}.items():
        row = page.text.split(name)[1].split()[:4]
        value, baseline = metrics[task]["score"], metrics[task]["constant_baseline"]
        assert row == [
            f"{value:.3f}", f"{baseline:.3f}", f"{value - baseline:+.3f}",
            str(metrics[task]["num_valid"]),
        ]  # fmt: skip


@pytest.mark.parametrize("task", ["va", "au", "expr", "all"])
def test_tasks_without_labels_are_stated(tmp_path, task):
    labels = make_labels(40)
    if task in ("va", "all"):
        labels.valence[:] = np.nan
    if task in ("au", "all"):
        labels.au[:] = np.nan
    if task in ("expr", "all"):
        labels.expression[:] = -1
    _, page = report(tmp_path, labels, make_predictions(labels))
    assert "no labels" in page.text
    assert "No frame counts for" in page.text
    if task != "all":
        assert f"{task}.score no row has the labels that count for {task}" in page.text


def test_every_score_has_its_interval(tmp_path):
    labels = make_labels(300)
    predictions = dataclasses.replace(
        make_predictions(labels), valence_std=np.full(300, 0.5), arousal_std=np.full(300, 0.4)
    )
    metrics = score(labels, predictions, num_resamples=50)
    _, page = report(tmp_path, labels, predictions, metrics=metrics)
    told = metrics["bootstrap"]["intervals"]
    shown = {
        path: f"{value(metrics, path):.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
        for path, ends in told.items()
        if ends is not None and ".per_au." not in path.replace("au.per_au", "")
    }
    absent = {path: words for path, words in shown.items() if words not in page.text}
    assert not absent
    assert len(shown) > 60
    assert "95% intervals, from 50 resamples of the 30 videos" in page.text
    without, _ = report(tmp_path, labels, predictions)
    assert "No intervals: no resamples were asked for." in without
    assert "[" not in Page(without).text.split("Learning curves")[2].split("Action units")[0]


def value(metrics, path):
    for name in path.split("."):
        metrics = metrics[name]
    return metrics


def test_rows_left_out_are_stated(tmp_path):
    labels = make_labels(40)
    predictions = make_predictions(labels).take(np.arange(30))
    metrics = score(labels, predictions, lenient=True)
    _, page = report(tmp_path, labels, predictions, metrics=metrics)
    assert "10 labelled frames have no prediction" in page.text
