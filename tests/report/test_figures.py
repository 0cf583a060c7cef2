import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mtl_face.report.figures import Bar, bars, density, va_plane
from mtl_face.tasks import AU_NAMES


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
    nothing = [None] * 12
    rows = map(Bar, labels, values, intervals or nothing, marks or nothing)
    return bars(list(rows), identifier="au-bars", description="F1")


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
