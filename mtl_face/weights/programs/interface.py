"""What every file of a program takes and gives, by name, and what its card says of that.

`mtl_face.export.whole_way` makes the programs, `mtl_face.inference.program` runs them.
"""

from pathlib import Path
from typing import Any

from mtl_face.inputs import BASELINE, IMAGE, POINTS, specification
from mtl_face.tasks import AU, EXPR, OUTPUT_SIZES, VA
from mtl_face.weights.card import ExportError

WHOLE_WAY = "whole_way"
"""Key of the card under which stands what a file does besides the network."""

CROP = "crop"
"""Name of the input of pixels."""

STD = "valence_arousal_std"
"""Name of the output of standard deviations."""

OUTPUTS = {VA: "valence_arousal", AU: "au_logit", EXPR: "expression_logit"}
"""Names of the outputs that a table of predictions is made of, by task."""


def check_card(card: dict[str, Any], path: Path) -> None:
    """Raises ExportError if the card of a program does not say which crops it takes."""
    about = card.get(WHOLE_WAY)
    size = about.get("crop_size") if isinstance(about, dict) else None
    if type(size) is not int or size < 1:
        raise ExportError(
            f"its card does not say which crops it takes (`{WHOLE_WAY}`)",
            path=path,
            remedy="export it again",
        )


def expected_inputs(card: dict[str, Any]) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Dtype and shape of an example's arrays by name, as a card says that a file takes them."""
    known = specification((IMAGE, POINTS), card[WHOLE_WAY]["crop_size"])
    wanted = {CROP: known[IMAGE]}
    takes_points = POINTS in card["config"]["model"]["inputs"]
    return wanted | ({BASELINE: known[BASELINE]} if takes_points else {})


def expected_outputs(card: dict[str, Any]) -> dict[str, int]:
    """Width of the outputs that are read, by name."""
    names = {name: OUTPUT_SIZES[task] for task, name in OUTPUTS.items()}
    varies = card["config"]["model"]["va_variance"] != "shared"
    return names | ({STD: OUTPUT_SIZES[VA]} if varies else {})
