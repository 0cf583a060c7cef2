import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import order, sampling
from mtl_face import tables
from mtl_face.errors import ConfigError


def make_table(num_rows=400, seed=0, **columns):
    """Skewed labels: expression 4 is common and 2 is rare, AU 25 common and AU 15 rare."""
    random = np.random.default_rng(seed)
    expression = random.choice([-1, 4, 0, 2], num_rows, p=[0.3, 0.5, 0.15, 0.05])
    au = (random.random((num_rows, 12)) < np.linspace(0.7, 0.03, 12)).astype(float)
    au[random.random(num_rows) < 0.3] = np.nan
    valence = random.uniform(-1, 1, num_rows)
    valence[random.random(num_rows) < 0.4] = np.nan
    given = {"expression": expression, "au": au, "valence": valence, "arousal": valence}
    return tables.FrameTable.from_columns(
        dataset="d",
        video=["v"] * num_rows,
        frame=range(num_rows),
        image=[f"v/{i}.jpg" for i in range(num_rows)],
        root="/r",
        **(given | columns),
    )


weights = st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=60)


@settings(deadline=None, derandomize=True)
@given(weights.filter(any), st.integers(0, 2**32), st.integers(0, 10**6))
def test_draws_keep_to_the_weights_in_every_epoch(weight, seed, epoch):
    """Each row comes the whole number of times just below or above its share of the places."""
    draws = sampling.Draws(weight, seed)
    rows = draws.epoch(epoch)
    assert rows.dtype == np.int64
    assert len(rows) == draws.length == len(weight)
    expected = np.array(weight) / np.sum(weight) * len(weight)
    count = np.bincount(rows, minlength=len(weight))
    assert (np.abs(count - expected) < 1 + 1e-6).all()
    assert (count[np.array(weight) == 0] == 0).all()


def test_draws_are_unbiased_and_change_from_epoch_to_epoch():
    weight = np.array([1.0, 2.5, 0.3, 0.0, 4.0, 1.1])
    draws = sampling.Draws(weight, 1)
    count = sum(np.bincount(draws.epoch(epoch), minlength=6) for epoch in range(4000))
    np.testing.assert_allclose(count / 4000, weight / weight.sum() * 6, atol=0.03)
    first = {tuple(draws.epoch(epoch)) for epoch in range(20)}
    assert len(first) > 15


def test_draws_depend_on_seed_and_epoch_alone():
    weight = np.arange(1, 40)
    one, other = sampling.Draws(weight, 3), sampling.Draws(weight, 3)
    other.epoch(5)
    np.testing.assert_array_equal(one.epoch(7), other.epoch(7))
    assert tuple(one.epoch(7)) != tuple(sampling.Draws(weight, 4).epoch(7))
    assert tuple(one.epoch(7)) != tuple(sampling.Draws(weight, 3, stream=1).epoch(7))


@pytest.mark.parametrize("weight", [[], [0, 0], [1, -1], [1, np.inf], [np.nan]])
def test_draws_refuse(weight):
    with pytest.raises(ValueError, match="weights must be"):
        sampling.Draws(weight, 0)


def test_uniform_is_every_row_once():
    table = make_table()
    rows = sampling.make_order(table, seed=9)
    assert rows == order.Permutations(len(table), 9)


def test_expressions_come_equally_often():
    table = make_table()
    rows = sampling.make_order(table, kind="expression_balanced", seed=0)
    drawn = table.expression[order.rows_at(rows, 0, 20 * len(table))]
    share = {label: (drawn == label).mean() for label in (-1, 0, 2, 4)}
    assert share[-1] == pytest.approx((table.expression == -1).mean(), abs=0.005)
    labelled = (1 - share[-1]) / 3
    for label in (0, 2, 4):
        assert share[label] == pytest.approx(labelled, abs=0.005)


def test_rare_action_units_come_more_often():
    table = make_table()
    active = table.au == 1
    before = active.sum(axis=0) / (~np.isnan(table.au)).sum(axis=0)
    weight = sampling.weights_by_au(table)
    for row in range(0, len(table), 7):  # by hand
        factors = [np.sqrt(0.5 / before[k]) for k in range(12) if active[row, k]]
        assert weight[row] == pytest.approx(max([1, *factors]))
    rows = sampling.make_order(table, kind="au_balanced", seed=0)
    drawn = order.rows_at(rows, 0, 20 * len(table))
    after = active[drawn].sum(axis=0) / (~np.isnan(table.au[drawn])).sum(axis=0)
    rare = before < 0.2
    assert (after[rare] > 1.2 * before[rare]).all()
    assert (np.abs(after - 0.5) <= np.abs(before - 0.5) + 0.05).all()


def test_weights_by_task():
    table = make_table()
    weight = sampling.weights_by_task(table, {"va": 0.0, "expr": 3.0})
    has_au = ~np.isnan(table.au).all(axis=1)
    np.testing.assert_array_equal(weight, has_au + 3.0 * (table.expression >= 0))
    rows = sampling.make_order(
        table, kind="weighted", task_weights={"va": 0, "au": 0, "expr": 1}, seed=0
    )
    assert (table.expression[rows.epoch(3)] >= 0).all()


@pytest.mark.parametrize(
    ("kind", "task_weights", "words"),
    [
        ("expression_balanced", None, "has an expression"),
        ("au_balanced", None, "has action units"),
        ("weighted", {"va": 0.0}, "of positive weight"),
    ],
)
def test_nothing_to_balance_by(kind, task_weights, words):
    table = make_table(expression=None, au=None)
    with pytest.raises(ConfigError, match=words) as caught:
        sampling.make_order(table, kind=kind, task_weights=task_weights, seed=0)
    assert "data.sampling=uniform" in str(caught.value)
