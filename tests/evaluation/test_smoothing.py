"""Smoothing against a frame by frame reference that looks at every pair of rows."""

import dataclasses
import math
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.evaluation import smoothing as smoothing_lib
from mtl_face.evaluation.smoothing import Smoothing, box_means, gaussian_means, smooth
from mtl_face.tables import PredictionError, PredictionTable, row_codes, row_name

TASKS = {"va": ("valence", "arousal"), "au": ("au_logits",), "expr": ("expression_logits",)}


def sigmoid(x):
    return 1 / (1 + np.exp(-x)) if x >= 0 else np.exp(x) / (1 + np.exp(x))


def task_values(table, row, task):
    return np.concatenate([np.atleast_1d(getattr(table, name)[row]) for name in TASKS[task]])


def reference(table, smoothing):
    """Values of each task after smoothing, row by row and image by image."""
    result = {}
    for task in TASKS:
        images = {}
        for row in range(len(table)):
            values = task_values(table, row, task)
            if not np.isnan(values).any():
                if smoothing.on == "probabilities" and task == "au":
                    values = np.array([[sigmoid(v), sigmoid(-v)] for v in values])
                if smoothing.on == "probabilities" and task == "expr":
                    values = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
                key = (table.dataset[row], table.video[row], int(table.frame[row]))
                images.setdefault(key, []).append(values)
        means = {key: np.mean(values, axis=0) for key, values in images.items()}
        result[task] = []
        for row in range(len(table)):
            own = task_values(table, row, task)
            if np.isnan(own).any() or smoothing.windows[task] <= (smoothing.kernel == "box"):
                result[task].append(own)
                continue
            dataset, video, frame = table.dataset[row], table.video[row], int(table.frame[row])
            frames = sorted(f for d, v, f in means if (d, v) == (dataset, video))
            total, weights = 0.0, 0.0
            for place, other in enumerate(frames):
                away = other - frame if smoothing.unit == "frames" else place - frames.index(frame)
                weight = kernel_weight(away, smoothing.windows[task], smoothing.kernel)
                total = total + weight * means[dataset, video, other]
                weights += weight
            mean = total / weights
            if smoothing.on == "probabilities" and task == "au":
                mean = np.array([math.log(p) - math.log(q) for p, q in mean])
            if smoothing.on == "probabilities" and task == "expr":
                mean = np.log(mean)
            result[task].append(mean)
    return {task: np.array(rows) for task, rows in result.items()}


def kernel_weight(away, window, kernel):
    if kernel == "gaussian":
        return math.exp(-0.5 * (away / window) ** 2) if abs(away) < 1e150 else 0.0
    before = math.floor(window / 2)
    return 1.0 if -before <= away <= window - before - 1 else 0.0


@st.composite
def cases(draw):
    num_rows = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    span = draw(st.sampled_from([3, 60, 1000, 10**9]))
    table = PredictionTable(
        dataset=rng.choice(["a", "b"], num_rows),
        video=rng.choice(["1", "2", "22"], num_rows),
        frame=rng.integers(-span, span, num_rows),
        image=np.full(num_rows, "x.jpg"),
        valence=rng.normal(size=num_rows),
        arousal=rng.normal(size=num_rows),
        au_logits=rng.normal(0, 4, (num_rows, 12)),
        expression_logits=rng.normal(0, 4, (num_rows, 8)),
    )
    table.valence[rng.random(num_rows) < 0.2] = np.nan
    table.au_logits[rng.random(num_rows) < 0.2] = np.nan
    table.expression_logits[rng.random(num_rows) < 0.2, 3] = np.nan
    if draw(st.booleans()):  # each video by itself, as files have them, in any order
        place = rng.permutation(num_rows)[row_codes(table.dataset, table.video)]
        table = table.take(np.argsort(place, kind="stable"))
    kernel = draw(st.sampled_from(["box", "gaussian"]))
    sizes = (
        st.integers(0, 70) | st.sampled_from([10**3, 10**9])
        if kernel == "box"
        else st.floats(0.05, 300) | st.just(0.0)
    )
    smoothing = Smoothing(
        kernel=kernel,
        unit=draw(st.sampled_from(["frames", "samples"])),
        on=draw(st.sampled_from(["logits", "probabilities"])),
        windows={task: draw(sizes) for task in TASKS},
    )
    return table, smoothing


@settings(deadline=None, derandomize=True, max_examples=100)
@given(cases(), st.sampled_from([1, 7, 20_000]))
def test_against_all_pairs(case, rows_at_once):
    table, smoothing = case
    with mock.patch.object(smoothing_lib, "_BLOCK", rows_at_once):
        smoothed = smooth(table, smoothing)
    for task, expected in reference(table, smoothing).items():
        actual = np.column_stack([getattr(smoothed, name) for name in TASKS[task]])
        np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-7)


