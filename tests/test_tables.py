import dataclasses

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions, without
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from mtl_face import tables, tasks
from mtl_face.errors import UserError

NAN = np.nan


def make_table(**changes):
    columns = {
        "dataset": "set",
        "video": ["b", "a", "a", "a"],
        "frame": [1, 10, 9, 9],
        "image": ["b/00001.jpg", "a/00010.jpg", "a/00009.jpg", "a/00009.jpg"],
        "root": "/images",
        "valence": [0.5, NAN, -1.0, 0.25],
        "arousal": [0.1, 0.2, 1.0, NAN],
        "expression": [-1, 7, 0, -1],
        "au": np.array([[1] * 12, [NAN] * 12, [0] * 11 + [NAN], [NAN] * 12]),
    }
    return tables.FrameTable.from_columns(**(columns | changes))


def test_sorts_by_video_and_number_and_marks_later_twins():
    table = make_table()
    assert list(table.video) == ["a", "a", "a", "b"]
    assert list(table.frame) == [9, 9, 10, 1]
    assert list(table.row) == [3, 4, 2, 1]  # stable: the twin that came first stays first
    assert list(table.duplicate) == [False, True, False, False]


def test_order_given_is_kept_on_request():
    table = make_table(sort=False)
    assert list(table.row) == [1, 2, 3, 4]
    assert list(table.duplicate) == [False, False, False, True]


def test_paths_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    table = make_table(root="crops")
    assert table.paths()[-1] == str(tmp_path / "crops" / "b" / "00001.jpg")


def test_rows_with_a_label():
    has = make_table(sort=False).labelled()
    assert tuple(has) == tasks.TASKS
    np.testing.assert_array_equal(has["va"], [True, False, True, False])  # both values or none
    np.testing.assert_array_equal(has["au"], [True, False, True, False])
    np.testing.assert_array_equal(has["expr"], [False, True, True, False])


def test_counts():
    assert make_table().counts() == {
        "rows": 4,
        "unique_images": 3,
        "duplicates": 1,
        "videos": 2,
        "va": 2,
        "au": 2,
        "expr": 2,
        "all_tasks": 1,
        "unlabelled": 1,  # the row that has arousal missing and nothing else
    }


def test_select_by_mask_and_by_index():
    table = make_table()
    kept = table.take(~table.duplicate)
    assert list(kept.row) == [3, 2, 1]
    assert list(table.take([3, 0]).row) == [1, 3]
    assert len(table.take([])) == 0
    assert not table.take([1]).duplicate.any()  # its twin is gone
    with pytest.raises(IndexError):
        table.take([True, False])


def test_only_tasks_takes_labels_away():
    table = make_table(expression=[1, 7, 0, 2], au=np.ones((4, 12)))
    names = ("va", "au", "expr")
    assert [table.counts()[name] for name in names] == [2, 4, 4]
    kept = table.only_tasks(("au",))
    assert [kept.counts()[name] for name in names] == [0, 4, 0]
    assert (kept.valence.dtype, kept.expression.dtype) == (np.float32, np.int8)
    both = table.only_tasks({"va", "expr"}).counts()
    assert [both[name] for name in names] == [2, 0, 4]


def test_to_dataframe():
    frame = make_table().to_dataframe()
    assert list(frame["frame"]) == [9, 9, 10, 1]
    assert list(frame.columns[8 : 8 + 12]) == list(tasks.AU_NAMES)
    assert frame["au26"].isna().sum() == 3
    assert frame["expression"].tolist() == [0, -1, 7, -1]


def test_votes_are_a_column_where_there_are_any():
    assert not any(name.startswith("votes") for name in make_table().to_dataframe())
    votes = np.full((4, 8), np.nan)
    votes[0] = range(8)
    table = make_table(votes=votes)
    frame = table.to_dataframe()
    row = frame[frame["votes_other"].notna()].iloc[0]
    assert [row[name] for name in tables.VOTE_NAMES] == list(range(8))
    assert tables.VOTE_NAMES[0] == "votes_neutral"
    assert np.isnan(table.only_tasks(("au",)).votes).all()
    assert not np.isnan(table.only_tasks(("expr",)).votes).all()


def test_shares_of_votes():
    """A tie has shares, a row whose label was taken away has none."""
    votes = np.full((4, 8), np.nan)
    votes[0, 0], votes[1, :2], votes[2, 3], votes[3] = 2, (2, 2), 4, 0
    table = make_table(expression=[0, -1, -1, 5], votes=votes, sort=False)
    shares = table.expression_shares()
    np.testing.assert_array_equal(shares[:2], [np.eye(8)[0], [0.5, 0.5] + [0] * 6])
    assert np.isnan(shares[2:]).all()
    assert not table.is_hard
    assert table.hard().is_hard
    assert np.isnan(table.hard().expression_shares()).all()
    soft = make_table(au_probability=np.full((4, 12), 0.3), label_weight=[1, 0.5, 1, 0])
    frame = soft.to_dataframe()
    assert "au26_probability" in frame
    assert sorted(frame["label_weight"]) == [0, 0.5, 1, 1]
    assert np.isnan(soft.only_tasks(("va",)).au_probability).all()


