"""The backbone's stages as fine-tuning counts them: the stem is 0, the residual stages follow."""

import re

NOTHING_FROZEN = -1
"""As `frozen_stages`: every stage trains, the stem included."""


def stage_of(part: str) -> int:
    """The stage of one of the backbone's parts.

    Args:
        part: key of the part among the backbone's parameters, as `bn1` or `stage2_block3`.

    Returns:
        0 for the stem, else the number of the residual stage, from 1.

    Raises:
        ValueError: the backbone has no such part.
    """
    if part in ("conv1", "bn1"):
        return 0
    match = re.fullmatch(r"stage([1-9]\d*)_block[1-9]\d*", part)
    if match is None:
        raise ValueError(f"{part!r} is no part of the backbone")
    return int(match[1])
