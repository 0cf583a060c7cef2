import collections

import jax
import label_arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import batch, mixture, order, sampling
from mtl_face import tables as frame_tables
from mtl_face.errors import ConfigError
from mtl_face.objective import losses


def make_table(name, num_rows, *, seed=0, has=("va", "au", "expr")):
    random = np.random.default_rng(seed)
    labels = {}
    if "va" in has:
        labels |= {k: random.uniform(-1, 1, num_rows) for k in ("valence", "arousal")}
    if "au" in has:
        labels["au"] = random.integers(0, 2, (num_rows, 12))
    if "expr" in has:
        labels["expression"] = random.integers(0, 8, num_rows)
    return frame_tables.FrameTable.from_columns(
        dataset="same name in the files",
        video=["v"] * num_rows,
        frame=range(num_rows),
        image=[f"v/{i}.jpg" for i in range(num_rows)],
        root=f"/{name}",
        **labels,
    )


@pytest.fixture
def tables():
    """Same videos and frames in all three; each has other tasks."""
    return {
        "a": make_table("a", 30, has=("va",)),
        "b": make_table("b", 17, seed=1, has=("au", "expr")),
        "c": make_table("c", 5, seed=2),
    }


def test_join_keeps_rows_apart(tables):
    table = mixture.join(tables)
    assert table.dataset.tolist() == ["a"] * 30 + ["b"] * 17 + ["c"] * 5
    assert set(table.root[:30]) == {"/a"}
    assert not table.duplicate.any()
    start = 0
    for part in tables.values():
        rows = table.take(np.arange(start, start + len(part)))
        for name in ("frame", "valence", "arousal", "expression", "au", "image"):
            np.testing.assert_array_equal(getattr(rows, name), getattr(part, name))
        start += len(part)


def test_an_empty_data_set_is_a_mistake(tables):
    with pytest.raises(ConfigError, match="the data set d has no rows"):
        mixture.join(tables | {"d": tables["a"].take([])})


def make_order(tables, weights, **options):
    options = {"per_row": True, "seed": 4} | options
    return mixture.make_order(tables, weights=dict(zip(tables, weights, strict=True)), **options)


def test_equal_weights_give_every_row_once_per_epoch(tables):
    rows = make_order(tables, (2.0, 2.0, 2.0))
    for epoch in range(4):
        assert sorted(rows.epoch(epoch)) == list(range(52))
    assert tuple(rows.epoch(0)) != tuple(rows.epoch(1))


@pytest.mark.parametrize("per_row", [True, False])
def test_shares(tables, per_row):
    rows = make_order(tables, (1.0, 2.0, 4.0), per_row=per_row)
    shares = np.array([30.0, 34.0, 20.0]) if per_row else np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(rows.counts, shares / shares.sum() * 52, atol=1)
    for epoch in range(3):
        data_set = np.searchsorted([30, 47], rows.epoch(epoch), side="right")
        assert tuple(np.bincount(data_set)) == rows.counts


def test_each_data_set_goes_through_its_own_epochs(tables):
    """Over any stretch of the run, the counts of two rows of one data set differ by 1 at most."""
    rows = make_order(tables, (1.0, 1.0, 9.0))
    stream = order.rows_at(rows, 0, 52 * 7)
    for first, last in ((0, 30), (30, 47), (47, 52)):
        own = stream[(stream >= first) & (stream < last)] - first
        length = last - first
        for start in range(0, len(own), length):
            piece = own[start : start + length]
            assert len(set(piece)) == len(piece)
        part = order.Permutations(length, 4, stream={0: 0, 30: 1, 47: 2}[first])
        np.testing.assert_array_equal(own, order.rows_at(part, 0, len(own)))


def test_batches_mix_and_do_not_depend_on_processes(tables):
    rows = make_order(tables, (1.0, 1.0, 4.0))
    whole = [order.step_indices(rows, 12, step=step) for step in range(3, 20)]
    for count in (1, 2, 3, 4):
        streams = [
            order.batches(rows, 12, start_step=3, process=order.Process(i, count))
            for i in range(count)
        ]
        for expected in whole:
            joined = np.concatenate([next(stream) for stream in streams])
            np.testing.assert_array_equal(joined, expected)
    mixed = [len(set(np.searchsorted([30, 47], row_B, side="right"))) for row_B in whole]
    assert np.mean(mixed) > 2.3


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(1e-3, 1e3)), min_size=1, max_size=6))
def test_every_data_set_takes_part(parts):
    orders = [order.Permutations(size, 0, k) for k, (size, _) in enumerate(parts)]
    rows = mixture.MixedOrder(orders, [share for _, share in parts], 0)
    assert sum(rows.counts) == rows.length == sum(size for size, _ in parts)
    assert min(rows.counts) >= 1
    starts = np.cumsum([size for size, _ in parts])
    data_set = np.searchsorted(starts, rows.epoch(1), side="right")
    assert tuple(np.bincount(data_set, minlength=len(parts))) == rows.counts


