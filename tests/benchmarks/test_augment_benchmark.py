"""The benchmark of augmentation: the ways that are compared give the same pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import augment

SIZES = {"stored_size": 32, "input_size": 32}


def results(ways):
    return {
        label: np.asarray(jax.jit(function)(*inputs)) for label, (function, inputs) in ways.items()
    }


def test_channel_by_channel_gives_our_pictures():
    found = results(augment.resampling(4, {"stored_size": 24, "input_size": 32}))
    first = found["map_coordinates, channel by channel"]
    np.testing.assert_allclose(first, found[augment.OURS], atol=1e-3)
    assert np.abs(first - found["mtl_face, separable"]).mean() < 0.5


def test_dm_pix_gives_our_pictures():
    pytest.importorskip("dm_pix")
    found = results(augment.same_size(4, SIZES))
    ours = found.pop(augment.OURS)
    assert len(found) == 3
    for label, picture in found.items():
        # Apart from the edge of the picture, where black begins.
        inside = (picture > 0).all(axis=-1) & (ours > 0).all(axis=-1)
        assert inside.mean() > 0.5
        difference = np.abs(picture - ours)[inside]
        assert np.median(difference) < (2.0 if "flip" in label else 1e-2), label


def test_without_dm_pix_the_others_are_compared(monkeypatch):
    monkeypatch.setattr(augment, "dm_pix", None)
    assert list(augment.same_size(2, SIZES)) == [
        "map_coordinates, channel by channel",
        augment.OURS,
    ]


def test_times_are_an_image():
    ways = {"one": (lambda x: x + 1, (jnp.ones(3),)), "two": (lambda x: x * 2, (jnp.ones(3),))}
    group = augment.timed("Work", ways, 4, 3)
    assert group.reference == "one"
    assert group.unit == "ms an image"
    assert {label: len(times) for label, times in group.times.items()} == {"one": 3, "two": 3}


def test_parts_run():
    for function, inputs in augment.parts(4, SIZES).values():
        assert jax.tree.leaves(jax.eval_shape(function, *inputs))[0].shape[0] == 4
