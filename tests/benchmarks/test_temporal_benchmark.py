"""The smoothing that a network over time is compared with is the best there is, task by task."""

import numpy as np
import pytest

from benchmarks import temporal
from mtl_face.evaluation import scoring
from mtl_face.evaluation.smoothing import Smoothing, smooth
from mtl_face.tables import FrameTable, PredictionTable


@pytest.fixture(scope="module")
def tables():
    """Slow valence and arousal under fast noise; expressions that change with every frame."""
    random = np.random.default_rng(0)
    keys = {
        "video": np.repeat(["a", "b", "c"], 60),
        "frame": np.tile(np.arange(60), 3),
        "image": np.arange(180).astype(str),
    }
    va_N2 = np.sin(np.arange(180)[:, None] / [9.0, 13.0])
    expression_N, au_NA = random.integers(0, 8, 180), random.integers(0, 2, (180, 12))
    truth = FrameTable.from_columns(
        dataset="set",
        root=".",
        **keys,
        valence=va_N2[:, 0],
        arousal=va_N2[:, 1],
        expression=expression_N,
        au=au_NA,
    )
    seen_N2 = va_N2 + random.normal(0, 0.6, va_N2.shape)
    predictions = PredictionTable(
        dataset=np.full(180, "set"),
        **keys,
        valence=seen_N2[:, 0],
        arousal=seen_N2[:, 1],
        au_logits=2.0 * au_NA - 1,
        expression_logits=3.0 * np.eye(8)[expression_N],
        metadata={},
    )
    return truth, predictions


def test_each_task_has_its_best(tables):
    truth, predictions = tables
    best = temporal.best_smoothing(truth, predictions)
    np.testing.assert_array_equal(best.values("expr"), predictions.values("expr"))
    np.testing.assert_array_equal(best.values("au"), predictions.values("au"))
    found = scoring.score(truth, best)["va"]["score"]
    for kernel in ("box", "gaussian"):
        for window in (0, 5, 12, 48):
            other = smooth(predictions, Smoothing(kernel=kernel, windows={"va": window}))
            assert found >= scoring.score(truth, other)["va"]["score"]
    assert found > scoring.score(truth, predictions)["va"]["score"] + 0.05
