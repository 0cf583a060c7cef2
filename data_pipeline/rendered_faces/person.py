"""A person: shape, looks and hair.

Colours are linear RGB in 0..1.

Hair is a shell around the scalp whose strands end at ragged, style-dependent lengths. The shell is
a grid of directions around the head (`Head.scalp_RC3`): row by row from the crown downward, column
by column around it, beginning at the back. A strand is a narrow sector of azimuth, drawn down to
its own tip, a polar angle in degrees, so that edges are ragged.

Letters: H rows and W columns of the skin maps; R rows and C columns of the hair's grid; V hair
vertices, T triangles, S strands.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.rendered_faces import skin
from data_pipeline.rendered_faces.head import (
    SCALP_CENTRE,
    SCALP_LAST_ANGLE_DEG,
    Shape,
    load_head,
    sample_shape,
)

_SKIN_SRGB = np.array(
    [
        [243, 214, 196],
        [232, 195, 170],
        [217, 172, 142],
        [193, 144, 112],
        [160, 112, 82],
        [122, 82, 59],
        [88, 57, 42],
    ]
)
"""Skin colours from the lightest to the darkest."""

_HAIR_SRGB = np.array(
    [
        [26, 22, 21],
        [44, 33, 28],
        [72, 50, 36],
        [112, 78, 50],
        [165, 125, 80],
        [205, 170, 120],
        [120, 60, 35],
        [150, 148, 145],
        [215, 213, 208],
    ]
)
"""Hair colours: black, browns, blondes, red, grey, white."""

_IRIS_SRGB = np.array(
    [[52, 32, 20], [80, 50, 28], [110, 80, 45], [85, 100, 70], [90, 125, 150], [110, 125, 135]]
)

HAIR_STYLES = ("bald", "buzz", "short", "fringe", "side", "long", "long_fringe", "up")


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Linear colour of 8-bit sRGB values (gamma 2.2)."""
    return (np.asarray(srgb, float) / 255) ** 2.2


@dataclass(frozen=True)
class Appearance:
    """The looks of one person.

    Attributes:
        albedo_HW3: float32 linear colour of the skin in the canonical map, brows painted in.
        lip_colour_3, hair_colour_3, iris_colour_3: linear colours.
        hair_style: one of `HAIR_STYLES`.
        hairline: how far the hairline lies above its usual place, decimetres.
        gloss: strength of the skin's highlight.
        fold_strength: how deeply the skin folds; about 1.
        permanent_fold: depth of the folds that stay in a neutral face, decimetres.
        lash_density: 0..1.
    """

    albedo_HW3: np.ndarray
    lip_colour_3: np.ndarray
    hair_colour_3: np.ndarray
    iris_colour_3: np.ndarray
    hair_style: str
    hairline: float
    gloss: float
    fold_strength: float
    permanent_fold: float
    lash_density: float


