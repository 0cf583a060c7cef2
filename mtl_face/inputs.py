"""What a network takes of each frame: names of the arrays, their shapes and dtypes.

A network over time takes windows of frames (`windows`) in place of one.

Dimension letters: S side of a stored crop, V points of the face mesh (468), K baselines, W frames
of a window, D width of a token.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.face_table import MESH_POINTS
from mtl_face.tasks import OUTPUT_SIZES, TASKS, VA, VA_LOG_VARIANCE

Arrays = dict[str, NDArray[Any]]
"""Arrays by name."""

IMAGE = "image"
"""A stored crop, uint8 [S, S, 3]: R, G, B."""

POINTS = "points"
"""The face mesh, float32 [V, 3]: what is left of the points where the mean neutral face is taken
out, in units of the distance between the eyes (`mtl_face.faces.geometry.normalise`)."""

BASELINE = "baseline"
"""The same of the person's face at rest, float32 [V, 3]; all 0: unknown. It comes with points."""


WINDOWS = "windows"
"""Stands for all that a network over time takes, see `windows`."""

TOKENS = "tokens"
"""Task tokens of a window's frames by a network of frames, float16 [W, 3, D]; with the mean of the
tokens of its patches and points behind them [W, 4, D]."""

GAPS = "gaps"
"""Frame numbers since the frame before in the window, int32 [W]: 0 for the first one and for a row
that repeats a frame, -1 for padding behind the last one."""

LONGEST_GAP = 1 << 20
"""Frames; a longer gap counts as this one."""

LONGEST_ABSENCE = 1000
"""Frames; after a longer gap a causal network begins anew, so that live use can forget a person."""

_ANSWER = "answer_"


def answer(name: str) -> str:
    """Input that holds an output, by its name, of the network of frames, float32 [W, size]."""
    return _ANSWER + name


def causal_begin(place: NDArray[np.int64] | int, length: int) -> Any:
    """Place of the first row of the window in which a causal network answers a row.

    Windows of `length` rows begin at every multiple of half of it. Of those that hold the row it is
    the earliest, whose rows before it are the most. Later rows have no say in it, so that live use
    answers as a whole video does.
    """
    half = length // 2
    return half * np.maximum((place - length) // half + 1, 0)


def windows(
    length: int, width: int, *, va_variance: bool, patches: bool = False
) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape by name of the arrays of a window of W = `length` frames.

    Tokens are D = `width` wide; with `va_variance` the network of frames predicts variances too,
    with `patches` its patches' mean token is read.
    """
    sizes = {task: OUTPUT_SIZES[task] for task in TASKS}
    if va_variance:
        sizes[VA_LOG_VARIANCE] = OUTPUT_SIZES[VA]
    return {
        TOKENS: (np.dtype(np.float16), (length, len(TASKS) + patches, width)),
        GAPS: (np.dtype(np.int32), (length,)),
        **{answer(name): (np.dtype(np.float32), (length, size)) for name, size in sizes.items()},
    }


def specification(
    inputs: Sequence[str], image_size: int, *, baselines: int | None = None
) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape by name of an example's arrays; `inputs` as in `model.inputs`.

    In training an example brings several baselines, [K, V, 3], of which one is drawn: K is
    `baselines`.
    """
    found: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    if IMAGE in inputs:
        found[IMAGE] = (np.dtype(np.uint8), (image_size, image_size, 3))
    if POINTS in inputs:
        points = (np.dtype(np.float32), (MESH_POINTS, 3))
        found |= {POINTS: points, BASELINE: points}
        if baselines is not None:
            found[BASELINE] = (points[0], (baselines, *points[1]))
    return found


def is_input(name: str) -> bool:
    """Whether an array of a batch, by its name, goes into the network."""
    return name in (IMAGE, POINTS, BASELINE, TOKENS, GAPS) or name.startswith(_ANSWER)
