"""From a network's outputs to the values of a prediction table, standard deviations included.

The standard deviation of valence and arousal is std^2 = a^2 + e^2, with a for the aleatoric part
(the noise of the labels, as far as training could tell) and e for the epistemic part (how far
samples or members of the model differ):

- a^2 is T exp(r) where the network predicts r for each example (`va_log_variance`), and T for every
  example where T is the learned or likelihood's variance of the task. The paper's own T (`fixed`)
  is a weight of the task and estimates nothing, so that a is unknown without an r;
- e is 0 for one network without sampling. It has columns of its own: a^2 = std^2 - e^2.

Dimension letters: N rows.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mtl_face.objective.uncertainty import FIXED
from mtl_face.tasks import AU, EXPR, OUTPUT_SIZES, VA, VA_LOG_VARIANCE

EPISTEMIC = {task: f"{task}_epistemic_std" for task in OUTPUT_SIZES}
"""Outputs of a sampled prediction: spread of valence and arousal, and of the probabilities."""


def output_sizes(*, va_variance: bool, sampled: bool) -> dict[str, int]:
    """Widths by name of the outputs that a prediction step gives for each example.

    A network with `va_variance` predicts `va_log_variance`; a step may sample, see `dropout`.
    """
    sizes = dict(OUTPUT_SIZES)
    if va_variance:
        sizes[VA_LOG_VARIANCE] = OUTPUT_SIZES[VA]
    if sampled:
        sizes |= {EPISTEMIC[task]: size for task, size in OUTPUT_SIZES.items()}
    return sizes


def table_columns(
    outputs: Mapping[str, NDArray[np.float32]],
    *,
    kind: str,
    temperatures: Mapping[str, float],
    divisors: Mapping[str, float],
) -> dict[str, NDArray[np.float64]]:
    """Values of a `PredictionTable`, float64, by the names of its fields.

    The outputs are [N, size] each, as `output_sizes` names them; `kind` is one of
    `uncertainty.KINDS`; `divisors` are of the logits, from `mtl_face.probabilities.divisors`.
    Standard deviations that are unknown are left out.
    """
    wide = {name: np.asarray(value, np.float64) for name, value in outputs.items()}
    columns = {
        "valence": wide[VA][:, 0],
        "arousal": wide[VA][:, 1],
        "au_logits": wide[AU] / divisors[AU],
        "expression_logits": wide[EXPR] / divisors[EXPR],
    }
    variance_N2 = None
    if VA_LOG_VARIANCE in wide:
        variance_N2 = temperatures[VA] * np.exp(wide[VA_LOG_VARIANCE])
    elif kind != FIXED:
        variance_N2 = np.full_like(wide[VA], temperatures[VA])
    if EPISTEMIC[VA] in wide:
        spread_N2 = wide[EPISTEMIC[VA]]
        columns |= {
            "valence_epistemic_std": spread_N2[:, 0],
            "arousal_epistemic_std": spread_N2[:, 1],
            "au_epistemic_std": wide[EPISTEMIC[AU]],
            "expression_epistemic_std": wide[EPISTEMIC[EXPR]],
        }
        variance_N2 = None if variance_N2 is None else variance_N2 + spread_N2**2
    if variance_N2 is not None:
        std_N2 = np.sqrt(variance_N2)
        columns |= {"valence_std": std_N2[:, 0], "arousal_std": std_N2[:, 1]}
    return columns