def test_no_label_leaks_from_one_data_set_to_another(tables):
    """Every example of every batch carries its own row's labels, and none of a task it lacks."""
    table = mixture.join(tables)
    rows = make_order(tables, (1.0, 1.0, 3.0))
    has = {"a": {"va"}, "b": {"au", "expr"}, "c": {"va", "au", "expr"}}
    first_row = {"a": 0, "b": 30, "c": 47}
    seen = collections.Counter()

    def images():
        for row_B in (order.step_indices(rows, 8, step=step) for step in range(40)):
            yield row_B, {"image": np.zeros((8, 1, 1, 3), np.uint8)}

    for step, mixed in enumerate(batch.with_labels(table, images())):
        targets, weights = jax.device_get(batch.expand_labels(mixed["labels"]))
        for place, row in enumerate(order.step_indices(rows, 8, step=step)):
            name = table.dataset[row]
            own_targets, own_weights = label_arrays.labels(tables[name])
            seen[name] += 1
            for task in ("va", "au", "expr"):
                own = row - first_row[name]
                np.testing.assert_array_equal(targets[task][place], own_targets[task][own])
                np.testing.assert_array_equal(weights[task][place], own_weights[task][own])
                assert (
                    weights[task][place].all() == weights[task][place].any() == (task in has[name])
                )
    assert set(seen) == set(tables)


def test_lacking_labels_give_no_gradient(tables):
    """The outputs of a task feel nothing of a data set without it."""
    table = mixture.join(tables)
    targets, weights = label_arrays.labels(table)
    random = np.random.default_rng(0)
    outputs = {
        task: random.normal(size=column.shape).astype(np.float32)
        for task, column in targets.items()
    }

    def loss(outputs):
        return losses.multi_task_loss(
            outputs,
            targets,
            weights,
            kind="fixed",
            temperatures={"va": 1.0, "au": 1.0, "expr": 5.0},
            log_temperatures=None,
        ).total

    gradient = jax.grad(loss)(outputs)
    data_set = table.dataset.astype(str)
    for task, without in (("va", "b"), ("au", "a"), ("expr", "a")):
        assert not np.asarray(gradient[task])[data_set == without].any()
        assert np.asarray(gradient[task])[data_set == "c"].any(axis=1).all()


def test_balancing_within_data_sets(tables):
    rows = make_order(tables, (1.0, 1.0, 1.0), sampling="expression_balanced")
    assert sorted(row for row in rows.epoch(0) if row < 30) == list(
        range(30)
    )  # no expressions: uniform
    balanced = sampling.Draws(sampling.weights_by_expression(tables["b"]), 4, 1)
    own = [row - 30 for row in rows.epoch(0) if 30 <= row < 47]
    assert own == balanced.epoch(0).tolist()
    with pytest.raises(ConfigError, match="has an expression"):
        make_order({"a": tables["a"]}, (1.0,), sampling="expression_balanced")


def test_counts_of_a_step(tables):
    table = mixture.join(tables)
    rows = make_order(tables, (1.0, 1.0, 3.0))
    counter = mixture.Counter(table, rows, 16)
    for step in (0, 5):
        names = table.dataset[order.step_indices(rows, 16, step=step)].tolist()
        number = {name: names.count(name) for name in "abc"}
        counts = counter.of_step(step)
        assert counts["count/va"] == number["a"] + number["c"]
        assert counts["count/au"] == counts["count/expr"] == number["b"] + number["c"]
        for name, own in number.items():
            assert counts[f"count/{name}/examples"] == own
        assert counts["count/a/au"] == 0
        assert counts["count/b/expr"] == number["b"]
    alone = mixture.Counter(tables["a"], order.Permutations(30, 0), 16).of_step(1)
    assert alone == {"count/va": 16.0, "count/au": 0.0, "count/expr": 0.0}


@pytest.mark.parametrize("shares", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, np.inf)])
def test_mixed_order_refuses(shares):
    parts = [order.Permutations(3, 0), order.Permutations(3, 0, 1)]
    with pytest.raises(ValueError, match="positive share"):
        mixture.MixedOrder(parts, shares, 0)
