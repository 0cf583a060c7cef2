import numpy as np
import pytest

from mtl_face.report import attention_maps


def test_attention_is_averaged_over_the_heads_and_laid_out_by_rows():
    weights = np.zeros((1, 2, 2, 3, 9), np.float32)
    weights[0, 1, 0, 2, 5] = 1.0
    weights[0, 1, 1, 2, 6] = 1.0
    maps = attention_maps.check(weights, 1)
    assert maps.shape == (1, 2, 3, 3, 3)
    assert maps[0, 1, 2].tolist() == [[0, 0, 0], [0, 0, 0.5], [0.5, 0, 0]]
    assert attention_maps.in_words(maps[0, 1, 2]) == "peak 4.5 times uniform, middle right"


@pytest.mark.parametrize("shape", [(1, 2, 2, 3, 8), (2, 2, 2, 3, 9), (1, 2, 2, 4, 9), (1, 3, 9)])
def test_attention_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="attention has shape"):
        attention_maps.check(np.zeros(shape, np.float32), 1)


def test_an_overlay_is_brightest_where_the_weight_is():
    picture = np.full((90, 60, 3), 100, np.uint8)
    weight = np.zeros((3, 3))
    weight[0, 2] = 0.5
    drawn = attention_maps.overlay(picture, weight, 0.5).astype(float).sum(axis=-1)
    assert drawn.shape == (90, 60)
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert row < 30
    assert column >= 40
    assert drawn[75, 10] < drawn[15, 50] / 2


def test_one_scale_serves_maps_without_a_peak():
    uniform = np.full((4, 2, 3, 7, 7), 1 / 49)
    assert attention_maps.top_weight(uniform) == pytest.approx(2 / 49)
    peaked = uniform.copy()
    peaked[..., 3, 3] = 0.4
    assert attention_maps.top_weight(peaked) == pytest.approx(0.4)
