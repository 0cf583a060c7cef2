"""Every row of a table gets the prediction of its own image, in whatever batches they come."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mtl_face.inference.batched import predict_rows
from mtl_face.tasks import OUTPUT_SIZES


def predict_step(params, batch_stats, image, index):
    """Outputs that name the image: its number, plus the column."""
    number = image[:, 0, 0, :1].astype(np.float32) + params
    return {
        "index": index,
        **{task: number + np.arange(size) for task, size in OUTPUT_SIZES.items()},
    }


def batches_of(order, size):
    """Images whose pixels hold 100 + the row; padding has 7."""
    for start in range(0, len(order), size):
        index = np.full(size, -1, np.int32)
        part = order[start : start + size]
        index[: len(part)] = part
        image = np.where(index >= 0, 100 + index, 7).reshape(size, 1, 1, 1)
        yield {"image": np.broadcast_to(image, (size, 2, 2, 3)).astype(np.uint8), "index": index}


def expected(num_rows, bias=0):
    number = 100.0 + np.arange(num_rows)[:, None] + bias
    return {task: number + np.arange(size) for task, size in OUTPUT_SIZES.items()}


def assert_rows(found, num_rows, bias=0):
    assert set(found) == set(OUTPUT_SIZES)
    for task, values in expected(num_rows, bias).items():
        assert found[task].dtype == np.float32
        np.testing.assert_array_equal(found[task], values)


@hypothesis_settings(deadline=None, derandomize=True, max_examples=50)
@given(num_rows=st.integers(0, 40), size=st.integers(1, 9), seed=st.integers(0, 5))
def test_every_row_by_its_index(num_rows, size, seed):
    order = np.random.default_rng(seed).permutation(num_rows)
    found = predict_rows(predict_step, 0, None, batches_of(order, size), num_rows=num_rows)
    assert_rows(found, num_rows)


def test_parameters_reach_the_step():
    found = predict_rows(predict_step, 50, None, batches_of(np.arange(5), 2), num_rows=5)
    assert_rows(found, 5, bias=50)


def test_padding_anywhere_is_ignored():
    index = np.array([-1, 1, -1, 0], np.int32)
    image = np.full((4, 1, 1, 3), 7, np.uint8)
    image[1], image[3] = 101, 100
    found = predict_rows(
        predict_step, 0, None, iter([{"image": image, "index": index}]), num_rows=2
    )
    assert_rows(found, 2)


def test_outputs_on_devices():
    def on_device(*arguments):
        return {name: jnp.asarray(value) for name, value in predict_step(*arguments).items()}

    assert_rows(predict_rows(on_device, 0, None, batches_of(np.arange(7), 4), num_rows=7), 7)


@pytest.mark.parametrize(("order", "num_rows", "missing"), [([0, 2], 3, 1), ([], 2, 2)])
def test_a_row_in_no_batch(order, num_rows, missing):
    with pytest.raises(ValueError, match=f"{missing} of {num_rows} rows were in no batch"):
        predict_rows(predict_step, 0, None, batches_of(np.array(order, int), 2), num_rows=num_rows)


def test_next_batch_is_started_before_the_last_one_is_fetched():
    """The devices work while the host copies."""
    events = []

    class OnDevice:
        def __init__(self, value, name):
            self.value, self.name = value, name

        def __array__(self, dtype=None, copy=None):
            events.append(f"fetch {self.name}")
            return np.asarray(self.value)

    def step(params, batch_stats, image, index):
        number = sum("start" in event for event in events)
        events.append(f"start {number}")
        outputs = predict_step(params, batch_stats, image, index)
        return outputs | {"va": OnDevice(outputs["va"], number)}

    found = predict_rows(step, 0, None, batches_of(np.arange(6), 2), num_rows=6)
    assert_rows(found, 6)
    assert events == ["start 0", "start 1", "fetch 0", "start 2", "fetch 1", "fetch 2"]
