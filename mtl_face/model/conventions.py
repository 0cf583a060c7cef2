"""What trained weights depend on and no setting changes. Imports no JAX.

The modules of the network take it from here, and so does the card of an export, which states it.
"""

import math

from mtl_face.inputs import IMAGE, POINTS

LAYER_NORM_EPSILON = 1e-6
"""Added to the variance."""

TOKEN_ORDER = (IMAGE, POINTS)
"""What the encoder sees of several inputs: first the patches, then the regions of the face."""

LONGEST_WAVE = 10_000.0
"""Of the position codes, in units of 2 pi positions (Vaswani et al. 2017, section 3.5)."""

QUICK_GELU_SLOPE = 1.702
"""Of the logistic function in QuickGELU (Hendrycks and Gimpel 2016)."""

ROW, COLUMN, PATCH = "row", "column", "patch"
"""What a position code counts, from 0; patches in row-major order."""

SELF, CROSS = "self", "cross"
DECODER_ATTENTIONS = (SELF, CROSS)
"""A decoder module in its order: the tokens look at each other, then at the encoder's."""

CHANGE = "change"
POINT_VALUES = (POINTS, CHANGE)
"""What a region sees of each point, in this order: its place, and what differs from rest."""

MAX_LOG_RATIO = 8.0
"""Largest magnitude of a log variance over its task's: standard deviations of 1/55 to 55 times."""


KERNEL = 5
DILATIONS = (1, 2, 4, 8)
"""Taps of the convolutions over time, and the dilations of a group: it sees 30 frames each way."""

TEMPORAL_HEADS = 4
"""Attention heads of a network over time."""


def position_parts(position: str, features: int) -> tuple[tuple[str, int], ...]:
    """What consecutive channels of a code of `features` count, and how many channels each has."""
    return (
        ((PATCH, features),)
        if position == "1d"
        else tuple((counted, features // 2) for counted in (ROW, COLUMN))
    )


def attention_scale(width: int, num_heads: int) -> float:
    """What products of queries and keys are multiplied with before the softmax."""
    return 1 / math.sqrt(width // num_heads)


def has_perceptron(attention: str, decoder_mlp: str) -> bool:
    """Whether a perceptron follows an attention (`SELF`, `CROSS`) of a decoder module."""
    return attention == CROSS or decoder_mlp == "each"
