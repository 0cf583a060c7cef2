"""Mirror, identity, strength, noise and lost baselines of face points."""

import functools

import jax
import numpy as np
import pytest

from mtl_face.config import AugmentationConfig
from mtl_face.objective import augment, augment_points

BATCH, POINTS = 64, 40


@pytest.fixture(scope="module")
def face():
    """Pairs of points on both sides of x = 0, with those of its right half behind the left's."""
    left_V3 = np.random.default_rng(3).uniform(-1, 1, (POINTS // 2, 3))
    mirrored = np.roll(np.arange(POINTS), POINTS // 2)
    mean_V3 = np.concatenate([left_V3, left_V3 * [-1, 1, 1]])
    return augment_points.Face.of(mean_V3, mirrored)


@pytest.fixture(scope="module")
def points():
    """Points, and two baselines: of the last example neither is known."""
    random = np.random.default_rng(0)
    points, *baselines = random.normal(0, 0.05, (3, BATCH, POINTS, 3)).astype(np.float32)
    baseline = np.stack(baselines, axis=1)
    baseline[-1] = 0
    return points, baseline


@pytest.fixture
def change(points, face):
    def change(baselines=slice(1), key=1, **changes):
        ranges = AugmentationConfig(**{"flip": False, **changes})
        augmented = jax.jit(functools.partial(augment_points.augment, ranges=ranges, face=face))
        found = augmented(jax.random.key(key), points[0], points[1][:, baselines])
        return jax.device_get(found)

    return change


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


def test_a_face_in_a_mirror(points, face):
    found = np.asarray(augment_points.mirror(points[0], face))
    half = POINTS // 2
    np.testing.assert_array_equal(found[:, half:], points[0][:, :half] * np.float32([-1, 1, 1]))
    np.testing.assert_array_equal(augment_points.mirror(found, face), points[0])


def test_points_and_baseline_are_mirrored_where_the_image_is(change, points, face):
    found, baseline = change(flip=True)
    transform_B23 = augment.draw_transforms(
        jax.random.key(1), BATCH, AugmentationConfig(), stored_size=8, input_size=8
    )
    mirrored_B = np.asarray(transform_B23[:, 0, 0]) < 0
    assert 10 < mirrored_B.sum() < BATCH - 10
    for one, before in ((found, points[0]), (baseline, points[1][:, 0])):
        image = before[:, face.mirrored] * np.float32([-1, 1, 1])
        np.testing.assert_array_equal(one[mirrored_B], image[mirrored_B])
        np.testing.assert_array_equal(one[~mirrored_B], before[~mirrored_B])


def test_nothing_is_changed_without_settings(change, points):
    found, baseline = change()
    np.testing.assert_array_equal(found, points[0])
    np.testing.assert_array_equal(baseline, points[1][:, 0])


def test_one_of_several_baselines_is_drawn(change, points):
    _, baseline = change(baselines=slice(2))
    first_B, second_B = ((baseline == points[1][:, kind]).all(axis=(1, 2)) for kind in (0, 1))
    assert (first_B | second_B).all()
    assert 16 < first_B[:-1].sum() < 48


def test_noise_is_on_the_points_alone(change, points):
    found, baseline = change(points_noise=0.01)
    np.testing.assert_array_equal(baseline, points[1][:, 0])
    np.testing.assert_allclose((found - points[0]).std(), 0.01, rtol=0.03)


def test_another_identity_leaves_the_change_as_it_was(change, points):
    found, baseline = change(points_identity=0.03)
    change_BV3 = (points[0] - points[1][:, 0])[:-1]
    np.testing.assert_allclose((found - baseline)[:-1], change_BV3, atol=1e-6)
    assert not baseline[-1].any()  # it stays unknown
    moved = found - points[0]
    # Two fields of RMS 1, times normal numbers.
    np.testing.assert_allclose(rms(moved), 0.03 * np.sqrt(2), rtol=0.2)
    np.testing.assert_allclose(moved.mean(axis=1), 0, atol=1e-6)
    size_B = np.sqrt(np.mean(moved**2, axis=(1, 2)))
    assert size_B.std() > 0.2 * size_B.mean()


def test_displacements_are_smooth_and_mostly_symmetric(face):
    moved = np.asarray(augment_points.displacements(jax.random.key(2), 400, face))
    mirrored = np.asarray(augment_points.mirror(moved, face))
    # Half of a field is even: even and odd part times sqrt(0.8) sqrt(2) + sqrt(0.2), sqrt(0.2).
    even, odd = (np.sqrt(1.6) + np.sqrt(0.2)) ** 2, 0.2
    share = rms(moved + mirrored) ** 2 / (4 * rms(moved) ** 2)
    np.testing.assert_allclose(share, even / (even + odd), atol=0.01)
    near = augment_points.Face.of(np.zeros((POINTS, 3)) + [[0.1], [0.0]] * (POINTS // 2), [])
    correlation = near.basis @ near.basis.T
    np.testing.assert_allclose(correlation[0, 1], np.exp(-0.03 / (2 * 0.35**2)), rtol=1e-4)
    np.testing.assert_allclose(correlation[0, 2], 1.0, rtol=1e-4)


def test_a_change_is_on_the_points_alone(change, points):
    found, baseline = change(points_change=0.004)
    np.testing.assert_array_equal(baseline, points[1][:, 0])
    np.testing.assert_allclose(rms(found - points[0]), 0.004 * np.sqrt(2), rtol=0.2)


def test_gain_is_of_what_differs_from_a_known_baseline(change, points):
    found, baseline = change(points_gain=0.3)
    np.testing.assert_array_equal(found[-1], points[0][-1])
    ratio = ((found - baseline) / (points[0] - baseline))[:-1].reshape(BATCH - 1, -1)
    gain_B = np.median(ratio, axis=1)
    expected = (points[0] - baseline) * gain_of(gain_B)
    np.testing.assert_allclose(found - baseline, expected, atol=1e-5)
    assert gain_B.min() > 0.7 - 1e-5
    assert gain_B.max() < 1.3 + 1e-5
    assert gain_B.std() > 0.1


def gain_of(gain_B):
    """The last example has no baseline, and keeps its points."""
    return np.append(gain_B, 1.0)[:, None, None]


def test_some_baselines_are_lost_whole(change, points):
    found, baseline = change(baseline_dropout=0.25)
    np.testing.assert_array_equal(found, points[0])
    lost_B = (baseline == 0).all(axis=(1, 2))
    assert 8 <= lost_B.sum() <= 24  # 16 are expected
    np.testing.assert_array_equal(baseline[~lost_B], points[1][~lost_B, 0])
