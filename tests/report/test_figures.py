import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from mtl_face.report.curves import learning_curves
from mtl_face.report.figures import bars, density, va_plane
from mtl_face.tasks import AU_NAMES

HISTORY: list[dict[str, Any]] = [
    {"step": 10, "epoch": 0.1, "train/loss": 2.0, "rate": 0.1, "validation/p": None},
    {"step": 20, "epoch": 0.2, "train/loss": float("nan"), "rate": 0.1},
    {"step": 30, "epoch": 0.3, "train/loss": 1.0, "validation/loss": 1.5, "validation/p": 0.7},
]


def drawn_bars(drawing):
    """Widths of the bars of a drawing, in its own units."""
    widths = []
    for path in ElementTree.fromstring(drawing).iter("path"):
        style = path.get("style", "")
        points = re.findall(r"[ML] ([\d.]+) ([\d.]+)", path.get("d", ""))
        if "fill: #3b82c4" in style:
            x = [float(point[0]) for point in points]
            widths.append(max(x) - min(x))
    return widths


def whiskers(drawing):
    """Lengths of the horizontal strokes in the page's colour and of that width."""
    lengths = []
    for path in ElementTree.fromstring(drawing).iter("path"):
        style, d = path.get("style", ""), path.get("d", "")
        points = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", d), float)
        if "stroke-width: 1.2" in style and "currentColor" in style:
            assert points[0, 1] == points[1, 1]
            lengths.append(points[1, 0] - points[0, 0])
    return lengths


def draw_bars(values, intervals=None, marks=None):
    labels = [name.upper() for name in AU_NAMES]
    intervals = intervals or [None] * 12
    return bars(labels, values, marks, intervals, identifier="au-bars", description="F1")


def test_bars_and_whiskers_are_as_long_as_the_scores_and_intervals():
    values = np.linspace(0.05, 0.9, 12)
    intervals = [[value / 2, value / 2 + 0.3] for value in values.tolist()]
    intervals[3] = None
    drawing = draw_bars(values.tolist(), intervals, [0.3] * 12)
    widths = np.array(drawn_bars(drawing))
    np.testing.assert_allclose(widths / widths[-1], values / 0.9, atol=1e-3)
    lengths = np.array(whiskers(drawing))
    assert len(lengths) == 11
    np.testing.assert_allclose(lengths / widths[-1], 0.3 / 0.9, atol=1e-3)
    assert "AU1 0.05 from 0.03 to 0.33 against 0.30" in drawing
    assert "AU6 0.28 against 0.30" in drawing


def test_an_action_unit_without_labels_has_no_bar():
    values = [None if name == "au4" else 0.5 for name in AU_NAMES]
    drawing = draw_bars(values, marks=values)
    assert len(drawn_bars(drawing)) == 11
    assert "AU4 no labels" in drawing


def test_the_plane_tells_where_truth_and_prediction_lie():
    rng = np.random.default_rng(0)
    valence, arousal = rng.normal(0.3, 0.1, 500), np.full(500, 1.7)
    drawing = va_plane(valence, arousal, name="prediction", truth=False)
    assert f"Valence: mean {valence.mean():.2f}, standard deviation {valence.std():.2f}" in drawing
    assert "Arousal: mean 1.00, standard deviation 0.00" in drawing  # clipped, as when scored
    assert "<image" in drawing


def test_density_is_where_the_rows_are():
    # the middle of a hexagon, of which there are 30 along x and 17 along y
    truth, prediction = -1 + 24.5 * 2 / 30, -1 + 5.5 * 2 / 17
    root = ElementTree.fromstring(
        density(np.full(50, truth), np.full(50, prediction), name="valence", score=0.0)
    )
    diagonal = next(p for p in root.iter("path") if "dasharray" in p.get("style", ""))
    left, bottom, right, top = map(float, re.findall(r"[\d.]+", diagonal.get("d", "")))
    # the picture is cut to the only hexagon; its transform flips y: it covers -y to height - y
    image = next(root.iter("image"))
    x, y, width, height = (float(image.get(k, "")) for k in ("x", "y", "width", "height"))
    assert width < (right - left) / 20
    centre = (x + width / 2, -y + height / 2)
    assert (centre[0] - left) / (right - left) * 2 - 1 == pytest.approx(truth, abs=0.02)
    assert (bottom - centre[1]) / (bottom - top) * 2 - 1 == pytest.approx(prediction, abs=0.02)
    assert "50 frames" in root.get("aria-label", "")


def test_density_does_not_grow_with_the_rows():
    rng = np.random.default_rng(0)
    few, many = (
        len(density(*rng.uniform(-1.5, 1, (2, n)), name="arousal", score=0.1))
        for n in (1_000, 100_000)
    )
    assert many < 2 * few < 200_000


@pytest.mark.parametrize("num_rows", [1, 2])
def test_density_of_very_few_rows(num_rows):
    assert "<image" in density(np.zeros(num_rows), np.zeros(num_rows), name="valence", score=0.0)


def test_learning_curves_are_grouped_by_name():
    curves = dict(learning_curves(HISTORY))
    assert list(curves) == ["loss", "p", "rate"]
    assert "train, last 1" in curves["loss"]
    assert "validation, last 1.5" in curves["loss"]
    assert "validation, last 0.7" in curves["p"]


def test_losses_and_scores_of_a_task_are_not_drawn_together():
    row = {"step": 1, "train/au": 2.0, "validation/au": 0.5, "validation/score": 0.9}
    curves = dict(learning_curves([{**row, "validation/p": 0.8}]))
    assert list(curves) == ["p", "au score", "au loss", "score"]
    # "score" is what the best checkpoint is chosen by: told where it is not P itself
    assert "score" not in dict(learning_curves([{**row, "validation/p": 0.9}]))


def test_learning_curves_with_nothing_finite():
    ((name, drawing),) = learning_curves([{"step": 1, "train/loss": float("inf")}])
    assert name == "loss"
    assert "never finite" in drawing


def test_a_long_history_stays_small():
    rng = np.random.default_rng(0)
    history: list[dict[str, Any]] = [
        {"step": i, "train/loss": float(rng.normal())} for i in range(50_000)
    ]
    assert sum(len(drawing) for _, drawing in learning_curves(history)) < 40_000


def test_names_with_signs_of_mathematics_are_plain_text():
    ((name, drawing),) = learning_curves([{"step": 1, "train/$x^": 1.0}])
    assert name == "$x^"
    assert "<svg" in drawing


def test_drawings_take_the_colour_of_the_page():
    drawing = dict(learning_curves(HISTORY))["loss"]
    root = ElementTree.fromstring(drawing)
    texts = list(root.iter("text"))
    assert texts
    assert all("currentColor" in text.get("style", "") for text in texts)
    assert "#010203" not in drawing
    assert not list(root.iter("style"))
    assert root.get("role") == "img"
