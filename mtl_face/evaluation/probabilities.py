"""Logits to probabilities and back, in float64, for tables of predictions.

Dimension letters: N rows, A action units (12), E expressions (8).
"""

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-15
"""Probabilities below this are raised to it before they become logits, which thus stay finite."""


def au_probabilities(logits_NA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each action unit, sigmoid of its logit, [N, 12]; NaN stays NaN."""
    from scipy.special import expit

    return expit(logits_NA)


def expression_probabilities(logits_NE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each expression, softmax over the logits, [N, 8]; NaN stays NaN."""
    from scipy.special import softmax

    return softmax(logits_NE, axis=1)


def au_logits_of(
    present_NA: NDArray[np.float64], absent_NA: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logits of probabilities.

    Args:
        present_NA: probability of presence, [N, 12].
        absent_NA: probability of absence, 1 - `present_NA` without its rounding, [N, 12].

    Returns:
        float64 [N, 12].
    """
    return np.log(np.maximum(present_NA, SMALLEST)) - np.log(np.maximum(absent_NA, SMALLEST))


def expression_logits_of(probability_NE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits whose softmax gives the probabilities, [N, 8]: their logarithms."""
    return np.log(np.maximum(probability_NE, SMALLEST))
