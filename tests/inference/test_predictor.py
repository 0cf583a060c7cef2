"""Every image gets its own prediction, in whatever batches they come, and as a table says it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_weights import drawn
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.images import read_image
from mtl_face import config as config_lib
from mtl_face.errors import ImageError
from mtl_face.inference.dropout import EPISTEMIC
from mtl_face.inference.predictor import (
    Forward,
    Predictor,
    output_sizes,
    predict_rows,
    table_columns,
)
from mtl_face.tasks import OUTPUT_SIZES, VA_LOG_VARIANCE


def predict_step(params, batch_stats, inputs, index):
    """Outputs that name the image: its number, plus the column."""
    number = inputs["image"][:, 0, 0, :1].astype(np.float32) + params
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

    def step(params, batch_stats, inputs, index):
        number = sum("start" in event for event in events)
        events.append(f"start {number}")
        outputs = predict_step(params, batch_stats, inputs, index)
        return outputs | {"va": OnDevice(outputs["va"], number)}

    found = predict_rows(step, 0, None, batches_of(np.arange(6), 2), num_rows=6)
    assert_rows(found, 6)
    assert events == ["start 0", "start 1", "fetch 0", "start 2", "fetch 1", "fetch 2"]


SIDE = 32


def make_config(**changes):
    values = {
        "data": {"root": "/data", "image_size": SIDE},
        "model": {
            "input_size": SIDE,
            "backbone": {"stage_sizes": (1,), "width": 8, "expansion": 2},
            "embed_dim": 16,
            "num_heads": 4,
            "encoder_layers": 1,
            "decoder_modules": 1,
            "head_layers": 2,
            "head_width": 16,
        },
        "evaluation": {"batch_size": 16},
    }
    return config_lib.validate(values | changes)


@pytest.fixture(scope="module")
def predictor():
    """An untrained network on one device."""
    forward = Forward(make_config())
    image = jnp.zeros((1, SIDE, SIDE, 3))
    shapes = jax.eval_shape(lambda: forward.network.init(jax.random.key(0), image, train=False))
    variables = jax.device_put(drawn(shapes))
    temperatures = {"va": 1.0, "au": 1.0, "expr": 5.0}
    origin = {"weights_sha256": "0" * 64, "provenance": None}
    return Predictor(forward, variables, temperatures, step=7, origin=origin)


def crops(count, side=SIDE):
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, side, side, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def outputs_of_20(predictor):
    """Of all at once, one program for every number of crops."""
    forward = jax.jit(functools.partial(predictor.forward.network.apply, train=False))
    return forward(predictor.variables, jnp.asarray(crops(20), jnp.float32))


@pytest.mark.parametrize("count", [1, 3, 20])
def test_crops_are_the_networks_outputs_in_order(predictor, outputs_of_20, count):
    outputs = {name: array[:count] for name, array in outputs_of_20.items()}
    table = predictor.predict_crops(crops(20)[:count])
    np.testing.assert_allclose(table.valence, outputs["va"][:, 0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(table.au_logits, outputs["au"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(table.expression_logits, outputs["expr"], rtol=1e-4, atol=1e-4)
    assert table.frame.tolist() == list(range(1, count + 1))
    assert table.metadata["step"] == 7
    assert table.metadata["weights_sha256"] == "0" * 64
    assert len(table.to_dataframe()) == count


def test_a_list_of_crops_of_any_size_is_resized_as_training_resizes(predictor, tmp_path):
    """Training reads files: the same picture through a file gives the same answer."""
    small, large = crops(1)[0], crops(1, side=80)[0]
    path = tmp_path / "large.png"
    Image.fromarray(large).save(path)
    table = predictor.predict_crops([small, large])
    expected = predictor.predict_crops(np.stack([small, read_image(path, SIDE)]))
    np.testing.assert_array_equal(table.au_logits, expected.au_logits)


def test_arrays_give_what_their_crops_give(predictor):
    images = crops(9)
    assert predictor.inputs == ("image",)
    table = predictor.predict_arrays({"image": images, "points": np.zeros(3)})
    expected = predictor.predict_crops(images)
    np.testing.assert_array_equal(table.au_logits, expected.au_logits)
    assert table.frame.tolist() == list(range(1, 10))
    assert len(predictor.predict_arrays({"image": images[:0]})) == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no 'image'"),
        ({"image": np.zeros((2, SIDE, SIDE, 3), np.float32)}, "image is float32"),
        ({"image": np.zeros((2, SIDE, SIDE + 1, 3), np.uint8)}, "image is uint8"),
    ],
)
def test_other_arrays_are_refused(predictor, arrays, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict_arrays(arrays)


def test_no_crops_give_an_empty_table(predictor):
    assert len(predictor.predict_crops([])) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, SIDE, SIDE, 3), np.float32),
        np.zeros((1, SIDE, SIDE, 4), np.uint8),
        [np.zeros((SIDE, SIDE), np.uint8)],
        [np.zeros((1, SIDE, SIDE, 3), np.uint8)],
        [np.zeros((SIDE, SIDE, 3), np.int64)],
        np.zeros((1, 0, SIDE, 3), np.uint8),
    ],
)
def test_what_is_no_8_bit_rgb_image_is_refused(predictor, wrong):
    with pytest.raises(ImageError, match=r"crop 1 is .*expected uint8 \[height, width, 3\]"):
        predictor.predict_crops(wrong)


@pytest.mark.parametrize("shape", [(SIDE, SIDE, 3), (1, SIDE, SIDE), (1, 1, SIDE, SIDE, 3), ()])
def test_an_array_of_another_rank_is_refused(predictor, shape):
    with pytest.raises(ImageError, match=r"expected uint8 \[N, height, width, 3\]") as raised:
        predictor.predict_crops(np.zeros(shape, np.uint8))
    assert str(list(shape)) in raised.value.problem
    assert "predict_crops([crop])" in raised.value.remedy


def test_where_the_tokens_look_whatever_the_batch(predictor):
    images = crops(11)
    attention = predictor.cross_attention(images)
    assert attention.shape[:4] == (11, 1, 4, 3)
    assert attention.dtype == np.float32
    np.testing.assert_allclose(attention.sum(axis=-1), 1.0, rtol=1e-5)
    for number in (0, 7, 10):
        alone = predictor.cross_attention(images[number : number + 1])
        np.testing.assert_allclose(attention[number], alone[0], rtol=1e-4, atol=1e-6)
    assert np.abs(attention[0] - attention[10]).max() > 1e-5  # they are of each image


ROWS = 8
FITTED = {"va": 0.2, "au": 1.5, "expr": 3.0}
DIVISORS = {"au": 2.0, "expr": 5.0}


def outputs_of(rng, *names):
    sizes = output_sizes(va_variance=True, sampled=True)
    return {name: rng.uniform(0.1, 1, (ROWS, sizes[name])).astype(np.float32) for name in names}


@pytest.mark.parametrize("kind", ["fixed", "learned", "likelihood"])
def test_columns_of_one_network(kind):
    outputs = outputs_of(np.random.default_rng(0), *OUTPUT_SIZES)
    columns = table_columns(outputs, kind=kind, temperatures=FITTED, divisors=DIVISORS)
    np.testing.assert_allclose(columns["au_logits"] * 2.0, outputs["au"])
    np.testing.assert_allclose(columns["expression_logits"] * 5.0, outputs["expr"])
    np.testing.assert_array_equal(columns["arousal"], outputs["va"][:, 1])
    if kind == "fixed":
        assert "valence_std" not in columns
    else:
        np.testing.assert_allclose(columns["valence_std"], np.sqrt(0.2))
    assert not any("epistemic" in name for name in columns)


def test_total_is_aleatoric_and_epistemic():
    names = (*OUTPUT_SIZES, VA_LOG_VARIANCE, *EPISTEMIC.values())
    outputs = outputs_of(np.random.default_rng(1), *names)
    columns = table_columns(outputs, kind="fixed", temperatures=FITTED, divisors=DIVISORS)
    aleatoric = np.sqrt(FITTED["va"] * np.exp(outputs[VA_LOG_VARIANCE])[:, 1])
    epistemic = outputs[EPISTEMIC["va"]][:, 1]
    np.testing.assert_allclose(columns["arousal_std"], np.hypot(aleatoric, epistemic), rtol=1e-6)
    np.testing.assert_array_equal(columns["arousal_epistemic_std"], epistemic)
    np.testing.assert_array_equal(columns["au_epistemic_std"], outputs[EPISTEMIC["au"]])


def test_outputs_of_a_task_that_was_not_trained_are_left_out(predictor):
    whole = predictor.predict_crops(crops(3))
    training = {"labels": {"va": 0, "au": 4, "expr": 0}}
    part = dataclasses.replace(predictor, origin={**predictor.origin, "training": training})
    table = part.predict_crops(crops(3))
    assert np.isnan(table.va).all()
    assert np.isnan(table.expression_logits).all()
    np.testing.assert_array_equal(table.au_logits, whole.au_logits)
    assert (table.tasks, table.untrained) == (("au",), ("va", "expr"))
    table.check_numbers()
    frame = table.to_dataframe()
    assert frame["expression"].tolist() == [""] * 3
    assert frame["au1_present"].tolist() == whole.to_dataframe()["au1_present"].tolist()
