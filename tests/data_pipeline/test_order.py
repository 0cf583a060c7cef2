import fractions
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import order
from mtl_face.errors import ConfigError


def endless(num_examples, seed, count):
    """The sequence by its definition: whole permutations, one after the other."""
    epochs = range(1 + count // num_examples)
    pieces = [order.Permutations(num_examples, seed).epoch(epoch) for epoch in epochs]
    return np.concatenate(pieces)[:count]


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 200), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_an_epoch_is_a_permutation(num_examples, seed, epoch):
    permutation = order.Permutations(num_examples, seed).epoch(epoch)
    assert permutation.dtype == np.int64
    assert sorted(permutation) == list(range(num_examples))


def test_order_depends_on_seed_and_epoch_and_stream_only():
    def first(seed, epoch, stream=0):
        return tuple(order.Permutations(50, seed, stream).epoch(epoch))

    assert first(1, 2) == first(1, 2)
    every = {first(seed, epoch, k) for seed in range(5) for epoch in range(5) for k in range(2)}
    assert len(every) == 50


def test_the_order_never_changes():
    """Runs that were interrupted under an older version must be continued as they began."""
    assert order.Permutations(10, 7).epoch(3).tolist() == [2, 5, 9, 7, 3, 0, 6, 8, 4, 1]
    rows = [order.step_indices(order.Permutations(5, 7), 3, step=step) for step in range(3)]
    assert np.concatenate(rows).tolist() == [4, 1, 3, 2, 0, 3, 1, 2, 4]


def test_positions_are_uniform():
    """Chi-square: each of 6 rows comes first equally often in 6000 epochs."""
    first = [order.Permutations(6, 0).epoch(epoch)[0] for epoch in range(6000)]
    counts = np.bincount(first, minlength=6)
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # 0.1 % of a chi-square of 5 degrees


@pytest.mark.parametrize("process_count", [1, 2, 3, 4])
@pytest.mark.parametrize(("num_examples", "local_size"), [(97, 1), (101, 5), (24, 2), (13, 3)])
def test_all_processes_together_see_each_row_once_an_epoch(num_examples, local_size, process_count):
    """Counted place by place, with sizes that no batch and no process count divides."""
    batch_size = local_size * process_count
    epochs = 4
    steps = order.total_steps(epochs, order.steps_per_epoch(num_examples, batch_size))
    assert steps == -(-epochs * num_examples // batch_size)
    streams = [
        order.batches(
            order.Permutations(num_examples, 3),
            batch_size,
            process=order.Process(index, process_count),
        )
        for index in range(process_count)
    ]
    seen = []
    for parts in itertools.islice(zip(*streams, strict=True), steps):
        assert {len(part) for part in parts} == {local_size}
        seen.extend(np.concatenate(parts).tolist())
    assert 0 <= len(seen) - epochs * num_examples < batch_size
    for epoch in range(epochs):
        of_epoch = seen[epoch * num_examples : (epoch + 1) * num_examples]
        assert sorted(of_epoch) == list(range(num_examples))
    assert seen == endless(num_examples, 3, len(seen)).tolist()  # whatever the process count


@pytest.mark.parametrize("start", [0, 1, 3, 10, 1000])
def test_starting_anywhere_continues_the_run(start):
    rows = order.Permutations(17, 0)
    resumed = order.batches(rows, 5, start_step=start)
    whole = endless(17, 0, 5 * (start + 5))
    for step, batch in zip(range(start, start + 5), resumed, strict=False):
        np.testing.assert_array_equal(batch, whole[5 * step : 5 * step + 5])


def test_starting_late_reads_one_epoch():
    """No replay: a start in the millionth epoch asks for that epoch alone."""
    asked = []

    class Spy:
        length = 17

        def epoch(self, number):
            asked.append(number)
            return np.arange(17)

    next(order.batches(Spy(), 5, start_step=17 * 10**6))
    assert asked == [5 * 10**6]


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 100))
def test_rows_at_any_places(num_examples, start, count):
    rows = order.rows_at(order.Permutations(num_examples, 1), start, count)
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, endless(num_examples, 1, start + count)[start:])


def test_length_of_an_epoch():
    assert order.steps_per_epoch(10, 4) == fractions.Fraction(5, 2)
    assert order.total_steps(1, order.steps_per_epoch(10, 4)) == 3
    assert order.total_steps(2, order.steps_per_epoch(10, 4)) == 5
    # In floats 3 * (49 / 3) or the like could come out just above a whole number.
    assert order.total_steps(3 * 7, order.steps_per_epoch(49, 3)) == 343


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 50), st.integers(1, 8), st.integers(1, 4))
def test_evaluation_covers_each_row_once(num_examples, local_size, process_count):
    batch_size = local_size * process_count
    per_process = [
        list(
            order.eval_batches(
                num_examples, batch_size, process=order.Process(index, process_count)
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
        order.steps_per_epoch(3, 4)
    assert "batch_size <= 3" in str(caught.value)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        order.steps_per_epoch(3, 0)
    with pytest.raises(ConfigError, match="3 processes") as caught:
        next(order.batches(order.Permutations(100, 0), 8, process=order.Process(0, 3)))
    assert "multiple of 3" in str(caught.value)
    with pytest.raises(ValueError, match="process 3 of 3"):
        order.Process(3, 3)


def test_endless():
    assert len(list(itertools.islice(order.batches(order.Permutations(5, 0), 5), 7))) == 7
