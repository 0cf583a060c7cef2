"""Points of crops, on rendered heads whose landmarks are known."""

import camera_frames
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from mtl_face.faces import align, crop_mesh, mesh, models
from mtl_face.model import convolution


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled():
    """The network stands here in a program once a pass, each for a handful of crops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "compiler_options", convolution.compiler_options)
        yield


@pytest.fixture(scope="module")
def crops():
    """Crops of six people, and where their landmarks lie in them: [N, S, S, 3], [N, 5, 2]."""
    pictures, places = [], []
    for seed in range(6):
        random = np.random.default_rng(seed)
        yaw, pitch, roll = random.uniform([-20, -12, -15], [20, 12, 15])
        picture, landmarks = camera_frames.head(
            seed, size=300, eyes_px=50, yaw=yaw, pitch=pitch, roll=roll
        )
        matrix = align.similarity(landmarks, align.TEMPLATE_L2)
        pictures.append(np.asarray(align.warp(Image.fromarray(picture), matrix, align.SIZE)))
        places.append(align.transform(matrix, landmarks))
    return np.stack(pictures), np.stack(places)


def test_points_of_crops_lie_on_the_known_landmarks(crops):
    pictures, places = crops
    found = crop_mesh.mesh_of_crops(pictures)
    assert found.shape == (6, 468, 3)
    assert found.dtype == np.float32
    eyes = found[:, [[33, 133], [362, 263]], :2].mean(axis=2)
    five = np.concatenate([eyes, found[:, [1, 61, 291], :2]], axis=1)
    apart = np.linalg.norm(places[:, 1] - places[:, 0], axis=1)[:, None]
    error = np.linalg.norm(five - places, axis=2) / apart
    assert error.mean(axis=0).max() < 0.09
    assert error.max() < 0.2


def test_a_larger_crop_gives_larger_points(crops):
    small = crops[0][:2]
    large = np.stack(
        [
            np.asarray(Image.fromarray(crop).resize((224, 224), Image.Resampling.BICUBIC))
            for crop in small
        ]
    )
    expected = crop_mesh.mesh_of_crops(small)
    expected[..., :2] = (expected[..., :2] + 0.5) * 2 - 0.5
    expected[..., 2] *= 2
    difference = crop_mesh.mesh_of_crops(large) - expected
    assert np.abs(difference).max() < 5  # pixels of 224
    assert np.abs(difference).mean() < 0.8


def test_passes_settle(crops):
    one, three, four = (crop_mesh.mesh_of_crops(crops[0][:3], passes) for passes in (1, 3, 4))
    assert np.abs(four - three).mean() < 0.5
    assert np.abs(one - three).mean() > np.abs(four - three).mean()


def test_no_crops():
    assert crop_mesh.mesh_of_crops(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 468, 3)


@pytest.mark.parametrize(("size", "side"), [(16, 192), (112, 192), (224, 384)])
def test_cuts_are_those_of_pillow(size, side):
    """Of pictures of floats, which Pillow does not round; `side` has as many samples as `cut`."""
    random = np.random.default_rng(size)
    small = random.integers(0, 256, (8, 8, 3), np.uint8)
    crop = np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))
    margin = size // 4
    wide = np.pad(crop, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    cut = jax.jit(crop_mesh._cut, static_argnums=(1, 4))
    neighbours = crop_mesh._neighbours(jnp.asarray(crop[None]))
    fading = beyond = 0
    for _ in range(4):
        angle, reach = random.uniform(-0.4, 0.4), random.uniform(1.1, 1.5) * size
        eyes, centre = np.array([np.cos(angle), np.sin(angle)]), random.uniform(0.6, 0.9, 2) * size
        inverse = align.invert(mesh.upright(centre, reach, eyes))
        linear = inverse[:, :2] * mesh.MESH_SIZE / side
        shift = inverse[:, 2] - inverse[:, :2] @ [0.5, 0.5] + 0.5
        places = (*linear[0], shift[0], *linear[1], shift[1])
        bands = [
            Image.fromarray(wide[..., band].astype(np.float32)).transform(
                (side, side),
                Image.Transform.AFFINE,
                places,
                Image.Resampling.BILINEAR,
                fillcolor=-1,
            )
            for band in range(3)
        ]
        samples = side // mesh.MESH_SIZE
        parts = np.stack(bands, axis=-1).reshape(192, samples, 192, samples, 3)
        expected = parts.mean(axis=(1, 3))
        seen = parts.min(axis=(1, 3, 4)) >= 0
        step = jnp.asarray(eyes[None] * reach / 192, jnp.float32)
        (found,) = cut(
            neighbours, size, jnp.asarray(centre[None] - margin, jnp.float32), step, samples
        )
        assert np.abs(found - expected)[seen].max() < 0.01
        black = np.asarray(found).max(axis=-1) == 0
        assert not (black & seen).any()
        fading += np.sum(~black & ~seen)
        beyond += np.sum(~seen)
    assert 0 < fading < beyond  # a line of one pixel of the crop, then black


@pytest.mark.parametrize("size", [112, 256, 300])
def test_where_four_pixels_were_read(size):
    """Each row of the table says where it lies, also where a byte does not hold it."""
    crop = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    table = np.asarray(crop_mesh._neighbours(jnp.asarray(crop))).reshape(size - 1, size - 1, 14)
    row, column = size - 2, size - 3
    assert table[row, column, 12:].tolist() == [column, row]
    expected = crop[0, row : row + 2, column : column + 2].reshape(-1)
    np.testing.assert_array_equal(table[row, column, :12], expected)


def test_cuts_of_noise_are_those_of_scipy():
    """Of 9e5 places none is read one pixel beside."""
    random = np.random.default_rng(0)
    crop = random.integers(0, 256, (24, 112, 112, 3), np.uint8)
    angle, reach = random.uniform(-0.4, 0.4, 24), random.uniform(60, 90, 24)
    step = (np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None] / 192).astype("f4")
    centre = random.uniform(52, 60, (24, 2)).astype(np.float32)

    @jax.jit
    def cut(crop, centre, step):
        return crop_mesh._cut(crop_mesh._neighbours(crop), 112, centre, step, 1)

    found = np.asarray(cut(crop, centre, step))
    across, down = np.meshgrid(np.arange(192) - 95.5, np.arange(192) - 95.5)
    for index in range(24):
        (along, aside), (x, y) = step[index].astype(float), centre[index].astype(float)
        places = y + aside * across + along * down, x + along * across - aside * down
        expected = scipy.ndimage.map_coordinates(crop[index, ..., 0].astype(float), places, order=1)
        assert np.abs(found[index, ..., 0] - expected).max() < 0.02
