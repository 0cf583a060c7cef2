"""Skin maps: a canonical picture of the head, and the tools to paint on it.

All maps live in one canonical picture of the head: columns are the azimuth around the vertical axis
through (0, `AXIS_DEPTH`), rows are the height on the mean head. Features are painted at places of
the mean head, and move with the skin because every vertex keeps its place in the map.

Letters: H rows, W columns, V vertices, S samples of a curve.
"""

import functools

import numpy as np

from data_pipeline.rendered_faces.head import load_head

HEIGHT, WIDTH = 288, 288
"""Rows and columns of every map."""

AXIS_DEPTH = 0.35
"""Depth of the vertical axis of the maps, decimetres."""

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


def box_of(inside_HW: np.ndarray) -> tuple[slice, slice]:
    """The smallest rectangle of the maps that holds every true texel."""
    rows, columns = np.flatnonzero(inside_HW.any(1)), np.flatnonzero(inside_HW.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def distance_to_curve(
    x_HW: np.ndarray, y_HW: np.ndarray, points: list[tuple[float, float]], samples: int = 40
) -> tuple[np.ndarray, np.ndarray]:
    """Distance to a smooth curve through points, and the position along it in 0..1."""
    nodes = np.array(points)
    knot = np.linspace(0, 1, len(nodes))
    at = np.linspace(0, 1, samples)
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
