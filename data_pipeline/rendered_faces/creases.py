"""Folds of the skin: which action unit makes which, and their relief on the skin maps.

At 112 pixels several action units move the skin by less than a pixel; as on real faces, it is the
folds that show them.

Letters: H rows, W columns of the skin maps, K creases, A action units.
"""

import functools
from dataclasses import dataclass

import numpy as np

from data_pipeline.rendered_faces import skin
from data_pipeline.rendered_faces.head import ACTION_UNITS

_GROOVE_DARKENING = 22.0
"""Darkening of the bottom of a fold for each decimetre of depth."""


@dataclass(frozen=True)
class Crease:
    """One fold of the skin, painted on both sides of the face unless it lies on the middle line.

    Attributes:
        strength_by_unit: how deep intensity 1 of each action unit makes it, decimetres.
        points: curve on the mean head, x (person's left positive) and y in decimetres.
        width: half width in decimetres.
    """

    strength_by_unit: dict[int, float]
    points: list[tuple[float, float]]
    width: float = 0.022


CREASES = (
    # Forehead lines: raised inner brows fold the middle, raised outer brows the sides.
    Crease({1: 0.016}, [(-0.24, 7.735), (0.0, 7.70), (0.24, 7.735)], 0.02),
    Crease({1: 0.016}, [(-0.22, 7.825), (0.0, 7.795), (0.22, 7.825)], 0.02),
    Crease({1: 0.010}, [(-0.18, 7.65), (0.0, 7.625), (0.18, 7.65)], 0.018),
    Crease({2: 0.019}, [(0.24, 7.68), (0.38, 7.715), (0.52, 7.66)], 0.02),
    Crease({2: 0.019}, [(0.24, 7.765), (0.38, 7.80), (0.52, 7.74)], 0.02),
    # Glabella: two upright folds between the brows.
    Crease({4: 0.018, 9: 0.006}, [(0.045, 7.40), (0.055, 7.47), (0.05, 7.55)], 0.02),
    Crease({4: 0.010, 9: 0.012}, [(-0.06, 7.325), (0.0, 7.335), (0.06, 7.325)], 0.016),
    # Crow's feet and the fold of a raised cheek below the lower lid.
    Crease({6: 0.017}, [(0.475, 7.30), (0.54, 7.325), (0.60, 7.365)], 0.014),
    Crease({6: 0.017}, [(0.48, 7.27), (0.55, 7.265), (0.61, 7.27)], 0.014),
    Crease({6: 0.017}, [(0.47, 7.235), (0.53, 7.20), (0.59, 7.165)], 0.014),
    Crease({6: 0.018}, [(0.17, 7.165), (0.30, 7.12), (0.45, 7.175)], 0.02),
    # Tightened lower lid: a bulge's lower edge close to the lashes.
    Crease({7: 0.013}, [(0.17, 7.215), (0.29, 7.185), (0.42, 7.215)], 0.015),
    # Nasolabial fold; AU10 bends its upper part, AU12 deepens all of it.
    Crease({10: 0.016, 9: 0.012}, [(0.13, 6.98), (0.19, 6.90), (0.23, 6.80)], 0.024),
    Crease(
        {12: 0.022, 20: 0.008, 14: 0.008},
        [(0.14, 6.93), (0.215, 6.86), (0.275, 6.77), (0.295, 6.69)],
        0.026,
    ),
    # Wrinkled nose.
    Crease({9: 0.014}, [(0.03, 7.22), (0.08, 7.24), (0.12, 7.20)], 0.014),
    Crease({9: 0.012}, [(0.035, 7.15), (0.085, 7.17), (0.13, 7.12)], 0.014),
    # Depressed corners, tightened and pressed lips, raised chin boss.
    Crease({15: 0.018}, [(0.235, 6.60), (0.27, 6.55), (0.28, 6.48)], 0.02),
    Crease({23: 0.014}, [(-0.15, 6.72), (0.0, 6.725), (0.15, 6.72)], 0.014),
    Crease({23: 0.012}, [(0.10, 6.72), (0.105, 6.75), (0.10, 6.78)], 0.009),
    Crease({23: 0.012}, [(0.045, 6.73), (0.045, 6.76), (0.04, 6.79)], 0.009),
    Crease({23: 0.012}, [(0.07, 6.49), (0.07, 6.46), (0.075, 6.43)], 0.009),
    Crease({24: 0.016, 15: 0.006}, [(-0.16, 6.455), (0.0, 6.43), (0.16, 6.455)], 0.024),
    Crease({24: 0.016}, [(0.245, 6.66), (0.27, 6.605), (0.255, 6.55)], 0.018),
    Crease({14: 0.016}, [(0.27, 6.64), (0.285, 6.60), (0.27, 6.56)], 0.016),
)


