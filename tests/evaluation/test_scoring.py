import dataclasses
import json

import numpy as np
import pytest
from evaluation_tables import decisions_alone, make_labels, make_predictions, without
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from mtl_face.errors import UserError
from mtl_face.evaluation.scoring import ceilings, number, score, selection_words, summary


def independent_score(labels, predictions, au_rule):
    """The score from scikit-learn and NumPy's covariance, row by row masks."""
    va_rows = [
        i for i in range(len(labels.frame)) if labels.valence[i] >= -1 and labels.arousal[i] >= -1
    ]
    ccc = []
    for name in ("valence", "arousal"):
        x = getattr(labels, name)[va_rows].astype(np.float64)
        y = np.clip(getattr(predictions, name)[va_rows], -1, 1)
        c = np.cov(x, y, ddof=0)
        ccc.append(2 * c[0, 1] / (c[0, 0] + c[1, 1] + (x.mean() - y.mean()) ** 2))
    expr_rows = [i for i, e in enumerate(labels.expression) if e >= 0]
    decided = predictions.expression_logits[expr_rows].argmax(1)
    expr = f1_score(
        labels.expression[expr_rows], decided, average="macro", labels=range(8), zero_division=0
    )
    au = []
    for a in range(12):
        rows = [
            i
            for i in range(len(labels.frame))
            if (np.all(labels.au[i] >= 0) if au_rule == "all" else labels.au[i, a] >= 0)
        ]
        au.append(f1_score(labels.au[rows, a], predictions.au_logits[rows, a] > 0, zero_division=0))
    return np.mean(ccc), np.mean(au), expr


@pytest.mark.parametrize("au_rule", ["all", "any"])
def test_score_is_the_independent_one(au_rule):
    labels = make_labels(200)
    labels.au[3, 4] = np.nan
    labels.au[7, 0] = np.nan
    predictions = make_predictions(labels)
    result = score(labels, predictions, au_mask=au_rule)
    va, au, expr = independent_score(labels, predictions, au_rule)
    assert result["va"]["score"] == pytest.approx(va, abs=1e-12)
    assert result["au"]["score"] == pytest.approx(au, abs=1e-12)
    assert result["expr"]["score"] == pytest.approx(expr, abs=1e-12)
    assert result["p"] == pytest.approx(va + au + expr, abs=1e-12)


def test_masks_count_what_is_labelled():
    labels = make_labels(100, missing=0.0)
    labels.valence[:10] = np.nan
    labels.arousal[5:20] = np.nan
    labels.expression[:7] = -1
    labels.au[:4] = np.nan
    labels.au[4, 3] = np.nan
    predictions = make_predictions(labels)
    official = score(labels, predictions)
    assert official["va"]["num_valid"] == 80
    assert official["expr"]["num_valid"] == 93
    assert official["au"]["num_valid"] == 95
    assert set(official["au"]["num_valid_per_au"].values()) == {95}
    each = score(labels, predictions, au_mask="any")
    assert each["au"]["num_valid"] == 96
    assert each["au"]["num_valid_per_au"]["au6"] == 95
    assert each["au"]["num_valid_per_au"]["au1"] == 96
    assert (official["au"]["mask"], each["au"]["mask"]) == ("all", "any")


def test_values_of_rows_without_a_label_do_not_matter():
    labels = make_labels(100)
    predictions = make_predictions(labels)
    before = score(labels, predictions)
    predictions.valence[np.isnan(labels.valence)] = 1e6
    predictions.au_logits[np.isnan(labels.au).any(axis=1)] *= -1
    predictions.expression_logits[labels.expression < 0] *= -1
    assert score(labels, predictions) == before


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.permutations(range(40)), st.permutations(range(40)))
def test_order_of_rows_does_not_matter(label_order, prediction_order):
    labels = make_labels(40)
    predictions = make_predictions(labels)
    shuffled = score(
        labels.take(np.array(label_order)), predictions.take(np.array(prediction_order))
    )
    expected = score(labels, predictions)
    assert shuffled["p"] == pytest.approx(expected["p"], abs=1e-12)
    assert shuffled["expr"]["confusion_matrix"] == expected["expr"]["confusion_matrix"]
    for key in ("per_au", "precision", "recall", "confusion", "num_valid_per_au"):
        assert shuffled["au"][key] == expected["au"][key]
    assert shuffled["au"]["pr_auc"] == pytest.approx(expected["au"]["pr_auc"], abs=1e-12)


