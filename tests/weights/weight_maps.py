"""The package's own backbone with loaded weights, and how its map is compared."""

import functools

import jax
import numpy as np
from model_settings import resnet

from mtl_face.weights.families.resnet_in_file import Architecture

VGGFACE2_MEAN = (131.0912, 103.8827, 91.4953)

SMALL_ARCHITECTURE = Architecture((2, 1), 4, 2)


@functools.cache
def jitted(variant, stage_sizes, width, expansion):
    return jax.jit(
        functools.partial(resnet(stage_sizes, width, expansion, variant).apply, train=False)
    )


def our_map(loaded, image_HWC):
    """The network of the package with what was loaded, fed as its settings say."""
    size, variant = loaded.architecture, loaded.variant
    mean, std = (
        np.float32(values).reshape(1, 1, 1, 3) for values in (variant.input_mean, variant.input_std)
    )
    x = (image_HWC[None].astype(np.float32) - mean) / std
    apply = jitted(variant.name, size.stage_sizes, size.width, size.expansion)
    return np.asarray(apply({"params": loaded.params, "batch_stats": loaded.batch_stats}, x)[0])


def image_of(side):
    return np.random.default_rng(7).integers(0, 256, (side, side, 3)).astype(np.uint8)


def assert_close(found, expected):
    """Within 1e-4 of the largest value, for maps that have some life in them."""
    assert found.shape == expected.shape
    assert expected.std() > 0.05
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
