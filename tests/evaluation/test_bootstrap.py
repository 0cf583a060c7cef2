"""Resampled scores against scores of resampled rows; intervals against SciPy and the truth."""

import dataclasses
import json

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions
from scipy import stats

from mtl_face.evaluation import bootstrap
from mtl_face.evaluation.joining import join
from mtl_face.evaluation.scoring import score
from mtl_face.evaluation.sums import Statistic

NUM_VIDEOS = 10


@pytest.fixture(scope="module")
def tables():
    """100 rows of 10 videos, of which one has no valence and arousal labels at all."""
    labels = make_labels(100, seed=3)
    labels.valence[:10] = np.nan
    labels.au[13, 4] = np.nan
    predictions = make_predictions(labels)
    rng = np.random.default_rng(0)
    std = rng.uniform(0.2, 0.8, (2, 100))
    return labels, dataclasses.replace(predictions, valence_std=std[0], arousal_std=std[1])


def value_at(result, path):
    for key in path.split("."):
        result = result[key]
    return result


def rows_of(labels, weights):
    """The rows of a set of videos, each as often as its video."""
    names = np.unique(labels.video)
    count = {name: int(number) for name, number in zip(names, weights, strict=True)}
    return np.repeat(np.arange(len(labels.frame)), [count[name] for name in labels.video])


def assert_scores_are(scores, number, labels, predictions, rows, au_mask):
    """Every resampled score is the score of the rows themselves."""
    # matched by key, every copy of a row finds its one prediction
    result = score(labels.take(rows), predictions, au_mask=au_mask)
    ece = {path for path in scores if "ece" in path}  # its bins are those of all rows
    assert ece
    for path in scores.keys() - ece:
        expected = value_at(result, path)
        got = scores[path][number]
        if expected is None:
            assert np.isnan(got), path
        else:
            assert got == pytest.approx(expected, abs=1e-9), path


@pytest.mark.parametrize("au_mask", ["all", "any"])
def test_resampled_scores_are_those_of_the_rows_drawn(tables, au_mask):
    labels, predictions = tables
    joined = join(labels, predictions, au_mask=au_mask)
    sample = bootstrap.resample(joined, num_resamples=6, seed=5)
    weights = bootstrap.draw_weights(NUM_VIDEOS, 6, 5)
    assert {"p", "va.score", "au.score", "expr.score", "au.pr_auc.au6"} <= sample.point.keys()
    assert {"va.uncertainty.risk_coverage.aurc", "au.uncertainty.nll"} <= sample.point.keys()
    for number in range(6):
        rows = rows_of(labels, weights[number])
        assert_scores_are(sample.resampled, number, labels, predictions, rows, au_mask)
    for video in range(NUM_VIDEOS):
        rows = rows_of(labels, np.arange(NUM_VIDEOS) != video)
        assert_scores_are(sample.left_out, video, labels, predictions, rows, au_mask)


def test_points_are_the_scores(tables):
    labels, predictions = tables
    result = score(labels, predictions)
    sample = bootstrap.resample(join(labels, predictions), num_resamples=2, seed=0)
    for path, point in sample.point.items():
        assert point == pytest.approx(value_at(result, path), abs=1e-9), path


def test_every_score_has_an_interval(tables):
    labels, predictions = tables
    result = score(labels, predictions, num_resamples=200)
    told = result["bootstrap"]
    assert (told["num_videos"], told["num_resamples"], told["unit"]) == (10, 200, "videos")
    intervals = told["intervals"]
    assert len(intervals) > 120
    for path in ("p", "va.score", "va.rmse.arousal", "au.per_au.au1", "expr.recall.Fear"):
        low, high = intervals[path]
        assert low < value_at(result, path) < high
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_seed_decides(tables):
    labels, predictions = tables
    first, again, other = (
        score(labels, predictions, num_resamples=50, seed=seed)["bootstrap"]["intervals"]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first["p"] != other["p"]


def test_weights_draw_videos_with_replacement():
    weights = bootstrap.draw_weights(7, 4000, 0)
    assert (weights.sum(axis=1) == 7).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.06)
    np.testing.assert_allclose(weights.var(axis=0), 6 / 7, atol=0.1)


def mean_statistic(values):
    """The mean as a statistic of one row a video."""
    sums = np.stack([np.ones_like(values), values], axis=1)
    return Statistic(sums, lambda s: {"mean": s[:, 1] / s[:, 0]})


def not_expanded(monkeypatch):
    monkeypatch.setattr(bootstrap, "_expanded", lambda num_videos: stats.norm.ppf(0.975))


