import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions

from mtl_face.evaluation.scoring import score
from mtl_face.report.reliability import interval_coverage, reliability, risk_coverage

BLUE, ORANGE = "#3b82c4", "#c8701a"


def line(drawing, colour):
    """Points of the longest line of a colour, in units of the drawing, y upwards."""
    found = []
    for path in ElementTree.fromstring(drawing).iter("path"):
        style = path.get("style", "")
        if "fill: none" in style and f"stroke: {colour}" in style:
            found.append(np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path.get("d", "")), float))
    points = max(found, key=len)
    return points * [1, -1]


def as_shares(points, values):
    """Whether the points are an affine image of the values, axis by axis."""
    for drawn, true in zip(points.T, np.asarray(values).T, strict=True):
        slope, offset = np.polyfit(true, drawn, 1)
        assert slope > 0
        np.testing.assert_allclose(slope * true + offset, drawn, atol=0.1)


@pytest.fixture(scope="module")
def uncertainty():
    labels = make_labels(600)
    return score(labels, make_predictions(labels))["au"]["uncertainty"]


def test_reliability_shows_the_bins_before_and_after(uncertainty):
    now = uncertainty["reliability"]
    before = {**now, "confidence": (np.array(now["confidence"]) ** 2).tolist()}
    drawing = reliability(now, before, task="au", event="x")
    as_shares(line(drawing, BLUE), np.column_stack([now["confidence"], now["frequency"]]))
    as_shares(line(drawing, ORANGE), np.column_stack([before["confidence"], now["frequency"]]))
    assert "before calibration: 15 bins" in drawing
    alone = reliability(now, None, task="au", event="x")
    assert ORANGE not in alone
    assert "before" not in alone


def test_risk_coverage_shows_the_curve_from_zero(uncertainty):
    curve = uncertainty["risk_coverage"]
    drawing = risk_coverage(curve, task="au", risk="share of wrong decisions")
    as_shares(line(drawing, BLUE), np.column_stack([curve["coverage"], curve["risk"]]))
    assert f"{curve['risk'][-1]:.3f} if all are answered" in drawing


def test_risk_of_a_perfect_answer_can_be_drawn():
    curve = {"coverage": [0.5, 1.0], "risk": [0.0, 0.0]}
    assert "<svg" in risk_coverage(curve, task="va", risk="mean square error")


def test_coverage_of_intervals_in_words():
    now = {name: {"50": 0.4, "80": 0.7, "95": 0.9} for name in ("valence", "arousal")}
    drawing = interval_coverage(now, None)
    as_shares(line(drawing, BLUE), [[0.5, 0.4], [0.8, 0.7], [0.95, 0.9]])
    assert "arousal 50 %: 40%, 80 %: 70%, 95 %: 90%" in drawing
    both = interval_coverage(now, now)
    assert "valence, before calibration 50 %: 40%" in both
