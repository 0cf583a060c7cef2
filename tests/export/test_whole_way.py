"""The program from crops to answers, against `Predictor.predict_crops` and `calibration.apply`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_programs import calibration, card_of, faces, fake_mesh, predictor, run

from mtl_face.errors import ConfigError
from mtl_face.evaluation import calibration as calibrations
from mtl_face.evaluation.calibration import CalibrationError
from mtl_face.evaluation.smoothing import Smoothing
from mtl_face.export import crop_points, whole_way
from mtl_face.faces import crop_mesh, geometry
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES, TASKS

RANDOM = np.random.default_rng(3)
CROPS = RANDOM.integers(0, 256, (3, 16, 16, 3), np.uint8)


def assert_answers(found, table, fitted=None, atol=2e-6):
    """Each answer is that of the table, calibrated by `calibration.apply`."""
    after = table if fitted is None else calibrations.apply(table, fitted)
    expected = {
        "valence_arousal": np.clip(table.va, -1, 1),
        "au_probability": after.au_probabilities,
        "expression_probability": after.expression_probabilities,
        "au_logit": table.au_logits,
        "expression_logit": table.expression_logits,
    }
    if after.va_std is not None:
        expected["valence_arousal_std"] = after.va_std
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, atol=atol, rtol=1e-5, err_msg=name)
    assert set(found) - {"found"} == {*expected, "au_present", "expression"}
    np.testing.assert_array_equal(found["au_present"], after.au == 1)
    np.testing.assert_array_equal(found["expression"], after.expression)
    assert found["expression"].dtype == np.int32


@pytest.fixture(scope="module")
def images():
    """A network of images that predicts its variance."""
    return predictor(va_variance="per_example")


def test_answers_are_those_of_the_table(images):
    whole = whole_way.whole_way(images, card_of(images))
    assert whole.inputs["crop"][:2] == ("uint8", ("batch", 16, 16, 3))
    found = run(whole, {"crop": CROPS})
    assert list(whole.outputs) == [name for name in whole.outputs if name in found]
    for name, array in whole.outputs.items():
        assert found[name].shape == (3, *array.shape_of_one)
        assert found[name].dtype == array.dtype
    assert_answers(found, images.predict_crops(CROPS))
    added = whole.card[whole_way.KEY]
    assert added["outputs"]["au_present"]["names"] == list(AU_NAMES)
    assert added["outputs"]["expression"]["names"] == list(EXPRESSION_NAMES)
    assert added["calibration"] is None


def test_calibration(images):
    fitted = calibration(std_is_predicted=True)
    whole = whole_way.whole_way(images, card_of(images), calibration=fitted)
    assert_answers(run(whole, {"crop": CROPS}), images.predict_crops(CROPS), fitted)
    added = whole.card[whole_way.KEY]
    assert added["calibration"] == fitted.to_dict()
    assert added["decisions"]["au_thresholds"] == dict(fitted.au_thresholds)


@pytest.mark.slow
def test_smoothing_of_a_calibration_is_left_out(images):
    fitted = calibration(std_is_predicted=True)
    smoothed = dataclasses.replace(fitted, smoothing=Smoothing(windows=dict.fromkeys(TASKS, 3)))
    one, other = (
        whole_way.whole_way(images, card_of(images), calibration=each)
        for each in (fitted, smoothed)
    )
    np.testing.assert_array_equal(
        run(one, {"crop": CROPS})["au_probability"], run(other, {"crop": CROPS})["au_probability"]
    )
    assert other.card[whole_way.KEY]["smoothing"].startswith("none")


def test_calibration_of_another_network(images):
    with pytest.raises(CalibrationError, match="standard deviations"):
        whole_way.whole_way(
            images, card_of(images), calibration=calibration(std_is_predicted=False)
        )


@pytest.mark.slow
def test_constant_deviations():
    """Of a fit where the network predicts none, and of a network with one for all."""
    fixed = predictor(kind="fixed")
    assert "valence_arousal_std" not in whole_way.whole_way(fixed, card_of(fixed)).outputs
    fitted = calibration(std_is_predicted=False)
    found = run(whole_way.whole_way(fixed, card_of(fixed), calibration=fitted), {"crop": CROPS})
    assert_answers(found, fixed.predict_crops(CROPS), fitted)
    learned = predictor(kind="likelihood")
    found = run(whole_way.whole_way(learned, card_of(learned)), {"crop": CROPS})
    assert_answers(found, learned.predict_crops(CROPS))


@pytest.mark.slow
def test_untrained_tasks_have_no_answer():
    images = predictor(training={"labels": {"va": 0, "au": 5, "expr": 0}})
    found = run(whole_way.whole_way(images, card_of(images)), {"crop": CROPS})
    for name in ("valence_arousal", "expression_probability", "expression_logit"):
        assert np.isnan(found[name]).all()
    assert (found["expression"] == -1).all()
    assert np.isfinite(found["au_probability"]).all()
    assert_answers(found, images.predict_crops(CROPS))


@pytest.mark.parametrize(
    "size", [24, *(pytest.param(size, marks=pytest.mark.slow) for size in (9, 40))]
)
def test_crops_of_other_sizes(images, size):
    crops = RANDOM.integers(0, 256, (2, size, size, 3), np.uint8)
    whole = whole_way.whole_way(images, card_of(images), crop_size=size)
    assert whole.inputs["crop"].shape_of_one == (size, size, 3)
    assert_answers(run(whole, {"crop": crops}), images.predict_crops(crops))


@pytest.mark.parametrize("size", [1, 257])
def test_crops_of_no_size(images, size):
    with pytest.raises(ConfigError, match="2 to 256 pixels"):
        whole_way.whole_way(images, card_of(images), crop_size=size)


@pytest.mark.parametrize("given", [7, 113, 224, 1792])
def test_resizing_gives_the_bytes_of_pillow(given):
    crop = RANDOM.integers(0, 256, (given, given, 3), np.uint8)
    crop[: given // 2] = 255  # the largest sums
    expected = Image.fromarray(crop).resize((112, 112), Image.Resampling.BILINEAR)
    found = whole_way.resized_as_pillow(jnp.asarray(crop[None]), 112)[0]
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [("points",), ("image", "points")])
def test_networks_of_points(inputs, monkeypatch):
    """With another mesh network in both places, which is cheap; the real one is tried below."""
    fake_mesh(monkeypatch)
    model = predictor(inputs=inputs)
    whole = whole_way.whole_way(model, card_of(model))
    assert list(whole.inputs) == ["crop", "baseline"]
    crops = faces(4, 16)
    baseline = np.zeros((4, 468, 3), np.float32)
    found = run(whole, {"crop": crops, "baseline": baseline})
    assert found["found"].all()
    assert_answers(found, model.predict_crops(crops), atol=2e-5)
    baseline[:2] = RANDOM.normal(0, 0.02, (2, 468, 3))
    beside = run(whole, {"crop": crops, "baseline": baseline})
    arrays = {"baseline": baseline, "image": crops}
    points, _ = crop_points.points_of_crops(jnp.asarray(crops), crop_mesh.mesh_network({}))
    arrays["points"] = np.asarray(points)
    assert_answers(beside, model.predict_arrays(arrays), atol=1e-5)
    apart = np.abs(beside["au_logit"] - found["au_logit"]).max(axis=1)
    assert apart[:2].min() > 1e-3
    np.testing.assert_array_equal(apart[2:], 0)


@pytest.mark.parametrize(
    "inputs", [("points",), pytest.param(("image", "points"), marks=pytest.mark.slow)]
)
def test_points_that_are_given(inputs):
    model = predictor(inputs=inputs)
    whole = whole_way.whole_way(model, card_of(model), points_given=True)
    crop = ["crop"] if "image" in inputs else []
    assert list(whole.inputs) == [*crop, "points", "baseline"]
    assert "found" not in whole.outputs
    points, baseline = RANDOM.normal(0, 0.05, (2, 3, 468, 3)).astype(np.float32)
    arrays = {"points": points, "baseline": baseline, "image": CROPS}
    expected = model.predict_arrays({name: arrays[name] for name in (*model.inputs, "baseline")})
    given = {name: arrays["image" if name == "crop" else name] for name in whole.inputs}
    assert_answers(run(whole, given), expected, atol=1e-5)


@pytest.mark.slow
def test_no_points_no_answers(monkeypatch):
    """Beside a face, a crop whose points are no face's."""
    fake_mesh(monkeypatch, wild=True)
    model = predictor(inputs=("points",))
    whole = whole_way.whole_way(model, card_of(model))
    crops = np.concatenate([faces(1, 16), np.zeros((1, 16, 16, 3), np.uint8)])
    found = run(whole, {"crop": crops, "baseline": np.zeros((2, 468, 3), np.float32)})
    assert found["found"].tolist() == [True, False]
    assert np.isnan(found["au_probability"][1]).all()
    assert np.isfinite(found["au_probability"][0]).all()
    assert not found["au_present"][1].any()
    assert found["expression"][0] >= 0
    assert found["expression"][1] == -1


