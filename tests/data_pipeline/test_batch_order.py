import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import order
from mtl_face.errors import ConfigError


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 200), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_an_epoch_is_a_permutation(num_examples, seed, epoch):
    permutation = order.epoch_order(num_examples, seed=seed, epoch=epoch)
    assert permutation.dtype == np.int64
    assert sorted(permutation) == list(range(num_examples))


def test_order_depends_on_seed_and_epoch_only():
    def first(seed, epoch):
        return tuple(order.epoch_order(50, seed=seed, epoch=epoch))

    assert first(1, 2) == first(1, 2)
    assert len({first(seed, epoch) for seed in range(5) for epoch in range(5)}) == 25


def test_the_order_never_changes():
    """Runs that were interrupted under an older version must be continued as they began."""
    assert order.epoch_order(10, seed=7, epoch=3).tolist() == [2, 5, 9, 7, 3, 0, 6, 8, 4, 1]


def test_positions_are_uniform():
    """Chi-square: each of 6 rows comes first equally often in 6000 epochs."""
    first = [order.epoch_order(6, seed=0, epoch=epoch)[0] for epoch in range(6000)]
    counts = np.bincount(first, minlength=6)
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # 0.1 % of a chi-square of 5 degrees


@settings(deadline=None, derandomize=True)
@given(st.data(), st.integers(1, 60))
def test_every_row_at_most_once_an_epoch(data, num_examples):
    batch_size = data.draw(st.integers(1, num_examples))
    per_epoch = order.steps_per_epoch(num_examples, batch_size)
    assert per_epoch == num_examples // batch_size
    for epoch in range(2):
        rows = np.concatenate(
            [
                order.step_indices(num_examples, batch_size, seed=1, step=epoch * per_epoch + step)
                for step in range(per_epoch)
            ]
        )
        assert len(set(rows)) == len(rows) == per_epoch * batch_size
        assert list(rows) == list(order.epoch_order(num_examples, seed=1, epoch=epoch)[: len(rows)])


@pytest.mark.parametrize("process_count", [1, 2, 3, 4])
def test_processes_together_load_the_global_batch(process_count):
    streams = [
        order.batches(40, 12, seed=3, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    for step, parts in zip(range(8), zip(*streams, strict=True), strict=False):
        assert {len(part) for part in parts} == {12 // process_count}
        expected = order.step_indices(40, 12, seed=3, step=step)
        np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize("start", [0, 1, 3, 10, 1000])
def test_starting_anywhere_continues_the_run(start):
    resumed = order.batches(17, 5, seed=0, start_step=start)
    for step, rows in zip(range(start, start + 5), resumed, strict=False):
        np.testing.assert_array_equal(rows, order.step_indices(17, 5, seed=0, step=step))


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 50), st.integers(1, 8), st.integers(1, 4))
def test_evaluation_covers_each_row_once(num_examples, local_size, process_count):
    batch_size = local_size * process_count
    per_process = [
        list(
            order.eval_batches(
                num_examples, batch_size, process_index=index, process_count=process_count
            )
        )
        for index in range(process_count)
    ]
    assert {len(batches) for batches in per_process} == {-(-num_examples // batch_size)}
    joined = [np.concatenate(parts) for parts in zip(*per_process, strict=True)]
    rows = np.concatenate([*joined, np.empty(0, np.int64)])
    assert list(rows[:num_examples]) == list(range(num_examples))
    assert (rows[num_examples:] == order.PADDING).all()
    assert all(len(part) == local_size for parts in per_process for part in parts)


def test_refuses_impossible_batches():
    with pytest.raises(ConfigError, match="larger than the 3 rows") as caught:
        order.step_indices(3, 4, seed=0, step=0)
    assert "batch_size <= 3" in str(caught.value)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        order.steps_per_epoch(3, 0)
    with pytest.raises(ConfigError, match="3 processes") as caught:
        next(order.batches(100, 8, seed=0, process_index=0, process_count=3))
    assert "multiple of 3" in str(caught.value)
    with pytest.raises(ValueError, match="process_index 3"):
        order.process_slice(9, process_index=3, process_count=3)


def test_endless():
    assert len(list(itertools.islice(order.batches(5, 5, seed=0), 7))) == 7
