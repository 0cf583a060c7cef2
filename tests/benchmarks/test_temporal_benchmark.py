"""The smoothing that a network over time is compared with: the best, chosen on other videos."""

import dataclasses

import numpy as np
import pytest

from benchmarks import temporal
from mtl_face.evaluation import scoring
from mtl_face.evaluation.measures import concordance
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
    best = temporal.smoothed(truth, predictions, folds=1)
    np.testing.assert_array_equal(best.values("expr"), predictions.values("expr"))
    np.testing.assert_array_equal(best.values("au"), predictions.values("au"))
    found = scoring.score(truth, best)["va"]["score"]
    for kernel in ("box", "gaussian"):
        for window in (0, 5, 12, 48):
            other = smooth(predictions, Smoothing(kernel=kernel, windows={"va": window}))
            assert found >= scoring.score(truth, other)["va"]["score"]
    assert found > scoring.score(truth, predictions)["va"]["score"] + 0.05


def test_a_video_is_smoothed_as_is_best_on_the_others(tables):
    """The labels of a video say nothing of how it is smoothed: not so in sample."""
    truth, predictions = tables
    of_c, fast_N = truth.video == "c", np.sin(2.0 * np.arange(180))
    changed = dataclasses.replace(
        truth, valence=np.where(of_c, fast_N, truth.valence).astype(truth.valence.dtype)
    )
    seen = dataclasses.replace(predictions, valence=np.where(of_c, fast_N, predictions.valence))
    for folds, same in ((3, True), (1, False)):
        one, other = (
            temporal.smoothed(labels, seen, folds=folds).va[of_c] for labels in (truth, changed)
        )
        assert np.array_equal(one, other) == same


def test_the_report_pools_seeds(tables, tmp_path):
    truth, predictions = tables
    names = [f"{video}/{image}" for video, image in zip(truth.video, truth.image, strict=True)]
    truth = dataclasses.replace(truth, image=np.array(names, object))
    predictions = dataclasses.replace(predictions, image=np.array(names, object))
    labels = zip(names, truth.valence, truth.arousal, strict=True)
    (tmp_path / "validation_set_truth.txt").write_text(
        "\n".join(["image,...", *(f"{name},{v},{a},0" for name, v, a in labels)])
    )
    hard = [f"{name},blur,{int(number % 2)}" for number, name in enumerate(names)]
    (tmp_path / "validation_set_hard.txt").write_text("\n".join(["image,what,how", *hard]))
    exact = dataclasses.replace(predictions, valence=truth.valence, arousal=truth.arousal)
    noise_N = np.random.default_rng(1).normal(0, 2.0, 180)
    worse = dataclasses.replace(predictions, valence=predictions.valence + noise_N)
    first = dict.fromkeys((temporal.FRAMES, temporal.IN_SAMPLE, temporal.SMOOTHED), predictions) | {
        "gru": exact
    }
    second = dict.fromkeys(first, worse) | {"gru": exact}
    text = temporal.report(tmp_path, truth, [first, second], epochs=1)
    ccc = [concordance(truth.valence, np.clip(one.valence, -1, 1)) for one in (predictions, worse)]
    row = next(line for line in text.splitlines() if line.startswith("| valence"))
    cells = [cell.strip() for cell in row.split("|")[2:]]
    assert cells[0] == f"{np.mean(ccc):.3f}"
    assert cells[3] == "1.000"
    gain, low, high = (float(word.strip("[,]")) for word in cells[4].split())
    assert gain == pytest.approx(1.0 - np.mean(ccc), abs=6e-4)
    assert low <= gain <= high
    assert any(line.startswith("| hard |") and "1.000" in line for line in text.splitlines())