def test_joined_tables_are_sorted():
    first, second = make_table(dataset="b"), make_table(dataset="a")
    both = tables.FrameTable.joined([first, second])
    assert list(both.dataset) == ["a"] * 4 + ["b"] * 4
    np.testing.assert_array_equal(both.frame[:4], second.frame)
    kept = tables.FrameTable.joined([first, second], sort=False)
    assert list(kept.dataset) == ["b"] * 4 + ["a"] * 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"votes": np.full((4, 8), -1.0)}, "votes below 0"),
        ({"raters": np.full((4, 3), 1.0)}, "raters below 2"),
        ({"raters": [[0.1, np.nan, 2]] * 4}, "standard deviations missing"),
        ({"au_probability": np.full((4, 12), 1.5)}, "au_probability outside"),
        ({"label_weight": [1, 1, 1, -0.5]}, "label_weight outside"),
        ({"label_weight": [1, 1, 1, np.nan]}, "label_weight is missing"),
        ({"valence": [0, 0, 0, 1.5]}, "valence outside"),
        ({"expression": [0, 1, 2, 8]}, "expression outside"),
        ({"au": np.full((4, 12), 0.5)}, "action unit"),
        ({"au": np.zeros((4, 11))}, "column au is"),
        ({"valence": [0.0]}, "column valence is"),
        ({"video": ["a"]}, r"object \(1,\)"),
        ({"row": [1]}, "column row is"),
    ],
)
def test_refuses_wrong_columns(changes, words):
    with pytest.raises(ValueError, match=words):
        make_table(**changes)


def decisions_alone(num_rows=4, **changes):
    """A table as a submission gives it; made of a table with logits."""
    table = make_predictions(make_labels(num_rows))
    columns = {
        "au_logits": None,
        "expression_logits": None,
        "au_decisions": table.au,
        "expression_decisions": table.expression,
    }
    return dataclasses.replace(table, **(columns | changes))


def test_decisions_follow_from_logits_or_are_given():
    table = make_predictions(make_labels(4))
    np.testing.assert_array_equal(table.au, table.au_logits > 0)
    np.testing.assert_array_equal(table.expression, table.expression_logits.argmax(axis=1))
    assert (table.au.dtype, table.expression.dtype) == (np.int8, np.int64)
    alone = decisions_alone()
    np.testing.assert_array_equal(alone.au, table.au)
    np.testing.assert_array_equal(alone.expression, table.expression)
    assert alone.take(np.array([2, 0])).expression.tolist() == table.expression[[2, 0]].tolist()
    assert table.tasks == alone.tasks == ("va", "au", "expr")


def test_unanswered_tasks():
    table = decisions_alone(
        valence=np.full(4, np.nan), au_decisions=None, expression_decisions=[-1, 0, 7, -1]
    )
    assert table.tasks == ("expr",)
    assert (table.au == -1).all()
    assert table.au.shape == (4, 12)
    assert decisions_alone(expression_decisions=None).expression.tolist() == [-1] * 4


def test_probabilities_are_those_of_the_logits():
    table = make_predictions(make_labels(4))
    np.testing.assert_array_equal(table.au_probabilities, expit(table.au_logits))
    np.testing.assert_array_equal(
        table.expression_probabilities, softmax(table.expression_logits, axis=1)
    )
    assert decisions_alone().au_probabilities is None
    assert decisions_alone().expression_probabilities is None


def test_values_on_every_scale_turn_back_into_logits():
    table = make_predictions(make_labels(40), noise=5.0)
    for on in ("logits", "probabilities", "values"):
        for task in tasks.TASKS:
            fields = table.from_values(table.values(task, on), task, on)
            for name, column in fields.items():
                expected = getattr(table, name)
                if (task, on) == ("expr", "probabilities"):
                    column, expected = (softmax(values, axis=1) for values in (column, expected))
                np.testing.assert_allclose(column, expected, rtol=1e-9)
    np.testing.assert_allclose(table.values("expr", "probabilities").sum(axis=1), 1.0)
    present, absent = np.hsplit(table.values("au", "probabilities"), 2)
    np.testing.assert_array_equal(present, table.au_probabilities)
    np.testing.assert_allclose(present + absent, 1.0)


def test_logits_of_certain_probabilities_are_finite():
    one, zero = np.ones((1, 12)), np.zeros((1, 12))
    for mean, task in ((np.hstack([one, zero]), "au"), (np.eye(8), "expr")):
        (logits,) = tables.PredictionTable.from_values(mean, task, "probabilities").values()
        assert np.isfinite(logits).all()


