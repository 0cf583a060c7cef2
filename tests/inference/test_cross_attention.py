import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_face.inference.attention import cross_attention


class Stub(nn.Module):
    """Two modules, two heads, four patches; what a token reads depends on the image's corner."""

    @nn.compact
    def __call__(self, image_BHWC, *, train, return_attention):
        assert not train
        assert return_attention
        scale = self.param("scale", nn.initializers.ones, ())
        corner_B = image_BHWC[:, 0, 0, 0] * scale
        logit = corner_B[:, None, None, None, None] * jnp.arange(4.0).reshape(1, 1, 1, 1, 4)
        return {"attention": nn.softmax(jnp.broadcast_to(logit, (len(corner_B), 2, 2, 3, 4)))}


def prepare(image_BHWC):
    return image_BHWC.astype(jnp.float32) / 100


def test_attention_of_each_image_whatever_the_batch():
    images = np.zeros((11, 6, 6, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(11) * 20
    found = cross_attention(Stub(), {"params": {"scale": np.float32(2)}}, images, prepare=prepare)
    assert found.shape == (11, 2, 2, 3, 4)
    assert found.dtype == np.float32
    weight = np.exp(2 * np.arange(11)[:, None] * 0.2 * np.arange(4))
    expected = weight / weight.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, 1, 0, 2], expected, rtol=1e-5)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        cross_attention(Stub(), {"params": {}}, np.zeros((0, 6, 6, 3), np.uint8), prepare=prepare)