def test_duplicated_rows_weigh_twice():
    labels = make_labels(40, missing=0.0)
    twice = labels.take(np.concatenate([np.arange(40), np.arange(5)]))
    result = score(twice, make_predictions(labels))
    assert result["num_rows"] == 45
    assert result["expr"]["num_valid"] == 45
    assert sum(result["expr"]["support"].values()) == 45


def test_perfect_predictions_score_three():
    labels = make_labels(200, missing=0.0)
    assert score(labels, make_predictions(labels, noise=0.0))["p"] == pytest.approx(3.0)


def test_valence_and_arousal_are_clipped_before_scoring():
    labels = make_labels(50, missing=0.0)
    labels.valence[:] = np.where(labels.valence > 0, 1.0, -1.0)
    predictions = make_predictions(labels, noise=0.0)
    predictions.valence[:] *= 40
    assert score(labels, predictions)["va"]["valence"] == pytest.approx(1.0)


def test_constant_baseline_is_what_the_best_constant_scores():
    labels = make_labels(120)
    predictions = make_predictions(labels)
    result = score(labels, predictions)
    candidates = []
    for expression in range(8):
        predictions.valence[:] = 0.3
        predictions.arousal[:] = -0.2
        predictions.au_logits[:] = 1.0
        predictions.expression_logits[:] = np.eye(8)[expression]
        candidates.append(score(labels, predictions))
    best = max(candidates, key=lambda candidate: candidate["p"])
    assert result["constant_baseline_p"] == pytest.approx(best["p"], abs=1e-12)
    for task in ("va", "au", "expr"):
        assert result[task]["constant_baseline"] == pytest.approx(best[task]["score"], abs=1e-12)


@pytest.mark.parametrize("task", ["va", "au", "expr"])
def test_a_task_without_labels_has_no_score_and_neither_has_the_sum(task):
    labels = make_labels(50)
    column = {"va": labels.valence, "au": labels.au, "expr": labels.expression}[task]
    column[...] = -1 if task == "expr" else np.nan
    result = score(labels, make_predictions(labels))
    assert result[task]["score"] is None
    assert result[task]["constant_baseline"] is None
    assert result[task]["num_valid"] == 0
    assert result["p"] is None
    assert result["constant_baseline_p"] is None
    others = {"va", "au", "expr"} - {task}
    assert all(result[other]["score"] is not None for other in others)


def test_an_action_unit_without_labels_is_left_out_of_the_mean():
    labels = make_labels(50, missing=0.0)
    labels.au[:, 2:] = np.nan
    predictions = make_predictions(labels)
    each = score(labels, predictions, au_mask="any")["au"]
    assert each["per_au"]["au4"] is None
    assert each["score"] == pytest.approx((each["per_au"]["au1"] + each["per_au"]["au2"]) / 2)
    assert score(labels, predictions)["au"]["score"] is None


def test_result_is_json():
    labels = make_labels(50)
    result = score(labels, make_predictions(labels))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert {"p", "va", "au", "expr", "constant_baseline_p"} <= set(result)


def test_missing_predictions_are_refused_or_counted():
    labels = make_labels(50)
    predictions = make_predictions(labels).take(np.arange(40))
    with pytest.raises(UserError, match="10 of 50"):
        score(labels, predictions)
    lenient = score(labels, predictions, lenient=True)
    assert (lenient["num_rows"], lenient["num_unpredicted"]) == (40, 10)
    whole = score(labels.take(np.arange(40)), predictions)
    assert lenient["p"] == whole["p"]