@dataclass(frozen=True)
class _Patch:
    """The part of the maps that one crease on one side touches, at depth 1.

    Attributes:
        crease: index in `CREASES`.
        row, column: where the patch begins.
        maps_HW3: float32 slope along the columns, slope upward, darkening.
    """

    crease: int
    row: int
    column: int
    maps_HW3: np.ndarray


@functools.cache
def _crease_patches() -> tuple[list[_Patch], np.ndarray]:
    """Every crease's patches, and the depth of each crease by action unit, float32 `[A, K]`."""
    x_HW, y_HW = skin.texel_places()
    row_step = (skin.HIGHEST - skin.LOWEST) / (skin.HEIGHT - 1)
    patches = []
    depth_AK = np.zeros((len(ACTION_UNITS), len(CREASES)), np.float32)
    for k, crease in enumerate(CREASES):
        on_middle = crease.points[0][0] < 0
        reach = 6 * crease.width
        point_x, point_y = np.array(crease.points).T
        for side in (1,) if on_middle else (1, -1):
            near_HW = (
                (side * x_HW > point_x.min() - reach)
                & (side * x_HW < point_x.max() + reach)
                & (y_HW > point_y.min() - reach)
                & (y_HW < point_y.max() + reach)
            )
            box = skin.box_of(near_HW)
            distance_HW, along_HW = skin.distance_to_curve(
                side * x_HW[box], y_HW[box], crease.points
            )
            taper_HW = np.sin(np.pi * np.clip(along_HW, 0.04, 0.96)) ** 0.5
            profile_HW = np.exp(-((distance_HW / crease.width) ** 2)) * taper_HW
            # A fold has a lip on each side: a wider, shallower bulge around the groove.
            bulge_HW = np.exp(-((distance_HW / (2.2 * crease.width)) ** 2)) * taper_HW
            height_HW = 0.45 * bulge_HW - profile_HW
            column_step = np.maximum(np.gradient(x_HW[box], axis=1), 0.5 * row_step)
            maps = (
                np.gradient(height_HW, axis=1) / column_step,
                -np.gradient(height_HW, axis=0) / row_step,
                np.clip(-height_HW, 0, 1) * _GROOVE_DARKENING,
            )
            maps_HW3 = np.stack(maps, axis=2).astype(np.float32)
            patches.append(_Patch(k, box[0].start, box[1].start, maps_HW3))
        for number, depth in crease.strength_by_unit.items():
            depth_AK[ACTION_UNITS.index(number), k] = depth
    return patches, depth_AK


def relief(intensity_A: np.ndarray, strength: float, permanent: float) -> np.ndarray:
    """The folds of one frame.

    Args:
        intensity_A: intensities of `ACTION_UNITS`, 0 to 1.
        strength: how deeply this person's skin folds; about 1.
        permanent: depth of the folds that stay in a neutral face, decimetres.

    Returns:
        float32 `[H, W, 3]`: slope along the columns, slope upward, darkening in 0..1.
    """
    patches, depth_AK = _crease_patches()
    depth_K = (intensity_A[:, None] * depth_AK).sum(axis=0) * strength + permanent
    out_HW3 = np.zeros((skin.HEIGHT, skin.WIDTH, 3), np.float32)
    for patch in patches:
        depth = np.float32(depth_K[patch.crease])
        if depth > 1e-5:
            rows, columns = patch.maps_HW3.shape[:2]
            box = np.s_[patch.row : patch.row + rows, patch.column : patch.column + columns]
            out_HW3[box] += depth * patch.maps_HW3
    return out_HW3
