import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np

from mtl_face.report.curves import learning_curves

HISTORY: list[dict[str, Any]] = [
    {"step": 10, "epoch": 0.1, "train/loss": 2.0, "rate": 0.1, "validation/p": None},
    {"step": 20, "epoch": 0.2, "train/loss": float("nan"), "rate": 0.1},
    {"step": 30, "epoch": 0.3, "train/loss": 1.0, "validation/loss": 1.5, "validation/p": 0.7},
]

P = "P, the sum of the three scores"


def drawn(history):
    """Drawings by name, those that are folded away after the others."""
    curves = learning_curves(history)
    return {drawing.caption: drawing.svg for drawing in curves["main"] + curves["others"]}


def test_scores_and_losses_are_not_folded_away():
    row = dict.fromkeys(("train/loss", "train/va", "validation/va", "validation/other/score"), 1.0)
    more = ("train/gradient_norm", "train/gradient_norm/stem", "train/count/va", "memory/host_mib")
    curves = learning_curves([{"step": 1, **dict.fromkeys(more, 2.0), **row}])
    names = {key: [drawing.caption for drawing in curves[key]] for key in ("main", "others")}
    va = "valence and arousal"
    assert names["main"] == ["loss", f"{va} score", f"{va} loss", "other/score"]
    norms = ["gradient norm", "gradient norm/stem"]
    assert names["others"] == [*norms, f"count/{va}", "memory/host_mib"]
    assert curves["kinds"] == ["gradient norm", "count", "memory"]


def test_learning_curves_are_grouped_by_name():
    curves = drawn(HISTORY)
    assert list(curves) == ["loss", P, "rate"]
    assert "train, last 1" in curves["loss"]
    assert "validation, last 1.5" in curves["loss"]
    assert f"Learning curve of {P}: validation, last 0.7." in curves[P]


def test_losses_and_scores_of_a_task_are_not_drawn_together():
    row = {"step": 1, "train/au": 2.0, "validation/au": 0.5, "validation/score": 0.9}
    curves = drawn([{**row, "validation/p": 0.8}])
    assert list(curves) == [P, "action units score", "action units loss", "score"]
    # "score" is what the best checkpoint is chosen by: told where it is not P itself
    assert "score" not in drawn([{**row, "validation/p": 0.9}])


def test_learning_curves_with_nothing_finite():
    ((name, drawing),) = drawn([{"step": 1, "train/loss": float("inf")}]).items()
    assert name == "loss"
    assert "never finite" in drawing


def test_a_long_history_stays_small():
    rng = np.random.default_rng(0)
    history: list[dict[str, Any]] = [
        {"step": i, "train/loss": float(rng.normal())} for i in range(50_000)
    ]
    assert sum(map(len, drawn(history).values())) < 40_000


def test_names_with_signs_of_mathematics_are_plain_text():
    ((name, drawing),) = drawn([{"step": 1, "train/$x^": 1.0}]).items()
    assert name == "$x^"
    assert "<svg" in drawing


def test_drawings_take_the_colour_of_the_page():
    drawing = drawn(HISTORY)["loss"]
    root = ElementTree.fromstring(drawing)
    texts = list(root.iter("text"))
    assert texts
    assert all("currentColor" in text.get("style", "") for text in texts)
    assert "#010203" not in drawing
    assert not list(root.iter("style"))
    assert root.get("role") == "img"
