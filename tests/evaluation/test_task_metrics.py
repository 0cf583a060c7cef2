"""Metrics of each task against scikit-learn, by hand, and on what undefines them."""

import dataclasses

import numpy as np
import pytest
from evaluation_tables import decisions_alone, make_labels, make_predictions
from scipy import stats
from sklearn import metrics as sklearn_metrics

from mtl_face.evaluation.scoring import score
from mtl_face.tables import FrameTable
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

# s-Aff-Wild2 validation set: rows of each expression, and positives of each action unit
VALIDATION_EXPRESSIONS = (1886, 487, 565, 1254, 3751, 1893, 1003, 4601)
VALIDATION_ROWS = 26_876
VALIDATION_POSITIVES = (5531, 2554, 5442, 8818, 13224, 11421, 8319, 782, 757, 808, 20427, 2934)


def labels_of(num_rows, **columns):
    """Labels of one video; tasks that are not given are missing."""
    return FrameTable.from_columns(
        dataset="set",
        video=["a"] * num_rows,
        frame=np.arange(num_rows),
        image=["a/1.jpg"] * num_rows,
        root="/images",
        sort=False,
        **columns,
    )


def test_constant_baselines_of_the_validation_set():
    truth_NA = np.arange(VALIDATION_ROWS)[:, None] < np.array(VALIDATION_POSITIVES)
    labels = labels_of(VALIDATION_ROWS, au=truth_NA)
    answers = decisions_alone(make_predictions(labels))
    answers.au_decisions[:] = 1
    au = score(labels, answers)["au"]
    assert au["constant_baseline"] == pytest.approx(0.359, abs=5e-4)
    assert au["score"] == pytest.approx(au["constant_baseline"], abs=1e-15)
    expected = (0.341, 0.174, 0.337, 0.494, 0.660, 0.596, 0.473, 0.057, 0.055, 0.058, 0.864, 0.197)
    for name, f1 in zip(AU_NAMES, expected, strict=True):
        assert au["constant_baseline_per_au"][name] == pytest.approx(f1, abs=6e-4)
    classes = np.repeat(np.arange(8), VALIDATION_EXPRESSIONS)
    labels = labels_of(len(classes), expression=classes)
    expr = score(labels, make_predictions(labels))["expr"]
    assert expr["constant_class"] == "Other"
    assert expr["constant_baseline"] == pytest.approx(0.057, abs=5e-4)
    assert au["constant_baseline"] + expr["constant_baseline"] == pytest.approx(0.416, abs=5e-4)