def test_predictions_that_are_not_finite_are_refused():
    labels = make_labels(50)
    predictions = make_predictions(labels)
    predictions.au_logits[12, 3] = np.nan
    with pytest.raises(UserError, match=r"1 of 50 .*/video1 frame 7"):
        score(labels, predictions)


def test_markers_of_missing_labels_are_refused():
    labels = make_labels(50, missing=0.0)
    predictions = make_predictions(labels)
    leaked = dataclasses.replace(labels, valence=np.full(50, -5.0, np.float32))
    with pytest.raises(ValueError, match=r"outside \[-1, 1\]"):
        score(leaked, predictions)
    labels.au[0] = -1
    with pytest.raises(ValueError, match="other than the classes"):
        score(labels, predictions)


def test_unknown_mask_rule_is_refused():
    labels = make_labels(5)
    with pytest.raises(ValueError, match="au_mask"):
        score(labels, make_predictions(labels), au_mask="most")  # type: ignore[arg-type]


def test_uncertainty_before_and_after_calibration():
    labels = make_labels(300)
    predictions = make_predictions(labels)
    cooler = dataclasses.replace(
        predictions,
        au_logits=predictions.au_logits / 2,
        expression_logits=predictions.expression_logits / 2,
    )
    result = score(labels, cooler, before_calibration=predictions)
    plain = score(labels, predictions)
    for task in ("au", "expr"):
        assert result[task]["uncertainty_before_calibration"] == plain[task]["uncertainty"]
        assert result[task]["uncertainty"] != plain[task]["uncertainty"]
        assert result[task]["score"] == plain[task]["score"]
        assert f"{task}.uncertainty_before_calibration" not in result["unavailable"]
        assert plain[task]["uncertainty_before_calibration"] is None
        assert f"{task}.uncertainty_before_calibration" in plain["unavailable"]
    va = "va.uncertainty_before_calibration"
    assert result["va"]["uncertainty_before_calibration"] is None
    assert "valence_std" in result["unavailable"][va]


def test_what_is_null_has_a_reason():
    labels = make_labels(50)
    labels.expression[:] = -1
    result = score(labels, make_predictions(labels))
    assert result["va"]["uncertainty"] is None
    assert "valence_std" in result["unavailable"]["va.uncertainty"]
    assert "no row" in result["unavailable"]["expr.score"]
    assert "no row" in result["unavailable"]["expr.uncertainty"]
    assert "au.uncertainty" not in result["unavailable"]


@pytest.mark.parametrize("std", [0.0, -1.0, np.nan, np.inf])
def test_standard_deviations_that_are_none_are_refused(std):
    labels = make_labels(50)
    ones = np.ones(50)
    predictions = dataclasses.replace(
        make_predictions(labels), valence_std=ones, arousal_std=np.where(ones.cumsum() == 3, std, 1)
    )
    with pytest.raises(UserError, match=r"1 of 50 .*standard deviation.*/video0 frame 7"):
        score(labels, predictions)


def test_rows_that_are_silent_on_a_task():
    labels = make_labels(100, missing=0.0)
    predictions = make_predictions(labels)
    answers = decisions_alone(predictions)
    answers.expression_decisions[:10] = -1
    answers.au_decisions[5, 3] = -1
    answers.valence[:20] = np.nan
    with pytest.raises(UserError, match="20 labelled rows have no answer for va"):
        score(labels, answers)
    result = score(labels, answers, lenient=True)
    assert {task: result[task]["num_unanswered"] for task in ("va", "au", "expr")} == {
        "va": 20,
        "au": 1,
        "expr": 10,
    }
    rest = score(labels.take(np.arange(20, 100)), predictions)
    assert result["va"]["score"] == rest["va"]["score"]
    answers.expression_decisions[:] = -1
    silent = score(labels, answers, lenient=True)
    assert silent["expr"]["score"] is None
    assert "no answer for expr" in silent["unavailable"]["expr.score"]