def _skin_tone(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    african, asian, caucasian = shape.ancestry
    depth = 5.2 * african + 2.0 * asian + 1.0 * caucasian + rng.normal(0, 0.7)
    depth = float(np.clip(depth, 0, len(_SKIN_SRGB) - 1.001))
    low = int(depth)
    tone_3 = _SKIN_SRGB[low] + (depth - low) * (_SKIN_SRGB[low + 1] - _SKIN_SRGB[low])
    return to_linear(tone_3 + rng.normal(0, 3, 3))


def sample_appearance(shape: Shape, rng: np.random.Generator) -> Appearance:
    """Draws the looks of a person of the given shape."""
    x_HW, y_HW = skin.texel_places()
    tone_3 = _skin_tone(shape, rng)
    darkness = 1 - float(tone_3.mean() ** (1 / 2.2))

    fair = shape.ancestry[2] > 0.55
    if shape.old > 0.5 and rng.random() < 0.6:
        hair_index = int(rng.integers(7, 9))
    else:
        hair_index = int(rng.integers(0, 7)) if fair else int(rng.integers(0, 3))
    hair_3 = to_linear(_HAIR_SRGB[hair_index] * rng.uniform(0.85, 1.15))
    iris_index = int(rng.integers(0, 6)) if fair else int(rng.integers(0, 2))

    albedo_HW3 = np.ones((skin.HEIGHT, skin.WIDTH, 3)) * tone_3
    mottle_HW = (
        0.035 * skin.smooth_noise(rng, 6, 6)
        + 0.025 * skin.smooth_noise(rng, 24, 24)
        + 0.02 * skin.smooth_noise(rng, 90, 90)
    )
    albedo_HW3 *= 1 + mottle_HW[..., None]

    # Blood shows in the cheeks, the nose and the ears, more so in fair skin.
    blush = rng.uniform(0.3, 1.0) * (1 - 0.6 * darkness)
    red_HW = np.exp(-(((np.abs(x_HW) - 0.36) / 0.16) ** 2) - ((y_HW - 6.95) / 0.16) ** 2)
    red_HW += 0.7 * np.exp(-((x_HW / 0.1) ** 2) - ((y_HW - 6.93) / 0.1) ** 2)
    albedo_HW3 *= 1 + blush * red_HW[..., None] * np.array([0.02, -0.17, -0.15])
    # Darker skin around the eyes.
    tired = rng.uniform(0.05, 0.22)
    socket_HW = np.exp(-(((np.abs(x_HW) - 0.28) / 0.16) ** 2) - ((y_HW - 7.2) / 0.09) ** 2)
    albedo_HW3 *= 1 - tired * socket_HW[..., None] * np.array([0.8, 1.0, 0.95])

    freckles = 30 * max(0.0, rng.normal(-0.3, 1)) if fair else 0
    for _ in range(int(freckles) + int(rng.integers(0, 4))):
        column, row = rng.integers(60, skin.WIDTH - 60), rng.integers(70, skin.HEIGHT - 70)
        albedo_HW3[row : row + 2, column : column + 2] *= rng.uniform(0.65, 0.9)

    # Stubble or a beard on the jaw, around the mouth and above the lip.
    if shape.masculine > 0.5 and rng.random() < 0.6:
        growth = rng.uniform(0.12, 0.45) if rng.random() < 0.75 else rng.uniform(0.5, 0.75)
        jaw_HW = np.clip(
            (6.72 - 0.16 * np.exp(-((x_HW / 0.30) ** 2)) - y_HW) / 0.16
            + 1.4 * np.clip(np.abs(x_HW) - 0.42, 0, 0.3) / 0.3 * (y_HW < 7.1),
            0,
            1,
        )
        lip_HW = np.exp(-((x_HW / 0.2) ** 4) - ((y_HW - 6.775) / 0.045) ** 2)
        grain_HW = np.clip(0.85 + 0.25 * skin.smooth_noise(rng, 110, 110), 0, 1)
        cover_HW = np.clip(np.maximum(jaw_HW, lip_HW), 0, 1) * growth * grain_HW
        beard_3 = 0.7 * hair_3 + 0.3 * 0.3 * tone_3
        albedo_HW3 += cover_HW[..., None] * (beard_3 - albedo_HW3)

    cover_HW = skin.brow_map(
        density=float(np.clip(rng.normal(0.72, 0.12), 0.45, 0.92)),
        thickness=float(rng.uniform(0.026, 0.04) * (0.85 + 0.3 * shape.masculine)),
        arch=float(rng.uniform(0.015, 0.05)),
        lift=float(rng.normal(0.0, 0.012)),
        rng=rng,
    )
    brow_colour_3 = 0.75 * hair_3 + 0.25 * 0.4 * tone_3
    if hair_index == 8:
        brow_colour_3 = to_linear(np.array([130, 125, 120]))
    albedo_HW3 += cover_HW[..., None] * (brow_colour_3 - albedo_HW3)

    # Short hair shows as a shade on the scalp, which also softens the edge of longer hair.
    style = _hair_style(shape, rng)
    hairline = float(rng.normal(0, 0.05) + 0.05 * shape.masculine * shape.old)
    if style != "bald":
        edge_HW = scalp_edge(x_HW, hairline)
        shade_HW = np.clip((y_HW - edge_HW + 0.03 * skin.smooth_noise(rng, 60, 90)) / 0.12, 0, 1)
        shade_HW *= 0.75 if style == "buzz" else 0.9
        albedo_HW3 += shade_HW[..., None] * (hair_3 - albedo_HW3)

    lip_3 = tone_3 * np.array([0.92, 0.62, 0.64])
    if shape.masculine < 0.5 and rng.random() < 0.5:
        paint_3 = to_linear(np.array([rng.uniform(150, 205), rng.uniform(50, 95), 85]))
        lip_3 = lip_3 + rng.uniform(0.3, 0.8) * (paint_3 - lip_3)
    iris_3 = to_linear(_IRIS_SRGB[iris_index] * rng.uniform(0.85, 1.15))
    lash_range = (0.55, 0.95) if shape.masculine < 0.5 else (0.25, 0.5)
    return Appearance(
        albedo_HW3=np.clip(albedo_HW3, 0.004, 1).astype(np.float32),
        lip_colour_3=lip_3.astype(np.float32),
        hair_colour_3=hair_3.astype(np.float32),
        iris_colour_3=iris_3.astype(np.float32),
        hair_style=style,
        hairline=hairline,
        gloss=float(rng.uniform(0.05, 0.22)),
        fold_strength=float(rng.uniform(0.8, 1.15)),
        permanent_fold=float(0.0025 * shape.old * rng.uniform(0.3, 1)),
        lash_density=float(rng.uniform(*lash_range)),
    )


def scalp_edge(x_HW: np.ndarray, hairline: float) -> np.ndarray:
    """Height of the hairline over the mean head's front, decimetres."""
    side_HW = np.abs(x_HW)
    return 7.93 + hairline - 0.10 * (side_HW / 0.5) ** 2 - 2.6 * np.clip(side_HW - 0.56, 0, 1)


def _hair_style(shape: Shape, rng: np.random.Generator) -> str:
    if shape.masculine > 0.5:
        weights = [0.12, 0.2, 0.3, 0.12, 0.2, 0.04, 0.02, 0.0]
    else:
        weights = [0.0, 0.03, 0.1, 0.08, 0.12, 0.32, 0.17, 0.18]
    return str(rng.choice(HAIR_STYLES, p=np.array(weights) / sum(weights)))


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


def _smooth_circle(rng: np.random.Generator, waves: int) -> np.ndarray:
    """Noise of about unit spread round the circle, `[S]`, with no detail finer than `waves`."""
    angle = np.linspace(0, 2 * np.pi, NUM_STRANDS, endpoint=False)
    amplitude = rng.normal(size=(2, waves))
    wave = np.arange(1, waves + 1)
    turn = wave[:, None] * angle
    return (amplitude[0] @ np.cos(turn) + amplitude[1] @ np.sin(turn)) / np.sqrt(waves)


def make_hair(shape: Shape, style: str, hairline: float, rng: np.random.Generator) -> Hair:
    """Grows hair on a head.

    `bald` and `buzz` of the `HAIR_STYLES` have no geometry: the skin map carries their shade. The
    hairline lies `hairline` decimetres above its usual place.
    """
    if style in ("bald", "buzz"):
        return Hair(
            vertex_V3=np.zeros((0, 3), np.float32),
            triangle_T3=np.zeros((0, 3), np.int32),
            cover_V2=np.zeros((0, 2), np.float32),
            tip_S=np.zeros(NUM_STRANDS, np.float32),
            grain_SG=np.ones((NUM_STRANDS, GRAIN_STEPS), np.float32),
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
    ragged_S = 0.6 * _smooth_circle(rng, 25) + _smooth_circle(rng, 320)
    tip_S = tip_S + 1.1 * ragged_S
    if fringe:
        length = rng.uniform(76, 84)
        covers_S = np.abs(azimuth_S) < rng.uniform(42, 56)
        tip_S = np.where(covers_S, length + 1.5 * ragged_S, tip_S)
    if long:
        edge = rng.uniform(66, 84)
        covers_S = np.abs(azimuth_S) + 2 * ragged_S > edge
        tip_S = np.where(covers_S, 400.0, tip_S)

    grain_S1 = 1 + 0.16 * _smooth_circle(rng, 30)[:, None]
    grain_S1 = grain_S1 + 0.16 * _smooth_circle(rng, 240)[:, None]
    wave_SG = np.stack([_smooth_circle(rng, 60) for _ in range(9)], axis=1)
    at_G = np.linspace(0, 8, GRAIN_STEPS)
    low_G = np.minimum(at_G.astype(int), 7)
    blend_G = at_G - low_G
    wave_SG = wave_SG[:, low_G] * (1 - blend_G) + wave_SG[:, low_G + 1] * blend_G

    index_RC = np.arange(rows * columns).reshape(rows, columns)
    a, b = index_RC[:-1, :-1].ravel(), index_RC[1:, :-1].ravel()
    c, d = index_RC[1:, 1:].ravel(), index_RC[:-1, 1:].ravel()
    triangle_T3 = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    cover_RC2 = np.stack(np.meshgrid((azimuth_C + 180) / 360, polar_R), axis=2)
    return Hair(
        vertex_V3=vertex_RC3.reshape(-1, 3).astype(np.float32),
        triangle_T3=triangle_T3.astype(np.int32),
        cover_V2=cover_RC2.reshape(-1, 2).astype(np.float32),
        tip_S=tip_S.astype(np.float32),
        grain_SG=np.clip(grain_S1 + 0.13 * wave_SG, 0.4, 1.7).astype(np.float32),
    )


@dataclass(frozen=True)
class Person:
    """Everything that stays the same while a person moves."""

    shape: Shape
    appearance: Appearance
    hair: Hair


def make_person(rng: np.random.Generator, *, individual: bool = False) -> Person:
    """Draws a person: shape, looks and hair; `individual` as for `head.sample_shape`."""
    shape = sample_shape(rng, individual=individual)
    looks = sample_appearance(shape, rng)
    return Person(shape, looks, make_hair(shape, looks.hair_style, looks.hairline, rng))
