import functools
import itertools
import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mtl_face import config
from mtl_face.config import AugmentationConfig
from mtl_face.errors import ConfigError
from mtl_face.objective import augment, resample

RANGES = {"rotation_degrees": 10.0, "translation": 0.1, "zoom": (0.9, 1.1), "flip": True}
# float32 coordinates of up to 100 pixels are good to 1e-5 of a pixel, times 255 for an edge.
ROUNDING = 0.02


def noise_images(batch, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def smooth_images(batch, size, seed=0):
    """Full-contrast pictures about as sharp as a face crop: noise, blurred by two pixels."""
    noise = np.random.default_rng(seed).normal(size=(batch, size, size, 3))
    smooth = ndimage.gaussian_filter(noise, sigma=(0, 2, 2, 0), mode="nearest")
    span = np.ptp(smooth, axis=(1, 2, 3), keepdims=True)
    return np.rint(255 * (smooth - smooth.min(axis=(1, 2, 3), keepdims=True)) / span).astype(
        np.uint8
    )


def compose(angle=0.0, shift=(0.0, 0.0), zoom=1.0, flip=False, *, stored_size, input_size):
    return augment.compose_transforms(
        jnp.array([angle], jnp.float32),
        jnp.array([shift], jnp.float32),
        jnp.array([zoom], jnp.float32),
        jnp.array([flip]),
        stored_size=stored_size,
        input_size=input_size,
    )


def reference_warp(image_HWC, transform_23, input_size, fill=0.0):
    """SciPy, float64. Also returns where the picture is certain, and where the fill is."""
    height, width, channels = image_HWC.shape
    rows, columns = np.mgrid[:input_size, :input_size].astype(np.float64)
    x, y = np.einsum("ij,jvu->ivu", transform_23, np.stack([columns, rows, np.ones_like(rows)]))
    output = np.stack(
        [
            ndimage.map_coordinates(
                image_HWC[..., c].astype(np.float64), [y, x], order=1, mode="nearest"
            )
            for c in range(channels)
        ],
        axis=-1,
    )
    on_picture = (abs(x - (width - 1) / 2) < width / 2 - 1e-3) & (
        abs(y - (height - 1) / 2) < height / 2 - 1e-3
    )
    on_fill = (abs(x - (width - 1) / 2) > width / 2 + 1 + 1e-3) | (
        abs(y - (height - 1) / 2) > height / 2 + 1 + 1e-3
    )
    return np.where(on_fill[..., None], fill, output), on_picture, on_fill


@functools.cache
def resampler(input_size, method, fill=0.0):
    return jax.jit(
        functools.partial(resample.resample, input_size=input_size, method=method, fill=fill)
    )


def test_composed_map_is_opencvs():
    # getRotationMatrix2D maps stored to output, positive angles counterclockwise.
    size, angle, zoom, shift = 50, 17.0, 1.2, (3.0, -5.0)
    centre = (size - 1) / 2
    forward = np.vstack([cv2.getRotationMatrix2D((centre, centre), angle, zoom), [0, 0, 1]])
    forward[:2, 2] += shift
    expected = np.linalg.inv(forward)[:2]
    got = compose(math.radians(angle), shift, zoom, stored_size=size, input_size=size)[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_composed_map_with_resize_and_flip():
    # Resize, flip, rotate, zoom, shift as 3 x 3 matrices of the forward map, one by one.
    stored, size, angle, zoom, shift = 30, 48, 0.3, 0.8, (2.5, 4.0)

    def matrix(a, b, c, d, e, f):
        return np.array([[a, b, c], [d, e, f], [0, 0, 1]])

    ratio, centre = size / stored, (size - 1) / 2
    resize = matrix(ratio, 0, (ratio - 1) / 2, 0, ratio, (ratio - 1) / 2)
    mirror = matrix(-1, 0, size - 1, 0, 1, 0)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = (
        matrix(1, 0, centre, 0, 1, centre)
        @ matrix(zoom * cos, zoom * sin, 0, -zoom * sin, zoom * cos, 0)
        @ matrix(1, 0, -centre, 0, 1, -centre)
    )
    move = matrix(1, 0, shift[0], 0, 1, shift[1])
    expected = np.linalg.inv(move @ turn @ mirror @ resize)[:2]
    got = compose(angle, shift, zoom, True, stored_size=stored, input_size=size)[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(("stored", "size"), [(112, 224), (112, 112), (50, 20)])
def test_identity_is_composition_without_augmentation(stored, size):
    identity = augment.identity_transforms(3, stored_size=stored, input_size=size)
    assert identity.shape == (3, 2, 3)
    assert identity.dtype == jnp.float32
    composed = compose(stored_size=stored, input_size=size)
    np.testing.assert_allclose(identity, np.repeat(composed, 3, axis=0), atol=1e-6)


@pytest.mark.parametrize("method", ["gather", "separable"])
@pytest.mark.parametrize(("stored", "size"), [(24, 48), (24, 36), (48, 20)])
def test_identity_is_opencvs_resize(method, stored, size):
    image = noise_images(2, stored)
    transform = augment.identity_transforms(2, stored_size=stored, input_size=size)
    output = resampler(size, method)(image, transform)
    assert output.shape == (2, size, size, 3)
    assert output.dtype == jnp.float32
    for got, one in zip(output, image, strict=True):
        expected = cv2.resize(one.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(got, expected, atol=ROUNDING)


@pytest.mark.parametrize("method", ["gather", "separable"])
def test_whole_pixel_maps_are_exact(method):
    size = 24
    image = noise_images(1, size)
    warp = resampler(size, method, 7.0)

    identity = augment.identity_transforms(1, stored_size=size, input_size=size)
    np.testing.assert_array_equal(warp(image, identity), image)

    flipped = compose(flip=True, stored_size=size, input_size=size)
    np.testing.assert_array_equal(warp(image, flipped), image[:, :, ::-1])

    shifted = np.asarray(
        warp(image, compose(shift=(3, -2), stored_size=size, input_size=size)), np.float32
    )
    np.testing.assert_array_equal(shifted[:, :-2, 3:], image[:, 2:, :-3])
    # The last half pixel fades: the centre next to the picture is half a pixel beyond its edge.
    np.testing.assert_allclose(
        shifted[:, :-2, 2], (image[:, 2:, 0].astype(np.float32) + 7) / 2, atol=1e-4
    )
    assert np.all(shifted[:, :, :2] == 7)
    assert np.all(shifted[:, -1:] == 7)


def test_gather_against_scipy():
    stored, size, fill = 40, 56, 100.0
    image = noise_images(16, stored)
    transform = augment.draw_transforms(
        jax.random.key(3), 16, AugmentationConfig(45.0, 0.2, (0.5, 2.0)),
        stored_size=stored, input_size=size,
    )  # fmt: skip
    output = resampler(size, "gather", fill)(image, transform)
    filled = 0
    for got, one, matrix in zip(np.asarray(output), image, np.asarray(transform), strict=True):
        expected, on_picture, on_fill = reference_warp(one, matrix.astype(np.float64), size, fill)
        np.testing.assert_allclose(got[on_picture], expected[on_picture], atol=ROUNDING)
        np.testing.assert_array_equal(got[on_fill], expected[on_fill])
        ramp = ~on_picture & ~on_fill
        low, high = np.minimum(expected, fill)[ramp], np.maximum(expected, fill)[ramp]
        assert np.all((got[ramp] >= low - ROUNDING) & (got[ramp] <= high + ROUNDING))
        filled += on_fill.sum()
    assert filled > 1000


@pytest.mark.parametrize(
    ("rotation_degrees", "mean_tolerance", "max_tolerance"), [(10.0, 0.1, 8.0), (45.0, 0.5, 32.0)]
)
def test_separable_against_gather(rotation_degrees, mean_tolerance, max_tolerance):
    stored, size, batch = 40, 56, 16
    image = smooth_images(batch, stored)
    transform = augment.draw_transforms(
        jax.random.key(4), batch, AugmentationConfig(rotation_degrees),
        stored_size=stored, input_size=size,
    )  # fmt: skip
    gathered = resampler(size, "gather")(image, transform)
    separable = resampler(size, "separable")(image, transform)
    difference = np.abs(np.asarray(gathered) - np.asarray(separable))
    assert difference.mean() < mean_tolerance
    assert difference.max() < max_tolerance


@pytest.mark.parametrize("zoom", [0.7, 1.4])
def test_separable_is_gather_without_rotation(zoom):
    image = noise_images(1, 32)
    transform = compose(0.0, (1.3, -4.6), zoom, True, stored_size=32, input_size=48)
    np.testing.assert_allclose(
        resampler(48, "gather")(image, transform),
        resampler(48, "separable")(image, transform),
        atol=ROUNDING,
    )


@pytest.mark.parametrize("degrees", [5.0, -36.0, 45.0])
def test_both_methods_keep_linear_pictures(degrees):
    # Bilinear interpolation is exact on a ramp, whatever the order of its passes.
    stored, size = 32, 40
    rows, columns = np.mgrid[:stored, :stored].astype(np.float32)
    image = np.stack([3 * columns + 2 * rows, 4 * rows, 90 - columns], axis=-1)[None]
    transform = compose(math.radians(degrees), (1.0, 2.0), 1.3, stored_size=stored, input_size=size)
    x, y = np.einsum(
        "ij,jvu->ivu", transform[0], np.stack([*np.mgrid[:size, :size][::-1], np.ones((size,) * 2)])
    )
    inside = (np.minimum(x, y) > 2) & (np.maximum(x, y) < stored - 3)
    expected = np.stack([3 * x + 2 * y, 4 * y, 90 - x], axis=-1)
    for method in ("gather", "separable"):
        output = np.asarray(resampler(size, method)(image, transform))[0]
        np.testing.assert_allclose(output[inside], expected[inside], atol=ROUNDING)


def draw(seed, batch=4096, stored_size=112, input_size=224, **changes):
    return np.asarray(
        augment.draw_transforms(
            jax.random.key(seed), batch, AugmentationConfig(**{**RANGES, **changes}),
            stored_size=stored_size, input_size=input_size,
        ),
        np.float64,
    )  # fmt: skip


def parameters(transform, stored_size=112, input_size=224):
    """Angle (degrees), zoom, flip and shift (fractions) of the maps, from the matrices."""
    linear = transform[:, :, :2]
    determinant = np.linalg.det(linear)
    zoom = stored_size / input_size / np.sqrt(abs(determinant))
    angle = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 1, 1]))
    stored_centre = np.full((len(linear), 2), (stored_size - 1) / 2) - transform[:, :, 2]
    moved_centre = np.linalg.solve(linear, stored_centre[..., None])[..., 0]
    return angle, zoom, determinant < 0, (moved_centre - (input_size - 1) / 2) / input_size


def test_drawn_ranges():
    angle, zoom, flip, shift = parameters(draw(0))
    drawn = [("angle", angle, 10), ("zoom", 10 * (zoom - 1), 1)]
    drawn += [("shift", shift[:, 0], 0.1), ("shift", shift[:, 1], 0.1)]
    for name, values, reach in drawn:
        assert np.all(abs(values) <= reach * (1 + 1e-4)), name
        # Uniform: mean 0 and standard deviation reach / sqrt(3), within five standard errors.
        assert abs(values.mean()) < 5 * reach / math.sqrt(3 * 4096), name
        assert abs(values.std() / (reach / math.sqrt(3)) - 1) < 0.05, name
    assert abs(flip.mean() - 0.5) < 5 * 0.5 / 64
    columns = [angle, zoom, flip, shift[:, 0], shift[:, 1]]
    for a, b in itertools.combinations(columns, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.08


def test_switched_off_draws_are_the_identity():
    transform = draw(1, batch=8, rotation_degrees=0.0, translation=0.0, zoom=(1.0, 1.0), flip=False)
    identity = augment.identity_transforms(8, stored_size=112, input_size=224)
    np.testing.assert_array_equal(transform, identity)


def test_draws_depend_on_the_key_alone():
    np.testing.assert_array_equal(draw(5, batch=16), draw(5, batch=16))
    assert not np.any(draw(5, batch=16)[:, 0, 0] == draw(6, batch=16)[:, 0, 0])
    assert len(np.unique(draw(5, batch=16)[:, 0, 0])) == 16


@pytest.mark.parametrize(
    "changes",
    [
        {"rotation_degrees": -1.0},
        {"rotation_degrees": 46.0},
        {"rotation_degrees": math.nan},
        {"translation": -0.1},
        {"translation": 10.0},
        {"zoom": (1.1, 0.9)},
        {"zoom": (0.0, 1.0)},
    ],
)
def test_ranges_that_the_settings_refuse(changes):
    """The transforms rely on it: they check no range again."""
    (name,) = changes
    with pytest.raises(ConfigError, match=name):
        config.validate({"augmentation": changes}, reads_data=False)


def test_refused_shapes_and_methods():
    image = noise_images(2, 8)
    transform = augment.identity_transforms(2, stored_size=8, input_size=8)
    with pytest.raises(ValueError, match="auto, gather, separable"):
        resample.resample(image, transform, input_size=8, method="shear")
    with pytest.raises(ValueError, match=r"\[B, H, W, C\]"):
        resample.resample(image[0], transform, input_size=8)
    with pytest.raises(ValueError, match=r"\[2, 2, 3\]"):
        resample.resample(image, transform[:1], input_size=8)


@pytest.mark.parametrize(
    ("backend", "expected"), [("cpu", "gather"), ("gpu", "gather"), ("tpu", "separable")]
)
def test_method_by_backend(monkeypatch, backend, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert resample.resolve_method("auto") == expected
    assert resample.resolve_method("gather") == "gather"
    assert resample.resolve_method("separable") == "separable"