def test_summary_shows_scores_intervals_and_what_was_left_out():
    labels = make_labels(100)
    predictions = make_predictions(labels)
    result = score(labels, predictions, num_resamples=50)
    text = "\n".join(summary(result))
    assert "95% interval over 10 videos (50 resamples)" in text
    for path, value in (("p", result["p"]), ("au.score", result["au"]["score"])):
        low, high = result["bootstrap"]["intervals"][path]
        assert f"{value:.4f} [{low:.4f}, {high:.4f}]" in text
    assert "left out" not in text
    lenient = score(labels, predictions.take(np.arange(90)), lenient=True)
    assert "left out: 10 labelled rows" in "\n".join(summary(lenient))
    labels.expression[:] = -1
    result = score(labels, predictions, num_resamples=50)
    first, *_, last = summary(result)
    va, au = (number(result[task]["score"]) for task in ("va", "au"))
    assert first == (
        "P is not defined: no expression labels; defined: valence/arousal mean CCC "
        f"{va}, action units mean F1 {au}"
    )
    assert last.split(maxsplit=2) == ["P", "sum", "not defined: no expression labels"]
    labels = labels.only_tasks(())
    assert summary(score(labels, without(predictions, "au")))[0] == (
        "P is not defined: no VA labels, no AU labels in training, no expression labels; "
        "nothing else is either"
    )


SELECTION = {
    "criterion": "P",
    "looks": 20,
    "step": 40,
    "score": 0.85,
    "last_step": 100,
    "last_score": 0.77,
}


def test_a_score_at_the_best_of_several_looks_says_so():
    labels = make_labels(60)
    result = score(labels, make_predictions(labels)) | {"selection": SELECTION}
    assert summary(result)[-1] == (
        "chosen: step 40, the best of 20 looks at the validation set of its training, 0.8500 by P; "
        "the last step, 100, had 0.7700"
    )


@pytest.mark.parametrize(
    "selection", [None, 3, {}, SELECTION | {"looks": 1}, SELECTION | {"score": "x"}]
)
def test_a_selection_that_is_none_is_not_stated(selection):
    assert selection_words(selection) is None


@pytest.mark.parametrize("names", [("va",), ("au", "expr")])
def test_a_task_that_was_never_trained_has_no_score(names):
    labels = make_labels(200)
    whole = score(labels, make_predictions(labels), num_resamples=20)
    part = score(labels, without(make_predictions(labels), *names), num_resamples=20)
    assert part["p"] is None
    for task in ("va", "au", "expr"):
        if task in names:
            assert (part[task]["score"], part[task]["uncertainty"]) == (None, None)
            reason = f"the network was trained without labels of {task}"
            assert part["unavailable"][f"{task}.score"] == reason
            assert not [path for path in part["bootstrap"]["intervals"] if path.startswith(task)]
        else:
            assert part[task]["score"] == whole[task]["score"]
            path = f"{task}.score"
            assert part["bootstrap"]["intervals"][path] == whole["bootstrap"]["intervals"][path]
    json.dumps(part, allow_nan=False)


def test_classes_without_a_label_bound_the_score():
    labels = make_labels(100)
    predictions = make_predictions(labels)
    assert ceilings(score(labels, predictions)) == []
    labels.expression[labels.expression == 4] = -1
    labels.au[:, [0, 3]] = np.where(np.isnan(labels.au[:, [0, 3]]), np.nan, 0)
    perfect = dataclasses.replace(
        predictions,
        au_logits=np.nan_to_num(labels.au) * 2 - 1,
        expression_logits=np.eye(9)[labels.expression][:, :8],
    )
    result = score(labels, perfect)
    assert ceilings(result) == [
        "expressions: no label is Happiness, whose F1 counts as 0; the macro F1 is at most 0.875",
        "action units: au1, au6 present in no label, whose F1 counts as 0; the mean F1 is at most "
        "0.833",
    ]
    assert result["expr"]["score"] == pytest.approx(0.875)
    assert result["au"]["score"] == pytest.approx(10 / 12)
    assert set(ceilings(result)) < set(summary(result))
