"""Skin maps: a canonical picture of the head, and the brows and folds that are painted on it.

All maps live in one canonical picture of the head: columns are the azimuth around the vertical axis
through (0, `AXIS_DEPTH`), rows are the height on the mean head. Features are painted at places of
the mean head, and move with the skin because every vertex keeps its place in the map.

At 112 pixels several action units move the skin by less than a pixel; as on real faces, it is the
folds that show them.

Letters: H rows, W columns, V vertices, S samples of a curve, K creases, A action units.
"""

import functools
from dataclasses import dataclass

import numpy as np

from data_pipeline.rendered_faces.head import ACTION_UNITS, load_head

HEIGHT, WIDTH = 288, 288
"""Rows and columns of every map."""

AXIS_DEPTH = 0.35
"""Depth of the vertical axis of the maps, decimetres."""

Box = tuple[slice, slice]
"""Rows and columns of a part of the maps."""

LOWEST, HIGHEST = 6.0, 8.2
"""Heights of the last and first row, decimetres."""

AZIMUTH_REACH = np.radians(95.0)
"""Azimuth of the last column; the first is as far on the other side."""


def map_coordinates_of(position_V3: np.ndarray) -> np.ndarray:
    """Column and row in the maps, in texels, of places on the mean head; float32 `[V, 2]`."""
    azimuth_V = np.arctan2(position_V3[:, 0], position_V3[:, 2] - AXIS_DEPTH)
    column_V = (azimuth_V / AZIMUTH_REACH + 1) / 2 * (WIDTH - 1)
    row_V = (HIGHEST - position_V3[:, 1]) / (HIGHEST - LOWEST) * (HEIGHT - 1)
    return np.stack([column_V, row_V], axis=1).astype(np.float32)


@functools.cache
def texel_places() -> tuple[np.ndarray, np.ndarray]:
    """Place of each texel on the mean head: x and y in decimetres, each `[H, W]`.

    x is measured along the skin's front view: the radius is that of the face near each height,
    so that a straight line in (x, y) looks straight from the front.
    """
    head = load_head()
    head_azimuth_W = (np.arange(WIDTH) / (WIDTH - 1) * 2 - 1) * AZIMUTH_REACH
    y_H = HIGHEST - np.arange(HEIGHT) / (HEIGHT - 1) * (HIGHEST - LOWEST)
    front_V = (
        (head.part_V == 0)
        & (head.inside_mouth_V < 0.1)
        & (head.ears_V < 0.1)
        & (head.mean_V3[:, 2] > AXIS_DEPTH)
    )
    place_V3 = head.mean_V3[front_V].astype(float)
    azimuth_V = np.arctan2(place_V3[:, 0], place_V3[:, 2] - AXIS_DEPTH)
    radius_V = np.hypot(place_V3[:, 0], place_V3[:, 2] - AXIS_DEPTH)
    # A smooth estimate is enough to paint on: a kernel mean on a coarse grid, then interpolation.
    coarse_y = np.linspace(HIGHEST, LOWEST, 28)
    coarse_azimuth = np.linspace(-AZIMUTH_REACH, AZIMUTH_REACH, 36)
    near_YV = np.exp(-(((place_V3[:, 1] - coarse_y[:, None]) / 0.08) ** 2))
    near_XV = np.exp(-(((azimuth_V - coarse_azimuth[:, None]) / 0.12) ** 2))
    total_YX = np.einsum("yv,xv->yx", near_YV, near_XV) + 1e-9
    coarse_YX = np.einsum("yv,xv,v->yx", near_YV, near_XV, radius_V) / total_YX
    # Where nothing is near (below the chin, beside it) the ratio is meaningless.
    coarse_YX = np.clip(coarse_YX, 0.5, 1.4)
    rows_HX = np.stack(
        [np.interp(-y_H, -coarse_y, coarse_YX[:, column]) for column in range(36)], axis=1
    )
    radius_HW = np.stack([np.interp(head_azimuth_W, coarse_azimuth, row_X) for row_X in rows_HX])
    x_HW = radius_HW * np.sin(head_azimuth_W)[None, :]
    return x_HW, np.broadcast_to(y_H[:, None], x_HW.shape).copy()


