"""Where each task token looks: cross-attention weights laid over the faces.

Dimension letters: K images, M decoder modules, H heads, T task tokens (3), N patches in row-major
order; maps `[h, w]`, pictures `[H, W, 3]`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.report.page import Picture, embed
from mtl_face.report.scores import TASK_WORDS
from mtl_face.tasks import TASKS

_HEAT = np.array([[68, 1, 84], [200, 60, 60], [253, 180, 50], [255, 255, 200]], np.float64)
"""Colours of the overlay from no weight to much: dark, then warm, then pale."""


def mean_attention(
    pictures: Sequence[NDArray[np.uint8]], maps: NDArray[np.float64], top: float
) -> dict[str, Any]:
    """Mean attention of each token in each module over K faces, on their mean face.

    The pictures are uint8 [H, W, 3] of one size, their maps [K, M, T, h, w], or empty; `top` is the
    weight of the palest colour.

    Returns:
        `num_faces`; unless that is 0, `top`, `uniform`: weight if all parts were read alike, and
        `modules`: for each the pictures of its tokens with their words.
    """
    if not len(maps):
        return {"num_faces": 0}
    mean_MThw = maps.mean(axis=0)
    mean_face = np.mean(pictures, axis=0).astype(np.uint8)
    modules = []
    for module, maps_Thw in enumerate(mean_MThw, start=1):
        where = f" in module {module}"
        drawn = on_face(mean_face, maps_Thw, top, what="Mean attention", where=where)
        pairs = zip(drawn, maps_Thw, strict=True)
        modules.append([(face, f"{token}: {in_words(m)}") for (face, token), m in pairs])
    uniform = 1 / mean_MThw[0, 0].size
    return {"num_faces": len(maps), "top": top, "uniform": uniform, "modules": modules}


def on_face(
    picture: NDArray[np.uint8],
    maps_Thw: NDArray[np.float64],
    top: float,
    *,
    what: str = "Attention",
    where: str,
) -> list[tuple[Picture, str]]:
    """The face, uint8 [H, W, 3], under the attention of each token, with the token in words.

    `top` is the palest weight. The descriptions are `WHAT of the ... tokenWHERE: ...`.
    """
    return [
        (
            embed(
                overlay(picture, weight_hw, top),
                f"{what} of the {token} token{where}: {in_words(weight_hw)}",
            ),
            token,
        )
        for token, weight_hw in zip(TASK_WORDS.values(), maps_Thw, strict=True)
    ]


def check(attention: NDArray[np.float32], num_images: int) -> NDArray[np.float64]:
    """Weights [K, M, H, T, N], averaged over the heads, as maps [K, M, T, h, w], float64.

    h = w, the square root of N; ValueError for another shape.
    """
    expected = attention.ndim == 5 and attention.shape[0] == num_images
    side = math.isqrt(attention.shape[-1])
    if not expected or attention.shape[3] != len(TASKS) or side**2 != attention.shape[-1]:
        raise ValueError(
            f"attention has shape {attention.shape}, expected ({num_images}, modules, heads, "
            f"{len(TASKS)}, patches of a square)"
        )
    mean_KMTN = attention.astype(np.float64).mean(axis=2)
    return mean_KMTN.reshape(*mean_KMTN.shape[:3], side, side)


def top_weight(maps: NDArray[np.float64]) -> float:
    """Weight that is shown in the palest colour: nearly the largest of all, twice uniform at least.

    One scale for all maps [..., h, w] of a page: with a scale each, a token that looks nowhere in
    particular would seem to look somewhere.
    """
    uniform = 1.0 / (maps.shape[-1] * maps.shape[-2])
    return max(float(np.quantile(maps, 0.995)), 2.0 * uniform)


def overlay(
    picture: NDArray[np.uint8], weight_hw: NDArray[np.float64], top: float
) -> NDArray[np.uint8]:
    """A picture, uint8 [H, W, 3], in grey and coloured where the weight is; `top` is palest."""
    from PIL import Image

    height, width = picture.shape[:2]
    small = Image.fromarray(np.clip(weight_hw / top, 0, 1).astype(np.float32))
    share_HW = np.clip(
        np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float64), 0, 1
    )
    stops = np.linspace(0, 1, len(_HEAT))
    heat = np.stack([np.interp(share_HW, stops, _HEAT[:, c]) for c in range(3)], axis=-1)
    grey = np.repeat((picture @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=-1)
    opacity = (0.2 + 0.5 * share_HW)[..., None]
    return np.clip(grey * (1 - opacity) + heat * opacity, 0, 255).astype(np.uint8)


def in_words(weight_hw: NDArray[np.float64]) -> str:
    """Where a map has its peak, and how high it is."""
    height, width = weight_hw.shape
    row, column = np.unravel_index(int(weight_hw.argmax()), weight_hw.shape)
    vertical = ("top", "middle", "bottom")[min(3 * int(row) // height, 2)]
    horizontal = ("left", "centre", "right")[min(3 * int(column) // width, 2)]
    return f"peak {weight_hw.max() * height * width:.1f} times uniform, {vertical} {horizontal}"