def test_memory_beside_the_result_is_that_of_some_videos():
    num = 200_000
    names = np.random.default_rng(0).permutation([f"{i:03}" for i in range(100)])
    table = PredictionTable(
        dataset=np.full(num, "d"),
        video=np.repeat(names, num // 100),
        frame=np.tile(np.arange(num // 100), 100),
        image=np.full(num, "x"),
        valence=np.zeros(num),
        arousal=np.zeros(num),
        au_logits=np.zeros((num, 12)),
        expression_logits=np.zeros((num, 8)),
    )
    result_size = 22 * 8 * num
    tracemalloc.start()
    try:
        smooth(table, Smoothing(windows=ALL))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * result_size  # 2.5 when all videos were smoothed at once


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 400), st.integers(0, 6), st.floats(0.3, 400), st.integers(0, 2**32 - 1))
def test_means_of_dense_and_sparse_samples(num, spacing, size, seed):
    rng = np.random.default_rng(seed)
    position = np.cumsum(rng.integers(1, 2 + spacing**2, num))
    value = rng.normal(3, 1, (num, 11))
    away = position[None] - position[:, None]
    weight = np.exp(-0.5 * (away / size) ** 2)
    expected = weight @ value / weight.sum(axis=1)[:, None]
    actual = gaussian_means(position, size)(value)
    np.testing.assert_allclose(actual, expected, rtol=1e-10)
    window = math.ceil(size)
    inside = (away >= -(window // 2)) & (away <= (window - 1) // 2)
    expected = inside @ value / inside.sum(axis=1)[:, None]
    np.testing.assert_allclose(box_means(position, window)(value), expected, 1e-13)


def row_of_frames(frames, valence, **changes):
    n = len(frames)
    return PredictionTable(
        dataset=np.full(n, "d"),
        video=np.full(n, "v"),
        frame=np.array(frames),
        image=np.full(n, "x.jpg"),
        valence=np.array(valence, np.float64),
        arousal=np.zeros(n),
        au_logits=np.zeros((n, 12)),
        expression_logits=np.zeros((n, 8)),
        **changes,
    )


ALL = {"va": 3, "au": 3, "expr": 3}


def test_a_gap_is_not_bridged_in_frames_and_is_in_samples():
    table = row_of_frames([1, 2, 50, 51], [0.0, 0.0, 1.0, 1.0])
    frames = smooth(table, Smoothing(unit="frames", windows=ALL))
    np.testing.assert_array_equal(frames.valence, table.valence)
    samples = smooth(table, Smoothing(unit="samples", windows=ALL))
    np.testing.assert_allclose(samples.valence, [0, 1 / 3, 2 / 3, 1])


def test_a_missing_frame_shifts_nothing_and_stays_missing():
    whole = row_of_frames(range(9), np.arange(9.0) ** 2)
    kept = whole.take(np.array([0, 1, 2, 4, 5, 6, 7, 8]))
    with_nan = dataclasses.replace(whole, valence=np.where(whole.frame == 3, np.nan, whole.valence))
    for unit in ("frames", "samples"):
        smoothing = Smoothing(unit=unit, windows=ALL)
        absent, missing = smooth(kept, smoothing), smooth(with_nan, smoothing)
        np.testing.assert_array_equal(np.delete(missing.valence, 3), absent.valence)
        assert np.isnan(missing.valence[3])
    assert smooth(kept, Smoothing(windows=ALL)).valence[3] == (16 + 25) / 2


def test_the_same_image_twice_counts_once():
    table = row_of_frames([1, 2, 2, 2, 3], [0.0, 3.0, 3.0, 3.0, 6.0])
    np.testing.assert_allclose(
        smooth(table, Smoothing(windows=ALL)).valence, [1.5, 3.0, 3.0, 3.0, 4.5]
    )


def test_order_of_rows_does_not_matter():
    table = make_predictions(make_labels(80))
    rows = np.random.default_rng(0).permutation(80)
    for kernel in ("box", "gaussian"):
        smoothing = Smoothing(kernel=kernel, windows={"va": 9, "au": 4, "expr": 30})
        expected = smooth(table, smoothing).take(rows)
        actual = smooth(table.take(rows), smoothing)
        np.testing.assert_array_equal(actual.au_logits, expected.au_logits)
        np.testing.assert_array_equal(actual.valence, expected.valence)


def test_no_digit_is_lost_beside_large_values():
    """What prefix sums over the whole axis get wrong: tiny values after huge ones."""
    valence = np.concatenate([np.full(100, 1e15), np.full(100, 1e-3)])
    smoothed = smooth(row_of_frames(range(200), valence), Smoothing(windows={"va": 30}))
    np.testing.assert_allclose(smoothed.valence[120:], 1e-3, rtol=1e-14)


def test_windows_of_zero_and_one_change_nothing():
    table = make_predictions(make_labels(30))
    for windows in ({}, {"va": 1, "au": 0, "expr": 1}):
        same = smooth(table, Smoothing(windows=windows, on="probabilities"))
        assert same.metadata["smoothing"] is None
        np.testing.assert_array_equal(same.au_logits, table.au_logits)
    only_va = smooth(table, Smoothing(windows={"va": 30}, on="values"))
    np.testing.assert_array_equal(only_va.expression_logits, table.expression_logits)
    assert (only_va.valence != table.valence).any()
    assert only_va.metadata["smoothing"] == {
        "kernel": "box", "unit": "frames", "on": "logits",
        "windows": {"va": 30.0, "au": 0.0, "expr": 0.0},
    }  # fmt: skip
    assert Smoothing(**only_va.metadata["smoothing"]) == Smoothing(windows={"va": 30})


def test_standard_deviations_are_smoothed_with_the_values():
    table = row_of_frames(
        [1, 2, 3], [0.0, 0.0, 0.0], valence_std=np.array([1.0, 2, 6]), arousal_std=np.ones(3)
    )
    smoothed = smooth(table, Smoothing(windows=ALL))
    np.testing.assert_allclose(smoothed.valence_std, [1.5, 3, 4])


def test_columns_of_several_blocks_are_each_smoothed():
    """Predicted and epistemic standard deviations too; what one video holds reaches no other."""
    rng = np.random.default_rng(6)
    num = 60
    fields = {
        "valence": (), "arousal": (), "au_logits": (12,), "expression_logits": (8,),
        "valence_std": (), "arousal_std": (), "valence_epistemic_std": (),
        "arousal_epistemic_std": (), "au_epistemic_std": (12,), "expression_epistemic_std": (8,),
    }  # fmt: skip
    table = PredictionTable(
        dataset=np.full(num, "d"),
        video=np.repeat(["v10", "v2", "v1"], num // 3),
        frame=np.tile(np.arange(num // 3), 3),
        image=np.full(num, "x.jpg"),
        **{name: rng.random((num, *shape)) for name, shape in fields.items()},
    )
    with mock.patch.object(smoothing_lib, "_BLOCK", 20):
        assert len(smoothing_lib._blocks(row_codes(table.dataset, table.video))) == 3
        smoothed = smooth(table, Smoothing(windows=ALL))
    alone = [
        smooth(table.take(np.arange(begin, begin + 20)), Smoothing(windows=ALL))
        for begin in (0, 20, 40)
    ]
    for name in fields:
        expected = np.concatenate([getattr(part, name) for part in alone])
        np.testing.assert_allclose(getattr(smoothed, name), expected, 1e-12, err_msg=name)
        assert not np.array_equal(getattr(smoothed, name), getattr(table, name)), name


def test_what_cannot_be_smoothed():
    table = make_predictions(make_labels(30))
    once = smooth(table, Smoothing(windows=ALL))
    with pytest.raises(PredictionError, match="smoothed before"):
        smooth(once, Smoothing(windows=ALL))
    decided = dataclasses.replace(table, metadata={"decisions": {"au_thresholds": [0.1] * 12}})
    with pytest.raises(PredictionError, match="calibrated before"):
        smooth(decided, Smoothing(windows=ALL))
    last = len(table) - 1  # of another video than the first row
    infinite = dataclasses.replace(table, valence=np.where(np.arange(30) == last, np.inf, 0.0))
    with (
        mock.patch.object(smoothing_lib, "_BLOCK", 1),
        pytest.raises(PredictionError, match=f"prediction of {row_name(table, last)} is infinite"),
    ):
        smooth(infinite, Smoothing(windows=ALL))
    with pytest.raises(PredictionError, match="frame number"):
        smooth(row_of_frames([-(2**63), 2**63 - 1], [0, 1]), Smoothing(windows=ALL))


@pytest.mark.parametrize(
    "wrong",
    [
        {"windows": {"va": -1}},
        {"windows": {"va": 2.5}},
        {"windows": {"va": 1e10}},
        {"windows": {"va": float("nan")}},
        {"windows": {"faces": 3}},
        {"windows": ALL, "kernel": "hann"},
        {"windows": ALL, "unit": "seconds"},
        {"windows": ALL, "on": "decisions"},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=r"window|kernel|unit|on"):
        Smoothing(**wrong)


def test_an_empty_table():
    empty = make_predictions(make_labels(3)).take(np.zeros(0, np.int64))
    for kernel in ("box", "gaussian"):
        assert len(smooth(empty, Smoothing(windows=ALL, kernel=kernel))) == 0


@pytest.mark.slow
def test_a_million_frames_in_seconds():
    import time

    num = 1_000_000
    rng = np.random.default_rng(0)
    table = PredictionTable(
        dataset=np.full(num, "d"),
        video=np.repeat([f"video{i}" for i in range(500)], num // 500),
        frame=np.tile(np.cumsum(rng.integers(1, 9, num // 500)), 500),
        image=np.full(num, "x"),
        valence=rng.normal(size=num),
        arousal=rng.normal(size=num),
        au_logits=rng.normal(size=(num, 12)),
        expression_logits=rng.normal(size=(num, 8)),
    )
    for kernel, window in [("box", 30), ("box", 3000), ("gaussian", 10), ("gaussian", 1000)]:
        begin = time.process_time()
        smooth(table, Smoothing(kernel=kernel, windows=dict.fromkeys(TASKS, window)))
        assert time.process_time() - begin < 60, (kernel, window)


def test_a_window_is_named_with_the_digits_that_matter():
    with pytest.raises(ValueError, match=r"window 2\.0000001 of va is not whole"):
        Smoothing(windows={"va": 2.0000001})