def box_of(inside_HW: np.ndarray) -> Box:
    """The smallest rectangle of the maps that holds every true texel."""
    rows, columns = np.flatnonzero(inside_HW.any(1)), np.flatnonzero(inside_HW.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def distance_to_curve(
    x_HW: np.ndarray, y_HW: np.ndarray, points: list[tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance to a smooth curve through points, and the position along it in 0..1."""
    nodes = np.array(points)
    knot = np.linspace(0, 1, len(nodes))
    at = np.linspace(0, 1, 40)
    degree = min(3, len(nodes) - 1)
    curve = np.stack(
        [np.polyval(np.polyfit(knot, nodes[:, axis], degree), at) for axis in (0, 1)], axis=1
    )
    gap_HWS = np.hypot(x_HW[..., None] - curve[:, 0], y_HW[..., None] - curve[:, 1])
    nearest = gap_HWS.argmin(axis=-1)
    return gap_HWS.min(axis=-1), at[nearest]


def smooth_noise(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Noise of zero mean and about unit spread over the maps, `[H, W]`, from a coarse grid."""
    grid = rng.normal(size=(rows + 1, columns + 1))
    at_H = np.linspace(0, rows, HEIGHT)
    at_W = np.linspace(0, columns, WIDTH)
    low_H = np.minimum(at_H.astype(int), rows - 1)
    low_W = np.minimum(at_W.astype(int), columns - 1)
    part_H = (at_H - low_H)[:, None]
    part_W = (at_W - low_W)[None, :]
    part_H, part_W = (p * p * (3 - 2 * p) for p in (part_H, part_W))
    across = grid[:, low_W] * (1 - part_W) + grid[:, low_W + 1] * part_W
    return (across[low_H] * (1 - part_H) + across[low_H + 1] * part_H) * 1.5


def brow_map(
    density: float, thickness: float, arch: float, lift: float, rng: np.random.Generator
) -> np.ndarray:
    """Coverage of the skin by the soft hair of brows, `[H, W]` in 0..1.

    `density` goes from 0 (none) to 1 (opaque) at the thickest. In decimetres: half the `thickness`
    at the inner end; how far the `arch` rises above the straight line; the `lift` of the whole brow
    above its usual place.
    """
    x_HW, y_HW = texel_places()
    cover_HW = np.zeros((HEIGHT, WIDTH))
    hairs_HW = smooth_noise(rng, 72, 110)
    base = 7.435 + lift
    # The inner end lies level with the outer third: a brow that dips inward reads as a frown.
    points = [
        (0.105, base),
        (0.22, base + 0.55 * arch + 0.012),
        (0.35, base + arch + 0.012),
        (0.47, base + 0.15 * arch - 0.02),
    ]
    for side in (1, -1):
        box = box_of((side * x_HW > 0.0) & (side * x_HW < 0.6) & (np.abs(y_HW - base) < 0.2))
        distance_HW, along_HW = distance_to_curve(side * x_HW[box], y_HW[box], points)
        half_HW = thickness * np.interp(along_HW, [0, 0.12, 0.6, 1], [0.75, 1.0, 0.85, 0.25])
        edge_HW = distance_HW / half_HW + 0.16 * hairs_HW[box]
        soft_HW = np.clip(1.45 - edge_HW, 0, 1)
        fade_HW = np.interp(along_HW, [0.0, 0.10, 0.85, 1.0], [0.35, 0.95, 0.9, 0.4])
        cover_HW[box] = np.maximum(cover_HW[box], soft_HW * fade_HW)
    return np.clip(cover_HW * density * (1 + 0.14 * hairs_HW), 0, 1)


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


@functools.cache
def _crease_patches() -> tuple[list[tuple[int, Box, np.ndarray]], np.ndarray]:
    """What each crease paints on each side, and its depth by action unit, float32 `[A, K]`.

    A patch is the index in `CREASES`, the part of the maps, and there, at depth 1, float32 slope
    along the columns, slope upward, darkening.
    """
    x_HW, y_HW = texel_places()
    row_step = (HIGHEST - LOWEST) / (HEIGHT - 1)
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
            box = box_of(near_HW)
            distance_HW, along_HW = distance_to_curve(side * x_HW[box], y_HW[box], crease.points)
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
            patches.append((k, box, maps_HW3))
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
    out_HW3 = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for crease, box, maps_HW3 in patches:
        depth = np.float32(depth_K[crease])
        if depth > 1e-5:
            out_HW3[box] += depth * maps_HW3
    return out_HW3
