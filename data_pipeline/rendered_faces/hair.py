"""Hair: a shell around the scalp whose strands end at ragged, style-dependent lengths.

The shell is a grid of directions around the head (`Head.scalp_RC3`): row by row from the crown
downward, column by column around it, beginning at the back. A strand is a narrow sector of
azimuth; it is drawn down to its own tip, a polar angle in degrees, so that edges are ragged.

Letters: R rows, C columns, V hair vertices, T triangles, S strands.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.rendered_faces.head import (
    SCALP_CENTRE,
    SCALP_LAST_ANGLE_DEG,
    Shape,
    load_head,
)

NUM_STRANDS = 720
GRAIN_STEPS = 48
"""Steps along a strand in the map of brightness."""

_HANG_FROM_DEG = 92.0
"""Long hair leaves the head at this polar angle and hangs straight down."""
_LOWEST = 5.6

_HAIRLINE_AZIMUTH_DEG = (0.0, 30.0, 48.0, 60.0, 70.0, 80.0, 95.0, 115.0, 180.0)
_HAIRLINE_POLAR_DEG = (66.0, 68.0, 73.0, 84.0, 98.0, 103.0, 103.0, 122.0, 138.0)


@dataclass(frozen=True)
class Hair:
    """Geometry and strands of one person's hair.

    Attributes:
        vertex_V3: float32 positions, decimetres; no rows for a bald head.
        triangle_T3: int32 vertex indices.
        cover_V2: float32 place of each vertex around the head (0..1) and along (polar degrees).
        tip_S: float32 polar angle at which each strand ends.
        grain_SG: float32 brightness along each strand, about 1.
    """

    vertex_V3: np.ndarray
    triangle_T3: np.ndarray
    cover_V2: np.ndarray
    tip_S: np.ndarray
    grain_SG: np.ndarray


def _smooth_circle(rng: np.random.Generator, size: int, waves: int) -> np.ndarray:
    """Periodic noise of about unit spread with no detail finer than `waves` round the circle."""
    angle = np.linspace(0, 2 * np.pi, size, endpoint=False)
    amplitude = rng.normal(size=(2, waves))
    wave = np.arange(1, waves + 1)
    noise = amplitude[0] @ np.cos(wave[:, None] * angle) + amplitude[1] @ np.sin(
        wave[:, None] * angle
    )
    return noise / np.sqrt(waves)


def make_hair(shape: Shape, style: str, hairline: float, rng: np.random.Generator) -> Hair:
    """Grows hair on a head.

    Args:
        shape: the person.
        style: one of `appearance.HAIR_STYLES`.
        hairline: how far the hairline lies above its usual place, decimetres.
        rng: source of the strands.

    Returns:
        The hair. `bald` and `buzz` have no geometry: the skin map carries their shade.
    """
    tip_S: np.ndarray = np.zeros(NUM_STRANDS, np.float32)
    grain_SG: np.ndarray = np.ones((NUM_STRANDS, GRAIN_STEPS), np.float32)
    if style in ("bald", "buzz"):
        empty = np.zeros((0, 3))
        return Hair(
            empty.astype(np.float32),
            empty.astype(np.int32),
            np.zeros((0, 2), np.float32),
            tip_S,
            grain_SG,
        )
    head = load_head()
    root_RC3 = np.einsum("rck,rckd->rcd", head.scalp_weight_RC3, shape.neutral_V3[head.scalp_RC3])
    root_RC3 = np.concatenate([root_RC3, root_RC3[:, :1]], axis=1)
    rows, columns = root_RC3.shape[:2]
    centre = np.array(SCALP_CENTRE)
    polar_R = SCALP_LAST_ANGLE_DEG * (np.arange(rows) + 0.05) / (rows - 1 + 0.05)
    azimuth_C = 360 * np.arange(columns) / (columns - 1) - 180
    outward_RC3 = root_RC3 - centre
    outward_RC3 /= np.linalg.norm(outward_RC3, axis=2, keepdims=True)

    long = style in ("long", "long_fringe")
    fringe = style in ("fringe", "long_fringe")
    volume = {"short": 0.10, "fringe": 0.13, "side": 0.17, "up": 0.07}.get(style, 0.16)
    volume *= rng.uniform(0.8, 1.3)

    def hairline_deg(azimuth: np.ndarray) -> np.ndarray:
        line = np.interp(np.abs(azimuth), _HAIRLINE_AZIMUTH_DEG, _HAIRLINE_POLAR_DEG)
        return line - 45 * hairline * (np.abs(azimuth) < 55)

    line_C = hairline_deg(azimuth_C)
    rise_RC = np.clip((line_C[None, :] - polar_R[:, None]) / 22, 0, 1)
    rise_RC = rise_RC * (2 - rise_RC)
    thickness_RC = 0.012 + volume * rise_RC
    if style == "side":
        side = 1 if rng.random() < 0.5 else -1
        lean_C = 1 + 0.45 * side * np.sin(np.radians(azimuth_C))
        thickness_RC = 0.012 + volume * rise_RC * lean_C[None, :]
    front_C = np.clip((62 - np.abs(azimuth_C)) / 12, 0, 1)
    if long:
        # Long hair passes over the ears at full thickness.
        over_C = np.clip((np.abs(azimuth_C) - 56) / 10, 0, 1)
        thickness_RC += over_C * (0.012 + volume - thickness_RC)
    if fringe:
        thickness_RC = np.maximum(thickness_RC, 0.05 * front_C[None, :])
    vertex_RC3 = root_RC3 + outward_RC3 * thickness_RC[..., None]
    if long:
        curtain_C = np.clip((np.abs(azimuth_C) - 58) / 16, 0, 1)
        hang = int(np.searchsorted(polar_R, _HANG_FROM_DEG))
        start_C3 = root_RC3[hang] + outward_RC3[hang] * volume
        part_R = np.clip((np.arange(rows) - hang) / (rows - 1 - hang), 0, 1)
        fall_RC3 = np.repeat(start_C3[None], rows, axis=0)
        spread_R = 1 + 0.10 * np.sin(np.pi * np.clip(part_R, 0, 0.6))
        fall_RC3[:, :, 0] *= spread_R[:, None]
        fall_RC3[:, :, 1] += part_R[:, None] * (_LOWEST - start_C3[None, :, 1])
        hangs_RC = (part_R > 0)[:, None] * curtain_C[None, :]
        vertex_RC3 += hangs_RC[..., None] * (fall_RC3 - vertex_RC3)

    azimuth_S = 360 * (np.arange(NUM_STRANDS) + 0.5) / NUM_STRANDS - 180
    tip_S = hairline_deg(azimuth_S)
    ragged_S = 0.6 * _smooth_circle(rng, NUM_STRANDS, 25) + _smooth_circle(rng, NUM_STRANDS, 320)
    tip_S = tip_S + 1.1 * ragged_S
    if fringe:
        length = rng.uniform(76, 84)
        covers_S = np.abs(azimuth_S) < rng.uniform(42, 56)
        tip_S = np.where(covers_S, length + 1.5 * ragged_S, tip_S)
    if long:
        edge = rng.uniform(66, 84)
        covers_S = np.abs(azimuth_S) + 2 * ragged_S > edge
        tip_S = np.where(covers_S, 400.0, tip_S)

    grain_SG = (
        np.ones((NUM_STRANDS, GRAIN_STEPS)) + 0.16 * _smooth_circle(rng, NUM_STRANDS, 30)[:, None]
    )
    grain_SG = grain_SG + 0.16 * _smooth_circle(rng, NUM_STRANDS, 240)[:, None]
    wave_SG = np.stack([_smooth_circle(rng, NUM_STRANDS, 60) for _ in range(9)], axis=1)
    at_G = np.linspace(0, 8, GRAIN_STEPS)
    low_G = np.minimum(at_G.astype(int), 7)
    blend_G = at_G - low_G
    grain_SG = grain_SG + 0.13 * (
        wave_SG[:, low_G] * (1 - blend_G) + wave_SG[:, low_G + 1] * blend_G
    )

    index_RC = np.arange(rows * columns).reshape(rows, columns)
    a, b = index_RC[:-1, :-1].ravel(), index_RC[1:, :-1].ravel()
    c, d = index_RC[1:, 1:].ravel(), index_RC[:-1, 1:].ravel()
    triangle_T3 = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    cover_RC2 = np.stack(
        np.broadcast_arrays(((azimuth_C + 180) / 360)[None, :], polar_R[:, None]), axis=2
    )
    return Hair(
        vertex_V3=vertex_RC3.reshape(-1, 3).astype(np.float32),
        triangle_T3=triangle_T3.astype(np.int32),
        cover_V2=cover_RC2.reshape(-1, 2).astype(np.float32),
        tip_S=tip_S.astype(np.float32),
        grain_SG=np.clip(grain_SG, 0.4, 1.7).astype(np.float32),
    )
