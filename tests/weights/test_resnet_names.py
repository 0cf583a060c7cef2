"""The names of every layer, against the network itself."""

import jax
import jax.numpy as jnp
import numpy as np
from model_settings import resnet

from mtl_face.weights.resnet_names import RESNET50, layers


def test_the_names_are_those_of_the_network():
    """Our names and shapes of ResNet50, against the network itself."""
    abstract = jax.eval_shape(
        lambda: resnet().init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )
    expected = {
        jax.tree_util.keystr(keys, simple=True, separator="/"): leaf.shape
        for keys, leaf in jax.tree_util.tree_flatten_with_path(dict(abstract["params"]))[0]
    }
    found = {}
    for layer in layers(RESNET50):
        found["/".join((*layer.own_convolution, "kernel"))] = layer.kernel_shape
        for name in ("scale", "bias"):
            found["/".join((*layer.own_batch_norm, name))] = layer.kernel_shape[-1:]
    assert found == expected
    assert sum(int(np.prod(shape)) for shape in found.values()) == 23_508_032
    assert len(layers(RESNET50)) == 53
