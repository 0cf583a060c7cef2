"""Points of crops, on rendered heads whose landmarks are known."""

import camera_frames
import numpy as np
import pytest
from PIL import Image

from mtl_face.faces import align, mesh


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
    found = mesh.mesh_of_crops(pictures)
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
    expected = mesh.mesh_of_crops(small)
    expected[..., :2] = (expected[..., :2] + 0.5) * 2 - 0.5
    expected[..., 2] *= 2
    difference = mesh.mesh_of_crops(large) - expected
    assert np.abs(difference).max() < 5  # pixels of 224
    assert np.abs(difference).mean() < 0.8


def test_passes_settle(crops):
    three, four = (mesh.mesh_of_crops(crops[0][:3], passes) for passes in (3, 4))
    one = mesh.mesh_of_crops(crops[0][:3], 1)
    assert np.abs(four - three).mean() < 0.5
    assert np.abs(one - three).mean() > np.abs(four - three).mean()


def test_no_crops():
    assert mesh.mesh_of_crops(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 468, 3)
