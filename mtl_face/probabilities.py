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
"""

from collections.abc import Mapping
from typing import Any

from mtl_face.tasks import AU, EXPR

FITTED = "fitted"
PAPER = "paper"


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
