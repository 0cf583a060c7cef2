"""Which action units make which expression.

The six emotions follow the prototypes of the Facial Action Coding System; `Other` is a set of
mixtures that match none of them. Weights are intensities relative to the strength of an episode.
"""

from typing import NamedTuple

import numpy as np

from mtl_face.tasks import EXPRESSION_NAMES

Mixture = dict[int, float]
"""Intensity, 0 to 1, by FACS number."""


class Card(NamedTuple):
    """What an episode shows.

    Attributes:
        expression: class index, 0 to 7.
        alternative: index in `PROTOTYPES` of that class.
    """

    expression: int
    alternative: int


EXCLUSIVE_PAIRS = ((12, 15), (23, 25), (24, 25), (23, 26), (24, 26), (23, 24), (10, 23))
"""Pairs that exclude or hide each other; no face shows both."""

PROTOTYPES: dict[str, tuple[Mixture, ...]] = {
    "Neutral": ({},),
    # Lips are either tightened or pressed, never both.
    "Anger": (
        {4: 1.0, 5: 0.6, 7: 0.9, 23: 1.0},
        {4: 1.0, 5: 0.6, 7: 0.9, 24: 1.0},
        {4: 1.0, 7: 0.9, 23: 1.0},
    ),
    "Disgust": (
        {9: 1.0, 15: 0.65, 10: 0.9, 4: 0.6},
        {9: 1.0, 10: 1.0, 4: 0.6, 7: 0.8, 25: 0.6},
    ),
    "Fear": ({1: 1.0, 2: 0.9, 4: 0.7, 5: 1.0, 20: 1.0, 26: 0.65, 25: 0.7},),
    "Happiness": ({6: 1.0, 12: 1.0, 25: 0.8}, {6: 1.0, 7: 0.8, 12: 1.0, 25: 0.8}),
    "Sadness": ({1: 1.0, 4: 0.7, 15: 1.0}, {1: 1.0, 4: 0.7, 15: 1.0, 24: 0.9}),
    "Surprise": ({1: 1.0, 2: 1.0, 5: 1.0, 26: 1.0, 25: 0.7},),
    "Other": (
        {14: 1.0, 24: 0.9, 7: 0.8, 6: 0.8},
        {6: 0.9, 7: 0.9, 24: 0.9},
        {6: 0.9, 7: 0.9, 10: 0.9, 25: 0.8},
        {1: 0.9, 2: 0.9, 24: 0.9},
        {1: 0.8, 2: 1.0, 23: 1.0},
        {2: 0.9, 12: 0.9, 10: 0.8},
        {12: 0.9, 24: 0.9, 6: 0.8},
        {20: 1.0, 7: 0.8, 10: 0.9, 25: 0.9},
        {10: 0.9, 2: 0.9, 15: 0.9},
        {23: 1.0, 6: 0.9, 7: 0.7},
        {23: 1.0, 12: 0.8, 2: 0.8},
        {2: 0.9, 15: 0.9, 24: 0.8},
    ),
}
"""Alternatives for each expression."""

_CORE: dict[str, tuple[int, ...]] = {
    "Anger": (4, 23, 24),
    "Disgust": (9, 10),
    "Fear": (1, 5, 20),
    "Happiness": (6, 12),
    "Sadness": (1, 15),
    "Surprise": (1, 2, 26),
}
"""Units that no variation of an expression lacks."""

OMISSION_PROBABILITY = 0.1
ADDITION_PROBABILITY = 0.25
_ADDABLE = (25, 26, 7, 25, 26)
"""Units added at random: speech parts the lips whatever the expression, light narrows the lids."""

STRENGTH_RANGE = (0.75, 1.0)
"""Strength of an episode."""


def conflicts(number: int, mixture: Mixture) -> bool:
    """Whether an action unit excludes one of a mixture, by `EXCLUSIVE_PAIRS`."""
    return any(
        number in pair and (pair[0] in mixture or pair[1] in mixture) and number not in mixture
        for pair in EXCLUSIVE_PAIRS
    )


def sample_mixture(card: Card, rng: np.random.Generator) -> Mixture:
    """Draws the action units of one episode.

    Args:
        card: which expression, and which of its alternatives.
        rng: source of variation.

    Returns:
        Peak intensities; no pair of `EXCLUSIVE_PAIRS` occurs together.
    """
    name = EXPRESSION_NAMES[card.expression]
    chosen = PROTOTYPES[name][card.alternative]
    strength = rng.uniform(*STRENGTH_RANGE)
    mixture: Mixture = {}
    for number, weight in chosen.items():
        core = name == "Other" or number in _CORE.get(name, ())
        if not core and rng.random() < OMISSION_PROBABILITY:
            continue
        mixture[number] = float(np.clip(weight * strength * rng.uniform(0.85, 1.15), 0.0, 1.0))
    if rng.random() < ADDITION_PROBABILITY:
        number = int(rng.choice(_ADDABLE))
        if number not in mixture and not conflicts(number, mixture):
            mixture[number] = float(rng.uniform(0.45, 0.8))
    return mixture