def test_alignment_is_that_of_the_singular_values():
    target = geometry.mean_face()
    meshes = []
    for _ in range(8):
        turn = np.linalg.qr(RANDOM.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        face = target + RANDOM.normal(0, 0.1, target.shape)
        meshes.append(face @ turn.T * RANDOM.uniform(20, 200) + RANDOM.uniform(-50, 50, 3))
    meshes = np.stack(meshes)
    found, sound = crop_points.normalised(jnp.asarray(meshes, jnp.float32))
    np.testing.assert_allclose(found, geometry.normalise(meshes), atol=3e-6)
    assert sound.all()
    inside_out = meshes * [1, 1, -1]
    found, sound = crop_points.normalised(jnp.asarray(inside_out, jnp.float32))
    assert not sound.any()
    assert not np.asarray(found).any()
    assert not crop_points.normalised(jnp.ones((1, 468, 3)))[1].any()


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_rotations(condition):
    """Against `numpy.linalg.svd`, whatever the matrix."""
    left, _, right = np.linalg.svd(RANDOM.normal(size=(20, 3, 3)))
    turn = left @ right
    turn *= np.linalg.det(turn)[:, None, None]
    stretch = np.geomspace(1, 1 / condition, 3) * np.eye(3)
    basis = np.linalg.qr(RANDOM.normal(size=(20, 3, 3)))[0]
    matrix = 1e3 * turn @ basis @ stretch @ basis.transpose(0, 2, 1)
    found, sound = crop_points.rotation(jnp.asarray(matrix, jnp.float32))
    assert sound.all()
    np.testing.assert_allclose(found, turn, atol=1e-6 * condition + 1e-5)


def test_program_has_no_loop_and_takes_any_batch(monkeypatch):
    fake_mesh(monkeypatch)
    model = predictor(inputs=("image", "points"))
    whole = whole_way.whole_way(model, card_of(model), crop_size=24)
    (batch,) = jax.export.symbolic_shape("batch")
    arrays = {
        name: jax.ShapeDtypeStruct((batch, *one.shape_of_one), one.dtype)
        for name, one in whole.inputs.items()
    }
    text = str(jax.make_jaxpr(whole.function)(arrays))
    assert "conv_general_dilated" in text
    for primitive in ("while", "scan", "svd", "sort", "eigh", "cond["):
        assert f" {primitive}" not in text


@pytest.mark.slow
def test_the_bundled_model():
    """As near as the module says: the points of a face to a thousandth of the eyes' distance."""
    import mtl_face

    model = mtl_face.load("geometry")
    whole = whole_way.whole_way(model, card_of(model), convolution="matmul")
    crops = faces(4, 112)
    found = run(whole, {"crop": crops, "baseline": np.zeros((4, 468, 3), np.float32)})
    assert found["found"].all()
    table = model.predict_crops(crops)
    np.testing.assert_allclose(found["valence_arousal"], table.va.clip(-1, 1), atol=0.02)
    np.testing.assert_allclose(found["au_probability"], table.au_probabilities, atol=0.03)