def test_intervals_are_scipys(monkeypatch):
    """The variance of skewed values, whose resamples are biased: percentiles differ by far."""
    values = np.random.default_rng(0).exponential(size=40)
    sums = np.stack([np.ones(40), values, values**2], axis=1)
    variance = Statistic(sums, lambda s: {"var": s[:, 2] / s[:, 0] - (s[:, 1] / s[:, 0]) ** 2})
    weights = bootstrap.draw_weights(40, 20_000, 0)
    sample = bootstrap.resample_statistics([variance], weights)
    expected = stats.bootstrap(
        (values,), np.var, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    not_expanded(monkeypatch)
    ends = bootstrap.interval(sample, "var")
    deviation = sample.resampled["var"].std()
    assert ends == pytest.approx((expected.low, expected.high), abs=0.06 * deviation)


def concordance_of_clusters(rng, num_videos):
    """Moments of correlated pairs with effects of videos; concordance 0.6 in the limit."""
    size = rng.integers(5, 30, num_videos)
    video = np.repeat(np.arange(num_videos), size)
    x = rng.normal(size=num_videos)[video] + rng.normal(size=len(video))
    noise = rng.normal(size=num_videos)[video] + rng.normal(size=len(video))
    y = 0.6 * x + 0.8 * noise
    columns = (np.ones_like(x), x, y, x * x, y * y, x * y)
    sums = np.stack([np.bincount(video, weights=column) for column in columns], axis=1)

    def ccc(s):
        mx, my, xx, yy, xy = (s[:, i] / s[:, 0] for i in range(1, 6))
        return {"ccc": 2 * (xy - mx * my) / (xx - mx**2 + yy - my**2 + (mx - my) ** 2)}

    return Statistic(sums, ccc)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(300):
        weights = bootstrap.draw_weights(40, 500, seed)
        sample = bootstrap.resample_statistics([concordance_of_clusters(rng, 40)], weights)
        low, high = bootstrap.interval(sample, "ccc")
        held += low <= 0.6 <= high
    assert 0.89 <= held / 300 <= 0.98, held


def test_few_videos_widen_the_interval(monkeypatch):
    """Of 8 videos, plain intervals hold the truth far too rarely."""
    rng = np.random.default_rng(0)
    held = {True: 0, False: 0}
    for seed in range(200):
        weights = bootstrap.draw_weights(8, 300, seed)
        sample = bootstrap.resample_statistics([mean_statistic(rng.normal(size=8))], weights)
        for expand in held:
            with monkeypatch.context() as patch:
                if not expand:
                    not_expanded(patch)
                low, high = bootstrap.interval(sample, "mean")
            held[expand] += low <= 0.0 <= high
    assert held[True] / 200 >= 0.9
    assert held[True] - held[False] >= 8


def test_resampling_rows_instead_of_videos_would_be_too_sure():
    """The same data as if every row were a video of its own: the interval is far narrower."""
    rng = np.random.default_rng(0)
    effect = np.repeat(rng.normal(size=20), 50)
    values = effect + 0.1 * rng.normal(size=1000)
    video = np.repeat(np.arange(20), 50)
    sums = np.stack([np.bincount(video), np.bincount(video, weights=values)], axis=1)
    by_video = Statistic(sums.astype(float), mean_statistic(values).scores)
    width = []
    for statistic in (by_video, mean_statistic(values)):
        weights = bootstrap.draw_weights(len(statistic.sums), 500, 0)
        low, high = bootstrap.interval(bootstrap.resample_statistics([statistic], weights), "mean")
        width.append(high - low)
    assert width[0] > 4 * width[1]


def test_p_values_of_no_difference_are_uniform():
    rng = np.random.default_rng(0)
    values = []
    for seed in range(400):
        weights = bootstrap.draw_weights(40, 300, seed)
        statistic = mean_statistic(rng.normal(size=40))
        values.append(
            bootstrap.p_value(bootstrap.resample_statistics([statistic], weights), "mean")
        )
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(np.array(values) < 0.5) == pytest.approx(0.5, abs=0.08)


def test_p_value_is_below_alpha_where_the_interval_excludes_zero():
    rng = np.random.default_rng(1)
    seen = set()
    for seed in range(60):
        statistic = mean_statistic(rng.exponential(size=30) - 0.6)
        weights = bootstrap.draw_weights(30, 400, seed)
        sample = bootstrap.resample_statistics([statistic], weights)
        p = bootstrap.p_value(sample, "mean")
        if abs(p - 0.05) < 0.01:
            continue  # between two resamples
        low, high = bootstrap.interval(sample, "mean")
        assert (p < 0.05) == (low > 0 or high < 0)
        seen.add(p < 0.05)
    assert seen == {True, False}


def test_one_video_has_no_interval(tables):
    labels, predictions = tables
    rows = np.arange(10, 20)
    result = score(labels.take(rows), predictions, num_resamples=100)
    assert result["bootstrap"] is None
    assert "two videos" in result["unavailable"]["bootstrap"]


def test_a_score_that_is_often_undefined_has_no_interval():
    """One action unit is present in one video only: most resamples lack a positive there."""
    labels = make_labels(100, missing=0.0)
    labels.au[:, 0] = 0
    labels.au[3, 0] = 1
    intervals = score(labels, make_predictions(labels), num_resamples=100)["bootstrap"]["intervals"]
    assert intervals["au.pr_auc.au1"] is None
    assert intervals["au.pr_auc.au2"] is not None


def test_a_score_that_resampling_biases_has_no_interval_beside_it():
    """As a calibration error near its floor, which every resample exceeds."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.04, 0.06, 1000)
    left_out = {"x": rng.normal(0.03, 0.001, 30)}
    beside = bootstrap.Resampling({"x": 0.03}, {"x": values}, left_out)
    among = bootstrap.Resampling({"x": 0.045}, {"x": values}, left_out)
    assert bootstrap.interval(beside, "x") is None
    assert bootstrap.p_value(beside, "x") is None
    assert bootstrap.p_value(among, "x") is not None
    low, high = bootstrap.interval(among, "x")
    assert low < 0.045 < high


def test_many_rows_need_groups_and_stay_close():
    labels = make_labels(3000, seed=1)
    predictions = make_predictions(labels)
    result = score(labels, predictions)
    sample = bootstrap.resample(join(labels, predictions), num_resamples=2, seed=0)
    for path, point in sample.point.items():
        assert point == pytest.approx(value_at(result, path), abs=2e-3), path


def test_a_score_that_is_the_same_in_all_resamples_has_no_interval(tables):
    labels, predictions = tables
    never = dataclasses.replace(predictions, au_logits=predictions.au_logits * [0] + [-1.0] * 12)
    found = score(labels, never, num_resamples=50)
    assert found["au"]["per_au"]["au1"] == 0.0
    intervals = found["bootstrap"]["intervals"]
    assert intervals["au.per_au.au1"] is None
    assert intervals["au.score"] is None
    assert intervals["expr.score"] is not None
