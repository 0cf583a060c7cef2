"""The definition of a probability: network outputs, the logits of a table, probabilities.

The probability of an action unit is the sigmoid of its logit in a `PredictionTable`, those of the
expressions are the softmax of theirs. A logit is a network output u over a divisor of its task.
`evaluation.probability` chooses the divisors, T being the temperatures of the network:

- `fitted`: the probability that the loss compared with the labels. The divisor is T for the kind
  `likelihood`, and 1 for `fixed` and `learned`, whose T weighs the loss of u itself
  (`mtl_face.objective.uncertainty`).
- `paper`: eq. 1 of the paper, a = sigmoid(u_a / T_a) and e = softmax(u_e / T_e), for every kind.

A divisor changes no decision of one network: the logit is above 0, or the largest, either way.
A table's metadata and an export's card hold the `statement` of what was chosen.

Dimension letters: N rows, A action units (12), E expressions (8).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.tasks import AU, EXPR

FITTED = "fitted"
PAPER = "paper"

SMALLEST = 1e-15
"""Probabilities below this are raised to it before they become logits, which thus stay finite."""


def divisors(
    kind: str, temperatures: Mapping[str, Any], definition: str = FITTED
) -> dict[str, Any]:
    """What divides the network's outputs of action units and expressions.

    Args:
        kind: `uncertainty.kind` of the network.
        temperatures: T of each task, numbers or arrays without dimensions.
        definition: `FITTED` or `PAPER`.

    Raises:
        ValueError: the definition is unknown.
    """
    if definition not in (FITTED, PAPER):
        raise ValueError(f"probability is {definition!r}, expected {FITTED} or {PAPER}")
    divided = definition == PAPER or kind == "likelihood"
    return {task: temperatures[task] if divided else 1.0 for task in (AU, EXPR)}


def statement(kind: str, temperatures: Mapping[str, float], definition: str) -> dict[str, Any]:
    """What a table or a card says of its probabilities: `definition`, and `divisors` by task."""
    return {"definition": definition, "divisors": divisors(kind, temperatures, definition)}


def stated(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """The statement in a table's metadata.

    Tables from before there was a choice are `fitted`. None where the metadata know no network.
    """
    if "probability" in metadata:
        return metadata["probability"]
    kind = (metadata.get("config") or {}).get("uncertainty", {}).get("kind")
    if kind is None or not metadata.get("temperatures"):
        return None
    return statement(kind, metadata["temperatures"], FITTED)


def agree(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two statements mean the same probability; an unknown one is taken to."""
    if one is None or other is None or one["definition"] == other["definition"]:
        return True
    return one["divisors"] is not None and one["divisors"] == other["divisors"]


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each action unit; NaN stays NaN."""
    from scipy.special import expit

    return expit(logits)


def softmax(logits_NE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each expression, [N, E]; a NaN spreads over its row."""
    from scipy import special

    return special.softmax(logits_NE, axis=1)


def log_softmax(logits_NE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of `softmax`, [N, E], without overflow."""
    from scipy import special

    return special.log_softmax(logits_NE, axis=1)


def au_logits(
    present_NA: NDArray[np.float64], absent_NA: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logits of probabilities, float64 [N, A].

    Args:
        present_NA: probability of presence.
        absent_NA: probability of absence: 1 - `present_NA` without its rounding.
    """
    return np.log(np.maximum(present_NA, SMALLEST)) - np.log(np.maximum(absent_NA, SMALLEST))


def expression_logits(probability_NE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits whose softmax gives the probabilities, [N, E]: their logarithms."""
    return np.log(np.maximum(probability_NE, SMALLEST))
