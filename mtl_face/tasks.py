"""The vocabulary: which tasks exist, and the names and order of everything that they predict.

Every label, column, log name and output in this project is named through this module. The orders
are those of the ABAW challenges (s-Aff-Wild2 annotation files).

Value ranges: valence and arousal in [-1, 1]; an action unit is 0 (absent) or 1 (present); an
expression is an integer class in 0..7.
"""

VA = "va"
AU = "au"
EXPR = "expr"

TASKS = (VA, AU, EXPR)
"""The tasks, in the order in which every dict, table and log lists them."""

VA_NAMES = ("valence", "arousal")

AU_NUMBERS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
"""FACS numbers of the twelve action units, in file order."""

AU_NAMES = tuple(f"au{number}" for number in AU_NUMBERS)
"""Column names of the action units: `au1` ... `au26`."""

AU_DESCRIPTIONS = (
    "inner brow raiser",
    "outer brow raiser",
    "brow lowerer",
    "cheek raiser",
    "lid tightener",
    "upper lip raiser",
    "lip corner puller",
    "lip corner depressor",
    "lip tightener",
    "lip pressor",
    "lips part",
    "jaw drop",
)
"""FACS names of the twelve action units, in file order."""

EXPRESSION_NAMES = (
    "Neutral",
    "Anger",
    "Disgust",
    "Fear",
    "Happiness",
    "Sadness",
    "Surprise",
    "Other",
)
"""Expression of each class index."""

VA_LOG_VARIANCE = "va_log_variance"
"""Output of a network that predicts each example's variance: see `objective.uncertainty`."""

VA_RATER_VARIANCE = "va_rater_variance"
"""Target beside those of the tasks: mean square distance of several annotators' valence and arousal
from their mean, float32 [..., 2], 0 where a label is one annotator's or their spread is unknown."""

OUTPUT_SIZES = {VA: len(VA_NAMES), AU: len(AU_NAMES), EXPR: len(EXPRESSION_NAMES)}
"""Number of outputs of each task: 2 values, 12 logits, 8 logits."""

OUTPUT_NAMES = {VA: VA_NAMES, AU: AU_NAMES, EXPR: EXPRESSION_NAMES}
"""Name of each output of each task."""
