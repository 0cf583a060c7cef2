"""Stochastic depth: training leaves out residual branches, whole, at random (Huang et al. 2016).

Of each example alone, a branch is left out with probability p, and divided by 1 - p where it is
not, so that its mean over the draws is the branch. p rises linearly with the depth, from 0 before
the first block to the setting at the last: p_l = (l / L) p_L for block l of L (section 3 there).

Shapes: B batch.
"""

import flax.linen as nn
import jax

from mtl_face.config import BackboneConfig


def rate_at(block: int, count: int, last: float) -> float:
    """The rate of a block, counted from 1, of `count`; `last` is that of the last one."""
    return last * block / count


def backbone_rate(settings: BackboneConfig, block: int, *, train: bool) -> float:
    """The rate in effect in a block of a backbone: 0 outside of training, and in frozen ones."""
    if not train or block <= settings.last_frozen_block:
        return 0.0
    return rate_at(block, settings.num_blocks, settings.drop_path)


def keep_or_drop(branch: jax.Array, rate: float) -> jax.Array:
    """A residual branch [B, ...] of a module in training, left out of some examples.

    To be called inside of a compact module; needs the random stream `dropout`, but for rate 0,
    where the branch comes back as it is.
    """
    if not rate:
        return branch
    axes = tuple(range(1, branch.ndim))
    return nn.Dropout(rate, broadcast_dims=axes, deterministic=False)(branch)