def test_counts_and_shares_are_scikit_learns():
    labels = make_labels(200)
    predictions = make_predictions(labels)
    result = score(labels, predictions)
    rows = labels.expression >= 0
    truth, decided = labels.expression[rows], predictions.expression[rows]
    expr = result["expr"]
    assert expr["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, decided))
    assert expr["confusion_matrix"] == sklearn_metrics.confusion_matrix(truth, decided).tolist()
    f1 = sklearn_metrics.f1_score(truth, decided, average=None)
    assert list(expr["per_class"].values()) == pytest.approx(f1)
    rows = ~np.isnan(labels.au).any(axis=1)
    for i, name in enumerate(AU_NAMES):
        truth, decided = labels.au[rows, i], predictions.au[rows, i]
        counts = sklearn_metrics.confusion_matrix(truth, decided).ravel()
        names = ("true_negative", "false_positive", "false_negative", "true_positive")
        assert result["au"]["confusion"][name] == dict(zip(names, counts.tolist(), strict=True))
        assert result["au"]["prevalence"][name] == pytest.approx(truth.mean())
        assert result["au"]["pr_auc"][name] == pytest.approx(
            sklearn_metrics.average_precision_score(truth, predictions.au_logits[rows, i])
        )
    mean = np.mean(list(result["au"]["pr_auc"].values()))
    assert result["au"]["mean_pr_auc"] == pytest.approx(mean)


def test_errors_and_signs_of_valence():
    labels = labels_of(4, valence=[-1, 0, 0.5, 0.5], arousal=[0] * 4)
    predictions = make_predictions(labels)
    predictions.valence[:] = [-0.1, 0.2, 3.0, -0.1]
    va = score(labels, predictions)["va"]
    assert va["sagr"]["valence"] == 0.5
    expected = sklearn_metrics.root_mean_squared_error(labels.valence, [-0.1, 0.2, 1.0, -0.1])
    assert va["rmse"]["valence"] == pytest.approx(expected)
    assert va["parts"]["arousal"] is None  # all labels of it are equal
    assert va["arousal"] == 0.0


def test_coverage_of_honest_normal_predictions():
    rng = np.random.default_rng(0)
    mean, std = rng.uniform(-0.3, 0.3, (20_000, 2)), rng.uniform(0.05, 0.2, (20_000, 2))
    truth = rng.normal(mean, std)
    labels = labels_of(20_000, valence=truth[:, 0], arousal=truth[:, 1])
    predictions = dataclasses.replace(
        make_predictions(labels),
        **{"valence": mean[:, 0], "valence_std": std[:, 0]},
        **{"arousal": mean[:, 1], "arousal_std": std[:, 1]},
    )
    result = score(labels, predictions)["va"]["uncertainty"]
    for name in ("valence", "arousal"):
        for percent, share in result["coverage"][name].items():
            assert share == pytest.approx(float(percent) / 100, abs=0.012)
    curve = result["risk_coverage"]
    assert curve["risk"][0] < curve["risk"][-1]
    error = ((mean - truth) ** 2).mean()
    assert curve["risk"][-1] == pytest.approx(error, rel=1e-6)  # labels are float32


def test_several_annotators_spread():
    """Ranks are SciPy's, ties included; a rating is judged as the ratings themselves would be."""
    rng = np.random.default_rng(3)
    count = 60
    rating = rng.normal(0, rng.choice([0.1, 0.2, 0.3], (count, 1, 2)), (count, 4, 2))
    labels = labels_of(count, valence=rating[:, :, 0].mean(1), arousal=rating[:, :, 1].mean(1))
    spread = np.column_stack([rating.std(axis=1, ddof=1).round(2), np.full(count, 4)])
    spread[::3] = np.nan
    videos = np.repeat(np.array(["a", "b"], object), count // 2)
    labels = dataclasses.replace(labels, raters=spread.astype(np.float32), video=videos)
    labels.valence[1] = np.nan
    std, mean = rng.uniform(0.05, 0.3, (count, 2)).round(2), rng.normal(0, 0.1, (count, 2))
    predictions = dataclasses.replace(
        make_predictions(labels),
        **{"valence": mean[:, 0], "valence_std": std[:, 0]},
        **{"arousal": mean[:, 1], "arousal_std": std[:, 1]},
    )
    result = score(labels, predictions, num_resamples=20)
    found = result["va"]["uncertainty"]["raters"]
    rows = ~np.isnan(labels.raters[:, 0]) & ~np.isnan(labels.valence)
    assert found["num_valid"] == rows.sum() == 39
    for place, name in enumerate(("valence", "arousal")):
        ranked = stats.spearmanr(std[rows, place], spread[rows, place]).statistic
        assert found["rank_correlation"][name] == pytest.approx(ranked, abs=1e-6)
        y = labels.va[rows, place].astype(np.float64)
        every = rating[rows, :, place]
        every = y[:, None] + (every - every.mean(1, keepdims=True)) * (  # the rounded spread's
            spread[rows, place, None] / every.std(1, ddof=1, keepdims=True)
        )
        square = (every - mean[rows, place, None]) ** 2
        assert found["rmse"][name] == pytest.approx(np.sqrt(square.mean()), rel=1e-5)
        density = stats.norm.logpdf(every, mean[rows, place, None], std[rows, place, None])
        assert found["nll"][name] == pytest.approx(-density.mean(), rel=1e-5)
        assert found["mean_std"][name] == pytest.approx(spread[rows, place].mean(), rel=1e-5)
        assert f"va.uncertainty.raters.rank_correlation.{name}" in result["bootstrap"]["intervals"]
    shared = dataclasses.replace(predictions, valence_std=np.full(count, 0.2))
    found = score(labels, shared)["va"]["uncertainty"]["raters"]
    assert found["rank_correlation"]["valence"] is None  # one for all has no order
    none = dataclasses.replace(labels, raters=np.full_like(labels.raters, np.nan))
    assert "raters" not in score(none, predictions)["va"]["uncertainty"]


def test_losses_of_probabilities_are_scikit_learns():
    labels = make_labels(200, missing=0.0)
    predictions = make_predictions(labels)
    result = score(labels, predictions)
    assert result["expr"]["uncertainty"]["nll"] == pytest.approx(
        sklearn_metrics.log_loss(labels.expression, predictions.expression_probabilities)
    )
    for i, name in enumerate(AU_NAMES):
        found = result["au"]["uncertainty"]["per_au"][name]
        truth, probability = labels.au[:, i], predictions.au_probabilities[:, i]
        assert found["nll"] == pytest.approx(sklearn_metrics.log_loss(truth, probability))
        assert found["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(truth, probability))
    for measure in ("nll", "brier", "ece", "ece_debiased"):
        each = [found[measure] for found in result["au"]["uncertainty"]["per_au"].values()]
        assert result["au"]["uncertainty"][measure] == pytest.approx(np.mean(each))


def test_decisions_that_are_not_the_likeliest_class():
    """Confidence is the probability of what was decided, so a bias lowers it."""
    labels = labels_of(50, expression=[1] * 20 + [0] * 30)
    logits = np.log(np.tile([0.5, 0.3, 0.2, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9], (50, 1)))
    predictions = dataclasses.replace(
        make_predictions(labels),
        expression_logits=logits,
        metadata={"decisions": {"expression_biases": [0.0, 9.0, *[0.0] * 6]}},
    )
    result = score(labels, predictions)["expr"]["uncertainty"]
    assert result["reliability"]["confidence"] == pytest.approx([0.3], abs=1e-6)
    assert result["reliability"]["frequency"] == pytest.approx([0.4])
    assert result["ece"] == pytest.approx(0.1, abs=1e-6)
    assert result["risk_coverage"]["aurc"] == pytest.approx(0.6)


def test_scores_of_no_rows():
    labels = labels_of(3)
    predictions = dataclasses.replace(
        make_predictions(labels), valence_std=np.ones(3), arousal_std=np.ones(3)
    )
    result = score(labels, predictions)
    for task in ("va", "au", "expr"):
        assert result[task]["uncertainty"] is None
        assert result[task]["score"] is None
        assert "no row counts" in result["unavailable"][f"{task}.uncertainty"]
    assert result["va"]["rmse"] == {"valence": None, "arousal": None}
    assert result["au"]["per_au"] == dict.fromkeys(AU_NAMES)
    assert result["expr"]["recall"] == dict.fromkeys(EXPRESSION_NAMES)
    assert result["expr"]["pr_auc"] == dict.fromkeys(EXPRESSION_NAMES)
