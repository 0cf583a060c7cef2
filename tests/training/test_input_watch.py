"""Waiting for input: measured, bounded, and what the input raises comes through."""

import itertools
import threading
import time

import pytest

from mtl_face.errors import ImageError, UserError
from mtl_face.training.input_watch import InputWatch


@pytest.mark.parametrize("timeout", [0, 30])
def test_batches_come_in_order_and_end(timeout):
    before = set(threading.enumerate())
    watch = InputWatch(range(5), timeout_seconds=timeout, where="here")
    assert list(watch) == [0, 1, 2, 3, 4]
    assert list(watch) == []
    for thread in set(threading.enumerate()) - before:
        if thread.name == "input":
            thread.join(30)
            assert not thread.is_alive()
    assert watch.waited_seconds >= 0


@pytest.mark.parametrize("timeout", [0, 30])
def test_no_batch_is_taken_before_it_is_asked_for(timeout):
    taken = []
    watch = InputWatch(map(taken.append, itertools.count()), timeout_seconds=timeout, where="here")
    next(watch)
    next(watch)
    time.sleep(0.05)
    assert taken == [0, 1]


@pytest.mark.parametrize("timeout", [0, 30])
def test_an_error_of_the_input_comes_through(timeout):
    def batches():
        yield 1
        raise ImageError("broken", path="x.jpg")

    watch = InputWatch(batches(), timeout_seconds=timeout, where="here")
    assert next(watch) == 1
    with pytest.raises(ImageError, match="broken"):
        next(watch)


def test_a_stalled_input_is_named():
    def batches():
        yield 1
        time.sleep(60)

    watch = InputWatch(
        batches(), timeout_seconds=0.2, where="host node7 (process 3 of 8)", first_step=40
    )
    begin = time.perf_counter()
    next(watch)
    with pytest.raises(UserError) as raised:
        next(watch)
    assert time.perf_counter() - begin < 30
    assert raised.value.problem == (
        "the input has stalled on host node7 (process 3 of 8): no batch for step 42 in 0.2 s"
    )
    assert "data.root" in raised.value.remedy


def test_waiting_is_measured():
    def batches():
        for _ in range(3):
            time.sleep(0.05)
            yield 0

    watch = InputWatch(batches(), timeout_seconds=30, where="here")
    begin = time.perf_counter()
    for _ in range(3):
        next(watch)
        time.sleep(0.1)  # the step
    assert 0.15 <= watch.waited_seconds <= time.perf_counter() - begin - 0.3
