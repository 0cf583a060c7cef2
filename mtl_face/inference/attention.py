"""Where the task tokens of a network look in given faces.

Dimension letters: K images, H height, W width, M decoder modules, T task tokens (3), N patches.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from numpy.typing import NDArray

from mtl_face.model.network import ATTENTION

_BATCH = 8


def cross_attention(
    network: nn.Module,
    variables: Any,
    image_KHWC: NDArray[np.uint8],
    *,
    prepare: Callable[[jax.Array], jax.Array],
) -> NDArray[np.float32]:
    """Cross-attention weights of the task tokens over the patches of some images.

    It is computed on one device of this process, so that one process of many may ask for it alone.
    The variables lie on the host; `prepare` is as for `make_predict_step`.

    Returns:
        float32 [K, M, heads, T, N]: tokens in the order of `mtl_face.tasks.TASKS`, patches in
        row-major order; each row over N sums to 1.
    """

    @jax.jit
    def attend(variables: Any, image_BHWC: jax.Array) -> jax.Array:
        outputs: Any = network.apply(
            variables, prepare(image_BHWC), train=False, return_attention=True
        )
        return outputs[ATTENTION]

    num_images = len(image_KHWC)
    size = min(_BATCH, max(num_images, 1))
    # one shape for all batches, so that the network is compiled once
    padding = np.zeros((-num_images % size, *image_KHWC.shape[1:]), np.uint8)
    padded = np.concatenate([image_KHWC, padding])
    with jax.default_device(jax.local_devices()[0]):
        variables = jax.device_put(variables, jax.local_devices()[0])
        parts = [
            np.asarray(attend(variables, padded[start : start + size]))
            for start in range(0, len(padded), size)
        ]
    if not parts:
        raise ValueError("no images were given")
    return np.concatenate(parts)[:num_images]
