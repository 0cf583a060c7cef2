"""The alignment against independent references: Umeyama's method with an SVD, and OpenCV."""

import cv2
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.rendered_faces.camera import TEMPLATE_L2
from mtl_face.faces import align

RANDOM = np.random.default_rng(6)


def umeyama(source, target):
    """Umeyama (1991), equations 40 to 43, in any dimension."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    u, d, vt = np.linalg.svd(covariance)
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / ((source - source_mean) ** 2).sum(axis=1).mean()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def smooth_picture(height=200, width=260, seed=0):
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@given(
    st.floats(-np.pi, np.pi),
    st.floats(0.05, 20),
    st.floats(-500, 500),
    st.floats(-500, 500),
    st.floats(0, 8),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, derandomize=True, max_examples=80)
def test_similarity_is_umeyamas(angle, scale, x, y, noise, seed):
    random = np.random.default_rng(seed)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = align.TEMPLATE_L2
    source = target @ turn.T + [x, y] + random.normal(0, noise, (5, 2)) * scale
    found = align.similarity(source, target)
    np.testing.assert_allclose(found, umeyama(source, target), atol=1e-8, rtol=1e-7)
    assert np.linalg.det(found[:, :2]) > 0
    if noise < 1e-6:
        np.testing.assert_allclose(align.transform(found, source), target, atol=1e-4)


def test_similarity_never_mirrors():
    target = align.TEMPLATE_L2
    mirrored = target * [-1, 1]
    found = align.similarity(mirrored, target)
    np.testing.assert_allclose(found, umeyama(mirrored, target), atol=1e-9)
    assert np.linalg.det(found[:, :2]) > 0


def test_similarity_of_one_place():
    with pytest.raises(ValueError, match="coincide"):
        align.similarity(np.ones((5, 2)), align.TEMPLATE_L2)


def test_template_is_the_renderers():
    np.testing.assert_array_equal(align.TEMPLATE_L2, TEMPLATE_L2)
    described = align.specification()
    assert described["size"] == 112
    assert described["template"] == TEMPLATE_L2.tolist()
    assert described["landmarks"] == list(align.LANDMARK_NAMES)


@pytest.mark.parametrize("scale", [1.0, 1.7, 3.0])
def test_warp_agrees_with_opencv(scale):
    picture = smooth_picture()
    angle = 0.3
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([turn, np.array([56, 56]) - turn @ [130, 100]])
    found = np.asarray(align.warp(picture, matrix, 112)).astype(int)
    expected = cv2.warpAffine(np.asarray(picture), matrix, (112, 112), flags=cv2.INTER_LINEAR)
    assert np.abs(found - expected).max() <= 3  # OpenCV rounds places to 1/32 of a pixel


def test_warp_averages_where_it_shrinks():
    """Stripes of one pixel become grey; taking single samples would give stripes again."""
    stripes = np.zeros((560, 560, 3), np.uint8)
    stripes[:, ::2] = 255
    matrix = np.array([[0.2, 0, 0], [0, 0.2, 0]])
    found = np.asarray(align.warp(Image.fromarray(stripes), matrix, 110)).astype(int)
    assert np.abs(found[5:-5, 5:-5] - 127.5).max() < 30
    single = cv2.warpAffine(stripes, matrix, (110, 110), flags=cv2.INTER_LINEAR).astype(int)
    assert np.abs(single[5:-5, 5:-5] - 127.5).max() > 100


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.6])
def test_cut_is_bilinear_and_not_rounded(scale):
    picture = RANDOM.integers(0, 256, (90, 120, 3), np.uint8)
    turn = scale * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    matrix = np.column_stack([turn, np.array([20.3, 20.1]) - turn @ [60, 45]])
    found = align.cut(Image.fromarray(picture), matrix, 40)
    samples = 2 if scale < 0.8 else 1  # a side, of a pixel
    place = (np.arange(40 * samples) + 0.5) / samples - 0.5
    x, y = align.transform(align.invert(matrix), np.stack(np.meshgrid(place, place), axis=-1)).T
    for channel in range(3):
        plane = picture[..., channel].astype(np.float64)
        value = scipy.ndimage.map_coordinates(plane, [y, x], order=1).T
        value = value.reshape(40, samples, 40, samples).mean(axis=(1, 3))
        np.testing.assert_allclose(found[..., channel], value, atol=1e-4)


def test_cut_of_what_is_much_larger_is_of_means_of_blocks():
    """Of 5 x 5 pixels, where a pixel of the cut has 5.6; they lie in the frame, not in the cut."""
    picture = RANDOM.integers(0, 256, (207, 303, 3), np.uint8)
    matrix = np.array([[0.18, 0, -3.0], [0, 0.18, -2.4]])
    found = align.cut(Image.fromarray(picture), matrix, 30)
    blocks = picture[:205, :300].reshape(41, 5, 60, 5, 3).mean(axis=(1, 3))
    y, x = ((np.mgrid[:30, :30] + np.array([2.4, 3.0])[:, None, None]) / 0.18 - 2) / 5
    expected = [scipy.ndimage.map_coordinates(blocks[..., c], [y, x], order=1) for c in range(3)]
    np.testing.assert_allclose(found, np.stack(expected, axis=-1), atol=0.55)  # of whole numbers


@pytest.mark.parametrize("scale", [1.3, 0.6, 0.15])
def test_cut_moves_without_steps(scale):
    """A hundred-thousandth of a pixel makes no grey level, as it does where these are whole."""
    picture = Image.fromarray(RANDOM.integers(0, 256, (400, 400, 3), np.uint8))
    matrix = np.array([[scale, 0.1, 3.2], [-0.1, scale, 4.1]])
    moved = matrix.copy()
    moved[0, 2] += 1e-5
    one, other = (align.cut(picture, each, 64) for each in (matrix, moved))
    assert 0 < np.abs(one - other).max() < 4e-3
    one, other = (np.asarray(align.warp(picture, each, 64), int) for each in (matrix, moved))
    assert np.abs(one - other).max() >= 1


@pytest.mark.parametrize("scale", [2.0, 0.15])
def test_cut_is_black_where_the_frame_does_not_reach(scale):
    white = Image.new("RGB", (64, 64), (255, 255, 255))
    away = align.cut(white, np.array([[scale, 0, 900.0], [0, scale, 0.0]]), 32)
    assert away.shape == (32, 32, 3)
    assert away.dtype == np.float32
    assert not away.any()
    partly = align.cut(white, np.array([[scale, 0, 20.0], [0, scale, 0.0]]), 32)
    assert not partly[:, :18].any()
    assert partly[2:6, 22:26].min() > 254.9


def test_a_crop_of_a_crop_is_the_crop():
    picture = smooth_picture(112, 112)
    again = align.crop_face(picture, align.TEMPLATE_L2)
    assert np.abs(np.asarray(again).astype(int) - np.asarray(picture)).max() <= 1


@pytest.mark.parametrize("factor", [0.6, 2.6])
def test_the_middle_is_that_of_the_crop(factor):
    landmarks = (align.TEMPLATE_L2 - 56) * factor + [130, 100]
    crop, middle = (
        np.asarray(cut(smooth_picture(), landmarks)).astype(int)
        for cut in (align.crop_face, align.crop_middle)
    )
    assert middle.shape == (56, 56, 3)
    assert np.abs(middle - crop[28:84, 28:84]).max() <= 1
    assert np.abs(middle - crop[29:85, 28:84]).max() > 1


@pytest.mark.parametrize("factor", [0.6, 1.0, 2.6, 6.0])
def test_landmarks_land_on_the_template(factor):
    """Dots drawn at the landmarks of a frame are found at the template's places of its crop."""
    angle = np.radians(17)
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    template = align.TEMPLATE_L2
    landmarks = (template - 56) @ turn.T + [400, 300]
    y, x = np.mgrid[:600, :800]
    for index, (place_x, place_y) in enumerate(landmarks):
        spread = 1.5 * max(factor, 1.0)
        dot = 255 * np.exp(-((x - place_x) ** 2 + (y - place_y) ** 2) / (2 * spread**2))
        frame = Image.fromarray(np.repeat(dot[..., None], 3, axis=2).round().astype(np.uint8))
        crop = np.asarray(align.crop_face(frame, landmarks))[..., 0].astype(float)
        crop[crop < 20] = 0
        rows, columns = np.mgrid[:112, :112]
        centre = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
        np.testing.assert_allclose(centre, template[index], atol=0.1)


def test_outside_of_the_frame_is_black():
    frame = Image.new("RGB", (60, 60), (200, 200, 200))
    crop = np.asarray(align.crop_face(frame, align.TEMPLATE_L2))
    assert (crop[:55, :55] == 200).all()
    assert (crop[65:] == 0).all()
