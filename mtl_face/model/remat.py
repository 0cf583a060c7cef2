"""Rematerialisation: activations that the backward pass computes again, and so need not be kept.

| policy        | kept between the passes                          | computed twice              |
|---------------|--------------------------------------------------|-----------------------------|
| `none`        | what the gradients need                          | nothing                     |
| `elementwise` | of a block, results of convolutions and products | norms, activations, softmax |
| `blocks`      | inputs of the blocks                             | all inside of a block       |

A block is a residual block of the backbone, or an attention layer of encoder or decoder. Values and
gradients stay the same but for rounding; random draws and running statistics are those of one pass.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

NONE = "none"
ELEMENTWISE = "elementwise"
BLOCKS = "blocks"
POLICIES = (NONE, ELEMENTWISE, BLOCKS)
"""The choices of what is computed again."""

_KEPT = ("conv_general_dilated", "dot_general")


def call(block: nn.Module, policy: str, *arrays: Any, **options: Any) -> Any:
    """Calls a bound module, and lets the backward pass compute it again as the policy says.

    None of the `options` is an array.

    Raises:
        ValueError: the policy is unknown.
    """
    if policy not in POLICIES:
        raise ValueError(f"remat {policy!r} is not one of {', '.join(POLICIES)}")
    if policy == NONE:
        return block(*arrays, **options)

    def plain(module: nn.Module, *arrays: Any) -> Any:
        return module(*arrays, **options)

    kept: Callable[..., bool] | None = _is_kept if policy == ELEMENTWISE else None
    return nn.remat(plain, policy=kept)(block, *arrays)


def _is_kept(primitive: jax.extend.core.Primitive, *_: Any, **__: Any) -> bool:
    return primitive.name in _KEPT