def test_when_probabilities_agree():
    ones, others = {"au": 1.0, "expr": 1.0}, {"au": 2.0, "expr": 5.0}

    def agree(one, other):
        table = dataclasses.replace(decisions_alone(), metadata={"probability": one})
        return table.stands_for(other)

    fitted = {"definition": "fitted", "divisors": ones}
    paper = {"definition": "paper", "divisors": others}
    assert agree(fitted, {**fitted, "divisors": others})
    assert agree(paper, {"definition": "fitted", "divisors": others})
    assert agree(None, paper)
    assert agree(paper, None)
    assert not agree(fitted, paper)
    assert not agree({**fitted, "divisors": None}, {**paper, "divisors": None})


def test_a_table_of_predictions_in_a_line():
    table = make_predictions(make_labels(25))
    assert repr(table) == (
        "PredictionTable(rows: 25, videos: 3; valence, arousal, au_logits, expression_logits)"
    )
    alone = decisions_alone(au_decisions=None, valence_std=np.ones(4), arousal_std=np.ones(4))
    assert repr(alone.take(np.arange(0))) == (
        "PredictionTable(rows: 0, videos: 0; valence, arousal, expression_decisions, valence_std, "
        "arousal_std)"
    )


def test_logits_that_are_needed_and_absent():
    for read in (
        lambda table: table.values("au"),
        lambda table: table.values("expr"),
        lambda table: table.columns(),
    ):
        with pytest.raises(UserError, match="decisions alone") as error:
            read(decisions_alone())
        assert error.value.remedy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"au_decisions": np.full((4, 12), 2)}, "au_decisions outside"),
        ({"au_decisions": np.zeros((4, 11))}, "column au_decisions"),
        ({"expression_decisions": np.full(4, 8)}, "expression_decisions outside"),
        ({"au_logits": np.zeros((4, 12))}, "beside au_logits"),
    ],
)
def test_refuses_wrong_decisions(changes, words):
    with pytest.raises(ValueError, match=words):
        decisions_alone(**changes)


def test_dataframe_of_predictions():
    table = make_predictions(make_labels(4))
    frame = table.to_dataframe()
    assert list(frame.columns[:26]) == list(table.columns())
    np.testing.assert_array_equal(frame["au26_probability"], expit(table.au_logits[:, -1]))
    np.testing.assert_array_equal(
        frame.filter(like="expr_").filter(like="_probability"),
        softmax(table.expression_logits, axis=1),
    )
    assert frame["expression"].tolist() == [tasks.EXPRESSION_NAMES[i] for i in table.expression]
    assert frame["au1_present"].tolist() == table.au[:, 0].tolist()
    alone = decisions_alone(expression_decisions=[-1, 0, 7, -1]).to_dataframe()
    assert not any("logit" in name or "probability" in name for name in alone.columns)
    assert alone["expression"].tolist() == ["", "Neutral", "Other", ""]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["", "b", "a", "ä"]), st.integers(-3, 3)), max_size=30),
    st.sampled_from([object, np.str_]),
)
def test_row_codes_are_in_the_order_of_the_columns(rows, kind):
    text = np.array([word for word, _ in rows], kind)
    number = np.array([number for _, number in rows], np.int64)
    ranks = {row: rank for rank, row in enumerate(sorted(set(rows)))}
    assert tables.row_codes(text, number).tolist() == [ranks[row] for row in rows]


@pytest.mark.parametrize("counted", [True, False])
def test_a_task_that_was_never_trained_is_unanswered(counted):
    whole = make_predictions(make_labels(30))
    for names in (("va",), ("au",), ("expr",), ("va", "expr")):
        table = without(whole, *names, counted=counted)
        left = tuple(task for task in tasks.TASKS if task not in names)
        assert (table.untrained, table.tasks) == (names, left)
        table.check_numbers()
        for task in tasks.TASKS:
            assert table.answered(task).all() == (task in left)
            assert table.answered(task).any() == (task in left)
    assert (whole.untrained, whole.tasks) == ((), tasks.TASKS)


def test_a_network_that_diverged_is_no_untrained_one():
    whole = make_predictions(make_labels(30))
    trained = {"training": {"labels": {"va": 3, "au": 3, "expr": 3}}}
    for table in (
        without(whole, *tasks.TASKS, counted=False),
        dataclasses.replace(without(whole, "va"), metadata=trained),
    ):
        assert table.untrained == ()
        with pytest.raises(tables.PredictionError, match="30 of 30 predictions are not finite"):
            table.check_numbers()
    one = without(whole, "va")
    one.au_logits[3, 4] = np.nan
    with pytest.raises(tables.PredictionError, match="1 of 30 predictions are not finite"):
        one.check_numbers()


@pytest.mark.parametrize(
    "training",
    [None, 3, [], {}, {"labels": None}, {"labels": [0]}, {"labels": {"va": "0", "au": False}}],
)
def test_counts_that_are_none_say_nothing(training):
    assert tables.untrained(training) == ()
