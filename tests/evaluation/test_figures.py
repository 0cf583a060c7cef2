import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from mtl_face.evaluation.report.figures import au_bars, density, learning_curves
from mtl_face.tasks import AU_NAMES

HISTORY: list[dict[str, Any]] = [
    {"step": 10, "epoch": 0.1, "train/loss": 2.0, "rate": 0.1, "validation/p": None},
    {"step": 20, "epoch": 0.2, "train/loss": float("nan"), "rate": 0.1},
    {"step": 30, "epoch": 0.3, "train/loss": 1.0, "validation/loss": 1.5, "validation/p": 0.7},
]


def bars(drawing):
    """Widths of the bars of a drawing, in its own units."""
    widths = []
    for path in ElementTree.fromstring(drawing).iter("path"):
        style = path.get("style", "")
        points = re.findall(r"[ML] ([\d.]+) ([\d.]+)", path.get("d", ""))
        if "fill: #3b82c4" in style:
            x = [float(point[0]) for point in points]
            widths.append(max(x) - min(x))
    return widths


def test_bars_are_as_long_as_the_scores():
    per_au = dict(zip(AU_NAMES, np.linspace(0.05, 0.9, 12), strict=True))
    drawing = au_bars(per_au, dict.fromkeys(AU_NAMES, 0.3))
    widths = np.array(bars(drawing))
    np.testing.assert_allclose(widths / widths[-1], np.linspace(0.05, 0.9, 12) / 0.9, atol=1e-3)


def test_an_action_unit_without_labels_has_no_bar():
    per_au = {name: None if name == "au4" else 0.5 for name in AU_NAMES}
    drawing = au_bars(per_au, per_au)
    assert len(bars(drawing)) == 11
    assert "AU4 no labels" in drawing


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
